"""Another domain stands in for the site's folder, and the way back.

`fail_over` sets a mark for every file that is not in the folder: from then on it is opened from the domain that stands
in, when somebody needs it. `fail_back` returns only to a folder and copies that have all, and shows the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import Deny
from site_node import away, ledger
from site_node.archive.locked import series, worm
from site_node.archive.tiers import placement
from site_node.archive.tiers.recall import alone, serving
from site_node.archive.tiers.tiering import manifest, names_of
from site_node.errors import ConfigurationError, LockedCopyInvalid
from site_node.store import tier_serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from site_node.archive.locked.sealing import Member
    from site_node.archive.tiers.tiering import Tiering
    from site_node.config import LockedCopy


@dataclass(frozen=True, slots=True)
class Difference:
    """The folder beside what is on record, in files.

    `same` are there as they were archived, `away` come when they are opened, `changed` are there with another content,
    `lost` are neither here nor at the domain asked for, `new` are not archived yet (None: not looked for).
    """

    same: int
    away: int
    changed: int
    lost: int
    new: int | None


def fail_over(tiering: Tiering, domain: str, by: str, reason: str) -> Difference | Deny:
    """Let `domain` stand in for the folder, on the record; cut off, it is run again.

    Raises: ConfigurationError if no copy lies in that domain; OSError.
    """
    if not placement.MODES[tiering.tiers.mode].stands_in:
        return Deny(f"in {tiering.tiers.mode} no domain stands in: set tiers.mode to failover")
    asked = placement.reads(tiering.tiers, tiering.locked.copies, domain)
    copies = [copy for copy in tiering.locked.copies if copy.domain == domain and copy.name in asked]
    if not copies:
        raise ConfigurationError(f"no copy in domain {domain!r} that {tiering.tiers.mode} reads from")
    at = tiering.locking.now()
    with tiering.store.begin() as db:
        before = serving(db)
        if before not in {"", domain}:
            return Deny(f"{before} stands in already: fail back first")
        if not before:
            db.execute(sa.insert(tier_serving).values(id=1, domain=domain, since=at.isoformat()))
            ledger.write(db, at, "site:tiers:failed-over", domain=domain, by=by, reason=reason)
    return set_marks(tiering, copies)


def set_marks(tiering: Tiering, copies: Iterable[LockedCopy]) -> Difference:
    """Mark the files that are not here and that one of the copies has; count without reading what is here.

    Where two objects have a file of one name, the newer has the mark.
    """
    tiering.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    places = {copy.name: worm.place_of(copy) for copy in copies}
    with alone(tiering.root):
        return _set_marks(tiering, places)


def _set_marks(tiering: Tiering, places: Mapping[str, str]) -> Difference:
    seen: set[str] = set()
    same = is_away = lost = 0
    for name, members in _listed(tiering).items():
        with tiering.store.connect() as db:
            known = worm.records(db, name)
        can_come = any(
            copy in known and known[copy].place == place and not known[copy].fault for copy, place in places.items()
        )
        fresh = [one for one in members if one.path not in seen]
        seen.update(one.path for one in fresh)
        absent = [one for one in fresh if not (tiering.folder / one.path).exists()]
        same += len(fresh) - len(absent)
        is_away += len(absent) * can_come
        lost += len(absent) * (not can_come)
        if can_come:
            _mark(tiering.folder, name, members, absent)
    return Difference(same, is_away, 0, lost, None)


def _mark(folder: Path, name: str, members: tuple[Member, ...], absent: list[Member]) -> None:
    """Set the marks of an object of which files are absent: all of them, so that its group is whole."""
    if not absent or all(away.mark_of(folder / one.path).exists() for one in absent):
        return
    free = [one for one in members if not away.mark_of(folder / one.path).exists()]
    for one in free:
        (folder / one.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    away.put((folder / one.path, away.Mark(name, one.size, one.sha256)) for one in free)


def fail_back(tiering: Tiering, by: str, reason: str) -> tuple[Difference, Deny | None]:
    """Return to the folder, on the record, if it and the copies have all; the refusal says what is wanting.

    Every copy that lacks something is given it first, and every file of the folder is compared.
    Raises: ConfigurationError if nothing stands in; OSError.
    """
    with tiering.store.connect() as db:
        if not serving(db):
            raise ConfigurationError("no domain stands in: there is nothing to return from")
    with tiering.bar("bringing") as heard:
        tiering.locking.finish(heard)
    listed = _listed(tiering)
    difference = _compare(tiering, listed)
    refusal = _wanting(tiering, difference)
    if refusal is None:
        at = tiering.locking.now()
        with tiering.store.begin() as db:
            ledger.write(db, at, "site:tiers:failed-back", domain=serving(db), by=by, reason=reason)
            db.execute(sa.delete(tier_serving))
    return difference, refusal


def _compare(tiering: Tiering, listed: Mapping[str, tuple[Member, ...]]) -> Difference:
    with tiering.bar("comparing") as heard:
        found = series.find(tiering.folder, heard)
    digests = {member.path: member.sha256 for one in found.series for member in one.members}
    archived: dict[str, set[str]] = {}
    for members in listed.values():
        for one in members:
            archived.setdefault(one.path, set()).add(one.sha256)
    same = sum(digests.get(path) in known for path, known in archived.items())
    absent = {path for path in archived if path not in digests}
    is_away = {path for path in absent if away.is_away(tiering.folder / path)}
    return Difference(
        same,
        len(is_away),
        sum(path in digests and digests[path] not in known for path, known in archived.items()),
        len(absent - is_away),
        len(digests.keys() - archived.keys()),
    )


def _wanting(tiering: Tiering, difference: Difference) -> Deny | None:
    """Return why the folder cannot be returned to; None if it can."""
    moment, compliant = tiering.locking.now(), tiering.compliant()
    with tiering.store.connect() as db:
        verdicts = [
            worm.standing(one, worm.records(db, one.name), compliant, tiering.locked, moment)
            for one in worm.objects(db)
        ]
    reasons = sorted({verdict.reason for verdict in verdicts if isinstance(verdict, Deny)})
    if reasons:
        return Deny(f"not every object is protected: {'; '.join(reasons)}")
    if difference.new or difference.changed:
        return Deny("there are files that are not archived as they are now: run `tiers run`, and look at what changed")
    if difference.lost:
        return Deny("files are gone and are not marked: run `tiers failover` again, or restore them")
    return None


def _listed(tiering: Tiering) -> dict[str, tuple[Member, ...]]:
    """Return the files of every object on record; a list that is damaged is said, and left out."""
    listed = {}
    with tiering.store.connect() as db:
        for name in names_of(db):
            try:
                listed[name] = manifest(db, tiering.locking.seal, name)
            except LockedCopyInvalid as error:
                tiering.say(str(error))
    return listed
