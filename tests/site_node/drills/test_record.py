"""A drill is on the record before it does anything, and only data that came back as others pause training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from site_node import alarms
from site_node.drills import record
from site_node.drills.report import Mode

if TYPE_CHECKING:
    import sqlalchemy as sa

NOW = datetime(2026, 3, 12, 12, tzinfo=UTC)


def run(store: sa.Engine, at: datetime, problems: list[str], alarmed: list[str]) -> None:
    with store.begin() as db:
        number = record.begin(db, Mode.FULL, at)
        record.end(db, number, Mode.FULL, problems, alarmed, at + timedelta(minutes=1), b"report")


def test_a_drill_that_only_began_has_not_passed(store: sa.Engine) -> None:
    with store.begin() as db:
        record.begin(db, Mode.SAMPLE, NOW)
        last = record.last(db)[Mode.SAMPLE]

    assert (last.started_at, last.ended_at, last.passed, last.passed_at) == (NOW, None, False, None)


def test_a_failure_hides_nothing_of_the_last_one_that_passed(store: sa.Engine) -> None:
    run(store, NOW, [], [])
    run(store, NOW + timedelta(days=1), ["2 files are missing"], [])

    with store.connect() as db:
        last = record.last(db)[Mode.FULL]

    assert (last.passed, last.problems) == (False, ("2 files are missing",))
    assert last.passed_at == NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("problems", "alarmed", "pauses"),
    [([], [], False), (["2 files are missing"], [], False), (["1 file came back as another"], ["file-differs"], True)],
)
def test_only_data_that_came_back_as_others_pause_training(
    store: sa.Engine, problems: list[str], alarmed: list[str], *, pauses: bool
) -> None:
    run(store, NOW, problems, alarmed)

    with store.connect() as db:
        assert (alarms.open_alarm(db) is not None) is pauses
