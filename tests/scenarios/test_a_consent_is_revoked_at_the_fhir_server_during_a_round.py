"""A consent is revoked at the hospital's FHIR server while the node trains; nobody gives a command."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.setting import SITES, counted, short_task
from tests.site_node.hospital import consent_of
from tests.site_node.real_fhir_server import RealServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.setting import Setting


@pytest.mark.slow
def test_the_node_reads_of_it_by_itself_and_gives_the_round_up(setting: Setting, tmp_path: Path) -> None:
    folder = tmp_path / "fhir"
    folder.mkdir()
    server = RealServer(folder)
    server.start()
    try:
        setting.open_coordinator()
        digest = setting.submit(short_task(rounds=3, local_epochs=3, quorum=1))
        for name in SITES:
            setting.admit(name)
            setting.approve(name, digest)
        with (setting.consortium.home("north") / "site.toml").open("a") as file:
            file.write(f'[consents]\nfhir_url = "{server.address}"\ninterval_min = 0.01\n')
            file.write(f'token_file = "{server.token_file}"\n')
        server.put(*map(consent_of, setting.patients("north")))
        for name in SITES:
            setting.consortium.start(name, until="connected")
        run = setting.start_run(digest)

        setting.await_log("north", "round 2")
        worker = setting.consortium.pids()["north"][-1]
        os.kill(worker, signal.SIGSTOP)  # in the middle of a batch, and stuck there
        server.put(consent_of(setting.patients("north")[0], status="inactive"))
        record = setting.finish(run)
    finally:
        server.stop()

    assert [counted(record, number) for number in (1, 2, 3)] == [["east", "north"], ["east"], ["east", "north"]]
    done = {row["round"]: row for row in setting.rounds("north") if row["kind"] == "train"}
    assert (done[2]["outcome"], done[2]["receipt"]) == ("abstained", False)
    assert "a permission was taken back" in done[2]["reason"]
    assert len(done[3]["studies"]) == len(done[1]["studies"]) - 1
    assert "fhir: 1 consents loaded, 0 not, 0 to review" in setting.consortium.log("north")
    assert not [patient for patient in setting.patients("north") if patient in setting.consortium.log("north")]
