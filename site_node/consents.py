"""The consent records this hospital holds: loading them, withdrawing, and reading the state they make together.

Every change adds one to the consent epoch in its own transaction, so whoever read at epoch e can later tell whether
anything changed. What a consent permits is decided in `consent.decision`, not here.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import sqlalchemy as sa

from consent import UNRESOLVED, UnreadableConsent, may_permit, parse_consent, patient_id, split_bundle, updated_at
from consent.fhir import FHIR_ID, MODALITY_SYSTEM, PROJECT_SYSTEM, ROLE_SYSTEM
from site_node import consent_log, ledger, readings
from site_node.errors import ConfigurationError
from site_node.store import among, consent_epoch, consent_record, instance
from site_node.stray import known

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from consent import ConsentRecord, ParsedConsent, Provision, Reading
    from site_node.deidentify.pseudonym import Pseudonymiser


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a consent file: how many records were taken, and the faults by resource id.

    `doubted` are records held before that go to review because of a fault, `stand_ins` what is on record in place of
    refused resources whose patient could be read.
    """

    records: int
    unchanged: int
    faults: tuple[tuple[str, str], ...]
    doubted: int = 0
    stand_ins: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the file as such was read to its end; how many consents one lacks that was not, nobody knows."""
        return "file" not in dict(self.faults) and (self.records + self.unchanged > 0 or not self.faults)


def load(
    store: sa.Engine, document: bytes, pseudonymiser: Pseudonymiser, at: datetime, patient_system: str = ""
) -> Loaded:
    """Take in a FHIR Bundle, NDJSON or single Consent; a new version of an id supersedes the old one.

    Broken resources are reported and the others are loaded. What is held under the id of a broken one may be what its
    source has just taken back: if it could permit anything it goes to review. Where nothing is held under it and its
    patient can be told, a stand-in sends this patient to review. A version that was superseded before changes nothing,
    nor does one known to be older, unless it permits nothing. One that permits and is stamped ahead of the clock is in
    doubt. Where `patient_system` is set, a patient's identifier of another system is none of this hospital's.
    """
    taken, unchanged, doubted, faults = 0, 0, 0, []
    stand_ins: list[str] = []
    entries = list(split_bundle(document))
    with store.begin() as db:
        for start in range(0, len(entries), _AT_ONCE):
            some = entries[start : start + _AT_ONCE]
            held = _held_of(db, (key.removeprefix(_CONSENT) for key, _ in some))
            rows = []
            patients = set()
            for key, resource in some:
                try:
                    if isinstance(resource, UnreadableConsent):
                        raise resource
                    parsed = parse_consent(resource, patient_system)
                    incoming = _Incoming(resource, parsed, pseudonymiser.patient(parsed.patient_id))
                    if _studies(parsed.record.root):
                        incoming.name_studies(db, pseudonymiser)
                    row = _record(db, held.get(incoming.consent_id), incoming, at)
                except UnreadableConsent as error:
                    faults.append((key, str(error)))
                    # Popped, since an id that stands twice in the file is broken twice, and in doubt once.
                    kept = held.pop(key.removeprefix(_CONSENT), None) if key.startswith(_CONSENT) else None
                    if not isinstance(error, _Stale):
                        doubted += _doubt(db, kept, f"{_AFTER_IT}: {error}", at)
                        is_broken = isinstance(resource, UnreadableConsent)
                        named = (resource.names or {}) if isinstance(resource, UnreadableConsent) else resource
                        stand_ins += _stand_in(
                            db, named, str(error), pseudonymiser, at, patient_system, is_broken=is_broken
                        )
                    continue
                if row:
                    rows.append(row)
                    patients.add(parsed.patient_id)
                unchanged += not row
            _insert(db, rows)
            known.add_ids(db, pseudonymiser, patients)
            taken += len(rows)
        if taken or doubted or stand_ins:
            advance(db)
        counts = {"records": taken, "faults": len(faults), "doubted": doubted, "stand_ins": len(stand_ins)}
        ledger.write(db, at, "site:consent:loaded", **counts)
    return Loaded(taken, unchanged, tuple(faults), doubted, tuple(stand_ins))


def _stand_in(
    db: sa.Connection,
    named: Mapping[str, object],
    fault: str,
    pseudonymiser: Pseudonymiser,
    at: datetime,
    patient_system: str,
    *,
    is_broken: bool,
) -> list[str]:
    """Hold a doubt in place of a refused consent, under its id or else one made of its content; return `type/id` of it.

    Nothing is needed where what the patient holds under the id has gone to review, nor where a version of it was not
    taken that is not broken (`is_broken`), since that lifts nothing. Without the doubt a stand-in permits nothing and
    refuses nothing; it has the dates of what it stands for, so that a newer version takes its place.
    """
    if named.get("resourceType", "Consent") != "Consent":
        return []
    try:
        patient = pseudonymiser.patient(patient_id(named, patient_system))
    except UnreadableConsent:
        return []
    content = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
    # Keyed, since a digest of a patient's number alone would tell the number.
    derived = "unread-" + hashlib.sha256(pseudonymiser.patient(content).encode()).hexdigest()[:32]
    own = named.get("id")
    consent_id = own if isinstance(own, str) and FHIR_ID.fullmatch(own) else derived
    held = _held_of(db, [consent_id]).get(consent_id)
    if held is not None and held.patient == patient and (not is_broken or held.doubt is not None):
        return []
    if held is not None:
        consent_id = derived
    if _held_of(db, [consent_id]):
        return []
    resource: dict[str, object] = {
        "resourceType": "Consent",
        "id": consent_id,
        "status": "active",
        "scope": {"coding": [{"system": _SCOPES, "code": "research"}]},
        "patient": {"identifier": {"value": patient}},
        "provision": {"type": "permit", "period": {"end": "1900"}},
    }
    stamp, signed = updated_at(named), named.get("dateTime", named.get("date"))
    resource |= {"meta": {"lastUpdated": stamp.isoformat()}} if stamp else {}
    parsed = parse_consent(resource | {"dateTime": signed})
    if parsed.record.review is None:
        resource["dateTime"] = signed
    incoming = _Incoming(resource, parse_consent(resource), patient)
    _insert(db, [(incoming.parsed.record, incoming.row(at) | {"doubt": f"{_NOT_TAKEN}: {fault}"})])
    return [f"{_CONSENT}{consent_id}"]


def miss(db: sa.Connection, consent_ids: Collection[str], at: datetime) -> int:
    """Send to review what its source no longer has, where it could permit anything; return how many went there.

    A source marks a consent inactive and does not delete it (FHIR Consent Management), so nobody can tell what a
    deletion means. A refusal stays one.
    """
    held = _held_of(db, consent_ids)
    doubted = sum(_doubt(db, held[one], "its source no longer has it", at) for one in sorted(held))
    if doubted:
        advance(db)
        ledger.write(db, at, "site:consent:missed", doubted=doubted)
    return doubted


def doubted(db: sa.Connection) -> dict[str, int]:
    """Return the consents held in review because of what came after them, by id, each with its record's number."""
    columns = consent_record.c
    query = sa.select(columns.consent_id, columns.number)
    rows = db.execute(query.where(columns.superseded_at.is_(None), columns.doubt.is_not(None)))
    return {row.consent_id: row.number for row in rows}


def confirm(store: sa.Engine, consent_id: str, by: str, at: datetime, seen: int | None = None) -> None:
    """Let a held consent count again that went to review because what came after it could not be taken.

    `seen` is the number of the record that was read: what is held since then is not confirmed.
    Raises: ConfigurationError if no such consent is held.
    """
    with store.begin() as db:
        held = _held_of(db, [consent_id]).get(consent_id)
        if held is None or held.doubt is None or seen not in {None, held.number}:
            raise ConfigurationError(f"no consent {consent_id} waits for review because of a fault")
        _replace(db, held, at, doubt=None)
        advance(db)
        ledger.write(db, at, "site:consent:confirmed", record=held.number, by=by)


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


def withdraw(store: sa.Engine, patient: str, at: datetime, scope: WithdrawalScope = ALL, by: str = "") -> int:
    """Record that `patient` (pseudonym) refuses further use within `scope`; return the epoch it made.

    `by` is who recorded it, where that is known.

    The refusal is a consent record of its own that denies: among active records a denial always wins, and
    nothing that was agreed is deleted.
    Raises: ConfigurationError if the scope cannot be stated.
    """
    resource, parsed = refusal(patient, at, scope)
    with store.begin() as db:
        _insert(db, [(parsed.record, _Incoming(resource, parsed, patient).row(at))])
        advance(db)
        epoch = current_epoch(db)
        ledger.write(db, at, "site:consent:withdrawn", epoch=epoch, **({"by": by} if by else {}))
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
        raise ConfigurationError("the scope of the withdrawal: a day or a modality is none, or the days are reversed")
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
    """Begin a new consent epoch, in the transaction of the change that calls for it; new records get their leaf."""
    consent_log.note_records(db)
    db.execute(sa.update(consent_epoch).values(epoch=consent_epoch.c.epoch + 1))


def last_number(db: sa.Connection) -> int:
    """Return the number of the last record that was taken, in the state `db` sees."""
    return int(db.scalar(sa.select(sa.func.max(consent_record.c.number))) or 0)


def came_and_went(db: sa.Connection, patients: AbstractSet[str], after: int) -> bool:
    """Return whether a record of one of the patients, taken after the one numbered `after`, is superseded already."""
    columns = consent_record.c
    query = sa.select(columns.patient).where(columns.number > after, columns.superseded_at.is_not(None))
    return not patients.isdisjoint(db.scalars(query))


class Held(NamedTuple):
    """The active records of one patient: their numbers, in order, and what each says, in the same order."""

    numbers: tuple[int, ...]
    readings: tuple[Reading, ...]


NONE_HELD = Held((), ())


class ConsentReader:
    """Reads the active records of the patients asked about, and reads no patient's again while they are the same.

    They are, where they have the same numbers: a row never changes, but for being superseded, and which rows are active
    is asked of the database in every epoch. What the last question did not need is dropped when more than `keep`
    patients are held.
    """

    def __init__(self, keep: int = 100_000) -> None:
        self._keep = keep
        self._readings = readings.Readings()
        self._held: dict[str, tuple[str, Held]] = {}  # by patient, with the numbers as the database lists them
        self._asked: tuple[int, frozenset[str] | None] = (-1, None)
        self._answer: Mapping[str, Held] = {}

    def read(self, db: sa.Connection, epoch: int, patients: Iterable[str] | None = None) -> Mapping[str, Held]:
        """Return what is held of the patients, or of all, in the state that `db` sees and that `epoch` names."""
        asked = (epoch, None if patients is None else frozenset(patients))
        if asked == self._asked:
            return self._answer
        active = _active(db, asked[1])
        changed = {one: listed for one, listed in active.items() if self._held.get(one, ("",))[0] != listed}
        self._held.update(self._read(db, changed))
        self._answer = {patient: self._held[patient][1] for patient in active}
        if len(self._held) > self._keep:
            self._held = {patient: self._held[patient] for patient in active}
        self._asked = asked
        return self._answer

    def _read(self, db: sa.Connection, changed: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, Held]]]:
        numbers = {patient: tuple(sorted(map(int, listed.split(",")))) for patient, listed in changed.items()}
        said = dict(self._readings.read(db, [number for some in numbers.values() for number in some]))
        for patient, listed in changed.items():
            some = numbers[patient]
            yield patient, (listed, Held(some, tuple(said[number] for number in some)))


def _active(db: sa.Connection, patients: frozenset[str] | None) -> dict[str, str]:
    """Return the numbers of each patient's active records, in one text: a row each, where a site has many."""
    columns = consent_record.c
    query = sa.select(columns.patient, sa.func.group_concat(columns.number)).where(columns.superseded_at.is_(None))
    if patients is not None:
        query = query.where(among(columns.patient, patients))
    return {row[0]: row[1] for row in db.execute(query.group_by(columns.patient)).all()}


def as_decided(resource: str, studies: str, doubt: str | None) -> ConsentRecord:
    """Return a stored record as decisions are made on it: with its doubt, and the studies it names by pseudonym.

    Raises: ConsentError or ValueError if it cannot be read.
    """
    stored = json.loads(resource)
    if not isinstance(stored, dict):
        raise UnreadableConsent("resource: not an object")
    return readings.reading_of(parse_consent(stored).record, studies, doubt).record()


_SCOPES = "http://terminology.hl7.org/CodeSystem/consentscope"
_NOT_TAKEN = "it stands for a consent that could not be taken"
_AHEAD = timedelta(minutes=10)
"""How far the clock of a source may be ahead of this machine's."""
_AFTER_IT = "what came after it could not be taken"
_CONSENT = "Consent/"
_AT_ONCE = 1000


class _Stale(UnreadableConsent):
    """A version that is known to be older than the one held; nothing follows from it."""


_Row: TypeAlias = "tuple[ConsentRecord, dict[str, str | None]]"
"""A record, and the row to store of it."""


class _Incoming:
    """A consent as it is to be stored: its text, whose it is, and the studies it names by their pseudonyms."""

    __slots__ = ("consent_id", "parsed", "patient", "sha256", "studies", "text")

    def __init__(
        self,
        resource: Mapping[str, object],
        parsed: ParsedConsent,
        patient: str,
    ) -> None:
        self.consent_id = parsed.record.consent_id
        self.parsed = parsed
        self.patient = patient
        self.text = json.dumps(resource, sort_keys=True, ensure_ascii=False)
        self.sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        self.studies = readings.NO_STUDIES

    def name_studies(self, db: sa.Connection, pseudonymiser: Pseudonymiser) -> None:
        """Note the pseudonyms of the studies it names; a UID of no study here may be that of a part of any."""
        pseudonyms = {uid: pseudonymiser.uid(uid) for uid in sorted(_studies(self.parsed.record.root))}
        column = instance.c.StudyInstanceUID
        here = set(db.scalars(sa.select(column).where(among(column, {*pseudonyms, *pseudonyms.values()}))))
        self.studies = json.dumps(
            {uid: [other] if {uid, other} & here else [other, UNRESOLVED] for uid, other in pseudonyms.items()}
        )

    def row(self, at: datetime) -> dict[str, str | None]:
        """Return the row to store."""
        return {
            "consent_id": self.consent_id,
            "patient": self.patient,
            "resource": self.text,
            "sha256": self.sha256,
            "studies": self.studies,
            "recorded_at": at.isoformat(),
        }


def _record(db: sa.Connection, held: sa.Row[tuple[object, ...]] | None, new: _Incoming, at: datetime) -> _Row | None:
    """Supersede what is `held` and return the row to store and its record; None if this version is there already.

    Raises: UnreadableConsent if it may not take the place of what is held under its id.
    """
    same = held is not None and held.sha256 == new.sha256
    if held is not None and same and held.studies == new.studies:
        return None
    if held is not None:
        if not same:
            _check_succession(db, held, new)
        _supersede(db, held, at)
    stamp = new.parsed.updated_at
    ahead = stamp is not None and stamp > at + _AHEAD and may_permit(new.parsed.record)
    doubt = held.doubt if held is not None and same else "meta.lastUpdated: ahead of the clock" if ahead else None
    return new.parsed.record, new.row(at) | {"doubt": doubt}


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
        fault = f"{older}: older than the version held; not loaded"
        # A stamp may be wrong: what permits nothing may be the last word, unless it was held and superseded.
        raise _Stale(fault) if permits or _was_held(db, new) else UnreadableConsent(fault)
    if updated or dated or not permits:
        return
    if _was_held(db, new):
        raise _Stale("meta.lastUpdated: absent, and this version was superseded before; not loaded")
    if held.doubt is not None or not may_permit(before.record):
        raise UnreadableConsent("meta.lastUpdated: absent, so that nobody can tell whether this lifts what is held")


def _was_held(db: sa.Connection, new: _Incoming) -> bool:
    columns = consent_record.c
    same = (columns.consent_id == new.consent_id) & (columns.sha256 == new.sha256)
    return db.execute(sa.select(columns.number).where(same)).first() is not None


def _order(before: datetime | None, after: datetime | None) -> int:
    """Return 1 if `after` is the later, -1 if it is the earlier, 0 if that cannot be told."""
    if before is None or after is None:
        return 0
    return (after > before) - (after < before)


def _doubt(db: sa.Connection, held: sa.Row[tuple[object, ...]] | None, doubt: str, at: datetime) -> bool:
    """Send the record that is held to review, if it could permit anything."""
    if held is None or held.doubt is not None or not may_permit(parse_consent(json.loads(held.resource)).record):
        return False
    _replace(db, held, at, doubt=doubt)
    return True


def _held_of(db: sa.Connection, consent_ids: Iterable[str]) -> dict[str, sa.Row[tuple[object, ...]]]:
    """Return the records held under some ids, by id."""
    columns = consent_record.c
    query = sa.select(consent_record).where(among(columns.consent_id, consent_ids), columns.superseded_at.is_(None))
    return {row.consent_id: row for row in db.execute(query)}


def _supersede(db: sa.Connection, held: sa.Row[tuple[object, ...]], at: datetime) -> None:
    number = consent_record.c.number == held.number
    db.execute(sa.update(consent_record).where(number).values(superseded_at=at.isoformat()))


def _replace(db: sa.Connection, held: sa.Row[tuple[object, ...]], at: datetime, doubt: str | None) -> None:
    """Hold the same consent anew with or without a doubt; what was held before stays on record."""
    _supersede(db, held, at)
    row = {
        "consent_id": held.consent_id,
        "patient": held.patient,
        "resource": held.resource,
        "sha256": held.sha256,
        "studies": held.studies,
        "doubt": doubt,
        "recorded_at": at.isoformat(),
    }
    _insert(db, [(parse_consent(json.loads(held.resource)).record, row)])


def _insert(db: sa.Connection, rows: Sequence[_Row]) -> None:
    """Store the rows, each with what was read from it."""
    if not rows:
        return
    # No other writer comes between: a transaction that writes is alone from its beginning.
    first = 1 + int(db.scalar(sa.select(sa.func.max(consent_record.c.number))) or 0)
    numbered = dict(enumerate(rows, first))
    db.execute(sa.insert(consent_record), [{"number": number, **row} for number, (_, row) in numbered.items()])
    readings.keep(
        db,
        {
            number: readings.reading_of(record, row["studies"] or readings.NO_STUDIES, row.get("doubt"))
            for number, (record, row) in numbered.items()
        },
    )


def _studies(rule: Provision) -> set[str]:
    return {uid for uid in rule.data_references if uid != UNRESOLVED}.union(*map(_studies, rule.children))
