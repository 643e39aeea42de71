"""The gate: four permissions, each of which can refuse alone, asked again before anything leaves."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from consent import Deny
from demo.task import TASK
from site_node import permissions, sources
from site_node.gate import Gate, Snapshot
from site_node.store import dataset, task
from tests.site_node.hospital import NOON, TERMS, Hospital, add_study, consent_of, grant

if TYPE_CHECKING:
    from collections.abc import Callable

LATER = NOON + timedelta(minutes=1)


def change(hospital: Hospital, table: sa.Table, **values: object) -> None:
    with hospital.store.begin() as db:
        db.execute(sa.update(table).values(**values))


def snapshot(hospital: Hospital) -> Snapshot:
    found = hospital.gate.snapshot(hospital.task, NOON)
    assert isinstance(found, Snapshot)
    return found


def reason(answer: Snapshot | Deny) -> str:
    assert isinstance(answer, Deny)
    return answer.reason


def test_all_four_permissions_together_permit_every_consented_study(hospital: Hospital) -> None:
    found = snapshot(hospital)

    assert found.cohort.studies == set(hospital.studies.values())
    assert found.epoch == hospital.gate.epoch()
    assert [(claim.dataset, claim.duo) for claim in found.grants] == [("brain-mr", "APPROVE")]


def without_task(hospital: Hospital) -> None:
    change(hospital, task, approved_at=None, approved_by=None)


def without_dataset(hospital: Hospital) -> None:
    change(hospital, dataset, approved_at=None, approved_by=None)


def without_grant(hospital: Hospital) -> None:
    permissions.register_dataset(hospital.store, "other-mr", TERMS, "MR", "steward", NOON)
    permissions.approve_dataset(hospital.store, "other-mr", "manager", NOON)
    permissions.approve_task(hospital.store, hospital.task, "other-mr", "manager", NOON)


def without_consent(hospital: Hospital) -> None:
    hospital.load(*(consent_of(patient, "deny") for patient in hospital.studies))


def with_a_revoked_dataset(hospital: Hospital) -> None:
    change(hospital, dataset, revoked_at=NOON.isoformat())


def with_another_modality(hospital: Hospital) -> None:
    change(hospital, dataset, modality="CT")


def without_an_assigned_dataset(hospital: Hospital) -> None:
    change(hospital, task, dataset=None)


MISSING: dict[Callable[[Hospital], None], str] = {
    without_task: "task: never approved here",
    without_dataset: "dataset: never approved here",
    without_grant: "grant: never approved here",
    without_consent: "cohort: fewer than 2 studies are permitted",
    Hospital.revoke_grant: "grant: revoked",
    with_a_revoked_dataset: "dataset: revoked",
    Hospital.revoke: "task: revoked",
    with_another_modality: "dataset: another modality than the task's",
    without_an_assigned_dataset: "dataset: none is assigned to this task",
}


@pytest.mark.parametrize("take_away", MISSING, ids=lambda change: change.__name__)
def test_one_missing_permission_refuses_alone(hospital: Hospital, take_away: Callable[[Hospital], None]) -> None:
    take_away(hospital)

    assert reason(hospital.gate.snapshot(hospital.task, NOON)) == MISSING[take_away]


def test_terms_that_do_not_fit_the_purpose_refuse(hospital: Hospital) -> None:
    change(hospital, dataset, terms=json.dumps(TERMS | {"modifiers": [{"code": "DUO:0000015"}]}))  # no methods research
    assert reason(hospital.gate.snapshot(hospital.task, NOON)).startswith("data use: ")

    change(hospital, dataset, terms='{"permission": "DUO:0000011"}')

    assert reason(hospital.gate.snapshot(hospital.task, NOON)) == "data use: POA: deny"


def test_a_task_nobody_offered_is_refused(hospital: Hospital) -> None:
    assert reason(hospital.gate.snapshot("0" * 64, NOON)) == "task: never approved here"


def test_one_study_too_few_refuses_and_one_more_permits(hospital: Hospital) -> None:
    hospital.withdraw("N0")
    hospital.withdraw("N1")
    assert len(snapshot(hospital).cohort.studies) == 2

    hospital.withdraw("N2")

    assert reason(hospital.gate.snapshot(hospital.task, NOON)) == "cohort: fewer than 2 studies are permitted"


def test_the_task_may_ask_for_more_studies_than_the_site(hospital: Hospital) -> None:
    document = json.dumps(TASK | {"minimum_examples": 5}).encode()
    digest = permissions.keep_task(hospital.store, document, NOON)
    permissions.approve_task(hospital.store, digest, "brain-mr", "manager", NOON)

    assert reason(hospital.gate.snapshot(digest, NOON)) == "cohort: fewer than 5 studies are permitted"


def test_a_withdrawal_refuses_the_whole_work_at_the_second_asking(hospital: Hospital) -> None:
    before = snapshot(hospital)

    hospital.withdraw("N3")

    assert reason(hospital.gate.recheck(before, LATER)) == "consent: a study in use is no longer permitted"


@pytest.mark.parametrize(
    ("take_away", "expected"),
    [
        (Hospital.revoke_grant, "grant: revoked"),
        (without_dataset, "dataset: never approved here"),
        (without_consent, "cohort: fewer than 2 studies are permitted"),
        (Hospital.revoke, "task: revoked"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_taken_back_refuses_at_the_second_asking(
    hospital: Hospital, take_away: Callable[[Hospital], None], expected: str
) -> None:
    before = snapshot(hospital)

    take_away(hospital)
    hospital.withdraw("nobody")  # a new epoch

    assert reason(hospital.gate.recheck(before, LATER)) == expected


def test_a_grant_runs_out_by_itself(hospital: Hospital) -> None:
    before = snapshot(hospital)
    (claim,) = before.grants

    assert isinstance(hospital.gate.recheck(before, claim.expires_at - timedelta(microseconds=1)), Snapshot)
    assert reason(hospital.gate.recheck(before, claim.expires_at)) == "grant: expired"


def test_a_consent_runs_out_by_itself(hospital: Hospital) -> None:
    document = consent_of("N0")
    document["provision"]["period"] = {"start": "2026-01-01", "end": "2026-06-01T12:00:30Z"}
    hospital.load(document)
    before = snapshot(hospital)

    assert len(before.cohort.items) == 4
    assert reason(hospital.gate.recheck(before, LATER)) == "consent: a study in use is no longer permitted"


def test_new_consents_never_widen_a_frozen_set(hospital: Hospital) -> None:
    before = snapshot(hospital)
    add_study(hospital.store, "N9")

    hospital.load(consent_of("N9"))

    after = hospital.gate.recheck(before, LATER)
    assert isinstance(after, Snapshot)
    assert after.cohort.items == before.cohort.items
    assert after.epoch > before.epoch
    assert len(snapshot(hospital).cohort.studies) == len(before.cohort.studies) + 1


def test_the_withdrawal_of_a_patient_who_is_not_used_changes_nothing(hospital: Hospital) -> None:
    before = snapshot(hospital)

    hospital.withdraw("someone else")

    assert isinstance(hospital.gate.recheck(before, LATER), Snapshot)


def test_work_done_under_one_dataset_does_not_leave_under_another(hospital: Hospital) -> None:
    before = snapshot(hospital)
    permissions.register_dataset(hospital.store, "other-mr", TERMS, "MR", "steward", NOON)
    permissions.approve_dataset(hospital.store, "other-mr", "manager", NOON)
    grant(hospital.store, "other-mr", NOON, NOON + timedelta(days=1))

    permissions.approve_task(hospital.store, hospital.task, "other-mr", "manager", NOON)

    assert reason(hospital.gate.recheck(before, LATER)) == "dataset: the task was assigned to another"


def test_work_without_patients_needs_the_approved_task_alone(hospital: Hospital) -> None:
    without_consent(hospital)
    hospital.revoke_grant()

    assert not isinstance(hospital.gate.approved_task(hospital.task, NOON), Deny)
    hospital.revoke()
    assert hospital.gate.approved_task(hospital.task, LATER) == Deny("task: revoked")


def test_a_gate_that_was_warmed_sees_later_changes(hospital: Hospital) -> None:
    gate = Gate(hospital.store, "demo", 2, timedelta(days=1))
    gate.warm()

    hospital.withdraw("N0")

    found = gate.snapshot(hospital.task, NOON)
    assert isinstance(found, Snapshot)
    assert hospital.studies["N0"] not in found.cohort.studies


def test_a_decision_needs_a_time_zone(hospital: Hospital) -> None:
    with pytest.raises((TypeError, ValueError)):
        hospital.gate.snapshot(hospital.task, datetime(2026, 6, 1))  # noqa: DTZ001 -- the fault under test


def test_consents_that_were_not_read_for_too_long_permit_nothing_not_even_at_release(hospital: Hospital) -> None:
    hospital.gate = Gate(hospital.store, "demo", 2, timedelta(days=1))
    before = snapshot(hospital)
    at_the_limit, beyond = NOON + timedelta(days=1), NOON + timedelta(days=1, microseconds=1)

    assert isinstance(hospital.gate.recheck(before, at_the_limit), Snapshot)
    for answer in (hospital.gate.recheck(before, beyond), hospital.gate.snapshot(hospital.task, beyond)):
        assert reason(answer) == "consent: not read within 24 h: file"

    sources.note(hospital.store, "file", beyond, beyond)
    assert isinstance(hospital.gate.recheck(before, beyond), Snapshot)


def test_one_source_that_is_too_old_is_enough_until_it_is_retired(hospital: Hospital) -> None:
    hospital.gate = Gate(hospital.store, "demo", 2, timedelta(days=1))
    sources.note(hospital.store, "paper", NOON - timedelta(days=2), NOON)
    assert reason(hospital.gate.snapshot(hospital.task, NOON)) == "consent: not read within 24 h: paper"

    sources.retire(hospital.store, "paper", "manager", NOON)

    assert isinstance(hospital.gate.snapshot(hospital.task, NOON), Snapshot)
    sources.retire(hospital.store, "file", "manager", NOON)
    assert reason(hospital.gate.snapshot(hospital.task, NOON)) == "consent: no source of consents was ever read"
