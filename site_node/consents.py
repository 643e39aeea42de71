"""The consent records this hospital holds: loading them, withdrawing, and reading the state they make together.

Every change adds one to the consent epoch in its own transaction, so whoever read at epoch e can later tell whether
anything changed. What a consent permits is decided in `consent.decision`, not here.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import ConsentRecord, UnreadableConsent, parse_consent, split_bundle
from site_node import ledger
from site_node.store import consent_epoch, consent_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from site_node.deidentify.pseudonym import Pseudonymiser


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a consent file: how many records were taken, and the faults by resource id."""

    records: int
    unchanged: int
    faults: tuple[tuple[str, str], ...]


def load(store: sa.Engine, document: bytes, pseudonymiser: Pseudonymiser, at: datetime) -> Loaded:
    """Take in a FHIR Bundle, NDJSON or single Consent; a new version of an id supersedes the old one.

    Broken resources are reported and the others are loaded; so are a version older than the one held, which must not
    lift a later refusal, and an id under which another patient's consent is held.
    """
    taken, unchanged, faults = 0, 0, []
    with store.begin() as db:
        for key, resource in split_bundle(document):
            try:
                if isinstance(resource, UnreadableConsent):
                    raise resource
                patient = pseudonymiser.patient(parse_consent(resource).patient_id)
                new = _record(db, patient, resource, at)
            except UnreadableConsent as error:
                faults.append((key, str(error)))
                continue
            taken += new
            unchanged += not new
        if taken:
            advance(db)
        ledger.write(db, at, "site:consent:loaded", records=taken, faults=len(faults))
    return Loaded(taken, unchanged, tuple(faults))


def withdraw(store: sa.Engine, patient: str, at: datetime) -> int:
    """Record that `patient` (pseudonym) refuses all further use; return the epoch it made.

    The refusal is a consent record of its own that denies everything: among active records a denial always wins, and
    nothing that was agreed is deleted.
    """
    resource = {
        "resourceType": "Consent",
        "id": f"withdrawal-{uuid.uuid4()}",
        "status": "active",
        "scope": {"coding": [{"system": _SCOPES, "code": "research"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "57016-8"}]}],
        "patient": {"identifier": {"value": patient}},
        "dateTime": at.isoformat(),
        "policy": [{"uri": "urn:filmroom:withdrawal"}],
        "provision": {"type": "deny"},
    }
    with store.begin() as db:
        _record(db, patient, resource, at)
        advance(db)
        epoch = current_epoch(db)
        ledger.write(db, at, "site:consent:withdrawn", epoch=epoch)
    return epoch


def is_known(store: sa.Engine, patient: str) -> bool:
    """Return whether the hospital holds any consent record of `patient` (pseudonym)."""
    query = sa.select(consent_record.c.number).where(consent_record.c.patient == patient).limit(1)
    with store.connect() as db:
        return db.execute(query).first() is not None


def current_epoch(db: sa.Connection) -> int:
    """Return the consent epoch in the state `db` sees."""
    return int(db.execute(sa.select(consent_epoch.c.epoch)).scalar_one())


def advance(db: sa.Connection) -> None:
    """Begin a new consent epoch, in the transaction of the change that calls for it."""
    db.execute(sa.update(consent_epoch).values(epoch=consent_epoch.c.epoch + 1))


class ConsentReader:
    """Reads the active records of all patients, parsing each record once."""

    def __init__(self) -> None:
        self._parsed: dict[int, ConsentRecord] = {}
        self._epoch = -1
        self._by_patient: Mapping[str, tuple[ConsentRecord, ...]] = {}

    def read(self, db: sa.Connection, epoch: int) -> Mapping[str, tuple[ConsentRecord, ...]]:
        """Return the records by patient, in the state that `db` sees and that `epoch` names."""
        if epoch == self._epoch:
            return self._by_patient
        columns = consent_record.c
        rows = db.execute(
            sa.select(columns.number, columns.patient, columns.resource).where(columns.superseded_at.is_(None))
        ).all()
        found: dict[str, list[ConsentRecord]] = defaultdict(list)
        for number, patient, resource in rows:
            if number not in self._parsed:
                self._parsed[number] = parse_consent(json.loads(resource)).record
            found[patient].append(self._parsed[number])
        self._by_patient = {patient: tuple(records) for patient, records in found.items()}
        self._epoch = epoch
        return self._by_patient


_SCOPES = "http://terminology.hl7.org/CodeSystem/consentscope"


def _record(db: sa.Connection, patient: str, resource: Mapping[str, object], at: datetime) -> bool:
    """Store one resource; False if this very version is already there.

    Raises: UnreadableConsent if it may not take the place of what is held under its id.
    """
    text = json.dumps(resource, sort_keys=True, ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    columns = consent_record.c
    active = (columns.consent_id == resource["id"]) & columns.superseded_at.is_(None)
    held = db.execute(sa.select(columns.patient, columns.sha256, columns.resource).where(active)).first()
    if held is not None and held.sha256 == digest:
        return False
    if held is not None:
        _check_succession(held.patient, held.resource, patient, resource)
    db.execute(sa.update(consent_record).where(active).values(superseded_at=at.isoformat()))
    db.execute(
        sa.insert(consent_record).values(
            consent_id=resource["id"],
            patient=patient,
            resource=text,
            sha256=digest,
            recorded_at=at.isoformat(),
        )
    )
    return True


def _check_succession(held_patient: str, held: str, patient: str, resource: Mapping[str, object]) -> None:
    if held_patient != patient:
        raise UnreadableConsent("id: another patient's consent is held under it")
    before, after = parse_consent(json.loads(held)).record.dated_at, parse_consent(resource).record.dated_at
    if before is not None and after is not None and after < before:
        raise UnreadableConsent("dateTime: older than the version held; not loaded")
