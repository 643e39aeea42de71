"""The consent records this hospital holds: loading them, withdrawing, and reading the state they make together.

Every change adds one to the consent epoch in its own transaction, so whoever read at epoch e can later tell whether
anything changed. What a consent permits is decided in `consent.decision`, not here.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import UNRESOLVED, ConsentRecord, UnreadableConsent, may_permit, parse_consent, split_bundle
from consent.fhir import MODALITY_SYSTEM, PROJECT_SYSTEM, ROLE_SYSTEM
from site_node import ledger
from site_node.errors import ConfigurationError
from site_node.store import consent_epoch, consent_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from consent import ParsedConsent, Provision
    from site_node.deidentify.pseudonym import Pseudonymiser


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a consent file: how many records were taken, and the faults by resource id.

    `doubted` are records held before that go to review because of a fault.
    """

    records: int
    unchanged: int
    faults: tuple[tuple[str, str], ...]
    doubted: int = 0


def load(
    store: sa.Engine, document: bytes, pseudonymiser: Pseudonymiser, at: datetime, patient_system: str = ""
) -> Loaded:
    """Take in a FHIR Bundle, NDJSON or single Consent; a new version of an id supersedes the old one.

    Broken resources are reported and the others are loaded. What is held under the id of a broken one may be what its
    source has just taken back: if it could permit anything it goes to review. A version known to be older than the one
    held, or superseded before, changes nothing. Where `patient_system` is set, a patient's identifier of another system
    is none of this hospital's.
    """
    taken, unchanged, doubted, faults = 0, 0, 0, []
    with store.begin() as db:
        for key, resource in split_bundle(document):
            try:
                if isinstance(resource, UnreadableConsent):
                    raise resource
                parsed = parse_consent(resource, patient_system)
                incoming = _Incoming(resource, parsed, pseudonymiser.patient(parsed.patient_id), pseudonymiser)
                new = _record(db, incoming, at)
            except UnreadableConsent as error:
                faults.append((key, str(error)))
                doubted += not isinstance(error, _Stale) and _doubt(db, key, str(error), at)
                continue
            taken += new
            unchanged += not new
        if taken or doubted:
            advance(db)
        ledger.write(db, at, "site:consent:loaded", records=taken, faults=len(faults), doubted=doubted)
    return Loaded(taken, unchanged, tuple(faults), doubted)


def confirm(store: sa.Engine, consent_id: str, by: str, at: datetime) -> None:
    """Let a held consent count again that went to review because what came after it could not be taken.

    Raises: ConfigurationError if no such consent is held.
    """
    with store.begin() as db:
        held = _held(db, consent_id)
        if held is None or held.doubt is None:
            raise ConfigurationError(f"no consent {consent_id} waits for review because of a fault")
        _replace(db, held, at, doubt=None)
        advance(db)
        ledger.write(db, at, "site:consent:confirmed", consent=consent_id, by=by)


@dataclass(frozen=True, slots=True)
class WithdrawalScope:
    """What a withdrawal is limited to; what is not set sets no limit, and the limits together must all apply.

    `first` and `last` are the days of acquisition, both included, as FHIR dates that may be partial.
    """

    projects: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None

    def provision(self) -> dict[str, object]:
        """Return the refusal as FHIR R4 Consent.provision (actor, code, dataPeriod)."""
        period = {name: day for name, day in (("start", self.first), ("end", self.last)) if day}
        receives = {"coding": [{"system": ROLE_SYSTEM, "code": "IRCP"}]}
        limits = {
            "actor": [
                {"role": receives, "reference": {"identifier": {"system": PROJECT_SYSTEM, "value": project}}}
                for project in self.projects
            ],
            "code": [{"coding": [{"system": MODALITY_SYSTEM, "code": code}]} for code in self.modalities],
            "dataPeriod": period,
        }
        return {"type": "deny"} | {name: limit for name, limit in limits.items() if limit}


ALL = WithdrawalScope()


def withdraw(store: sa.Engine, patient: str, at: datetime, scope: WithdrawalScope = ALL) -> int:
    """Record that `patient` (pseudonym) refuses further use within `scope`; return the epoch it made.

    The refusal is a consent record of its own that denies: among active records a denial always wins, and
    nothing that was agreed is deleted.
    Raises: ConfigurationError if the scope cannot be stated.
    """
    resource, parsed = refusal(patient, at, scope)
    with store.begin() as db:
        _record(db, _Incoming(resource, parsed, patient), at)
        advance(db)
        epoch = current_epoch(db)
        ledger.write(db, at, "site:consent:withdrawn", epoch=epoch)
    return epoch


def refusal(patient: str, at: datetime, scope: WithdrawalScope = ALL) -> tuple[Mapping[str, object], ParsedConsent]:
    """Return the Consent that states the refusal of `patient` (pseudonym) within `scope`, and how it is read.

    Raises: ConfigurationError if the scope cannot be stated.
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
        "provision": scope.provision(),
    }
    parsed = parse_consent(resource)
    if parsed.record.review is not None or any(UNRESOLVED in named for named in (parsed.record.root.modalities,)):
        raise ConfigurationError("the scope of the withdrawal: a day or a modality is none")
    return resource, parsed


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


def as_held(resource: str, studies: str, doubt: str | None) -> ConsentRecord:
    """Return what a row of `consent_record` says, naming studies as the catalogue does."""
    record = parse_consent(json.loads(resource)).record
    root = _with_pseudonyms(record.root, json.loads(studies)) if studies != _NO_STUDIES else record.root
    return replace(record, root=root, review=doubt or record.review)


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
            sa.select(columns.number, columns.patient, columns.resource, columns.studies, columns.doubt).where(
                columns.superseded_at.is_(None)
            )
        ).all()
        found: dict[str, list[ConsentRecord]] = defaultdict(list)
        for number, patient, resource, studies, doubt in rows:
            if number not in self._parsed:
                self._parsed[number] = as_held(resource, studies, doubt)
            found[patient].append(self._parsed[number])
        self._by_patient = {patient: tuple(records) for patient, records in found.items()}
        self._epoch = epoch
        return self._by_patient


_SCOPES = "http://terminology.hl7.org/CodeSystem/consentscope"


_NO_STUDIES = "{}"


class _Stale(UnreadableConsent):
    """A version that is known to be older than the one held; nothing follows from it."""


class _Incoming:
    """A consent as it is to be stored: its text, whose it is, and the studies it names by their pseudonyms."""

    __slots__ = ("consent_id", "parsed", "patient", "sha256", "studies", "text")

    def __init__(
        self,
        resource: Mapping[str, object],
        parsed: ParsedConsent,
        patient: str,
        pseudonymiser: Pseudonymiser | None = None,
    ) -> None:
        self.consent_id = parsed.record.consent_id
        self.parsed = parsed
        self.patient = patient
        self.text = json.dumps(resource, sort_keys=True, ensure_ascii=False)
        self.sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        pseudonyms = (
            {uid: pseudonymiser.uid(uid) for uid in sorted(_studies(parsed.record.root))} if pseudonymiser else {}
        )
        self.studies = json.dumps(pseudonyms)


def _record(db: sa.Connection, new: _Incoming, at: datetime) -> bool:
    """Store one resource; False if this very version is already there.

    Raises: UnreadableConsent if it may not take the place of what is held under its id.
    """
    held = _held(db, new.consent_id)
    if held is not None and held.sha256 == new.sha256:
        return False
    if held is not None:
        _check_succession(db, held, new)
        _supersede(db, held, at)
    db.execute(
        sa.insert(consent_record).values(
            consent_id=new.consent_id,
            patient=new.patient,
            resource=new.text,
            sha256=new.sha256,
            studies=new.studies,
            recorded_at=at.isoformat(),
        )
    )
    return True


def _check_succession(db: sa.Connection, held: sa.Row[tuple[object, ...]], new: _Incoming) -> None:
    """Let `new` take the place of `held` if it is newer; if nobody can tell, only if it lifts no refusal.

    A consent that is revoked keeps its dateTime, so meta.lastUpdated is asked as well.
    """
    if held.patient != new.patient:
        raise UnreadableConsent("id: another patient's consent is held under it")
    before = parse_consent(json.loads(held.resource))
    updated = _order(before.updated_at, new.parsed.updated_at)
    dated = _order(before.record.dated_at, new.parsed.record.dated_at)
    permits = may_permit(new.parsed.record)
    if updated < 0 or (dated < 0 and (permits or updated == 0)):
        older = "meta.lastUpdated" if updated < 0 else "dateTime"
        raise _Stale(f"{older}: older than the version held; not loaded")
    if updated or dated or not permits:
        return
    columns = consent_record.c
    same = (columns.consent_id == new.consent_id) & (columns.sha256 == new.sha256)
    if db.execute(sa.select(columns.number).where(same)).first():
        raise _Stale("meta.lastUpdated: absent, and this version was superseded before; not loaded")
    if held.doubt is not None or not may_permit(before.record):
        raise UnreadableConsent("meta.lastUpdated: absent, so that nobody can tell whether this lifts what is held")


def _order(before: datetime | None, after: datetime | None) -> int:
    """Return 1 if `after` is the later, -1 if it is the earlier, 0 if that cannot be told."""
    if before is None or after is None:
        return 0
    return (after > before) - (after < before)


def _doubt(db: sa.Connection, key: str, fault: str, at: datetime) -> bool:
    """Send the record held under `key` to review, if it could permit anything."""
    kind, _, consent_id = key.partition("/")
    held = _held(db, consent_id) if kind == "Consent" else None
    if held is None or held.doubt is not None or not may_permit(parse_consent(json.loads(held.resource)).record):
        return False
    _replace(db, held, at, doubt=f"what came after it could not be taken: {fault}")
    return True


def _held(db: sa.Connection, consent_id: str) -> sa.Row[tuple[object, ...]] | None:
    columns = consent_record.c
    query = sa.select(consent_record).where(columns.consent_id == consent_id, columns.superseded_at.is_(None))
    return db.execute(query).first()


def _supersede(db: sa.Connection, held: sa.Row[tuple[object, ...]], at: datetime) -> None:
    number = consent_record.c.number == held.number
    db.execute(sa.update(consent_record).where(number).values(superseded_at=at.isoformat()))


def _replace(db: sa.Connection, held: sa.Row[tuple[object, ...]], at: datetime, doubt: str | None) -> None:
    """Hold the same consent anew with or without a doubt; what was held before stays on record."""
    _supersede(db, held, at)
    db.execute(
        sa.insert(consent_record).values(
            consent_id=held.consent_id,
            patient=held.patient,
            resource=held.resource,
            sha256=held.sha256,
            studies=held.studies,
            doubt=doubt,
            recorded_at=at.isoformat(),
        )
    )


def _studies(rule: Provision) -> set[str]:
    return {uid for uid in rule.data_references if uid != UNRESOLVED}.union(*map(_studies, rule.children))


def _with_pseudonyms(rule: Provision, known: Mapping[str, str]) -> Provision:
    """Return `rule` with the studies it names as the catalogue knows them."""
    return replace(
        rule,
        # Both, since a site may keep its UIDs (retain_uids); entries of a list are alternatives.
        data_references=tuple(uid for named in rule.data_references for uid in (named, known.get(named, UNRESOLVED))),
        children=tuple(_with_pseudonyms(child, known) for child in rule.children),
    )
