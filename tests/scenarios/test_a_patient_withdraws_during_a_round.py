"""A patient withdraws while the hospital trains on the patient's images."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from site_node.deidentify.pseudonym import Pseudonymiser
from tests.scenarios.setting import counted, short_task

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


@pytest.mark.slow
def test_the_round_is_given_up_and_no_later_release_holds_the_study(setting: Setting) -> None:
    run = setting.start_run(setting.ready(short_task(rounds=3, local_epochs=3, quorum=1)))
    patient = setting.inboxes["north"].patients[0]
    key = (setting.consortium.home("north") / "identity" / "pseudonym.key").read_bytes()
    study = Pseudonymiser(key).uid(patient.StudyInstanceUID)

    setting.await_log("north", "round 2")
    worker = setting.consortium.pids()["north"][-1]
    os.kill(worker, signal.SIGSTOP)  # in the middle of a batch, and stuck there
    setting.consortium.site("north", "consents", "withdraw", said=f"{patient.patient_id}\n")
    record = setting.finish(run)

    assert [counted(record, number) for number in (1, 2, 3)] == [["east", "north"], ["east"], ["east", "north"]]
    done = {row["round"]: row for row in setting.rounds("north") if row["kind"] == "train"}
    assert study in done[1]["studies"]
    assert (done[2]["outcome"], done[2]["studies"], done[2]["receipt"]) == ("abstained", [], False)
    assert "a permission was taken back" in done[2]["reason"]
    assert study not in done[3]["studies"]
    assert len(done[3]["studies"]) == len(done[1]["studies"]) - 1
    assert done[3]["epoch"] > done[1]["epoch"]
    assert patient.patient_id not in setting.consortium.log("north")
    assert "taken back" not in str(record)
