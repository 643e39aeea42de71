"""The rolling lock of the snapshot repository: a job that pushes the dates of its versions forward.

restic cannot: its packs are written once, and used by later snapshots for as long as those live. What was written over
is prolonged too: an attacker's bytes must not be all that is left when the older lock ends. What restic pruned lies
behind a delete marker; it is prolonged for one term more, and then left to lapse, so that space comes back. While the
repository's own `config` is hidden or written over nothing lapses: then it was not restic.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from site_node.errors import EndpointRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from site_node.archive.locked.locks import Version
    from site_node.archive.locked.s3 import Bucket

PREFIX = "snapshots/"  # where the repository lies in its bucket
SLACK = timedelta(hours=12)  # a run that was cut off and begun again passes over what it had prolonged
_PASSING = f"{PREFIX}locks/"  # restic's own locks, of processes
_CONFIG = f"{PREFIX}config"


@dataclass(frozen=True, slots=True)
class Extended:
    """What a run left: the versions it answers for, how many it prolonged now, and the earliest date read back.

    `lapsing` are pruned for so long that they are left alone. `faults` are names and what is wrong with them.
    """

    versions: int
    extended: int
    lapsing: int
    until: datetime | None
    faults: tuple[tuple[str, str], ...]

    @property
    def line(self) -> str:
        """What a person is told of it."""
        locked = f"locked until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else "nothing locked"
        told = f"{self.versions} versions, {self.extended} extended now, {locked}"
        told += f", but for {len(self.faults)} faults" if self.faults else ""
        return told + (f"; {self.lapsing} pruned long ago, left to lapse" if self.lapsing else "")

    @property
    def problems(self) -> list[str]:
        """One line for each kind of fault: how many names have it, and the first of them."""
        kinds: dict[str, list[str]] = defaultdict(list)
        for name, fault in self.faults:
            kinds[fault].append(name)
        return [f"{len(names)} {fault}; the first is {names[0]}" for fault, names in kinds.items()]


def extend(
    bucket: Bucket,
    at: datetime,
    term: timedelta,
    heard: Callable[[int, int], None] = lambda _done, _total: None,
) -> Extended:
    """Lock every version that the repository may need until `at` and `term` (less SLACK); no date is ever moved back.

    Raises: EndpointUnreachable; what was prolonged until then stays so.
    """
    due, lapsing, faults = judge(bucket.versions(PREFIX), at - term)
    if bucket.default_days() < term.days:
        faults.append((bucket.name, "without a default retention so long: what is written is not locked at once"))
    until = (at + term).replace(microsecond=0)
    extended, dates = 0, []
    for done, version in enumerate(due, start=1):
        try:
            lock = bucket.lock(version.name, version.version_id)
            if not lock.holds_until(until - SLACK):
                bucket.extend(version.name, version.version_id, until)
                lock = bucket.lock(version.name, version.version_id)
                extended += 1
        except EndpointRefused as error:
            faults.append((version.name, error.code))
        else:
            if lock.until is None or not lock.holds_until(until - SLACK):
                faults.append((version.name, "with a weaker lock than was asked for"))
            else:
                dates.append(lock.until)
        heard(done, len(due))
    return Extended(len(due), extended, lapsing, min(dates, default=None), tuple(faults))


def judge(found: Iterable[Version], pruned_before: datetime) -> tuple[list[Version], int, list[tuple[str, str]]]:
    """Return the versions to prolong, how many are left to lapse, and which names were written over.

    `pruned_before` is the moment before which what was hidden may lapse.
    """
    names: dict[str, list[Version]] = defaultdict(list)
    hidden: dict[str, datetime] = {}
    for version in found:
        if version.name.startswith(_PASSING):
            continue
        if version.is_marker and version.is_latest:
            hidden[version.name] = version.at
        elif not version.is_marker:
            names[version.name].append(version)
    # Names are digests of contents (but for `config`), so restic never gives one another content.
    over = sorted(name for name, versions in names.items() if len({version.etag for version in versions}) > 1)
    is_whole = _CONFIG in names and _CONFIG not in hidden and _CONFIG not in over
    lapsed = {name for name, since in hidden.items() if is_whole and name not in over and since < pruned_before}
    due = [version for name, versions in names.items() if name not in lapsed for version in versions]
    lapsing = sum(len(names[name]) for name in lapsed)
    faults = [(name, "written over, as restic never does") for name in over]
    if names and _CONFIG in hidden:
        faults.append((_CONFIG, "hidden behind a delete marker, as restic never does"))
    return due, lapsing, faults
