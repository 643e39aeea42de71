"""A hospital changes its receipt key in the middle of a run, under a witness: the rounds on both sides count."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from consent import COSIGNATURE, cosigners, parse_verifier
from demo.consortium import free_ports
from tests.scenarios.setting import counted, short_task
from tests.scenarios.test_a_witness_watches_the_logs import notes, serving, size_of, witness

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.setting import Setting

ROUNDS = 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rounds_before_and_after_the_change_are_counted_and_both_audits_pass(setting: Setting, tmp_path: Path) -> None:
    folder, (port,) = tmp_path / "witness", free_ports(1)
    watching = witness(folder, "init", "--name", "audit.example/witness")
    setting.open_coordinator(
        {"witnesses": [watching], "witness_urls": [f"http://127.0.0.1:{port}"], "witness_quorum": 1}
    )
    digest = setting.submit(short_task(rounds=ROUNDS, quorum=1))
    setting.admit("north", {"witnesses": [watching], "witness_quorum": 1})
    setting.approve("north", digest)
    consortium = setting.consortium
    first = consortium.site("north", "log-key").strip()
    witness(folder, "trust", first)
    consortium.start("north", until="connected")

    with serving(folder, port):
        run = setting.start_run(digest)
        setting.await_log("north", f"train: run {run}, round 2")
        os.kill(consortium.pids()["north"][-1], signal.SIGSTOP)  # the work of round 2 is in progress
        consortium.kill("north")
        consortium.site("north", "rotate-key")
        second = consortium.site("north", "log-key").strip()
        witness(folder, "trust", second)
        consortium.start("north", until="connected")
        record = setting.finish(run)  # which audits it at the coordinator

    assert [counted(record, number) for number in range(1, ROUNDS + 1)] == [["north"]] * ROUNDS
    signed = notes(record)
    verifier = parse_verifier(watching, COSIGNATURE)
    assert [len(list(cosigners(note, [verifier]))) for note in signed] == [1] * len(signed)
    origins = {note.split("\n")[0] for note in signed}
    assert origins == {key.partition("+")[0] for key in (first, second)}
    logs = {log["vkey"].partition("+")[0]: log["size"] for log in json.loads(witness(folder, "show", "--json"))["logs"]}
    assert logs == {name: max(size_of(note) for note in signed if note.startswith(name)) for name in origins}
    consortium.site("north", "audit")
    consortium.site("north", "audit", run)
