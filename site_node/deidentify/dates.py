"""Dates and times moved by a patient's keyed distance; what is none comes out as nothing.

Days move together, so that intervals stay; times of day move modulo 24 hours. Does not decide which dates
may stay; profile.py does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from site_node.deidentify.pseudonym import Pseudonymiser

_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")  # PS3.5 6.2, DA; with dots in files before 1993
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(\.\d{1,6})?)?)?")
_ZONE = re.compile(r"[+-]\d{4}")
_EARLIEST_YEAR = 1000  # a year before is a typing error, or an empty date in disguise
_DAY_S = 24 * 60 * 60
_DATE_DIGITS = 8
_MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much a patient's dates and times move back; `zones` says whether an offset from UTC stays.

    Fractions of a second move by `micros` besides: by their six digits one patient would be found among a million.

    Units:  `days` in days, `seconds` in seconds of the day, `micros` in microseconds.
    Source: PS3.15 E.3.6; PS3.5 6.2, VRs DA, DT and TM.
    """

    days: int
    seconds: int
    micros: int = 0
    zones: bool = False

    @classmethod
    def of(cls, pseudonymiser: Pseudonymiser, patient_id: str) -> Shift:
        """Return the patient's own."""
        return cls(pseudonymiser.days(patient_id), pseudonymiser.seconds(patient_id), pseudonymiser.micros(patient_id))

    def date(self, text: str) -> str | None:
        """Return a DA value moved, or None if it is no date of the calendar."""
        found = _DATE.fullmatch(text.strip(" \0"))
        if found is None:
            return None
        year, month, day = map(int, found.groups())
        if year < _EARLIEST_YEAR:
            return None
        try:
            moved = date.fromordinal(date(year, month, day).toordinal() - self.days)
        except ValueError:
            return None
        return moved.isoformat().replace("-", "") if moved.year >= _EARLIEST_YEAR else None

    def time(self, text: str) -> str | None:
        """Return a TM value moved modulo 24 hours in its own precision, or None if it is no time of day."""
        found = _TIME.fullmatch(text.strip(" \0"))
        if found is None:
            return None
        hours, minutes, seconds, fraction = found.groups()
        total = int(hours) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
        # 24:00 ends a day and second 60 is a leap second; both occur.
        if int(hours) > 24 or int(minutes or 0) > 59 or int(seconds or 0) > 60 or total > _DAY_S:  # noqa: PLR2004
            return None
        if fraction and self.micros:
            exact = total * _MICROS + int(fraction[1:].ljust(6, "0")) - self.micros
            total, rest = divmod(exact, _MICROS)
            fraction = f".{rest:06}"[: len(fraction)]
        moved = (total - self.seconds) % _DAY_S if self.seconds else min(total, _DAY_S - 1)
        digits = f"{moved // 3600:02}{moved // 60 % 60:02}{moved % 60:02}"
        if seconds is None:
            return digits[: 2 if minutes is None else 4]
        return digits + (fraction or "")

    def moment(self, text: str) -> str | None:
        """Return a DT value moved; one without a day says too little to be moved and becomes None."""
        text = text.strip(" \0")
        zone = text[-5:] if _ZONE.fullmatch(text[-5:]) else ""
        rest = text[: len(text) - len(zone)]
        day, clock = self.date(rest[:_DATE_DIGITS]), rest[_DATE_DIGITS:]
        time = self.time(clock) if clock else ""
        if day is None or time is None or len(rest) < _DATE_DIGITS:
            return None
        return day + time + (zone if self.zones else "")


def calendar_day(text: str) -> date | None:
    """Return the day of a DA or DT value, or None if it is none."""
    found = _DATE.match(text.strip(" \0"))
    try:
        day = date(*map(int, found.groups())) if found else None
    except ValueError:
        return None
    return day if day and day.year >= _EARLIEST_YEAR else None
