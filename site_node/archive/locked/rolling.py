"""The rolling lock of the snapshot repository: a job that pushes the date of every version forward.

restic cannot: its packs are written once and used by later snapshots for as long as those live. Every version is
extended, not only the newest: what an attacker wrote over a pack must not be all that is left when the older lock ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from site_node.errors import EndpointRefused

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from site_node.archive.locked.locks import Lock, Version
    from site_node.archive.locked.s3 import Bucket

SLACK = timedelta(hours=12)  # a run that was cut off and begun again passes over what it had extended


@dataclass(frozen=True, slots=True)
class Extended:
    """Versions under a prefix, how many were extended now, and those that could not be."""

    versions: int
    extended: int
    faults: tuple[tuple[str, str], ...]


def extend(
    bucket: Bucket,
    prefix: str,
    until: datetime,
    heard: Callable[[int, int], None] = lambda _done, _total: None,
) -> Extended:
    """Lock every version under `prefix` until `until` at least; no date is ever moved back.

    Raises: EndpointUnreachable; what was extended until then stays so.
    """
    found = [version for version in bucket.versions(prefix) if not version.is_marker]
    extended, faults = 0, []
    for done, version in enumerate(found, start=1):
        try:
            extended += _extend_one(bucket, version, until)
        except EndpointRefused as error:
            faults.append((version.name, error.code))
        except _TooWeak:
            faults.append((version.name, "the lock that was read back is weaker"))
        heard(done, len(found))
    return Extended(len(found), extended, tuple(faults))


class _TooWeak(Exception):
    pass


def _extend_one(bucket: Bucket, version: Version, until: datetime) -> bool:
    """Extend one version if it needs it, read its lock back, and return whether it needed it."""
    if _is_enough(bucket.lock(version.name, version.version_id), until):
        return False
    bucket.extend(version.name, version.version_id, until)
    if not bucket.lock(version.name, version.version_id).holds_until(until):
        raise _TooWeak
    return True


def _is_enough(lock: Lock, until: datetime) -> bool:
    return lock.holds_until(until - SLACK)
