"""Locked copies: each series sealed into an object that nobody deletes before its legal date, at every copy.

An object counts at a copy once it was read back whole from there, its digest compared and its lock read. What is not
yet at every copy waits, sealed, in `locked/` of the site's folder: a crash or a copy that is down loses nothing.
Decides nothing about endpoints: which are compliant is told by their probes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import Deny, Permit
from site_node import ledger
from site_node.archive.locked.sealing import Seal, read_members
from site_node.errors import EndpointError, EndpointRefused, LockedCopyInvalid
from site_node.keys import move_into_place
from site_node.store import locked_copy, locked_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from site_node.archive.locked.locks import Lock
    from site_node.archive.locked.s3 import Bucket
    from site_node.archive.locked.sealing import Member
    from site_node.archive.locked.series import Series, Term
    from site_node.config import LockedCopies, LockedCopy

SPOOL = "locked"
PREFIX = "series/"
_TAKEN = ("PreconditionFailed", "412")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Copy:
    """One compliant place of locked copies: its settings and its bucket."""

    settings: LockedCopy
    bucket: Bucket

    @property
    def name(self) -> str:
        """The name by which the configuration and the catalogue know it."""
        return self.settings.name

    @property
    def place(self) -> str:
        """Endpoint and bucket."""
        return place_of(self.settings)


@dataclass(frozen=True, slots=True)
class LockedObject:
    """One sealed object: what it holds, and until when it must be locked."""

    name: str
    series: str
    patient: str
    modality: str
    study_date: str | None
    files: int
    size: int
    until: datetime
    hold: bool

    @property
    def key(self) -> str:
        """The object's name at an endpoint."""
        return PREFIX + self.name


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """What the site knows of an object at one copy; `fault` is empty where the last look found all well."""

    copy: str
    place: str
    version: str
    sha256: str
    size: int
    until: datetime
    hold: bool
    verified_at: datetime
    fault: str


def place_of(settings: LockedCopy) -> str:
    """Return endpoint and bucket of a copy."""
    return f"{settings.endpoint}/{settings.bucket}"


def standing(
    locked: LockedObject,
    records: Mapping[str, CopyRecord],
    compliant: Mapping[str, Permit | Deny],
    settings: LockedCopies,
    at: datetime,
) -> Permit | Deny:
    """Return whether an object is protected: verified at every required copy, in enough administrative domains.

    `records` and `compliant` are by the copies' names. The refusal names every copy that is wanting, and why.
    """
    copies = [copy for copy in settings.copies if not copy.snapshots]
    wanting = {copy.name: _wanting(locked, copy, records, compliant, settings, at) for copy in copies}
    faults = [f"{copy.name}: {wanting[copy.name]}" for copy in copies if copy.required and wanting[copy.name]]
    if faults:
        return Deny("; ".join(faults))
    domains = {copy.domain for copy in copies if not wanting[copy.name]}
    if len(domains) < settings.domains:
        return Deny(f"in {len(domains)} of {settings.domains} administrative domains")
    return Permit()


def _wanting(
    locked: LockedObject,
    copy: LockedCopy,
    records: Mapping[str, CopyRecord],
    compliant: Mapping[str, Permit | Deny],
    settings: LockedCopies,
    at: datetime,
) -> str:
    """Return what is wanting at one copy; nothing where all is well."""
    record = records.get(copy.name)
    verdict = compliant.get(copy.name, Deny("never probed"))
    if record is None or record.place != place_of(copy):
        return "not there yet"
    if record.fault:
        return record.fault
    if record.until < locked.until or record.hold < locked.hold:
        return "locked for too short"
    if record.until <= at and not record.hold:
        return "its lock has ended"
    if not timedelta(0) <= at - record.verified_at <= timedelta(days=settings.verify_days):
        return "not read back for too long"
    return f"not compliant ({verdict.reason})" if isinstance(verdict, Deny) else ""


# ------------------------------------------------------------------ the catalogue


def objects(
    db: sa.Connection, *, patient: str | None = None, series: str | None = None, prefix: str = ""
) -> list[LockedObject]:
    """Return the objects on record, in the order they were made."""
    columns = locked_object.c
    query = sa.select(locked_object).order_by(columns.sealed_at, columns.name)
    for column, value in ((columns.patient, patient), (columns.series, series)):
        if value is not None:
            query = query.where(column == value)
    if prefix:
        query = query.where(columns.name.startswith(prefix, autoescape=True))
    return [
        LockedObject(
            row.name, row.series, row.patient, row.modality, row.study_date, row.files, row.size,
            datetime.fromisoformat(row.until), row.hold,
        )
        for row in db.execute(query)
    ]  # fmt: skip


def records(db: sa.Connection, name: str) -> dict[str, CopyRecord]:
    """Return what is known of an object, by the copies' names."""
    rows = db.execute(sa.select(locked_copy).where(locked_copy.c.name == name))
    return {
        row.copy: CopyRecord(
            row.copy, row.place, row.version, row.sha256, row.size, datetime.fromisoformat(row.until), row.hold,
            datetime.fromisoformat(row.verified_at), row.fault,
        )
        for row in rows
    }  # fmt: skip


# ------------------------------------------------------------------ putting, holding, looking again


@dataclass(slots=True)
class Locking:
    """The site's side of its locked copies. `say` hears one line per problem.

    A copy that does not answer, or is not compliant, is left out for the rest of the run: `stopped` says which and why.
    """

    store: sa.Engine
    root: Path
    seal: Seal
    copies: Sequence[Copy]
    now: Callable[[], datetime]
    say: Callable[[str], None]
    stopped: dict[str, str]

    def lock(self, series: Series, folder: Path, patient: str, term: Term) -> LockedObject:
        """Bring a series of `folder` to every copy that can be had; what is on record is never locked for shorter.

        Raises: LockedCopyInvalid if a file changed meanwhile; OSError.
        """
        name = self.seal.name(series.members)
        known = self._find(name)
        if known is None:
            self._spool(name, folder, series.members)
            known = LockedObject(
                name, self.seal.token(series.SeriesInstanceUID), patient, series.Modality,
                series.study_date.isoformat() if series.study_date else None,
                len(series.members), series.size, term.first, hold=False,
            )  # fmt: skip
            self._record(known)
        elif term.by_study is not None and term.by_study > known.until:
            known = self._later(known, term.by_study)
        if any(self._is_due(known, copy) for copy in self.copies) and not self._has_bytes(known):
            self._spool(name, folder, series.members)
        self.secure(known)
        return known

    def finish(self, heard: Callable[[int, int], None]) -> None:
        """Bring every object on record to the copies that lack it."""
        with self.store.connect() as db:
            known = objects(db)
        for done, locked in enumerate(known, start=1):
            self.secure(locked)
            heard(done, len(known))

    def hold(self, locked: LockedObject, by: str, reason: str, *, on: bool) -> LockedObject:
        """Put a legal hold on an object at every copy, or lift it; what a copy misses now, `finish` brings it."""
        entry = "site:locked:held" if on else "site:locked:released"
        changed = self._change(replace(locked, hold=on), self.now(), entry, by=by, reason=reason)
        self.secure(changed)
        return changed

    def prolong(self, locked: LockedObject, until: datetime) -> LockedObject:
        """Lock an object for longer at every copy, never for shorter; what a copy misses now, `finish` brings it."""
        if until > locked.until:
            locked = self._later(locked, until)
        self.secure(locked)
        return locked

    def secure(self, locked: LockedObject) -> None:
        """Bring an object to every copy that lacks it or locks it for too short."""
        for copy in self.copies:
            if copy.name in self.stopped or not self._is_due(locked, copy):
                continue
            try:
                self._secure_at(locked, copy)
            except LockedCopyInvalid as error:
                self.say(f"{copy.name}: {locked.name[:16]}: {error}")
            except EndpointError as error:
                self.stopped[copy.name] = str(error)
                self.say(f"{copy.name}: {error}")
        if not any(self._is_due(locked, copy) for copy in self.copies):
            self._spooled(locked.name).unlink(missing_ok=True)

    def verify(self, locked: LockedObject) -> bool:
        """Read an object back from every copy it is on record at, and return whether all was well.

        A copy that does not answer says nothing of the object: its record stays as it is, and grows old.
        """
        good = True
        with self.store.connect() as db:
            known = records(db, locked.name)
        for copy in self.copies:
            record = known.get(copy.name)
            if record is None or record.place != copy.place or copy.name in self.stopped:
                continue
            try:
                fault = self._look(locked, copy, record)
            except EndpointError as error:
                self.stopped[copy.name] = str(error)
                self.say(f"{copy.name}: {error}")
                continue
            if fault:
                good = False
                self.say(f"{copy.name}: {locked.name[:16]}: {fault}")
        return good

    # -------------------------------------------------------------- at one copy

    def _secure_at(self, locked: LockedObject, copy: Copy) -> None:
        record = self._at(locked, copy)
        if record is not None and not record.fault:
            version, sha256, size = record.version, record.sha256, record.size
        else:
            version, sha256, size = self._put(locked, copy)
        if _digest(copy.bucket.read(locked.key, version)) != (sha256, size):
            raise LockedCopyInvalid("what was read back is not what was sent")
        lock = self._strengthen(locked, copy, version)
        self._note(locked, CopyRecord(copy.name, copy.place, version, sha256, size, lock.until or locked.until,
                                      lock.hold, self.now(), ""))  # fmt: skip

    def _strengthen(self, locked: LockedObject, copy: Copy, version: str) -> Lock:
        """Bring the lock of a version to what it must be, and return it as it was read after that."""
        lock = copy.bucket.lock(locked.key, version)
        if not lock.holds_until(locked.until):
            copy.bucket.extend(locked.key, version, locked.until)
        if lock.hold != locked.hold:
            copy.bucket.set_hold(locked.key, version, on=locked.hold)
        lock = copy.bucket.lock(locked.key, version)
        if not lock.holds_until(locked.until) or lock.hold != locked.hold:
            raise LockedCopyInvalid("its lock is weaker than it must be")
        return lock

    def _put(self, locked: LockedObject, copy: Copy) -> tuple[str, str, int]:
        """Store an object that is not there, and return version, digest and size; one that is there is looked at."""
        path = self._bytes_of(locked)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256")
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            try:
                version = copy.bucket.put(locked.key, file, size, sha256.digest(), locked.until, hold=locked.hold)
            except EndpointRefused as error:
                if error.code not in _TAKEN:
                    raise
            else:
                return version, sha256.hexdigest(), size
        return self._adopt(locked, copy)

    def _adopt(self, locked: LockedObject, copy: Copy) -> tuple[str, str, int]:
        """Return the version that holds these very files already: a put whose answer was lost, or an older record."""
        for found in copy.bucket.versions(locked.key):
            if found.is_marker or found.name != locked.key:
                continue
            hashing = _Digest(copy.bucket.read(locked.key, found.version_id))
            if self.holds(locked.name, hashing):
                return found.version_id, hashing.sha256.hexdigest(), hashing.size
        raise LockedCopyInvalid("its name is taken by something else")

    def _look(self, locked: LockedObject, copy: Copy, record: CopyRecord) -> str:
        """Read one copy back and note what was found; return the fault."""
        fault = ""
        try:
            if _digest(copy.bucket.read(locked.key, record.version)) != (record.sha256, record.size):
                fault = "its bytes are not those that were locked"
            lock = copy.bucket.lock(locked.key, record.version)
            if not lock.holds_until(locked.until) or lock.hold < locked.hold:
                fault = fault or "its lock is weaker than it must be"
        except EndpointRefused as error:
            fault = f"it cannot be read ({error.code})"
        verified_at = record.verified_at if fault else self.now()
        self._note(locked, CopyRecord(copy.name, copy.place, record.version, record.sha256, record.size,
                                      record.until, record.hold, verified_at, fault))  # fmt: skip
        return fault

    # -------------------------------------------------------------- the sealed bytes

    def holds(self, name: str, chunks: Iterable[bytes]) -> bool:
        """Return whether sealed bytes hold exactly the files that `name` stands for."""
        part = self._spooled(f".{name}.tar")
        try:
            with part.open("w+b") as tar:
                self.seal.open(chunks, tar)
                tar.seek(0)
                return self.seal.name(read_members(tar, _pass_over)) == name
        except LockedCopyInvalid:
            return False
        finally:
            part.unlink(missing_ok=True)

    def _spool(self, name: str, folder: Path, members: Sequence[Member]) -> None:
        """Seal files into the spool, so that they are there whole or not at all."""
        target = self._spooled(name)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part = target.with_name(f".{name}.part")
        try:
            with os.fdopen(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
                self.seal.seal(folder, members, file)
                file.flush()
                os.fsync(file.fileno())
            move_into_place(part, target)
        finally:
            part.unlink(missing_ok=True)

    def _has_bytes(self, locked: LockedObject) -> bool:
        """Return whether the sealed bytes are at hand: in the spool, or at a copy that they can be read from."""
        path = self._spooled(locked.name)
        if path.exists():
            with path.open("rb") as file:
                if self.holds(locked.name, iter(lambda: file.read(_CHUNK), b"")):
                    return True
            path.unlink()  # damaged while it waited
        return self._source(locked) is not None

    def _bytes_of(self, locked: LockedObject) -> Path:
        """Return the file of the sealed bytes, fetched from a copy if the spool has none.

        Raises: LockedCopyInvalid if no place has them.
        """
        path = self._spooled(locked.name)
        if path.exists():
            return path
        found = self._source(locked)
        if found is None:
            raise LockedCopyInvalid("neither here nor at another copy: lock its folder again")
        copy, record = found
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_name(f".{locked.name}.part")
        try:
            hashing = _Digest(copy.bucket.read(locked.key, record.version))
            with os.fdopen(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
                for chunk in hashing:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if (hashing.sha256.hexdigest(), hashing.size) != (record.sha256, record.size):
                raise LockedCopyInvalid(f"{copy.name} gives other bytes than were locked there")
            move_into_place(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _source(self, locked: LockedObject) -> tuple[Copy, CopyRecord] | None:
        for copy in self.copies:
            record = self._at(locked, copy)
            if record is not None and not record.fault and copy.name not in self.stopped:
                return copy, record
        return None

    def _spooled(self, name: str) -> Path:
        return self.root / SPOOL / name

    # -------------------------------------------------------------- the record

    def _is_due(self, locked: LockedObject, copy: Copy) -> bool:
        record = self._at(locked, copy)
        return record is None or bool(record.fault) or record.until < locked.until or record.hold != locked.hold

    def _at(self, locked: LockedObject, copy: Copy) -> CopyRecord | None:
        with self.store.connect() as db:
            record = records(db, locked.name).get(copy.name)
        return record if record is not None and record.place == copy.place else None

    def _find(self, name: str) -> LockedObject | None:
        with self.store.connect() as db:
            return next(iter(objects(db, prefix=name)), None)

    def _record(self, locked: LockedObject) -> None:
        at = self.now()
        with self.store.begin() as db:
            db.execute(
                sa.insert(locked_object).values(
                    name=locked.name,
                    series=locked.series,
                    patient=locked.patient,
                    modality=locked.modality,
                    study_date=locked.study_date,
                    files=locked.files,
                    size=locked.size,
                    until=locked.until.isoformat(),
                    hold=locked.hold,
                    sealed_at=at.isoformat(),
                )
            )
            ledger.write(db, at, "site:locked:sealed", object=locked.name, files=locked.files, until=f"{locked.until}")

    def _later(self, locked: LockedObject, until: datetime) -> LockedObject:
        return self._change(replace(locked, until=until), self.now(), "site:locked:extended", until=f"{until}")

    def _change(self, changed: LockedObject, at: datetime, entry: str, **detail: str) -> LockedObject:
        """Put a later date or another hold on record, with an entry for auditors."""
        with self.store.begin() as db:
            db.execute(
                sa.update(locked_object)
                .where(locked_object.c.name == changed.name)
                .values(until=changed.until.isoformat(), hold=changed.hold)
            )
            ledger.write(db, at, entry, object=changed.name, **detail)
        return changed

    def _note(self, locked: LockedObject, record: CopyRecord) -> None:
        values = {
            "name": locked.name,
            "copy": record.copy,
            "place": record.place,
            "version": record.version,
            "sha256": record.sha256,
            "size": record.size,
            "until": record.until.isoformat(),
            "hold": record.hold,
            "verified_at": record.verified_at.isoformat(),
            "fault": record.fault,
        }
        with self.store.begin() as db:
            db.execute(sa.insert(locked_copy).prefix_with("OR REPLACE").values(**values))


class _Digest:
    """Chunks that are hashed and counted as they pass."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.sha256, self.size = hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.sha256.update(chunk)
            self.size += len(chunk)
            yield chunk


def _digest(chunks: Iterable[bytes]) -> tuple[str, int]:
    hashing = _Digest(chunks)
    for _ in hashing:
        pass
    return hashing.sha256.hexdigest(), hashing.size


def _pass_over(_name: str, content: BinaryIO) -> None:
    while content.read(_CHUNK):
        pass
