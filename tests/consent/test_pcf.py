"""IHE PCF consents, basic, intermediate and advanced, from the resource to the outcome."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any, Final

import pytest

from consent.decision import Outcome, Request, Study, decide
from consent.fhir import parse_consent
from tests.consent.records import AT, HUB, STUDY

PERMIT, DENY, NO_CONSENT, REVIEW = Outcome.PERMIT, Outcome.DENY, Outcome.NO_CONSENT, Outcome.REVIEW
Json = dict[str, Any]

CODES: Final = "http://terminology.hl7.org/CodeSystem/"
RESEARCH: Final = {"purpose": [{"system": f"{CODES}v3-ActReason", "code": "HRESCH"}]}
CARE: Final = {"purpose": [{"system": f"{CODES}v3-ActReason", "code": code} for code in ("TREAT", "HPAYMT", "HOPERAT")]}
TO_HUB: Final = {
    "actor": [
        {
            "role": {"coding": [{"system": f"{CODES}v3-ParticipationType", "code": "IRCP"}]},
            "reference": {"reference": HUB},
        }
    ]
}
IN_2024: Final = {"dataPeriod": {"start": "2024-01-01", "end": "2024-12-31"}}
BY_UID: Final = {
    "data": [
        {"meaning": "instance", "reference": {"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"}}}
    ]
}
RELATED: Final = {"data": [{"meaning": "related", "reference": {"reference": "Encounter/1"}}]}
AUTHORED: Final = {"data": [{"meaning": "authoredby", "reference": {"reference": "Practitioner/1"}}]}


def labelled(*codes: str) -> Json:
    system = {"N": "v3-Confidentiality", "R": "v3-Confidentiality"}
    return {"securityLabel": [{"system": CODES + system.get(code, "v3-ActCode"), "code": code} for code in codes]}


def consent(kind: str, *exceptions: Json, **elements: Any) -> Json:
    """Return what PCF demands of every consent, and its provision."""
    nested = {"provision": list(exceptions)} if exceptions else {}
    return {
        "resourceType": "Consent",
        "id": "pcf",
        "meta": {"security": [{"system": f"{CODES}v3-ActReason", "code": "HTEST"}]},
        "status": "active",
        "scope": {"coding": [{"system": f"{CODES}consentscope", "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": "Patient/1"},
        "dateTime": "2022-06-13",
        "performer": [{"reference": "Patient/1"}],
        "organization": [{"reference": "Organization/1"}],
        "sourceReference": {"reference": "DocumentReference/1"},
        "policy": [{"uri": "http://example.org/policies/base.txt"}],
        "provision": {"type": kind, **elements, **nested},
    }


def exception(kind: str, *limits: Json) -> Json:
    merged: Json = {"type": kind}
    for limit in limits:
        merged |= limit
    return merged


HIV_FILE: Final = replace(STUDY, security_labels=frozenset({"R", "HIV"}))
NORMAL: Final = replace(STUDY, security_labels=frozenset({"N"}))
RESTRICTED: Final = replace(STUDY, security_labels=frozenset({"R"}))

Row = tuple[str, Json, Study, Outcome]
TABLE: Final[dict[str, list[Row]]] = {
    "PCF Basic: type, period, purpose, actor": [
        ("care alone", consent("permit", **CARE), STUDY, NO_CONSENT),
        ("research", consent("permit", **RESEARCH), STUDY, PERMIT),
        ("research for the recipient", consent("permit", **RESEARCH, **TO_HUB), STUDY, PERMIT),
        ("dissent", consent("deny"), STUDY, DENY),
        ("dissent from research", consent("deny", **RESEARCH), STUDY, DENY),
        ("ended", consent("permit", **RESEARCH, period={"end": "2022-12-31"}), STUDY, NO_CONSENT),
        ("ends this year", consent("permit", **RESEARCH, period={"end": "2026"}), STUDY, PERMIT),
    ],
    "PCF Intermediate: timeframe": [
        ("of that year", consent("permit", **RESEARCH, **IN_2024), STUDY, PERMIT),
        (
            "of another year",
            consent("permit", **RESEARCH, **IN_2024),
            replace(STUDY, study_date=date(2025, 1, 1)),
            NO_CONSENT,
        ),
        ("not of that year", consent("permit", exception("deny", IN_2024), **RESEARCH), STUDY, DENY),
        (
            "not of that year, of another",
            consent("permit", exception("deny", IN_2024), **RESEARCH),
            replace(STUDY, study_date=date(2025, 1, 1)),
            PERMIT,
        ),
        (
            "not of that year, undated",
            consent("permit", exception("deny", IN_2024), **RESEARCH),
            replace(STUDY, study_date=None),
            DENY,
        ),
    ],
    "PCF Intermediate: data by id, relationship, author": [
        ("this study", consent("deny", exception("permit", RESEARCH, BY_UID)), STUDY, PERMIT),
        (
            "another study",
            consent("deny", exception("permit", RESEARCH, BY_UID)),
            replace(STUDY, StudyInstanceUID="1.9"),
            DENY,
        ),
        ("not this study", consent("permit", exception("deny", BY_UID), **RESEARCH), STUDY, DENY),
        (
            "not this study, another",
            consent("permit", exception("deny", BY_UID), **RESEARCH),
            replace(STUDY, StudyInstanceUID="1.9"),
            PERMIT,
        ),
        ("of an encounter", consent("permit", **RESEARCH, **RELATED), STUDY, NO_CONSENT),
        ("not of an encounter", consent("permit", exception("deny", RELATED), **RESEARCH), STUDY, DENY),
        ("of an author", consent("permit", **RESEARCH, **AUTHORED), STUDY, NO_CONSENT),
        ("not of an author", consent("permit", exception("deny", AUTHORED), **RESEARCH), STUDY, DENY),
    ],
    "PCF Intermediate: further purposes": [
        (
            "care at the root, research below",
            consent("permit", exception("permit", RESEARCH), **CARE),
            STUDY,
            NO_CONSENT,
        ),
        (
            "break-glass alone",
            consent("deny", exception("permit", {"purpose": [{"system": f"{CODES}v3-ActReason", "code": "BTG"}]})),
            STUDY,
            DENY,
        ),
    ],
    "PCF Advanced: labels": [
        ("normal data", consent("permit", **RESEARCH, **labelled("N")), NORMAL, PERMIT),
        ("normal data, restricted asked", consent("permit", **RESEARCH, **labelled("N")), RESTRICTED, NO_CONSENT),
        ("normal and restricted", consent("permit", **RESEARCH, **labelled("N", "R")), RESTRICTED, PERMIT),
        ("but nothing restricted", consent("permit", exception("deny", labelled("R")), **RESEARCH), RESTRICTED, DENY),
        (
            "but nothing restricted, normal",
            consent("permit", exception("deny", labelled("R")), **RESEARCH),
            NORMAL,
            PERMIT,
        ),
        ("but nothing on HIV", consent("permit", exception("deny", labelled("HIV")), **RESEARCH), HIV_FILE, DENY),
        ("unlabelled data", consent("permit", exception("deny", labelled("HIV")), **RESEARCH), STUDY, DENY),
        (
            "restricted for one, below normal for all",
            consent("permit", exception("permit", RESEARCH, TO_HUB, labelled("R")), **RESEARCH, **labelled("N")),
            RESTRICTED,
            NO_CONSENT,
        ),
    ],
    "PCF Foundation: no third level, a typed root": [
        ("a third level", consent("permit", {**exception("deny"), "provision": [exception("permit")]}), STUDY, REVIEW),
        ("untyped", consent("permit") | {"provision": RESEARCH}, STUDY, REVIEW),
    ],
}


@pytest.mark.parametrize(
    ("resource", "study", "expected"),
    [row[1:] for rows in TABLE.values() for row in rows],
    ids=[f"{clause} | {row[0]}" for clause, rows in TABLE.items() for row in rows],
)
def test_the_clause_decides(resource: Json, study: Study, expected: Outcome) -> None:
    verdict = decide([parse_consent(resource).record], study, Request(("BIORCH",), (HUB,)), AT)

    assert verdict.outcome is expected
