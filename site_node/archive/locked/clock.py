"""A clock that never goes back, by which expiry is judged.

The machine's clock can be set by whoever has root. What is remembered here is the latest moment it showed, and how long
the machine had run then. A clock behind that moment is refused; so is one that ran ahead of the time the machine itself
counts (CLOCK_BOOTTIME), which no setting of the clock moves. Across a restart only the first can be told.
Does not tell the right time, and root can rewrite the database; docs/locked-copies.md says what is left.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node import ledger
from site_node.errors import ClockRefused
from site_node.store import clock_reading

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE = timedelta(seconds=60)  # more than a time service corrects in one step
LONGEST_REST = timedelta(days=30)  # a machine that was off for longer is looked at by a person
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the machine showed at one moment: its clock, which boot this is, and for how long it has run."""

    at: datetime
    boot: str
    running_s: float


def read_machine() -> Reading:
    """Return what the machine shows now."""
    return Reading(datetime.now(UTC), _BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))


def judge(last: Reading | None, now: Reading) -> datetime:
    """Return the moment by which expiry is judged: never one before that of `last`.

    Raises: ClockRefused if the clock went back, or ran ahead of the machine's own count, by more than TOLERANCE; or if
        the machine was off for longer than LONGEST_REST.
    """
    if last is None:
        return now.at
    if now.at < last.at - TOLERANCE:
        raise ClockRefused(f"the clock went back by {_amount(last.at - now.at)}: nothing is judged by it")
    if now.boot == last.boot:
        ahead = (now.at - last.at) - timedelta(seconds=now.running_s - last.running_s)
        if ahead > TOLERANCE:
            raise ClockRefused(f"the clock jumped ahead by {_amount(ahead)}: nothing is judged by it")
    elif now.at - last.at > LONGEST_REST:
        raise ClockRefused(f"the clock is {_amount(now.at - last.at)} on since the last start of the machine")
    return max(now.at, last.at)


class Clock:
    """The clock of one site's database; `machine` reads the machine's."""

    def __init__(self, store: sa.Engine, machine: Callable[[], Reading] = read_machine) -> None:
        self._store, self._machine = store, machine

    def now(self) -> datetime:
        """Return the moment, and remember it.

        Raises: ClockRefused, as `judge` says.
        """
        with self._store.begin() as db:
            reading = self._machine()
            moment = judge(self._last(db), reading)
            self._remember(db, Reading(moment, reading.boot, reading.running_s))
        return moment

    def accept(self, by: str) -> datetime:
        """Take the machine's clock as it is from now on, on a person's word and on the record; return its moment.

        Raises: ClockRefused if that would be a way back: nobody can accept that.
        """
        with self._store.begin() as db:
            reading, last = self._machine(), self._last(db)
            if last is not None and reading.at < last.at:
                raise ClockRefused(f"the clock is {_amount(last.at - reading.at)} behind what it showed: set it right")
            self._remember(db, reading)
            before = last.at.isoformat() if last else ""
            ledger.write(db, reading.at, "site:clock:accepted", by=by, before=before)
        return reading.at

    @staticmethod
    def _last(db: sa.Connection) -> Reading | None:
        row = db.execute(sa.select(clock_reading)).one_or_none()
        return Reading(datetime.fromisoformat(row.at), row.boot, row.running_s) if row else None

    @staticmethod
    def _remember(db: sa.Connection, reading: Reading) -> None:
        values = {"id": 1, "at": reading.at.isoformat(), "boot": reading.boot, "running_s": reading.running_s}
        db.execute(sa.insert(clock_reading).prefix_with("OR REPLACE").values(**values))


def _amount(difference: timedelta) -> str:
    return str(timedelta(seconds=round(difference.total_seconds())))
