"""A patient withdraws whose images were trained on: the model is made again without them, to the bit."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from consent import AffectedReceipt, WithdrawalNotice, receipt_digest, sign_notice
from demo.consortium import CommandFailed
from site_node.config import SiteHome
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.link import tls_context
from tests.scenarios.setting import counted, short_task

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # three runs, one after the other

RETRAIN = {"withdrawal_policy": "rollback-retrain"}


def study_of(setting: Setting, patient: int) -> str:
    key = (setting.consortium.home("north") / "identity" / "pseudonym.key").read_bytes()
    return Pseudonymiser(key).uid(setting.inboxes["north"].patients[patient].StudyInstanceUID)


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


def tell(setting: Setting, run: str, first: int) -> dict[str, str]:
    """Hand in north's notice on all that it contributed to a run from a round on, and return the answers."""
    receipts = sorted(
        (row["round"], row["kind"], receipt_digest(row["receipt"].encode()))
        for row in show(setting, run)["contributions"]
        if row["site"] == "north" and row["receipt"] and row["round"] >= first
    )
    identity = SiteHome(setting.consortium.home("north")).load_identity()
    notice = WithdrawalNotice(
        federation="demo",
        site="north",
        run=run,
        at=datetime.now(UTC),
        receipts=tuple(AffectedReceipt(round=number, kind=kind, sha256=sha256) for number, kind, sha256 in receipts),
    )
    key: Any = load_pem_private_key(identity.receipt_key.read_bytes(), password=None)
    with httpx.Client(verify=tls_context(identity)) as client:
        url = f"https://{identity.fleet_address}/v1/members/withdrawals"
        answer = client.post(url, content=sign_notice(notice, key))
    assert answer.status_code == 200, answer.text
    answers: dict[str, str] = answer.json()
    return answers


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

    setting.consortium.site("north", "consents", "withdraw", said=f"{patient}\n")
    answers = tell(setting, first, 2)
    with pytest.raises(CommandFailed) as refused:
        fetch(setting, first, "refused")
    again = show(setting, first)["superseded_by"]
    made = setting.finish(again)
    fetch(setting, again, "after")
    control = setting.finish(setting.start_run(digest))

    assert set(answers.values()) == {"aggregated"}
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
    setting.consortium.site("north", "consents", "withdraw", said=f"{patient}\n")
    answers = tell(setting, first, 1)
    setting.consortium.kill("coordinator")
    ended = show(setting, first)
    setting.consortium.start("coordinator", until="listens")
    again = ended["superseded_by"]
    setting.await_log("north", f"train: run {again}, round 2")
    setting.consortium.kill("coordinator")
    setting.consortium.start("coordinator", until="listens")
    made = setting.finish(again)
    control = setting.finish(setting.start_run(digest))

    assert list(answers.values()) == ["aggregated"]
    assert (ended["state"], len(ended["rounds"])) == ("superseded", 2)
    assert models(made) == models(control)
    assert [counted(made, number) for number in (1, 2)] == [["east", "north"]] * 2
    assert (used_in(setting, first, study), used_in(setting, again, study)) == ([1], [])
