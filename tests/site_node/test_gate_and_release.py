"""The gate and the release: every permission is needed, before training and again at the moment of release."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sqlalchemy as sa

from consent import Deny, open_receipt
from models import update_digest
from site_node.config import SiteHome
from site_node.gate import Snapshot
from site_node.store import access_grant, dataset, inflight, ledger, outbox, participation
from tests.site_node.hospital import NOON, Hospital, PowerCut, consent_of, lost_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def hospital(root: Path, store: sa.Engine) -> Hospital:
    return Hospital(SiteHome(root), store)


def _change(hospital: Hospital, table: sa.Table, **values: str | None) -> None:
    with hospital.store.begin() as db:
        db.execute(sa.update(table).values(**values))


def _withdraw_all_but_one(hospital: Hospital) -> None:
    for patient in list(hospital.studies)[1:]:
        hospital.withdraw(patient)


MISSING: dict[str, tuple[Callable[[Hospital], None], str]] = {
    "task": (lambda h: h.revoke(), "task: revoked"),
    "dataset": (lambda h: _change(h, dataset, approved_at=None), "dataset: never approved here"),
    "grant": (lambda h: _change(h, access_grant, revoked_at=NOON.isoformat()), "grant: revoked"),
    "terms": (lambda h: _change(h, dataset, terms='{"permission": "DUO:0000011"}'), "data use: POA: deny"),
    "modality": (lambda h: _change(h, dataset, modality="CT"), "dataset: another modality than the task's"),
    "consent": (
        _withdraw_all_but_one,
        "cohort: fewer than 2 studies are permitted",
    ),
}


def test_all_permissions_together_permit_every_study(hospital: Hospital) -> None:
    snapshot = hospital.gate.snapshot(hospital.task, NOON)

    assert isinstance(snapshot, Snapshot)
    assert snapshot.cohort.studies == set(hospital.studies.values())


@pytest.mark.parametrize("what", MISSING)
def test_each_missing_permission_alone_denies(hospital: Hospital, what: str) -> None:
    take_away, reason = MISSING[what]
    take_away(hospital)

    verdict = hospital.gate.snapshot(hospital.task, NOON)

    assert isinstance(verdict, Deny)
    assert verdict.reason.startswith(reason)


def test_a_grant_that_ended_denies(hospital: Hospital) -> None:
    assert hospital.gate.snapshot(hospital.task, NOON + timedelta(days=30)) == Deny("grant: expired")


def test_a_recheck_denies_once_one_study_in_use_is_withdrawn(hospital: Hospital) -> None:
    snapshot = hospital.gate.snapshot(hospital.task, NOON)
    assert isinstance(snapshot, Snapshot)
    hospital.withdraw("N1")

    assert hospital.gate.recheck(snapshot, NOON) == Deny("consent: a study in use is no longer permitted")


def test_a_frozen_set_never_grows(hospital: Hospital) -> None:
    hospital.withdraw("N3")
    snapshot = hospital.gate.snapshot(hospital.task, NOON)
    assert isinstance(snapshot, Snapshot)
    hospital.load(consent_of("N9"))

    again = hospital.gate.recheck(snapshot, NOON)

    assert isinstance(again, Snapshot)
    assert again.cohort.studies == snapshot.cohort.studies
    assert again.epoch > snapshot.epoch


def test_a_release_carries_a_receipt_for_exactly_what_left(hospital: Hospital) -> None:
    assert hospital.ask() == "release"

    (_, _, (arrays, metrics, envelope)) = hospital.line.sent[0]
    receipt = open_receipt(envelope, hospital.key.public_key())
    assert receipt.update == update_digest(arrays, metrics)
    assert (receipt.nonce, receipt.task, receipt.site) == ("nonce-1", hospital.task, "north")
    assert (receipt.count_bucket, receipt.epoch.recheck) == ("4-7", receipt.epoch.release)
    assert hospital.rows(outbox) == hospital.rows(inflight) == []


def test_a_withdrawal_during_training_releases_nothing(hospital: Hospital) -> None:
    hospital.trainer.during = lambda: hospital.withdraw("N1")

    assert hospital.ask() == "abstain"
    assert [row["outcome"] for row in hospital.rows(participation)] == ["abstained"]


def test_a_withdrawal_between_recheck_and_commit_releases_nothing(hospital: Hospital) -> None:
    """The clock is read once for each re-check and once in the commit: the withdrawal comes in between."""
    original = hospital.gate.recheck
    seen: list[Snapshot | Deny] = []

    def recheck_then_withdraw(snapshot: Snapshot, at: object) -> Snapshot | Deny:
        verdict = original(snapshot, at)  # type: ignore[arg-type] # passed through
        if not seen:
            seen.append(verdict)
            hospital.withdraw("N1")
        return verdict

    hospital.gate.recheck = recheck_then_withdraw  # type: ignore[method-assign] # a busy moment, made certain

    assert hospital.ask() == "abstain"
    assert isinstance(seen[0], Snapshot)
    assert hospital.rows(outbox) == []
    assert not any(hospital.home.outbox.iterdir())


def test_the_withdrawn_study_is_in_no_later_release(hospital: Hospital) -> None:
    hospital.ask("m1")
    hospital.withdraw("N1")
    head = hospital.rows(participation)[0]["receipt"]
    _, _, (_, _, envelope) = hospital.line.sent[0]
    assert head == envelope

    hospital.ask("m2", round=2, nonce="nonce-2")

    used = [set(json.loads(row["studies"])) for row in hospital.rows(participation)]
    assert [hospital.studies["N1"] in studies for studies in used] == [True, False]


def test_what_is_sent_when_abstaining_holds_no_reason(hospital: Hospital) -> None:
    hospital.revoke()
    hospital.ask()

    assert hospital.line.sent == [("abstain", "m1", None)]
    assert [row["reason"] for row in hospital.rows(participation)] == ["task: revoked"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"receipt_head": "f" * 64}, "a receipt this site never made"),
        ({"sent_at": (NOON + timedelta(minutes=2)).isoformat()}, "clocks differ"),
        ({"deadline": NOON.isoformat()}, "deadline has passed"),
        ({"base_model": "0" * 64}, "base model"),
        ({"task": "0" * 64}, "task"),
        ({"kind": "run-code"}, "instruction: kind is not valid"),
        ({"command": "rm"}, "instruction: command is not valid"),
    ],
)
def test_an_instruction_that_cannot_be_checked_is_not_followed(
    hospital: Hospital, values: dict[str, str], reason: str
) -> None:
    assert hospital.ask(**values) == "abstain"
    assert reason in hospital.said[-1]


@pytest.mark.parametrize(
    ("arrays", "metrics"),
    [
        ({"float32": np.full(3, np.nan, np.float32)}, {"dice": 0.5}),
        ({"float32": np.full(4, 0.5, np.float32)}, {"dice": 0.5}),
        ({"float32": np.full(3, 1e9, np.float32)}, {"dice": 0.5}),
        ({"float32": np.zeros(3, np.float32), "uint8": np.zeros(9, np.uint8)}, {"dice": 0.5}),
        ({"float32": np.zeros(3, np.float32)}, {"dice": 0.5, "patient": 1.0}),
        ({"float32": np.zeros(3, np.float32)}, {"dice": float("inf")}),
    ],
)
def test_what_the_task_does_not_declare_never_leaves(
    hospital: Hospital, arrays: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]], metrics: dict[str, float]
) -> None:
    hospital.trainer.arrays, hospital.trainer.metrics = arrays, metrics

    assert hospital.ask() == "abstain"


def test_after_a_crash_before_hand_over_exactly_the_committed_release_is_sent(hospital: Hospital) -> None:
    hospital.line.failures = [PowerCut()]
    with pytest.raises(PowerCut):
        hospital.ask()
    (committed,) = hospital.rows(outbox)
    hospital.restart()

    hospital.resume()

    ((kind, _, (arrays, _, receipt)),) = hospital.line.sent
    assert (kind, receipt) == ("release", committed["receipt"])
    assert np.array_equal(arrays["float32"], hospital.trainer.arrays["float32"])


def test_after_a_crash_during_training_the_site_abstains(hospital: Hospital) -> None:
    def cut() -> None:
        raise PowerCut

    hospital.trainer.during = cut
    with pytest.raises(PowerCut):
        hospital.ask()
    hospital.restart()

    hospital.resume()

    assert hospital.line.kinds == ["abstain"]


def test_a_lost_line_keeps_the_release_for_the_next_connection(hospital: Hospital) -> None:
    hospital.line.failures = [lost_line()]
    with pytest.raises(type(lost_line())):
        hospital.ask()

    hospital.resume()

    assert hospital.line.kinds == ["release"]


def test_one_opening_of_a_round_is_answered_once(hospital: Hospital) -> None:
    hospital.ask("m1")

    assert hospital.ask("m2") == "abstain"
    assert "answered before" in hospital.said[-1]


def test_the_ledger_names_every_step(hospital: Hospital) -> None:
    hospital.ask()

    entries = [row["entry"] for row in hospital.rows(ledger)]

    assert entries == [
        "site:consent:loaded",
        "site:dataset:registered",
        "site:dataset:approved",
        "site:grant:made",
        "site:task:approved",
        "site:update:released",
    ]
