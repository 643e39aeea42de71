"""Plain values: periods with both bounds included, and the words that others read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from consent.record import Match, Outcome, Period, Scope
from tests.consent.records import AT, FUTURE, PAST

DAY = date(2024, 5, 1)
FIRST = datetime(2024, 5, 1, tzinfo=UTC)
LAST = FIRST + timedelta(days=1, microseconds=-1)
INSTANT = timedelta(microseconds=1)


def test_the_words_that_others_read_stay() -> None:
    assert [outcome.value for outcome in Outcome] == ["permit", "deny", "no-consent", "review"]
    assert [scope.value for scope in Scope] == ["research", "privacy", "other"]


@pytest.mark.parametrize(("start", "end"), [(AT.replace(tzinfo=None), None), (PAST, AT.replace(tzinfo=None))])
def test_a_bound_without_a_zone_is_refused(start: datetime | None, end: datetime | None) -> None:
    with pytest.raises(ValueError, match="time zone"):
        Period(start, end)


def test_a_period_may_be_one_instant_and_not_less() -> None:
    assert Period(AT, AT).contains(AT)
    with pytest.raises(ValueError, match="ends before"):
        Period(FUTURE, PAST)


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (Period(), Match.YES),
        (Period(FIRST, LAST), Match.YES),
        (Period(FIRST + INSTANT, LAST), Match.UNKNOWN),
        (Period(FIRST, LAST - INSTANT), Match.UNKNOWN),
        (Period(LAST, None), Match.UNKNOWN),
        (Period(LAST + INSTANT, None), Match.NO),
        (Period(None, FIRST), Match.UNKNOWN),
        (Period(None, FIRST - INSTANT), Match.NO),
    ],
)
def test_a_day_lies_within_a_period_as_a_whole_or_in_part(period: Period, expected: Match) -> None:
    assert period.contains_day(DAY) is expected
    assert period.contains_day(None) is Match.UNKNOWN
