"""A patient withdraws whose images were trained on: the model is made again without them, to the bit."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from demo.consortium import CommandFailed
from tests.scenarios.setting import counted, short_task, wait_until

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # three runs, one after the other

RETRAIN = {"withdrawal_policy": "rollback-retrain"}


def study_of(setting: Setting, patient: int) -> str:
    return setting.pseudonymiser("north").uid(setting.inboxes["north"].patients[patient].StudyInstanceUID)


def worker_of(setting: Setting) -> int:
    return setting.consortium.pids()["north"][-1]


def used_in(setting: Setting, run: str, study: str) -> list[int]:
    """Return the rounds of a run in which north trained on the study."""
    rows = [row for row in setting.rounds("north") if (row["run"], row["kind"]) == (run, "train")]
    return [row["round"] for row in rows if study in row["studies"]]


def show(setting: Setting, run: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(setting.consortium.coordinator("runs", "show", run))
    return record


def models(record: dict[str, Any]) -> list[str]:
    return [row["model_after"] for row in record["rounds"]]


def withdraw(setting: Setting, patient: str, run: str) -> str:
    """Let a patient of north withdraw, and return the run that takes the place of `run` once the node has told."""
    setting.consortium.site("north", "consents", "withdraw", said=f"{patient}\n")
    wait_until(lambda: show(setting, run)["state"] == "superseded", "the coordinator is told")
    return str(show(setting, run)["superseded_by"])


def fetch(setting: Setting, run: str, to: str) -> None:
    access = str(setting.root / "acme.json")
    setting.consortium.coordinator("models", "fetch", run, str(setting.root / to), "--access", access)


def test_after_the_end_the_model_is_made_again_and_has_the_bits_of_a_run_that_never_used_the_patient(
    setting: Setting,
) -> None:
    digest = setting.ready(short_task(rounds=2) | RETRAIN, silent=1)
    patient, study = setting.patients("north")[0], study_of(setting, 0)
    first = setting.start_run(digest)
    setting.await_log("north", f"train: run {first}, round 1")
    os.kill(worker_of(setting), signal.SIGSTOP)
    setting.permit("north", patient)  # a grant waits for the next round
    os.kill(worker_of(setting), signal.SIGCONT)
    used = setting.finish(first)
    fetch(setting, first, "before")
    assert used_in(setting, first, study) == [2]

    again = withdraw(setting, patient, first)
    with pytest.raises(CommandFailed) as refused:
        fetch(setting, first, "refused")
    made = setting.finish(again)
    fetch(setting, again, "after")
    control = setting.finish(setting.start_run(digest))

    assert f"refused (410): a contribution to {first} was withdrawn: {again} takes its place" in refused.value.said
    assert models(made) == models(control)
    assert [ours == theirs for ours, theirs in zip(models(used), models(made), strict=True)] == [True, True, False]
    assert used_in(setting, again, study) == []
    assert [row["round"] for row in setting.rounds("north") if (row["run"], row["kind"]) == (again, "train")] == [2]
    setting.consortium.coordinator("audit", first)
    provenance = json.loads((setting.root / "after" / "docs" / "provenance.json").read_text())
    assert provenance["derived_from"] == {"run": first, "carried_rounds": 1}
    weights = [(setting.root / name / "models" / "model.pt").read_bytes() for name in ("before", "after")]
    assert weights[0] != weights[1]


def test_during_a_later_round_the_run_ends_at_once_and_the_next_survives_a_killed_coordinator(
    setting: Setting,
) -> None:
    digest = setting.ready(short_task(rounds=2) | RETRAIN)
    patient, study = setting.patients("north")[0], study_of(setting, 0)
    first = setting.start_run(digest)
    setting.await_log("north", f"train: run {first}, round 2")
    os.kill(worker_of(setting), signal.SIGSTOP)
    again = withdraw(setting, patient, first)
    setting.consortium.kill("coordinator")
    ended = show(setting, first)
    setting.consortium.start("coordinator", until="listens")
    setting.await_log("north", f"train: run {again}, round 2")
    setting.consortium.kill("coordinator")
    setting.consortium.start("coordinator", until="listens")
    made = setting.finish(again)
    control = setting.finish(setting.start_run(digest))

    assert (ended["state"], len(ended["rounds"])) == ("superseded", 2)
    assert models(made) == models(control)
    assert [counted(made, number) for number in (1, 2)] == [["east", "north"]] * 2
    assert (used_in(setting, first, study), used_in(setting, again, study)) == ([1], [])
