"""What the invented patients agreed to, as a FHIR Bundle of R4 and R5 Consents side by side.

Most permit research. Every other kind a hospital meets is there at least once, at fixed places,
with the outcome it must have; this module states those outcomes, it does not decide them.
Source: FHIR R4 4.0.1 and R5 5.0.0, Consent; IHE PCF 1.1; purposes are HL7 v3-ActReason codes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from demo.hospitals import Inbox

PATIENT_SYSTEM: Final = "urn:filmroom:demo"
_ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_SCOPE: Final = "http://terminology.hl7.org/CodeSystem/consentscope"
_CATEGORY: Final = {"coding": [{"system": "http://loinc.org", "code": "57016-8"}]}
_POLICY: Final = {"uri": "https://example.org/policies/research-on-images"}
_DATED: Final = timedelta(days=60)  # before the moment the bundle is made for
_VALID: Final = timedelta(days=5 * 365)
_SPECIAL_EVERY: Final = 3  # so that few patients already hold permits and refusals

Decision = Literal["permit", "deny"]
Outcome = Literal["permit", "deny", "no-consent", "review"]
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What one patient signed, in no FHIR version's words."""

    patient_id: str
    since: datetime
    until: datetime
    decision: Decision = "permit"
    purpose: str = "HRESCH"
    refused_within: str | None = None


def _r4(agreement: Agreement) -> Json:
    """Say it in R4: the root provision carries the decision."""
    return {
        "scope": {"coding": [{"system": _SCOPE, "code": "research"}]},
        "patient": _patient(agreement),
        "dateTime": _instant(agreement.since),
        "organization": [{"display": "The patient's hospital"}],
        "policy": [_POLICY],
        "provision": {"type": agreement.decision, **_terms(agreement, {"type": "deny"})},
    }


def _untyped_r4(agreement: Agreement) -> Json:
    """Leave the root's type out: whether it permits or refuses cannot be told."""
    return {**_r4(agreement), "provision": _terms(agreement, {"type": "deny"})}


def _r5(agreement: Agreement) -> Json:
    """Say it in R5: refused in general, and a permission is the exception to that."""
    exception = {} if agreement.decision == "deny" else {"provision": [_terms(agreement, {})]}
    return {
        "subject": _patient(agreement),
        "date": f"{agreement.since:%Y-%m-%d}",
        "period": _period(agreement),
        "decision": "deny",
        **exception,
    }


def _deny_r4(agreement: Agreement) -> Json:
    return _r4(replace(agreement, decision="deny"))


def _treatment_r4(agreement: Agreement) -> Json:
    return _r4(replace(agreement, purpose="TREAT"))


def _no_training_r5(agreement: Agreement) -> Json:
    return _r5(replace(agreement, refused_within="MLTRAINING"))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of patient: what was signed, in which words, and what a request must come to."""

    name: str
    outcome: Outcome
    written: tuple[Callable[[Agreement], Json], ...]
    expired: bool = False


_PERMITS: Final = (
    Kind("permit in R4", "permit", (_r4,)),
    Kind("permit in R5", "permit", (_r5,)),
)
_SPECIAL: Final = (
    Kind("deny", "deny", (_deny_r4,)),
    Kind("missing", "no-consent", ()),
    Kind("conflicting", "deny", (_r5, _deny_r4)),
    Kind("expired", "no-consent", (_r4,), expired=True),
    Kind("untyped root", "review", (_untyped_r4,)),
    Kind("another purpose", "no-consent", (_treatment_r4,)),
    Kind("research without AI training", "deny", (_no_training_r5,)),
)


def simple_consents(outcomes: Mapping[str, str], at: datetime) -> bytes:
    """Give a Bundle in which each patient (by id) permits research, or denies it."""
    kinds = {"permit": _PERMITS[0], "deny": _SPECIAL[0]}
    return _bundle(
        resource for patient_id, outcome in outcomes.items() for resource in _consents(patient_id, kinds[outcome], at)
    )


def consent_kinds(inbox: Inbox) -> Mapping[str, Kind]:
    """Give each patient's kind by patient id; 21 patients or more have every kind."""
    return {patient.patient_id: _kind(place) for place, patient in enumerate(inbox.patients)}


def make_consents(inbox: Inbox, at: datetime) -> bytes:
    """Give the FHIR Bundle with the consents of all virtual patients as they stand at `at`."""
    resources = [
        resource for patient_id, kind in consent_kinds(inbox).items() for resource in _consents(patient_id, kind, at)
    ]
    return _bundle(resources)


def _bundle(resources: Iterable[Json]) -> bytes:
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=1).encode()


def _kind(place: int) -> Kind:
    turn, within = divmod(place, _SPECIAL_EVERY)
    if within == 1 and turn < len(_SPECIAL):
        return _SPECIAL[turn]
    return _PERMITS[place % len(_PERMITS)]


def _consents(patient_id: str, kind: Kind, at: datetime) -> list[Json]:
    since = at - _DATED - (_VALID if kind.expired else timedelta())
    basis = Agreement(patient_id, since, since + _VALID)
    return [
        {
            "resourceType": "Consent",
            "id": f"{patient_id}-{number}",
            "status": "active",
            "category": [_CATEGORY],
            **write(basis),
        }
        for number, write in enumerate(kind.written)
    ]


def _patient(agreement: Agreement) -> Json:
    return {"identifier": {"system": PATIENT_SYSTEM, "value": agreement.patient_id}}


def _terms(agreement: Agreement, exception: Json) -> Json:
    """Give period and purpose, and what is refused within them, as both versions write it."""
    terms: Json = {"period": _period(agreement), "purpose": [_purpose(agreement.purpose)]}
    if agreement.refused_within is None:
        return terms
    refused = {**exception, "purpose": [_purpose(agreement.refused_within)]}
    return {**terms, "provision": [refused]}


def _purpose(code: str) -> Json:
    return {"system": _ACT_REASON, "code": code}


def _period(agreement: Agreement) -> Json:
    return {"start": _instant(agreement.since), "end": _instant(agreement.until)}


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
