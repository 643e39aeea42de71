"""Files out of the site's folder, once their copies were read back: the plan, and the run that carries it out.

A run copies what is missing, reads copies back, decides by `placement` alone, and then takes files out one object at a
time: its marks are on disk before the first file goes. Killed anywhere, it is run again.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import Deny, Permit
from site_node import away, ledger
from site_node.archive.locked import series, worm
from site_node.archive.locked.sealing import Member
from site_node.archive.tiers import placement
from site_node.archive.tiers.placement import Here
from site_node.archive.tiers.recall import alone, serving
from site_node.errors import ConfigurationError, LockedCopyInvalid
from site_node.store import locked_object, tier_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from site_node.archive.locked.sealing import Seal
    from site_node.archive.locked.series import Series
    from site_node.archive.locked.worm import LockedObject, Locking
    from site_node.config import LockedCopies, Tiers

    Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]

_RUN_LOCK = "tiers-run.lock"
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Row:
    """An object, as the plan shows it."""

    object: str
    study_date: str | None
    files: int
    bytes: int
    state: str  # here | leaves | away
    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """What a run did: objects in the folder, how many of them are protected, those that left, and what went wrong."""

    here: int
    protected: int
    left: int
    away: int
    freed: int
    problems: int


@dataclass(frozen=True, slots=True)
class Group:
    """The files whose marks name one object: all of them if `is_whole`; `missing` are away, the others are here."""

    name: str
    members: tuple[Member, ...]
    missing: frozenset[str]
    is_whole: bool


def manifest(db: sa.Connection, seal: Seal, name: str) -> tuple[Member, ...]:
    """Return the files that an object stands for; none if the site does not know.

    Raises: LockedCopyInvalid if what is on record is damaged.
    """
    sealed = db.scalar(sa.select(tier_object.c.members).where(tier_object.c.name == name))
    if sealed is None:
        return ()
    members = tuple(Member(*each) for each in json.loads(seal.open_bytes(sealed)))
    if seal.name(members) != name:
        raise LockedCopyInvalid(f"{name[:_DIGITS]}: the list of its files is not what its name stands for")
    return members


def names_of(db: sa.Connection, *, study: str | None = None, patient: str | None = None) -> list[str]:
    """Return the objects of a study (keyed digest) or a patient (pseudonym), or all, the newest first."""
    query = sa.select(tier_object.c.name).order_by(tier_object.c.came_at.desc(), tier_object.c.name)
    if study is not None:
        query = query.where(tier_object.c.study == study)
    if patient is not None:
        columns = locked_object.c
        query = query.join(locked_object, columns.name == tier_object.c.name).where(columns.patient == patient)
    return list(db.scalars(query))


@dataclass(slots=True)
class Tiering:
    """One site's folder and what is to leave it. `compliant` tells, by the copies' names, what their probes say."""

    store: sa.Engine
    root: Path
    folder: Path
    tiers: Tiers
    locked: LockedCopies
    locking: Locking
    compliant: Callable[[], Mapping[str, Permit | Deny]]
    patient: Callable[[str], str]
    bar: Bar
    say: Callable[[str], None]
    problems: int = 0

    # -------------------------------------------------------------- the plan

    def plan(self) -> list[Row]:
        """Return what a run would do with each object; asks no endpoint and changes nothing.

        A copy that was read back within `verify_days` counts here; the run reads it again.
        Raises: ConfigurationError if the folder is not there.
        """
        at = self.locking.now()
        self._require_folder()
        groups = self._groups()
        with self.bar("reading") as heard:
            found = series.find(self.folder, heard, without=self._rest(groups))
        here = {self.locking.seal.name(one.members): one for one in found.series}
        with self.store.connect() as db:
            known = {one.name: one for one in worm.objects(db)}
            stands_in = serving(db)
        wanted = placement.wanted_away(self.tiers, [self._here(name, one, at) for name, one in here.items()], at)
        since = at - timedelta(days=self.locked.verify_days)
        rows = []
        for name, one in here.items():
            if name not in known:
                verdict: Permit | Deny = Deny("not copied yet")
            elif name in wanted:
                longer = replace(known[name], until=placement.prolonged(known[name], self.tiers, at))
                verdict = self._verdict(longer, since, at)
            else:
                verdict = self._standing(known[name])
            rows.append(_row(name, one, wanted.get(name, ""), verdict, stands_in))
        for group in groups.values():
            copies = sorted(name for name, record in self._records(group.name).items() if not record.fault)
            day = known[group.name].study_date if group.name in known else None
            size = sum(member.size for member in group.members)
            rows.append(Row(group.name, day, len(group.missing), size, "away", f"at {', '.join(copies) or 'no copy'}"))
        return rows

    # -------------------------------------------------------------- the run

    def run(self) -> Done:
        """Copy what is missing, read back, and take out of the folder what may leave.

        Raises: ConfigurationError if another run is under way, or the folder is not there, or empty without a reason;
            OSError.
        """
        try:
            with alone(self.root, _RUN_LOCK, wait=False):
                return self._run()
        except BlockingIOError:
            raise ConfigurationError("another run of the tiers is under way; wait until it is done") from None

    def _run(self) -> Done:
        started = self.locking.now()
        groups = self.settle()
        objects, members = self._copy(groups)
        if not objects and not groups:
            self._require_new()
        self._keep_up(groups)
        left = freed = 0
        protected = sum(isinstance(self._standing(one), Permit) for one in objects.values())
        wanted = self._wanted(objects)
        with self.bar("leaving") as heard:
            for done, (name, came) in enumerate(wanted.items(), start=1):
                gone = self._try(name, members[name], started, came)
                left, freed = left + bool(gone), freed + gone
                heard(done, len(wanted))
        self._finish_leaving(groups, started)
        return Done(len(objects), protected, left, len(groups), freed, self.problems)

    def recallable(self, *, study: str | None = None, patient: str | None = None) -> list[str]:
        """Return the objects that are away: all, or those of a study (keyed digest) or of a patient (pseudonym)."""
        groups = self.settle()
        if study is None and patient is None:
            return sorted(groups)
        with self.store.connect() as db:
            return [name for name in names_of(db, study=study, patient=patient) if name in groups]

    def settle(self) -> dict[str, Group]:
        """Bring what a killed run left to a state with a name, and return the objects that are away.

        Raises: ConfigurationError if the folder is not there.
        """
        self._require_folder()
        with alone(self.root):
            away.clear(self.folder)
            groups = self._groups(complain=True)
            for name, group in list(groups.items()):
                if not group.missing:
                    # The first file had not gone, or the last one is back; what stands here now is the hospital's.
                    away.remove(self.folder / member.path for member in group.members)
                    del groups[name]
                elif not group.is_whole:
                    groups[name] = self._mended(group)
        return groups

    def _require_folder(self) -> None:
        if not self.folder.is_dir():
            raise ConfigurationError("tiers.folder: no folder is there; is it mounted?")

    def _require_new(self) -> None:
        """Refuse to call a folder well that has neither files nor marks, where objects are on record."""
        with self.store.connect() as db:
            known = len(names_of(db))
        if known:
            raise ConfigurationError(
                f"tiers.folder: holds nothing of {known} objects that are on record; is it mounted?"
            )

    def _copy(self, groups: Mapping[str, Group]) -> tuple[dict[str, LockedObject], dict[str, tuple[Member, ...]]]:
        """Bring every series of the folder to every copy that can be had; what stays here, and why, is said."""
        with self.bar("reading") as heard:
            found = series.find(self.folder, heard, without=self._rest(groups))
        for sha256, why in found.passed_over:
            self._problem(f"stays: file {sha256[:_DIGITS]}: {why}")
        objects, members = {}, {}
        with self.bar("copying") as heard:
            for done, one in enumerate(found.series, start=1):
                at = self.locking.now()
                try:
                    locked = self.locking.lock(
                        one, self.folder, self.patient(one.PatientID), series.term(one, self.locked, at)
                    )
                except LockedCopyInvalid as error:
                    self._problem(f"stays: a series: {error}")
                    continue
                except FileNotFoundError:
                    self._problem("stays: a series: a file went while it was read")
                    continue
                self._remember(locked.name, one, at)
                objects[locked.name], members[locked.name] = locked, one.members
                heard(done, len(found.series))
        return objects, members

    def _keep_up(self, groups: Mapping[str, Group]) -> None:
        """Bring what is away to the copies that lack it, and say of what is not protected."""
        with self.store.connect() as db:
            known = [one for one in worm.objects(db) if one.name in groups]
        for each in known:
            one = self.locking.prolong(each, placement.prolonged(each, self.tiers, self.locking.now()))
            verdict = self._standing(one)
            if isinstance(verdict, Deny):
                self._problem(f"away and not protected: {one.name[:_DIGITS]}: {verdict.reason}")
        for name in groups.keys() - {one.name for one in known}:
            self._problem(f"away and not on record here: {name[:_DIGITS]}: recall it")

    def _wanted(self, objects: Mapping[str, LockedObject]) -> dict[str, datetime]:
        """Return the objects that the mode wants out of the folder, each with the moment its files came."""
        at = self.locking.now()
        with self.store.connect() as db:
            if serving(db):
                return {}
        here = {name: self._here(name, one, at) for name, one in objects.items()}
        return {name: here[name].came for name in placement.wanted_away(self.tiers, list(here.values()), at)}

    def _try(self, name: str, members: tuple[Member, ...], started: datetime, came: datetime) -> int:
        """Read an object's copies back and take its files out if they may leave; return the bytes that are free."""
        with self.store.connect() as db:
            (locked,) = worm.objects(db, prefix=name)  # as it is now: somebody may have put a hold on it
        locked = self.locking.prolong(locked, placement.prolonged(locked, self.tiers, self.locking.now()))
        if isinstance(self._verdict(locked, started, self.locking.now()), Deny):
            self.locking.verify(locked)
        verdict = self._verdict(locked, started, self.locking.now())
        if isinstance(verdict, Deny):
            self._problem(f"stays: {locked.name[:_DIGITS]}: {verdict.reason}")
            return 0
        return self._leave(locked, members, came)

    def _finish_leaving(self, groups: Mapping[str, Group], started: datetime) -> None:
        """Take out what is left here of objects that were on their way."""
        with self.store.connect() as db:
            if serving(db):
                return
            known = {one.name for one in worm.objects(db)}
        for name, group in groups.items():
            rest = tuple(member for member in group.members if member.path not in group.missing)
            if rest and group.is_whole and name in known and all(_is(self.folder / one.path, one) for one in rest):
                self._try(name, rest, started, self._came(name))

    # -------------------------------------------------------------- one object

    def _leave(self, locked: LockedObject, members: tuple[Member, ...], came: datetime) -> int:
        """Take files out of the folder: marks first, then the record, then the files; return the bytes."""
        paths = {self.folder / member.path: member for member in members}
        with alone(self.root):
            if self._came(locked.name) != came:
                return 0  # somebody has recalled it meanwhile
            try:
                seen = {path: _stat(path) for path in paths}
                why = self._in_the_way(locked.name, paths)
            except FileNotFoundError:
                why = "a file went meanwhile"
            if why:
                self._problem(f"stays: {locked.name[:_DIGITS]}: {why}")
                return 0
            away.put((path, away.Mark(locked.name, one.size, one.sha256)) for path, one in paths.items())
            at, size = self.locking.now(), sum(one.size for one in members)
            with self.store.begin() as db:
                ledger.write(db, at, "site:tiers:left", object=locked.name, files=len(members), bytes=size)
            for path in paths:
                if _stat(path) == seen[path]:  # somebody may have written to it since it was compared
                    path.unlink()
            away.flush({path.parent for path in paths})
        return size

    def _in_the_way(self, name: str, paths: Mapping[Path, Member]) -> str:
        for path, member in paths.items():
            mark = away.read(path)
            if (mark is not None and mark.object != name) or (mark is None and away.mark_of(path).exists()):
                return "the place of one of its files belongs to another that is away"
            if not _is(path, member):
                return "a file changed while it was copied"
        return ""

    def _verdict(self, locked: LockedObject, since: datetime, at: datetime) -> Permit | Deny:
        records, compliant = self._records(locked.name), self.compliant()
        return placement.may_leave(locked, records, compliant, self.tiers, self.locked, since, at)

    def _standing(self, locked: LockedObject) -> Permit | Deny:
        return worm.standing(locked, self._records(locked.name), self.compliant(), self.locked, self.locking.now())

    # -------------------------------------------------------------- what is known

    def _groups(self, *, complain: bool = False) -> dict[str, Group]:
        """Return the objects that marks name."""
        members: dict[str, list[Member]] = defaultdict(list)
        for path in away.marked(self.folder):
            mark = away.read(path)
            if mark is not None:
                members[mark.object].append(Member(path.relative_to(self.folder).as_posix(), mark.size, mark.sha256))
            elif complain:
                self._problem("a mark of a file that is away is damaged: `tiers recall all --lost-marks`")
        return {name: self._group(name, tuple(found)) for name, found in members.items()}

    def _group(self, name: str, members: tuple[Member, ...]) -> Group:
        missing = frozenset(one.path for one in members if not (self.folder / one.path).exists())
        return Group(name, members, missing, self.locking.seal.name(members) == name)

    def _mended(self, group: Group) -> Group:
        """Set the marks that an object lacks, by the list of its files."""
        try:
            with self.store.connect() as db:
                members = manifest(db, self.locking.seal, group.name)
        except LockedCopyInvalid as error:
            self._problem(str(error))
            return group
        if not members:
            self._problem(f"{group.name[:_DIGITS]}: marks of its files are missing, and no list of them is here")
            return group
        lacking = [one for one in members if not away.mark_of(self.folder / one.path).exists()]
        for one in lacking:
            (self.folder / one.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        away.put((self.folder / one.path, away.Mark(group.name, one.size, one.sha256)) for one in lacking)
        return self._group(group.name, members)

    def _rest(self, groups: Mapping[str, Group]) -> set[Path]:
        """Return the files that are still here of objects that are away: they are on their way, and no new series."""
        return {
            self.folder / one.path
            for group in groups.values()
            if group.missing
            for one in group.members
            if one.path not in group.missing and _is(self.folder / one.path, one)
        }

    def _remember(self, name: str, one: Series, at: datetime) -> None:
        """Put the list of an object's files on record, if it is not."""
        with self.store.begin() as db:
            if db.scalar(sa.select(tier_object.c.name).where(tier_object.c.name == name)) is not None:
                return
            listed = [(member.path, member.size, member.sha256) for member in one.members]
            seal = self.locking.seal
            db.execute(
                sa.insert(tier_object).values(
                    name=name,
                    study=seal.token(one.StudyInstanceUID),
                    members=seal.seal_bytes(json.dumps(listed).encode()),
                    came_at=at.isoformat(),
                )
            )

    def _here(self, name: str, one: Series | LockedObject, at: datetime) -> Here:
        day = one.study_date if not isinstance(one.study_date, str) else datetime.fromisoformat(one.study_date).date()
        came = self._came(name)
        came = at if came == _NEVER else came
        return Here(name, one.size, datetime.combine(day, time(), UTC) if day else came, came)

    def _came(self, name: str) -> datetime:
        with self.store.connect() as db:
            text = db.scalar(sa.select(tier_object.c.came_at).where(tier_object.c.name == name))
        return datetime.fromisoformat(text) if text else _NEVER

    def _records(self, name: str) -> dict[str, worm.CopyRecord]:
        with self.store.connect() as db:
            return worm.records(db, name)

    def _problem(self, line: str) -> None:
        self.problems += 1
        self.say(line)


_NEVER = datetime.min.replace(tzinfo=UTC)


def _row(name: str, one: Series, wanted: str, verdict: Permit | Deny, stands_in: str) -> Row:
    """Return the plan's row of an object that is in the folder."""
    day = one.study_date.isoformat() if one.study_date else None
    refused = verdict.reason if isinstance(verdict, Deny) else ""
    if stands_in:
        state, why = "here", f"{stands_in} stands in: nothing leaves"
    elif wanted and not refused:
        state, why = "leaves", wanted
    elif wanted:
        state, why = "here", f"{wanted}, but {refused}"
    else:
        state, why = "here", f"not protected: {refused}" if refused else "protected"
    return Row(name, day, len(one.members), one.size, state, why)


def _is(path: Path, member: Member) -> bool:
    """Return whether a file is what a member says, to the byte."""
    try:
        if path.stat().st_size != member.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == member.sha256
    except FileNotFoundError:
        return False


def _stat(path: Path) -> tuple[int, int, int, int]:
    """Return what changes whenever a file is written to or replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
