"""Days in a text, however they are written: 17.4.1961, April 17, 1961, 1961-04-17, 19610417."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from site_node.deidentify.dates import calendar_day
from site_node.deidentify.identities import written_days

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

_TOGETHER = re.compile(r"(?<!\d)(?:19|20)\d{2}[01]\d[0-3]\d(?!\d{1,5}(?!\d))")
_NO_DAYS = frozenset(("1900-01-01", "1800-01-01", "1970-01-01", "1901-01-01"))


def days_in(text: str) -> Iterator[tuple[int, int, frozenset[date]]]:
    """Yield (start, end, the days it may be) of each day in `text`."""
    yield from written_days(text)
    for match in _TOGETHER.finditer(text):
        if day := calendar_day(match[0]):
            yield *match.span(), frozenset((day,))


def birth_days(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the days (ISO) on which somebody alive may be born, with their places; not those that stand for no day."""
    for start, end, days in days_in(text):
        for day in sorted(map(str, days)):
            if "1900" < day < "2100" and day not in _NO_DAYS:
                yield start, end, day
