"""Drills on the site's record: begun, ended, and the last of each kind."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node import alarms, ledger
from site_node.drills.report import Mode
from site_node.drills.schedule import Last
from site_node.store import drill

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from site_node.config import DrillSettings


def begin(db: sa.Connection, mode: Mode, at: datetime) -> int:
    """Put a drill on the record before it does anything: one that is killed has failed."""
    values = {"mode": mode, "started_at": at.isoformat(), "passed": False, "problems": "[]"}
    made = db.execute(sa.insert(drill).values(values)).inserted_primary_key
    if made is None:
        raise AssertionError("a row that was inserted has a key")
    return int(made[0])


def end(
    db: sa.Connection,
    number: int,
    mode: Mode,
    problems: Sequence[str],
    alarmed: Sequence[str],
    at: datetime,
    report: bytes,
) -> None:
    """Put the end of a drill on the record, and sound the archive's alarm if data came back as others."""
    digest = hashlib.sha256(report).hexdigest()
    values = {
        "ended_at": at.isoformat(),
        "passed": not problems,
        "problems": json.dumps(list(problems)),
        "report": digest,
    }
    db.execute(sa.update(drill).where(drill.c.number == number).values(values))
    outcome = "failed" if problems else "passed"
    ledger.write(db, at, f"site:drill:{outcome}", mode=mode, problems=len(problems), report=digest)
    if alarmed:
        alarms.sound(db, alarmed, at)


def last(db: sa.Connection) -> dict[Mode, Last]:
    """Return the last drill of each kind."""
    return {mode: _last(db, mode) for mode in Mode}


def pauses(settings: DrillSettings) -> Mapping[Mode, timedelta]:
    """Return how often each kind of drill is to be run; no time means never."""
    return {mode: timedelta(hours=getattr(settings, f"{mode}_every_h")) for mode in Mode}


def _last(db: sa.Connection, mode: Mode) -> Last:
    newest = sa.select(drill).where(drill.c.mode == mode).order_by(drill.c.number.desc()).limit(1)
    row = db.execute(newest).first()
    if row is None:
        return Last()
    good = sa.select(sa.func.max(drill.c.ended_at)).where(drill.c.mode == mode, drill.c.passed)
    return Last(
        datetime.fromisoformat(row.started_at),
        _moment(row.ended_at),
        row.passed,
        _moment(db.execute(good).scalar()),
        tuple(json.loads(row.problems)),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
