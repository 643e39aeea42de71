"""What each mode of tiers means: when a file may leave the site's folder, and which copy a read is served from.

Decides, and touches nothing: the files are `tiering`'s, the copies `worm`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

from consent import Deny, Permit
from site_node.archive.locked.worm import place_of, standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from site_node.archive.locked.worm import CopyRecord, LockedObject
    from site_node.config import LockedCopies, LockedCopy, Tiers


class Role(Enum):
    """Who administers a copy: the hospital itself, or somebody else."""

    HOME = "home"
    CLOUD = "cloud"


class Leaving(Enum):
    """What leaves the folder."""

    NOTHING = "nothing"
    COLD = "what is cold"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Mode:
    """One row of the table.

    `demands` are the roles of which each must have a copy, read back, before a file leaves, and `domains` is how many
    administrative domains must have one; copies of another role than `counts` are no help. `reads` is who is asked for
    a file that is away, in this order. `stands_in` says that another domain may be told to take over.
    """

    primary: str
    leaves: Leaving
    demands: frozenset[Role]
    counts: frozenset[Role]
    domains: int
    reads: tuple[Role, ...]
    stands_in: bool


_BOTH = frozenset(Role)
_CLOUD = frozenset({Role.CLOUD})
_HOME_FIRST, _CLOUD_FIRST = (Role.HOME, Role.CLOUD), (Role.CLOUD, Role.HOME)

MODES: Mapping[str, Mode] = {
    "second-copy": Mode("folder", Leaving.NOTHING, _CLOUD, _BOTH, 1, _HOME_FIRST, stands_in=False),
    "active-archive": Mode("folder", Leaving.COLD, _CLOUD, _BOTH, 2, _HOME_FIRST, stands_in=False),
    "failover": Mode("folder", Leaving.NOTHING, _CLOUD, _BOTH, 1, _CLOUD_FIRST, stands_in=True),
    "production-in-cloud": Mode("cloud", Leaving.ALL, _BOTH, _BOTH, 2, _CLOUD_FIRST, stands_in=True),
    "complete-cloud": Mode("cloud", Leaving.ALL, _CLOUD, _CLOUD, 2, (Role.CLOUD,), stands_in=True),
}


def role(copy: LockedCopy, tiers: Tiers) -> Role:
    """Return who administers a copy."""
    return Role.HOME if copy.domain == tiers.home else Role.CLOUD


def possible(tiers: Tiers, locked: LockedCopies) -> Permit | Deny:
    """Return whether the configured copies can give what the mode demands; the refusal says what is missing."""
    mode = MODES[tiers.mode]
    copies = [copy for copy in locked.copies if not copy.snapshots]
    for wanted in sorted(mode.demands, key=lambda one: one.value):
        if not any(role(copy, tiers) is wanted for copy in copies):
            where = f"in domain {tiers.home!r}" if wanted is Role.HOME else f"outside domain {tiers.home!r}"
            return Deny(f"{tiers.mode} demands a copy {where}")
    domains = {copy.domain for copy in copies if role(copy, tiers) in mode.counts}
    needed = max(mode.domains, locked.domains if mode.leaves is not Leaving.NOTHING else 1)
    if len(domains) < needed:
        return Deny(
            f"{tiers.mode} demands copies in {needed} administrative domains that count, there are {len(domains)}"
        )
    if mode.leaves is Leaving.COLD and not tiers.keep_days and not tiers.max_gb:
        return Deny(f"{tiers.mode} demands keep_days or max_gb")
    return Permit()


def may_leave(
    locked: LockedObject,
    records: Mapping[str, CopyRecord],
    compliant: Mapping[str, Permit | Deny],
    tiers: Tiers,
    settings: LockedCopies,
    since: datetime,
    at: datetime,
) -> Permit | Deny:
    """Return whether the files of an object may be taken out of the folder.

    Besides being protected (`worm.standing`), it was read back since the moment `since`: from every required copy, and
    from one of every role that the mode demands, in as many domains as it demands; and its locks last. The refusal says
    what is wanting.
    """
    if MODES[tiers.mode].leaves is Leaving.NOTHING:
        return Deny(f"in {tiers.mode} nothing leaves the folder")
    protected = standing(locked, records, compliant, settings, at)
    if isinstance(protected, Deny):
        return protected
    fresh = [copy for copy in settings.copies if _is_fresh(locked, copy, records.get(copy.name), compliant, since, at)]
    wanting = next(_wanting(locked, fresh, tiers, settings, at), "")
    return Deny(wanting) if wanting else Permit()


def _wanting(
    locked: LockedObject, fresh: Sequence[LockedCopy], tiers: Tiers, settings: LockedCopies, at: datetime
) -> Iterator[str]:
    """Yield what keeps an object in the folder, `fresh` being the copies that were read back well."""
    mode = MODES[tiers.mode]
    if locked.until < at + timedelta(days=tiers.lock_days):
        yield f"its lock ends within {tiers.lock_days} days"
    for copy in settings.copies:
        if copy.required and not copy.snapshots and copy not in fresh:
            yield f"{copy.name} was not read back now"
    for wanted in sorted(mode.demands - {role(copy, tiers) for copy in fresh}, key=lambda one: one.value):
        yield f"no {wanted.value} copy was read back now"
    domains = {copy.domain for copy in fresh if role(copy, tiers) in mode.counts}
    needed = max(mode.domains, settings.domains)
    if len(domains) < needed:
        yield f"read back now in {len(domains)} of {needed} administrative domains"


def _is_fresh(
    locked: LockedObject,
    copy: LockedCopy,
    record: CopyRecord | None,
    compliant: Mapping[str, Permit | Deny],
    since: datetime,
    at: datetime,
) -> bool:
    """Return whether a copy was read back since a moment, whole, compliant, and locked as the object must be."""
    return (
        not copy.snapshots
        and record is not None
        and record.place == place_of(copy)
        and not record.fault
        and since <= record.verified_at <= at
        and record.until >= locked.until
        and record.hold >= locked.hold
        and isinstance(compliant.get(copy.name), Permit)
    )


def prolonged(locked: LockedObject, tiers: Tiers, at: datetime) -> datetime:
    """Return until when an object that is away, or about to be, is to be locked: never for shorter than it is.

    Its legal date may be over, and its copies are all there is: so a lock that ends soon is pushed on, so far that
    not every run does it.
    """
    if locked.until >= at + timedelta(days=tiers.lock_days):
        return locked.until
    return (at + timedelta(days=2 * tiers.lock_days)).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Here:
    """An object whose files are in the folder: `dated` is its study's day, `came` when it came, or last came back."""

    name: str
    size: int
    dated: datetime
    came: datetime


def wanted_away(tiers: Tiers, here: Sequence[Here], at: datetime) -> dict[str, str]:
    """Return the objects that the mode wants out of the folder, each with the reason; the oldest come first.

    What came, or came back, stays for `rest_days`, whatever else is said.
    """
    leaves = MODES[tiers.mode].leaves
    if leaves is Leaving.NOTHING:
        return {}
    rested = [one for one in here if at - one.came >= timedelta(days=tiers.rest_days)]
    rested.sort(key=lambda one: (one.dated, one.came, one.name))
    if leaves is Leaving.ALL:
        return {one.name: "the folder only passes files on" for one in rested}
    wanted = {
        one.name: f"its study is older than {tiers.keep_days} days"
        for one in rested
        if tiers.keep_days and at - one.dated >= timedelta(days=tiers.keep_days)
    }
    left = sum(one.size for one in here if one.name not in wanted)
    for one in rested:
        if tiers.max_gb and left > tiers.max_bytes and one.name not in wanted:
            wanted[one.name] = f"the folder has more than {tiers.max_gb:g} GB"
            left -= one.size
    return wanted


def reads(tiers: Tiers, copies: Iterable[LockedCopy], serving: str) -> list[str]:
    """Return the names of the copies that a read asks, in order.

    While a domain stands in (`serving`), it is asked first and the hospital's own is not asked.
    """
    order = MODES[tiers.mode].reads
    asked = [copy for copy in copies if not copy.snapshots and role(copy, tiers) in order]
    if serving:
        asked = [copy for copy in asked if copy.domain == serving or role(copy, tiers) is not Role.HOME]
    asked.sort(key=lambda copy: (copy.domain != serving, order.index(role(copy, tiers))))
    return [copy.name for copy in asked]
