"""Every kind of consent is there, and each has the outcome it states."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from consent import Outcome, Request, Study, decide, parse_consent, split_bundle
from demo.consents import consent_kinds, make_consents
from demo.hospitals import Inbox
from demo.identities import invent_patient

if TYPE_CHECKING:
    from consent import ConsentRecord

AT = datetime(2026, 6, 1, tzinfo=UTC)
REQUEST = Request(("CLINTRCH",), ("urn:filmroom:federation|demo",))


@pytest.fixture(scope="module")
def many() -> Inbox:
    rng = np.random.default_rng(1)
    patients = tuple(invent_patient(rng, "NG", number, "Northgate") for number in range(26))
    return Inbox("north", patients, (), 0)


def records_of(bundle: bytes) -> dict[str, list[ConsentRecord]]:
    records: dict[str, list[ConsentRecord]] = {}
    for _, resource in split_bundle(bundle):
        assert not isinstance(resource, Exception)
        parsed = parse_consent(resource)
        records.setdefault(parsed.patient_id, []).append(parsed.record)
    return records


def test_each_patient_is_decided_as_its_kind_says(many: Inbox) -> None:
    records = records_of(make_consents(many, AT))

    for patient_id, kind in consent_kinds(many).items():
        study = Study(patient_id, "1.2.3", None)
        verdict = decide(records.get(patient_id, []), study, REQUEST, AT)

        assert verdict.outcome is Outcome(kind.outcome), kind.name


def test_all_kinds_are_there_and_most_patients_permit(many: Inbox) -> None:
    kinds = Counter(kind.name for kind in consent_kinds(many).values())
    outcomes = Counter(kind.outcome for kind in consent_kinds(many).values())

    assert set(kinds) == {
        "permit in R4",
        "permit in R5",
        "deny",
        "missing",
        "conflicting",
        "expired",
        "untyped root",
        "another purpose",
        "research without AI training",
    }
    assert outcomes == {"permit": 19, "deny": 3, "no-consent": 3, "review": 1}


def test_both_releases_are_mixed_in_one_bundle(many: Inbox) -> None:
    resources = [resource for _, resource in split_bundle(make_consents(many, AT))]
    r4 = [each for each in resources if not isinstance(each, Exception) and "patient" in each]
    r5 = [each for each in resources if not isinstance(each, Exception) and "subject" in each]

    assert len(r4) + len(r5) == len(resources)
    assert min(len(r4), len(r5)) >= 8


def test_only_the_untyped_root_needs_review(many: Inbox) -> None:
    kinds = consent_kinds(many)
    reviewed = {
        kinds[patient_id].name
        for patient_id, records in records_of(make_consents(many, AT)).items()
        if any(record.review is not None for record in records)
    }

    assert reviewed == {"untyped root"}
