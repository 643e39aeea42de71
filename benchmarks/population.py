"""A hospital's patients for a measurement of scale: their FHIR consents and the catalogue of their images.

Made from a seed, patient by patient, so that the same patient has the same consents at every size. Consents are whole
resources as their sources write them: typed R4, German Broad Consents with their policies, R5. Images are rows of the
catalogue without files, because the gate never opens one.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from site_node.store import class_label, instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from site_node.deidentify.pseudonym import Pseudonymiser

Json = dict[str, Any]

SEED: Final = 20260601
NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
CONSENTS_PER_PATIENT: Final = 10 / 3
STUDIES_PER_PATIENT: Final = 5 / 3
ASKED: Final = 10
"""One study in so many is of the modality and has the label that the task asks for."""
MODALITIES: Final = ("CT", "MR", "CR", "US", "MG", "XA")
ASKED_MODALITY: Final = "DX"
UPDATES_EVERY: Final = 10
"""One consent in so many comes a second time, as a newer version."""

_CODES: Final = "http://terminology.hl7.org/CodeSystem/"
_MII: Final = "urn:oid:2.16.840.1.113883.3.1937.777.24.5.3"
_OTHER: Final = {"reference": "Organization/9"}
_MDAT: Final = {"6": 5, "7": 30, "8": 30, "9": 30, "45": 30, "46": 30, "49": 30}  # policy: years it holds


def patient_id(number: int) -> str:
    """Return the PatientID of a patient."""
    return f"{4_000_000 + number}"


def first_consents(patients: Iterable[int]) -> Iterator[Json]:
    """Yield the first version of every consent of the patients."""
    for number in patients:
        source = random.Random(SEED * 1_000_003 + number)  # noqa: S311 -- for simulation alone
        for which in range(3 + (number % 3 == 0)):
            yield _consent(number, which, source)


def newer_versions(patients: Iterable[int]) -> Iterator[Json]:
    """Yield a newer version of some of them: one revoked, one corrected."""
    for place, held in enumerate(first_consents(patients)):
        if place % UPDATES_EVERY == 0:
            newer = held | {"meta": {"versionId": "2", "lastUpdated": "2026-05-02T08:00:00Z"}}
            yield newer | {"status": "inactive"} if place % (2 * UPDATES_EVERY) else newer


def ndjson(resources: Iterable[Json]) -> bytes:
    """Return a file of the resources."""
    return "".join(f"{json.dumps(resource)}\n" for resource in resources).encode()


def add_catalogue(store: sa.Engine, pseudonymiser: Pseudonymiser, patients: range) -> int:
    """Put the patients' images into the catalogue; return how many studies they are."""
    studies = 0
    with store.begin() as db:
        for start in range(patients.start, patients.stop, 2000):
            images: list[Json] = []
            for number in range(start, min(start + 2000, patients.stop)):
                patient = pseudonymiser.patient(patient_id(number))
                for _ in range(1 + (number % 3 != 0)):
                    images += _study(studies, patient)
                    studies += 1
            db.execute(sa.insert(instance), images)
            labels = [{"SOPInstanceUID": row["SOPInstanceUID"], "value": 1} for row in images if _is_asked(row)]
            db.execute(sa.insert(class_label), labels)
    return studies


def _is_asked(row: Json) -> bool:
    return bool(row["Modality"] == ASKED_MODALITY)


def _study(number: int, patient: str) -> list[Json]:
    source = random.Random(SEED * 7_919 + number)  # noqa: S311 -- for simulation alone
    asked = number % ASKED == 0
    modality = ASKED_MODALITY if asked else source.choice(MODALITIES)
    # As a UID made from a UUID: in no order, like real pseudonyms.
    study = f"2.25.{source.getrandbits(122)}"
    day = date(2014, 1, 1) + timedelta(days=source.randrange(4500))
    return [
        {
            "SOPInstanceUID": f"{study[:-4]}{image:04d}",
            "SeriesInstanceUID": f"{study[:-3]}001",
            "StudyInstanceUID": study,
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
            "Modality": modality,
            "patient": patient,
            "study_date": day.isoformat(),
            "path": f"deidentified/{study}/{image}.dcm",
            "sha256": f"{source.getrandbits(256):064x}",
        }
        for image in range(1 if asked else source.choice((1, 2, 4)))
    ]


# ------------------------------------------------------------------ consents


def _consent(number: int, which: int, source: random.Random) -> Json:
    made = datetime(2014, 1, 1, 8, tzinfo=UTC) + timedelta(minutes=source.randrange(4400 * 24 * 60))
    kind = source.choices(tuple(_KINDS), weights=[weight for _, weight in _KINDS.values()])[0]
    body = _KINDS[kind][0](made, source)
    return {
        "resourceType": "Consent",
        "id": f"c{number}-{which}",
        "meta": {"versionId": "1", "lastUpdated": _instant(made + timedelta(days=1))},
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{_NARRATIVE}</div>'},
        "identifier": [{"system": "urn:example:consents", "value": f"{number}-{which}"}],
        **body,
        ("subject" if "decision" in body else "patient"): {
            "reference": f"Patient/{patient_id(number)}",
            "identifier": {"system": "urn:example:patients", "value": patient_id(number)},
        },
    }


_NARRATIVE: Final = "<p>The patient was informed by word and in writing and signed. " * 2 + "</p>" * 2


def _r4(made: datetime, provision: Json, status: str = "active", scope: str = "research") -> Json:
    return {
        "status": status,
        "scope": _concept("consentscope", scope),
        "category": [{"coding": [{"system": "http://loinc.org", "code": "57016-8"}]}],
        "dateTime": _instant(made),
        "performer": [{"reference": "Patient/self"}],
        "organization": [{"reference": "Organization/1"}],
        "sourceReference": {"reference": "DocumentReference/1"},
        "policy": [{"uri": "https://example.org/policies/research-2024"}],
        "provision": provision,
    }


def _r5(made: datetime, rules: list[Json]) -> Json:
    return {
        "status": "active",
        "category": [_concept("consentcategorycodes", "research")],
        "date": f"{made:%Y-%m-%d}",
        "period": {"start": f"{made:%Y-%m-%d}"},
        "decision": "deny",
        "provision": rules,
    }


def _opt_in(made: datetime, _source: random.Random) -> Json:
    return _r4(made, _research("permit", made, years=20))


def _opt_in_with_exceptions(made: datetime, source: random.Random) -> Json:
    exception = source.choice(
        (
            {"purpose": [_coding("v3-ActReason", "HMARKT")]},
            {"purpose": [_coding("v3-ActReason", "MLTRAINING")]},
            {"dataPeriod": {"end": "2015-12-31"}},
            {"actor": [{"role": _concept("v3-ParticipationType", "IRCP"), "reference": _OTHER}]},
        )
    )
    return _r4(made, _research("permit", made, years=20) | {"provision": [{"type": "deny"} | exception]})


def _broad(made: datetime, _source: random.Random) -> Json:
    policies = [
        {
            "type": "permit",
            "period": {"start": _instant(made), "end": _instant(made + timedelta(days=365 * years))},
            "code": [{"coding": [{"system": _MII, "code": f"{_MII.removeprefix('urn:oid:')}.{policy}"}]}],
        }
        for policy, years in _MDAT.items()
    ]
    root = {"type": "deny", "period": {"start": _instant(made), "end": _instant(made + timedelta(days=365 * 30))}}
    category = {"coding": [{"system": _MII.replace("5.3", "2"), "code": "2.16.840.1.113883.3.1937.777.24.2.184"}]}
    consent = _r4(made, root | {"provision": policies})
    return consent | {"category": [*consent["category"], category]}


def _r5_opt_in(made: datetime, _source: random.Random) -> Json:
    return _r5(made, [{"purpose": [_coding("v3-ActReason", "HRESCH")], "action": [_concept("consentaction", "use")]}])


def _opt_out(made: datetime, _source: random.Random) -> Json:
    return _r4(made, {"type": "deny"})


def _expired(made: datetime, _source: random.Random) -> Json:
    return _r4(made, _research("permit", made, years=0))


def _inactive(made: datetime, _source: random.Random) -> Json:
    return _r4(made, _research("permit", made, years=20), status="inactive")


def _treatment(made: datetime, _source: random.Random) -> Json:
    return _r4(made, {"type": "permit", "purpose": [_coding("v3-ActReason", "TREAT")]}, scope="treatment")


def _for_review(made: datetime, _source: random.Random) -> Json:
    return _opt_in(made, _source) | {"implicitRules": "https://example.org/rules"}


_KINDS: Final = {
    "R4, opt-in": (_opt_in, 24),
    "R4, opt-in with an exception": (_opt_in_with_exceptions, 12),
    "MII Broad Consent": (_broad, 28),
    "R5, opt-in": (_r5_opt_in, 14),
    "R4, opt-out": (_opt_out, 3),
    "R4, expired": (_expired, 5),
    "R4, inactive": (_inactive, 5),
    "R4, on treatment": (_treatment, 8),
    "for review": (_for_review, 1),
}


def _research(kind: str, made: datetime, *, years: int) -> Json:
    end = made + timedelta(days=365 * years + 90)
    return {
        "type": kind,
        "period": {"start": f"{made:%Y-%m-%d}", "end": f"{end:%Y-%m-%d}"},
        "purpose": [_coding("v3-ActReason", "HRESCH")],
    }


def _coding(system: str, code: str) -> Json:
    return {"system": f"{_CODES}{system}", "code": code}


def _concept(system: str, code: str) -> Json:
    return {"coding": [_coding(system, code)]}


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S+00:00}"
