"""A witness cosigns one history of a log and no other, whoever asks and whenever it is killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from consent import (
    COSIGNATURE,
    Checkpoint,
    WitnessRequest,
    add_cosignatures,
    consistency_proof,
    cosigners,
    generate_signing_key,
    leaf_hash,
    log_origin,
    log_verifier,
    nodes_of,
    parse_verifier,
    sign_checkpoint,
    tree_root,
    write_request,
)
from coordinator.errors import ConfigurationError
from coordinator.witness import SIZE_TYPE, Witness, create_witness

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)


class Log:
    """A site's log that can tell two histories."""

    def __init__(self) -> None:
        self.key = generate_signing_key()
        self.origin = log_origin("north-sea", "bergen", self.key.public_key())
        self.vkey = log_verifier(self.origin, self.key.public_key()).text

    def nodes(self, branch: int) -> list[bytes]:
        """Return 64 leaves, of which those from 4 on are the branch's own."""
        return [leaf_hash(bytes([0 if index < 4 else branch, index])) for index in range(64)]

    def note(self, size: int, branch: int = 0) -> str:
        """Return the signed checkpoint of this many leaves."""
        state = Checkpoint(self.origin, size, tree_root(size, nodes_of(self.nodes(branch))))
        return sign_checkpoint(state, self.origin, self.key)

    def request(self, old: int, new: int, branch: int = 0) -> bytes:
        """Return the request to cosign the step from `old` to `new` leaves."""
        proof = consistency_proof(old, new, nodes_of(self.nodes(branch))) if old <= new else ()
        return write_request(WitnessRequest(old, proof, self.note(new, branch)))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def witness(tmp_path: Path, log: Log) -> Witness:
    made = create_witness(tmp_path / "witness", "witness.example/w1")
    made.trust(log.vkey, AT)
    return made


def test_a_log_that_grows_is_cosigned(witness: Witness, log: Log) -> None:
    for old, new in [(0, 3), (3, 3), (3, 10), (10, 64)]:
        answer = witness.add_checkpoint(log.request(old, new), AT)

        assert answer.status == 200
        cosigned = add_cosignatures(log.note(new), answer.body)
        assert cosigners(cosigned, [parse_verifier(witness.vkey, COSIGNATURE)]) == {witness.name: AT}


def test_every_refusal_has_its_status(witness: Witness, log: Log) -> None:
    stranger = Log()
    assert witness.add_checkpoint(stranger.request(0, 3), AT).status == 404
    forged = log.request(0, 3).decode().replace("\n3\n", "\n2\n").encode()
    assert witness.add_checkpoint(forged, AT).status == 403
    assert witness.add_checkpoint(b"old 0\n\nnothing", AT).status == 400
    assert witness.add_checkpoint(log.request(5, 3), AT).status == 400
    assert witness.add_checkpoint(log.request(0, 10), AT).status == 200
    behind = witness.add_checkpoint(log.request(3, 12), AT)
    assert (behind.status, behind.body, behind.kind) == (409, "10\n", SIZE_TYPE)
    assert witness.add_checkpoint(log.request(10, 12, branch=1), AT).status == 422
    assert witness.add_checkpoint(log.request(10, 10, branch=1), AT).status == 409


def test_a_rollback_is_refused(witness: Witness, log: Log) -> None:
    witness.add_checkpoint(log.request(0, 10), AT)

    for old in (0, 3, 5):
        answer = witness.add_checkpoint(log.request(old, 5), AT)
        assert (answer.status, answer.body) == (409, "10\n")


def test_two_roots_of_one_size_are_kept_as_evidence(witness: Witness, log: Log) -> None:
    witness.add_checkpoint(log.request(0, 10), AT)

    for _ in range(2):
        witness.add_checkpoint(log.request(0, 10, branch=1), AT)

    assert [known.forks for known in witness.known()] == [1]


def test_the_database_itself_refuses_to_go_back(witness: Witness, log: Log, tmp_path: Path) -> None:
    witness.add_checkpoint(log.request(0, 10), AT)
    db = sqlite3.connect(tmp_path / "witness" / "witness.db")

    for change in ("UPDATE head SET size = 3", "UPDATE head SET root = x'00'", "DELETE FROM head"):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(change)
    db.close()


def test_a_known_log_keeps_its_key(witness: Witness, log: Log) -> None:
    witness.trust(log.vkey, AT)
    other = log_verifier(log.origin, generate_signing_key().public_key()).text

    with pytest.raises(ConfigurationError, match="another key"):
        witness.trust(other, AT)
    with pytest.raises(ConfigurationError, match="not the key of a log"):
        witness.trust(witness.vkey, AT)


def test_the_key_is_the_witnesss_alone_and_made_once(witness: Witness, tmp_path: Path) -> None:
    folder = tmp_path / "witness"

    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in ("witness.key", "witness.db")] == [0o600, 0o600]
    with pytest.raises(ConfigurationError, match="already"):
        create_witness(folder, "another")
    assert Witness(folder).vkey == witness.vkey


# ------------------------------------------------------------------ real processes


def _serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "coordinator", "witness", "--home", str(folder), "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    raise AssertionError("the witness does not listen")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_killed_witness_never_cosigns_two_histories(witness: Witness, log: Log, tmp_path: Path) -> None:
    """Two branches race for it; it is killed with requests in flight, and started again."""
    rng, cosigned, port = random.Random(7), dict[int, str](), _free_port()  # noqa: S311 -- the order of a race
    url = f"http://127.0.0.1:{port}/add-checkpoint"
    for _life in range(4):
        process = _serve(tmp_path / "witness", port)
        killer = subprocess.Popen(["/bin/sh", "-c", f"sleep {0.1 + rng.random() / 3}; kill -9 {process.pid}"])
        try:
            with httpx.Client(timeout=5) as client:
                while process.poll() is None:
                    held = witness.known()[0].size or 0
                    branch, new = rng.choice((0, 1)), min(64, held + rng.randint(0, 2))
                    answer = client.post(url, content=log.request(held, new, branch))
                    if answer.status_code == 200:
                        body = log.note(new, branch).partition("\n\n")[0]
                        assert cosigned.setdefault(new, body) == body
        except httpx.HTTPError:
            pass  # killed in the middle of a request
        finally:
            killer.wait(10)
            process.wait(10)
        assert process.returncode == -signal.SIGKILL

    branches = {branch for size, body in cosigned.items() if size > 4 for branch in (0, 1)
                if body == log.note(size, branch).partition("\n\n")[0]}  # fmt: skip
    assert len(branches) <= 1
    assert (witness.known()[0].size or 0) >= max(cosigned)


def test_a_served_witness_limits_what_it_reads(witness: Witness, tmp_path: Path) -> None:
    port = _free_port()
    process = _serve(tmp_path / "witness", port)
    try:
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}/add-checkpoint", content=b"x" * 100_000).status_code == 413
        assert httpx.post(f"{url}/add-checkpoint", content=b"x").status_code == 400
        assert httpx.get(f"{url}/add-checkpoint").status_code == 404
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(10)
    assert witness.known()[0].size is None
