"""A drill is run when it is due, and nobody has to ask whether one failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from site_node.drills.report import Mode
from site_node.drills.schedule import Last, due, notices

NOW = datetime(2026, 3, 12, 12, tzinfo=UTC)
H = timedelta(hours=1)
PAUSES = {Mode.SAMPLE: 24 * H, Mode.FULL: 168 * H, Mode.ATTACK: 0 * H, Mode.FAILOVER: 0 * H}
NEVER = dict.fromkeys(Mode, Last())


def ran(hours_ago: float, *, passed: bool = True) -> Last:
    at = NOW - hours_ago * H
    return Last(at, at, passed, at if passed else None, () if passed else ("the PACS ended",))


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({}, Mode.SAMPLE),
        ({Mode.SAMPLE: ran(1)}, Mode.FULL),
        ({Mode.SAMPLE: ran(1), Mode.FULL: ran(167)}, None),
        ({Mode.SAMPLE: ran(24), Mode.FULL: ran(1)}, Mode.SAMPLE),
        ({Mode.SAMPLE: ran(30), Mode.FULL: ran(170)}, Mode.FULL),
        ({Mode.SAMPLE: ran(1), Mode.FULL: ran(24, passed=False)}, Mode.FULL),
        ({Mode.SAMPLE: ran(23, passed=False), Mode.FULL: ran(1)}, None),
    ],
)
def test_the_one_that_waits_longest_is_due(last: dict[Mode, Last], expected: Mode | None) -> None:
    assert due(NEVER | last, PAUSES, NOW) == expected


def test_a_kind_without_a_pause_is_never_due() -> None:
    assert due(NEVER, dict.fromkeys(Mode, 0 * H), NOW) is None


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (ran(1), []),
        (ran(1, passed=False), ["failed: the PACS ended"]),
        (Last(NOW - H), ["did not end"]),
        (ran(49), ["overdue"]),
        (ran(47), []),
    ],
)
def test_what_failed_did_not_end_or_is_overdue_is_told(last: Last, words: list[str]) -> None:
    told = list(notices(NEVER | {Mode.SAMPLE: last}, PAUSES, NOW))

    assert len(told) == len(words)
    assert all(word in line for word, line in zip(words, told, strict=True))
