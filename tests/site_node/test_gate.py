"""The gate: four permissions, each of which can refuse alone, asked again before anything leaves."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from consent import Deny, ResearchPurpose
from demo.task import TASK
from models.task import Purpose
from site_node import alarms, permissions, sources
from site_node.errors import ConfigurationError
from site_node.gate import Gate, Snapshot
from site_node.store import dataset, task
from tests.site_node.hospital import NOON, PERMIT, PROJECT, TERMS, Hospital, add_study, consent_of, grant

if TYPE_CHECKING:
    from collections.abc import Callable

QUALITY = [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HQUALIMP"}]
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


def with_an_alarm_of_the_archive(hospital: Hospital) -> None:
    with hospital.store.begin() as db:
        alarms.sound(db, ["unreadable"], NOON)


MISSING: dict[Callable[[Hospital], None], str] = {
    without_task: "task: never approved here",
    without_dataset: "dataset: never approved here",
    without_grant: "grant: never approved here",
    without_consent: "cohort: fewer than 2 studies are permitted",
    Hospital.revoke_grant: "grant: revoked",
    with_a_revoked_dataset: "dataset: revoked",
    Hospital.revoke: "task: revoked",
    with_another_modality: "dataset: another modality than the task's",
    with_an_alarm_of_the_archive: "archive: an alarm is open: images changed as none may, and a person has to look",
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

    assert reason(hospital.gate.snapshot(hospital.task, NOON)) == "data use: POA: deny, the research is not on ancestry"


def approved(hospital: Hospital, **purpose: object) -> str:
    document = json.dumps(TASK | {"purpose": TASK["purpose"] | purpose}).encode()
    digest = permissions.keep_task(hospital.store, document, NOON)
    permissions.approve_task(hospital.store, digest, "brain-mr", "manager", NOON)
    return digest


def asked_for(hospital: Hospital, **purpose: object) -> str:
    """Return a task as `approved` does, for whose purpose access was granted as well."""
    document = json.dumps(TASK | {"purpose": TASK["purpose"] | purpose}).encode()
    grant(hospital.store, "brain-mr", NOON, NOON + timedelta(days=10), document)
    return approved(hospital, **purpose)


def test_the_form_of_a_purpose_asks_for_every_fact_a_term_can_turn_on() -> None:
    asked = set(Purpose.model_fields) | {"kind", "projects", "genetic"}  # research, the project, and images alone

    assert {field.name for field in fields(ResearchPurpose)} <= asked


def test_what_a_purpose_states_reaches_the_terms(hospital: Hospital) -> None:
    terms = [
        {"code": "GS", "values": ["DEU"]},
        {"code": "IS", "values": ["Charité"]},
        {"code": "US", "values": ["u1"]},
        {"code": "IRB"},
        {"code": "PUB"},
        {"code": "MOR", "values": ["2027-01-01"]},
        {"code": "COL"},
        {"code": "RTN"},
        {"code": "RS", "values": ["ageing"]},
        {"code": "NCU"},
        {"code": "NPU"},
        {"code": "NPOA"},
        {"code": "PS", "values": [PROJECT]},
    ]
    change(hospital, dataset, terms=json.dumps(TERMS | {"modifiers": terms}))
    stated = {
        "countries": ["DEU"],
        "institutions": ["Charité"],
        "users": ["u1"],
        "ethics_approved_until": "2026-12-31",
        "will_publish": True,
        "publishes_from": "2027-01-01",
        "collaboration_signed": True,
        "returns_data": True,
        "topics": ["ageing"],
    }
    full = hospital.gate.snapshot(asked_for(hospital, **stated), NOON)
    silent = hospital.gate.snapshot(hospital.task, NOON)
    abroad = hospital.gate.snapshot(approved(hospital, **stated | {"countries": ["DEU", "USA"]}), NOON)

    assert isinstance(full, Snapshot)
    assert isinstance(silent, Snapshot)
    assert (full.grants[0].duo, silent.grants[0].duo) == ("APPROVE", "MANUAL")
    assert reason(abroad) == "data use: GS: deny, a participant is in another country"


def test_a_purpose_that_is_no_research_needs_a_person(hospital: Hospital) -> None:
    hospital.load(
        *(consent_of(patient, provision={"type": "permit", "purpose": QUALITY}) for patient in hospital.studies)
    )
    found = hospital.gate.snapshot(asked_for(hospital, purposes=["HQUALIMP"]), NOON)

    assert isinstance(found, Snapshot)
    assert found.grants[0].duo == "MANUAL"


@pytest.mark.parametrize("code", ["MLTRAINING", "NOSUCH"])
def test_a_purpose_that_cannot_be_asked_is_refused(hospital: Hospital, code: str) -> None:
    assert reason(hospital.gate.snapshot(asked_for(hospital, purposes=[code]), NOON)).startswith("task: not a purpose")


@pytest.mark.parametrize(("days_ago", "ends"), [(31, None), (0, datetime(2026, 7, 1, 12, tzinfo=UTC))])
def test_a_time_limit_ends_the_grant_before_its_own_end(
    hospital: Hospital, days_ago: int, ends: datetime | None
) -> None:
    hospital.revoke_grant()
    grant(hospital.store, "brain-mr", NOON - timedelta(days=days_ago), NOON + timedelta(days=365))
    change(hospital, dataset, terms=json.dumps(TERMS | {"modifiers": [{"code": "TS", "values": ["1"]}]}))

    found = hospital.gate.snapshot(hospital.task, NOON)

    if ends is None:
        assert reason(found) == "grant: expired"
    else:
        assert isinstance(found, Snapshot)
        assert found.grants[0].expires_at == ends


def test_a_data_permit_stands_for_consent_and_a_withdrawal_stops_it(hospital: Hospital) -> None:
    add_study(hospital.store, "N9")
    without = snapshot(hospital)
    change(hospital, dataset, terms=json.dumps(TERMS | {"legal_basis": PERMIT}))

    under = snapshot(hospital)
    hospital.withdraw("N9")
    after = snapshot(hospital)

    assert len(under.cohort.studies) == len(without.cohort.studies) + 1
    assert after.cohort.studies == without.cohort.studies
    assert (without.basis.kind.value, under.basis.kind.value) == ("consent", "data-permit")


def test_a_data_permit_for_another_federation_permits_nothing(hospital: Hospital) -> None:
    elsewhere = PERMIT | {"recipients": ["urn:filmroom:federation|elsewhere"]}
    change(hospital, dataset, terms=json.dumps(TERMS | {"legal_basis": elsewhere}))

    assert reason(hospital.gate.snapshot(hospital.task, NOON)).startswith("cohort: fewer than")


def test_a_legal_basis_that_is_not_whole_is_not_registered(hospital: Hospital) -> None:
    for basis in ("waiver", PERMIT | {"valid_until": "soon"}):
        with pytest.raises(ConfigurationError, match="legal_basis"):
            permissions.register_dataset(hospital.store, "ct", TERMS | {"legal_basis": basis}, "CT", "a", NOON)


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
    permissions.register_dataset(hospital.store, "other-mr", TERMS, "MR", "steward", NOON)
    permissions.approve_dataset(hospital.store, "other-mr", "manager", NOON)
    grant(hospital.store, "other-mr", NOON, NOON + timedelta(days=1))
    before = snapshot(hospital)

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
    gate.warm(NOON)

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


def test_the_second_asking_decides_anew_only_where_something_may_have_changed(hospital: Hospital) -> None:
    before = snapshot(hospital)

    def again(at: datetime) -> Snapshot:
        found = hospital.gate.recheck(before, at)
        assert isinstance(found, Snapshot)
        return found

    assert again(LATER).cohort is before.cohort
    assert again(LATER).at == LATER
    assert again(NOON - timedelta(seconds=1)).cohort is not before.cohort
    hospital.withdraw("nobody")
    assert again(LATER).cohort is not before.cohort
    assert again(LATER).epoch > before.epoch
