"""Alarms over the hospital's images and the snapshots of them, on the site's record.

An open alarm denies all training: the gate asks. A person clears it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node import ledger
from site_node.errors import ConfigurationError
from site_node.store import archive_alarm, archive_begun, archive_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that no person has cleared: how many images by what happened to them, and the last good snapshot."""

    number: int
    at: str
    counts: Mapping[str, int]
    last_good: str


def open_alarm(db: sa.Connection) -> Alarm | None:
    """Return the alarm that is open, if one is."""
    row = db.execute(sa.select(archive_alarm).where(archive_alarm.c.cleared_at.is_(None))).first()
    return None if row is None else Alarm(row.number, row.at, json.loads(row.counts), row.last_good)


def sound(db: sa.Connection, kinds: Iterable[str], at: datetime) -> Alarm:
    """Open an alarm, or add to the one that is open; return it."""
    counts = dict(sorted(Counter(map(str, kinds)).items()))
    already = open_alarm(db)
    if already is None:
        good = last_good(db)
        db.execute(sa.insert(archive_alarm).values(at=at.isoformat(), counts=json.dumps(counts), last_good=good))
        ledger.write(db, at, "site:archive:alarmed", last_good=good, **counts)
    else:
        highest = dict(Counter(already.counts) | Counter(counts))
        if highest != already.counts:
            mine = archive_alarm.c.number == already.number
            db.execute(sa.update(archive_alarm).where(mine).values(counts=json.dumps(dict(sorted(highest.items())))))
    alarm = open_alarm(db)
    if alarm is None:
        raise AssertionError("an alarm that was just sounded is open")
    return alarm


def clear(db: sa.Connection, by: str, reason: str, at: datetime) -> int:
    """Clear the open alarm on the record; return its number.

    Raises: ConfigurationError if none is open, or nothing is said of who and why.
    """
    alarm = open_alarm(db)
    if alarm is None:
        raise ConfigurationError("no alarm is open")
    if not by.strip() or not reason.strip():
        raise ConfigurationError("an alarm is cleared by somebody, for a reason")
    values = {"cleared_at": at.isoformat(), "cleared_by": by, "reason": reason}
    db.execute(sa.update(archive_alarm).where(archive_alarm.c.number == alarm.number).values(values))
    ledger.write(db, at, "site:archive:cleared", alarm=alarm.number, by=by, reason=reason)
    return alarm.number


def last_good(db: sa.Connection, as_of: datetime | None = None) -> str:
    """Return the id of the last good snapshot, or of the last one at a moment; empty if there is none."""
    good = sa.select(archive_snapshot.c.id).where(archive_snapshot.c.is_good)
    if as_of is not None:
        good = good.where(archive_snapshot.c.at <= as_of.astimezone(UTC).isoformat())
    return db.execute(good.order_by(archive_snapshot.c.number.desc())).scalars().first() or ""


def manifest(db: sa.Connection, snapshot: str) -> str:
    """Return the digest of a snapshot's manifest; empty if the record has none."""
    query = sa.select(archive_snapshot.c.manifest).where(archive_snapshot.c.id == snapshot)
    return db.execute(query).scalars().first() or ""


def named_since(db: sa.Connection, moment: datetime) -> frozenset[str]:
    """Return the last good snapshots that alarms since a moment named."""
    query = sa.select(archive_alarm.c.last_good).where(archive_alarm.c.at >= moment.isoformat())
    return frozenset(db.execute(query).scalars())


def begin(db: sa.Connection, manifest: str) -> None:
    """Put a good snapshot on the record before restic makes it: killed before its end, it is still this site's own."""
    db.execute(sa.insert(archive_begun).prefix_with("OR IGNORE").values(manifest=manifest))


def was_begun(db: sa.Connection, manifest: str) -> bool:
    """Return whether a snapshot with this manifest was begun here since the last one that is on the record."""
    return db.execute(sa.select(archive_begun).where(archive_begun.c.manifest == manifest)).first() is not None


def record(db: sa.Connection, made: str, files: int, manifest: str, at: datetime, *, is_good: bool) -> None:
    """Put a snapshot on the record, which restic has ended and its list shows."""
    values = {"id": made, "at": at.isoformat(), "files": files, "manifest": manifest, "is_good": is_good}
    db.execute(sa.insert(archive_snapshot).values(values))
    db.execute(sa.delete(archive_begun))
    entry = "site:archive:snapshot-taken" if is_good else "site:archive:suspect-snapshot-taken"
    ledger.write(db, at, entry, snapshot=made, files=files, manifest=manifest)
