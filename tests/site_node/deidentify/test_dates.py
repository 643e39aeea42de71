"""Dates move together and keep their distances; what is none comes out as nothing."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_node.deidentify.dates import Shift, calendar_day

SHIFT = Shift(days=400, seconds=3_661)
DAYS = st.dates(date(1900, 1, 1), date(2100, 1, 1))


@given(DAYS, DAYS, st.integers(1, 4000))
def test_every_distance_in_days_stays(one: date, other: date, days: int) -> None:
    moved = [Shift(days, 0).date(f"{day:%Y%m%d}") for day in (one, other)]

    first, second = (date.fromisoformat(str(day)) for day in moved)
    assert second - first == other - one
    assert one - first == timedelta(days)


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        ("20240229", "20230125"),
        ("2024.02.29", "20230125"),
        ("20240229 ", "20230125"),
        ("20230229", None),
        ("02240229", None),
        ("2024", None),
        ("John", None),
        ("", None),
    ],
)
def test_a_date_moves_or_is_none(value: str, moved: str | None) -> None:
    assert SHIFT.date(value) == moved


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        ("101530.25", "091429.25"),
        ("10:15:30", "091429"),
        ("000000", "225859"),
        ("1015", "0913"),
        ("10", "08"),
        ("2460", None),
        ("250000", None),
        ("noon", None),
    ],
)
def test_a_time_moves_round_the_clock_in_its_own_precision(value: str, moved: str | None) -> None:
    assert SHIFT.time(value) == moved


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        ("20240229101530.25+0100", "20230125091429.25"),
        ("20240229", "20230125"),
        ("202402", None),
        ("20240229xx", None),
        ("", None),
    ],
)
def test_a_moment_moves_as_its_day_and_its_time_do(value: str, moved: str | None) -> None:
    assert SHIFT.moment(value) == moved


def test_without_a_distance_all_stays_and_so_does_the_zone() -> None:
    full = Shift(0, 0, zones=True)

    assert full.moment("20240229101530.25+0100") == "20240229101530.25+0100"
    assert full.time("235960") == "235959"
    assert full.date("20240229") == "20240229"


def test_the_day_of_a_value() -> None:
    assert calendar_day("20240229101530") == date(2024, 2, 29)
    assert calendar_day("20240230") is None
    assert calendar_day("") is None


def test_fractions_of_a_second_move_and_keep_their_intervals() -> None:
    shift = Shift(days=400, seconds=3_661, micros=400_000)
    assert [shift.time(text) for text in ("120000.500000", "120000.300000", "120000.3", "120000")] == [
        "105859.100000",
        "105858.900000",
        "105858.9",
        "105859",
    ]
    assert shift.time("000000.100000") == "225858.700000"
    assert shift.moment("20240101120000.5") == "20221127105859.1"
