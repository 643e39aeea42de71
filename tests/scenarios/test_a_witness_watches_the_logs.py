"""A witness outside the hospitals cosigns their logs round after round; without it no update is released."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from consent import COSIGNATURE, cosigners, parse_verifier
from demo.consortium import CommandFailed, free_ports
from tests.scenarios.setting import SITES, short_task, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.setting import Setting

COMMAND = Path(sys.executable).with_name("filmroom-coordinator")


def witness(folder: Path, *arguments: str) -> str:
    command = [str(COMMAND), "witness", "--home", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def serving(folder: Path, port: int) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        command = [str(COMMAND), "witness", "--home", str(folder), "serve", "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: "listens" in (folder / "log").read_text(), "the witness listens")
        yield
    finally:
        process.kill()
        process.wait()


def notes(record: dict[str, Any]) -> list[str]:
    """Return the second state of the log in each receipt that was counted."""
    receipts = [json.loads(made["receipt"]) for made in record["contributions"] if made["outcome"] == "counted"]
    statements = [json.loads(base64.b64decode(receipt["payload"])) for receipt in receipts]
    return [statement["predicate"]["consent_log"]["recheck"] for statement in statements]


def size_of(note: str) -> int:
    return int(note.split("\n")[1])


def same_log(one: str, other: str) -> bool:
    return one.split("\n", maxsplit=1)[0] == other.split("\n", maxsplit=1)[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_counted_update_rests_on_a_log_the_witness_cosigned(setting: Setting, tmp_path: Path) -> None:
    folder, (port,) = tmp_path / "witness", free_ports(1)
    key = witness(folder, "init", "--name", "audit.example/witness")
    setting.open_coordinator({"witnesses": [key], "witness_urls": [f"http://127.0.0.1:{port}"], "witness_quorum": 1})
    digest = setting.submit(short_task(rounds=1))
    for name in SITES:
        setting.admit(name, {"witnesses": [key], "witness_quorum": 1})
        setting.approve(name, digest)
        witness(folder, "trust", setting.consortium.site(name, "log-key").strip())
        setting.consortium.start(name, until="connected")

    with serving(folder, port):
        record = setting.finish(setting.start_run(digest))

    signed = notes(record)
    assert len(signed) == 2 * len(SITES)  # a round, and the evaluation of its model
    assert all(list(cosigners(note, [parse_verifier(key, COSIGNATURE)])) for note in signed)
    logs = json.loads(witness(folder, "show", "--json"))["logs"]
    sizes = {log["vkey"].partition("+")[0]: log["size"] for log in logs}
    assert sizes == {
        note.split("\n")[0]: max(size_of(other) for other in signed if same_log(note, other)) for note in signed
    }
    assert len(sizes) == len(SITES)

    with pytest.raises(CommandFailed):  # the witness is gone
        setting.consortium.coordinator("runs", "wait", setting.start_run(digest))
    for name in SITES:
        assert {row["outcome"] for row in setting.rounds(name)[2:]} == {"abstained"}
        assert "too few of them cosigned" in setting.consortium.log(name)
