"""What a witness says is passed back; what no witness says, or too much, or too late, is not."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from consent import MAX_REQUEST_BYTES
from coordinator import relay
from coordinator.relay import MAX_ANSWER_BYTES, UNREACHABLE, pass_on
from coordinator.witness import Answer
from demo.consortium import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def answering(status: int, parts: list[bytes], pause_s: float = 0) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    asked: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.send_header("content-length", str(sum(map(len, parts))))
            self.send_header("location", "/elsewhere")
            self.end_headers()
            for part in parts:
                try:
                    self.wfile.write(part)
                except OSError:
                    return  # the relay hung up
                time.sleep(pause_s)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("answer", [Answer(200, "\u2014 name AAAA\n"), Answer(409, "64\n"), Answer(403)])
def test_the_answer_of_a_witness_is_passed_back(answer: Answer) -> None:
    with answering(answer.status, [answer.body.encode()]) as (url, asked):
        assert pass_on(url, b"old 0\n\nnote") == answer
    assert asked == [("/add-checkpoint", b"old 0\n\nnote")]


@pytest.mark.parametrize(
    ("status", "content"),
    [(302, b""), (500, b"trace"), (201, b""), (200, b"\xff\xfe"), (200, b"x" * (MAX_ANSWER_BYTES + 1))],
)
def test_what_no_witness_answers_is_not_passed_back(status: int, content: bytes) -> None:
    with answering(status, [content]) as (url, asked):
        assert pass_on(url, b"") == UNREACHABLE
    assert [path for path, _ in asked] == ["/add-checkpoint"]  # and nothing elsewhere


def test_a_witness_that_answers_drop_by_drop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "TIMEOUT_S", 0.3)
    started = time.monotonic()

    with answering(200, [b"x"] * 40, pause_s=0.1) as (url, _):
        assert pass_on(url, b"") == UNREACHABLE
        assert time.monotonic() - started < 2


def test_nobody_is_asked_a_larger_question_than_a_witness_takes() -> None:
    with answering(200, [b""]) as (url, asked):
        assert pass_on(url, b"x" * (MAX_REQUEST_BYTES + 1)) == Answer(413)
    assert asked == []


def test_nobody_listening_is_no_answer() -> None:
    (port,) = free_ports(1)

    assert pass_on(f"http://127.0.0.1:{port}", b"") == UNREACHABLE
    assert pass_on("http://", b"") == UNREACHABLE
