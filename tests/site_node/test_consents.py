"""Consent records: loaded one by one, superseded by id, withdrawn for good, and counted by epochs."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from consent import Outcome, Request, Study, decide
from site_node import consents
from site_node.errors import ConfigurationError
from site_node.store import consent_record, instance, ledger
from tests.site_node.hospital import NOON, PSEUDONYMS, bundle, consent_of

if TYPE_CHECKING:
    from consent import ConsentRecord

REQUEST = Request(("CLINTRCH",), ("urn:filmroom:federation|demo",))


def load(store: sa.Engine, *resources: Any) -> consents.Loaded:
    return consents.load(store, bundle(*resources), PSEUDONYMS, NOON)


def epoch(store: sa.Engine) -> int:
    with store.connect() as db:
        return consents.current_epoch(db)


def records(store: sa.Engine, patient_id: str) -> tuple[ConsentRecord, ...]:
    with store.connect() as db:
        found = consents.ConsentReader().read(db, consents.current_epoch(db))
    return tuple(reading.record() for reading in found.get(PSEUDONYMS.patient(patient_id), consents.NONE_HELD).readings)


def outcome(store: sa.Engine, patient_id: str) -> Outcome:
    study = Study(PSEUDONYMS.patient(patient_id), "2.25.1", None)
    return decide(records(store, patient_id), study, REQUEST, NOON).outcome


def test_one_broken_resource_is_reported_by_its_id_and_the_others_are_loaded(store: sa.Engine) -> None:
    broken = consent_of("SECRET-3") | {"patient": {"display": "SECRET-3"}}

    loaded = load(store, consent_of("A1"), broken, {"resourceType": "Patient", "id": "p"}, consent_of("A2"))

    assert (loaded.records, loaded.unchanged) == (2, 0)
    assert [key for key, _ in loaded.faults] == ["Consent/consent-SECRET-3", "Patient/p"]
    assert not [fault for _, fault in loaded.faults if "SECRET" in fault]
    assert outcome(store, "A1") is outcome(store, "A2") is Outcome.PERMIT


@pytest.mark.parametrize("document", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"resourceType": "Bundle", "entry": 1}'])
def test_a_file_that_is_no_consent_file_loads_nothing_and_begins_no_epoch(store: sa.Engine, document: bytes) -> None:
    loaded = consents.load(store, document, PSEUDONYMS, NOON)

    assert loaded.records == epoch(store) == 0
    assert len(loaded.faults) <= 1


def test_a_new_version_supersedes_the_old_one_which_stays_on_record(store: sa.Engine) -> None:
    load(store, consent_of("A1"))

    load(store, consent_of("A1", "deny"))

    assert outcome(store, "A1") is Outcome.DENY
    assert len(records(store, "A1")) == 1
    with store.connect() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(consent_record)) == 2


def test_an_older_version_does_not_lift_a_later_refusal(store: sa.Engine) -> None:
    load(store, consent_of("A1", "deny", dateTime="2026-02-01T00:00:00Z"))

    loaded = load(store, consent_of("A1", dateTime="2026-01-01T00:00:00Z"))

    assert loaded.faults == (("Consent/consent-A1", "dateTime: older than the version held; not loaded"),)
    assert outcome(store, "A1") is Outcome.DENY


def test_an_id_held_for_one_patient_is_not_taken_over_by_another(store: sa.Engine) -> None:
    load(store, consent_of("A1", "deny"))

    loaded = load(store, consent_of("A2", id="consent-A1"))

    assert loaded.faults == (("Consent/consent-A1", "id: another patient's consent is held under it"),)
    assert outcome(store, "A1") is Outcome.DENY
    assert outcome(store, "A2") is Outcome.REVIEW


def updated(day: str, **elements: Any) -> dict[str, Any]:
    return {"meta": {"lastUpdated": f"2026-02-{day}T00:00:00Z"}} | elements


def test_an_old_file_does_not_lift_a_revocation_that_kept_its_date(store: sa.Engine) -> None:
    load(store, consent_of("A1", **updated("01")))
    load(store, consent_of("A1", status="inactive", **updated("02")))

    loaded = load(store, consent_of("A1", **updated("01")))

    assert loaded.faults == (("Consent/consent-A1", "meta.lastUpdated: older than the version held; not loaded"),)
    assert outcome(store, "A1") is Outcome.NO_CONSENT
    load(store, consent_of("A1", **updated("03")))
    assert outcome(store, "A1") is Outcome.PERMIT


def test_without_a_version_a_refusal_is_not_lifted_under_its_own_id(store: sa.Engine) -> None:
    load(store, consent_of("A1"))
    load(store, consent_of("A1", status="inactive"))

    again, other = load(store, consent_of("A1")), load(store, consent_of("A1", language="en"))

    assert [fault for _, fault in again.faults] == [
        "meta.lastUpdated: absent, and this version was superseded before; not loaded"
    ]
    assert [fault for _, fault in other.faults] == [
        "meta.lastUpdated: absent, so that nobody can tell whether this lifts what is held"
    ]
    assert outcome(store, "A1") is Outcome.NO_CONSENT


def test_an_older_version_does_not_take_the_place_of_one_under_review(store: sa.Engine) -> None:
    load(store, consent_of("A1", "deny", dateTime="2026-02-01", colour="red"))

    load(store, consent_of("A1", dateTime="2026-01-01"))

    assert outcome(store, "A1") is Outcome.REVIEW


def test_a_refusal_is_taken_whatever_its_date(store: sa.Engine) -> None:
    load(store, consent_of("A1", **updated("01")))

    load(store, consent_of("A1", "deny", dateTime="2025-01-01", **updated("02")))

    assert outcome(store, "A1") is Outcome.DENY


@pytest.mark.parametrize(
    ("held", "new"),
    [
        ({"meta": {"lastUpdated": "2025-06-01T00:00:00Z"}}, {"meta": {"lastUpdated": "2025-05-01T00:00:00Z"}}),
        ({"dateTime": "2025-06-01"}, {"dateTime": "2025-05-01"}),
    ],
)
@pytest.mark.parametrize("change", [{"status": "inactive"}, {"provision": {"type": "deny"}}])
def test_an_older_version_that_permits_nothing_puts_what_is_held_in_doubt_once(
    store: sa.Engine, held: dict[str, Any], new: dict[str, Any], change: dict[str, Any]
) -> None:
    load(store, consent_of("A1", **held))

    loaded = load(store, consent_of("A1", **new, **change))

    assert loaded.doubted == 1
    assert "older than the version held" in loaded.faults[0][1]
    assert outcome(store, "A1") is Outcome.REVIEW


def test_an_older_version_that_was_superseded_before_raises_no_doubt(store: sa.Engine) -> None:
    first = consent_of("A1", "deny", **updated("01"))
    load(store, first)
    load(store, consent_of("A1", **updated("02")))

    assert load(store, first).doubted == 0
    assert outcome(store, "A1") is Outcome.PERMIT


def test_a_stamp_ahead_of_the_clock_goes_to_review_and_a_refusal_stays_one(store: sa.Engine) -> None:
    ahead: dict[str, Any] = {"meta": {"lastUpdated": "2999-01-01T00:00:00Z"}}

    load(store, consent_of("A1", **ahead), consent_of("A2", "deny", **ahead))

    assert outcome(store, "A1") is Outcome.REVIEW
    assert outcome(store, "A2") is Outcome.DENY
    load(store, consent_of("A1", "deny", **updated("01")))
    assert outcome(store, "A1") is Outcome.REVIEW
    consents.confirm(store, "consent-A1", "manager", NOON)
    assert outcome(store, "A1") is Outcome.PERMIT


def refused(**elements: Any) -> dict[str, Any]:
    return consent_of("A1", "deny", **({"id": "new"} | updated("01") | elements))


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else "x"


REFUSED: dict[str, tuple[str, ...]] = {
    "two versions under one id": (json.dumps(refused()), json.dumps(refused(language="en"))),
    "a text that is not Unicode": (json.dumps(refused(language="\ud800")),),
    "an element named twice": (json.dumps(refused()).replace('"status"', '"status": "active", "status"'),),
    "an element named twice within": (json.dumps(refused()).replace('"type"', '"type": "permit", "type"'),),
    "nested too deeply": (json.dumps(refused(extension=deep(40))),),
    "no id": (json.dumps({k: v for k, v in refused().items() if k != "id"}),),
    "an id that is none": (json.dumps(refused(id="a b")),),
    "an id held for another patient": (json.dumps(refused(id="consent-A2")),),
}


def texts(*resources: str) -> bytes:
    entries = ", ".join(f'{{"resource": {one}}}' for one in resources)
    return f'{{"resourceType": "Bundle", "entry": [{entries}]}}'.encode()


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_resource_of_a_patient_that_can_be_read_sends_this_patient_to_review(
    store: sa.Engine, document: tuple[str, ...]
) -> None:
    load(store, consent_of("A1"), consent_of("A2"), consent_of("A3"))

    (key,) = consents.load(store, texts(*document), PSEUDONYMS, NOON).stand_ins

    assert outcome(store, "A1") is Outcome.REVIEW
    assert outcome(store, "A3") is Outcome.PERMIT
    assert consents.load(store, texts(*document), PSEUDONYMS, NOON).stand_ins == ()
    consents.confirm(store, key.removeprefix("Consent/"), "manager", NOON)
    assert outcome(store, "A1") is Outcome.PERMIT


@pytest.mark.parametrize("held", [{"status": "inactive"}, {"provision": {"type": "deny", "period": {"end": "2020"}}}])
def test_a_broken_resource_under_the_id_of_what_says_nothing_sends_its_patient_to_review(
    store: sa.Engine, held: dict[str, Any]
) -> None:
    load(store, consent_of("A1"), consent_of("A1", id="new") | held)
    assert outcome(store, "A1") is Outcome.PERMIT

    (key,) = consents.load(store, texts(*REFUSED["an element named twice"]), PSEUDONYMS, NOON).stand_ins

    assert outcome(store, "A1") is Outcome.REVIEW
    consents.confirm(store, key.removeprefix("Consent/"), "manager", NOON)
    assert outcome(store, "A1") is Outcome.PERMIT


@pytest.mark.parametrize(("kind", "expected"), [("permit", Outcome.PERMIT), ("deny", Outcome.DENY)])
def test_a_newer_sound_version_takes_the_place_of_the_stand_in(store: sa.Engine, kind: str, expected: Outcome) -> None:
    consents.load(store, texts(*REFUSED["two versions under one id"]), PSEUDONYMS, NOON)

    load(store, consent_of("A1", kind, id="new", **updated("02")))

    assert outcome(store, "A1") is expected


def test_identical_copies_of_one_id_count_as_one(store: sa.Engine) -> None:
    loaded = load(store, consent_of("A1", "deny"), consent_of("A1", "deny"))

    assert (loaded.records, loaded.faults, loaded.stand_ins) == (1, (), ())


def test_a_refused_resource_of_a_patient_nobody_can_read_is_counted_alone(store: sa.Engine) -> None:
    load(store, consent_of("A1"))
    other = refused(language="\ud800", patient={"identifier": {"system": "urn:insurer", "value": "A1"}})

    loaded = consents.load(store, texts(json.dumps(other)), PSEUDONYMS, NOON, "urn:hospital")

    assert (loaded.stand_ins, len(loaded.faults)) == ((), 1)
    assert outcome(store, "A1") is Outcome.PERMIT


BROKEN: dict[str, tuple[Any, ...]] = {
    "not a consent of anybody": ({"patient": {"display": "x"}},),
    "twice in one file": ({"status": "inactive"}, {}),
    "of another patient": ({"patient": {"identifier": {"value": "A9"}}},),
    "a text that is not Unicode": ({"language": "\ud800"},),
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_held_under_the_id_of_a_broken_resource_goes_to_review(
    store: sa.Engine, changes: tuple[Any, ...]
) -> None:
    load(store, consent_of("A1"), consent_of("A2"))
    before = epoch(store)

    loaded = load(store, *(consent_of("A1") | change for change in changes))

    assert (loaded.records, loaded.doubted, epoch(store)) == (0, 1, before + 1)
    assert outcome(store, "A1") is Outcome.REVIEW
    assert outcome(store, "A2") is Outcome.PERMIT
    assert load(store, consent_of("A1")).unchanged == 1
    assert outcome(store, "A1") is Outcome.REVIEW


def test_a_resource_deleted_at_its_source_sends_what_is_held_to_review(store: sa.Engine) -> None:
    load(store, consent_of("A1"))
    gone = {"request": {"method": "DELETE", "url": "Consent/consent-A1"}}
    document = json.dumps({"resourceType": "Bundle", "type": "history", "entry": [gone]}).encode()

    loaded = consents.load(store, document, PSEUDONYMS, NOON)

    assert loaded.faults == (("Consent/consent-A1", "request: deleted at its source"),)
    assert outcome(store, "A1") is Outcome.REVIEW


def test_a_refusal_stays_one_beside_a_broken_resource_of_its_id(store: sa.Engine) -> None:
    load(store, consent_of("A1", "deny"))

    assert load(store, consent_of("A1") | {"patient": 1}).doubted == 0
    assert outcome(store, "A1") is Outcome.DENY


def test_a_number_of_another_system_is_no_patient_of_the_hospital(store: sa.Engine) -> None:
    own = consent_of("A1", patient={"identifier": {"system": "urn:hospital", "value": "A1"}})
    insurers = consent_of("A2", patient={"identifier": {"system": "urn:insurer", "value": "A2"}})

    loaded = consents.load(store, bundle(own, insurers), PSEUDONYMS, NOON, "urn:hospital")

    assert [key for key, _ in loaded.faults] == ["Consent/consent-A2"]
    assert (outcome(store, "A1"), outcome(store, "A2")) == (Outcome.PERMIT, Outcome.NO_CONSENT)


def test_a_doubt_ends_with_a_newer_version_or_by_a_person_and_once(store: sa.Engine) -> None:
    for name in ("A1", "A2"):
        load(store, consent_of(name, **updated("01")))
        load(store, consent_of(name) | {"patient": 1})
    load(store, consent_of("A1", **updated("02")))

    consents.confirm(store, "consent-A2", "manager", NOON)

    assert outcome(store, "A1") is outcome(store, "A2") is Outcome.PERMIT
    with pytest.raises(ConfigurationError):
        consents.confirm(store, "consent-A2", "manager", NOON)
    with store.connect() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(consent_record)) == 6


@pytest.mark.parametrize(("kind", "expected"), [("deny", Outcome.DENY), ("permit", Outcome.PERMIT)])
def test_a_study_named_by_a_consent_is_found_under_its_pseudonym(
    store: sa.Engine, kind: str, expected: Outcome
) -> None:
    uid = "1.2.840.113619.2.1"
    named = {"meaning": "instance", "reference": {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}}
    research = consent_of("A1")["provision"]
    exception = {"deny": research | {"provision": [{"type": "deny", "data": [named]}]}}
    alone = {"permit": {"type": "deny", "provision": [research | {"data": [named]}]}}
    with store.begin() as db:
        here = {"StudyInstanceUID": PSEUDONYMS.uid(uid), "SeriesInstanceUID": "2.25.8", "SOPInstanceUID": "2.25.9"}
        rest = {"SOPClassUID": "1", "Modality": "MR", "patient": "p", "path": "p", "sha256": "s"}
        db.execute(sa.insert(instance).values(**here, **rest))
    load(store, consent_of("A1", provision=(exception | alone)[kind]))
    asked = Request(("CLINTRCH",), ("urn:filmroom:federation|demo",))

    def decided(study: str) -> Outcome:
        patient = PSEUDONYMS.patient("A1")
        return decide(records(store, "A1"), Study(patient, study, None), asked, NOON).outcome

    assert decided(PSEUDONYMS.uid(uid)) is expected
    assert decided(uid) is expected  # where the site keeps its UIDs
    assert decided(PSEUDONYMS.uid(f"{uid}.9")) is not expected


def test_a_refused_uid_of_no_study_here_may_be_that_of_a_part_of_any(store: sa.Engine) -> None:
    series = {"meaning": "instance", "reference": {"identifier": {"system": "urn:dicom:uid", "value": "1.2.9"}}}
    exception = consent_of("A1")["provision"] | {"provision": [{"type": "deny", "data": [series]}]}

    load(store, consent_of("A1", provision=exception))

    assert outcome(store, "A1") is Outcome.DENY


def test_a_permission_of_a_study_that_comes_later_holds(store: sa.Engine) -> None:
    study = {"meaning": "instance", "reference": {"identifier": {"system": "urn:dicom:uid", "value": "1.2.9"}}}

    load(store, consent_of("A1", provision=consent_of("A1")["provision"] | {"data": [study]}))

    patient = PSEUDONYMS.patient("A1")
    for uid, expected in ((PSEUDONYMS.uid("1.2.9"), Outcome.PERMIT), ("2.25.1", Outcome.NO_CONSENT)):
        assert decide(records(store, "A1"), Study(patient, uid, None), REQUEST, NOON).outcome is expected


def test_the_very_same_version_changes_nothing(store: sa.Engine) -> None:
    load(store, consent_of("A1"))
    before = epoch(store)

    loaded = load(store, consent_of("A1"))

    assert (loaded.records, loaded.unchanged) == (0, 1)
    assert epoch(store) == before


def test_a_file_is_taken_in_one_transaction_with_one_epoch(store: sa.Engine) -> None:
    seen: list[tuple[int, int]] = []

    class Watching:
        """Pseudonyms, and what another connection sees meanwhile."""

        def patient(self, patient_id: str) -> str:
            with store.execution_options(reading=True).connect() as db:
                count = db.scalar(sa.select(sa.func.count()).select_from(consent_record)) or 0
                seen.append((count, consents.current_epoch(db)))
            return PSEUDONYMS.patient(patient_id)

        def subkey(self, purpose: str) -> bytes:
            return PSEUDONYMS.subkey(purpose)

    consents.load(store, bundle(consent_of("A1"), consent_of("A2")), Watching(), NOON)  # type: ignore[arg-type] # it reads these alone

    assert seen == [(0, 0), (0, 0)]
    assert epoch(store) == 1


def test_a_withdrawal_denies_whatever_was_permitted_and_begins_an_epoch(store: sa.Engine) -> None:
    load(store, consent_of("A1"), consent_of("A1", id="second"), consent_of("A2"))
    before = epoch(store)

    made = consents.withdraw(store, PSEUDONYMS.patient("A1"), NOON)

    assert made == epoch(store) == before + 1
    assert outcome(store, "A1") is Outcome.DENY
    assert outcome(store, "A2") is Outcome.PERMIT


def test_a_later_consent_does_not_lift_a_withdrawal(store: sa.Engine) -> None:
    consents.withdraw(store, PSEUDONYMS.patient("A1"), NOON)

    load(store, consent_of("A1"))

    assert outcome(store, "A1") is Outcome.DENY


def test_whether_a_patient_is_known_is_told_without_a_name(store: sa.Engine) -> None:
    load(store, consent_of("A1"))

    assert consents.is_known(store, PSEUDONYMS.patient("A1 "))
    assert not consents.is_known(store, PSEUDONYMS.patient("A2"))


def test_a_reader_follows_the_epochs(store: sa.Engine) -> None:
    reader = consents.ConsentReader()
    load(store, consent_of("A1"))
    with store.connect() as db:
        first = reader.read(db, consents.current_epoch(db))
        assert reader.read(db, consents.current_epoch(db)) is first

    consents.withdraw(store, PSEUDONYMS.patient("A1"), NOON)

    with store.connect() as db:
        assert len(reader.read(db, consents.current_epoch(db))[PSEUDONYMS.patient("A1")].numbers) == 2


def test_the_ledger_counts_and_names_nobody(store: sa.Engine) -> None:
    load(store, consent_of("SECRET-1"))
    consents.withdraw(store, PSEUDONYMS.patient("SECRET-1"), NOON)

    with store.connect() as db:
        rows = db.execute(sa.select(ledger.c.entry, ledger.c.detail)).all()
    assert [(row.entry, json.loads(row.detail)) for row in rows] == [
        ("site:consent:loaded", {"records": 1, "faults": 0, "doubted": 0, "stand_ins": 0}),
        ("site:consent:withdrawn", {"epoch": 2}),
    ]


WITHIN = consents.WithdrawalScope(("brain",), ("MR",), "2026-02", "2026-03")


@pytest.mark.parametrize(
    ("study", "project", "outcome"),
    [
        (("2026-03-31", "MR"), "brain", Outcome.DENY),
        (("2026-02-01", "MR"), "brain", Outcome.DENY),
        (("2026-04-01", "MR"), "brain", Outcome.PERMIT),
        (("2026-01-31", "MR"), "brain", Outcome.PERMIT),
        (("2026-03-01", "CT"), "brain", Outcome.PERMIT),
        (("2026-03-01", "MR"), "lung", Outcome.PERMIT),
        ((None, "MR"), "brain", Outcome.DENY),
        (("2026-03-01", None), "brain", Outcome.DENY),
    ],
)
def test_a_withdrawal_within_a_scope_refuses_what_lies_in_it_and_nothing_that_surely_does_not(
    store: sa.Engine, study: tuple[str | None, str | None], project: str, outcome: Outcome
) -> None:
    load(store, consent_of("A1"))
    consents.withdraw(store, PSEUDONYMS.patient("A1"), NOON, WITHIN)
    day, modality = study
    taken = Study("p", "1.2", date.fromisoformat(day) if day else None, modality=modality)

    asked = Request(("CLINTRCH",), ("urn:filmroom:federation|demo",), project=project)
    assert decide(records(store, "A1"), taken, asked, NOON).outcome is outcome


@pytest.mark.parametrize(
    "scope",
    [
        consents.WithdrawalScope(first="yesterday"),
        consents.WithdrawalScope(first="2026-03", last="2026-02"),
        consents.WithdrawalScope(modalities=("magnet",)),
    ],
)
def test_a_scope_that_cannot_be_stated_records_nothing(store: sa.Engine, scope: consents.WithdrawalScope) -> None:
    with pytest.raises(ConfigurationError):
        consents.withdraw(store, PSEUDONYMS.patient("A1"), NOON, scope)

    assert not consents.is_known(store, PSEUDONYMS.patient("A1"))


def test_an_error_of_the_database_names_no_value(store: sa.Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError) as fault, store.begin() as db:
        db.execute(sa.insert(consent_record).values(consent_id="id", patient="PID-77-31", resource="Zwetschgenbaum"))

    assert "consent_record" in str(fault.value)
    assert not [value for value in ("PID-77-31", "Zwetschgenbaum") if value in str(fault.value)]
