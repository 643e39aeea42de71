"""When a drill is due, and what a site has to be told: drills that failed, did not end, or are overdue. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from site_node.drills.report import Mode

AGAIN = timedelta(hours=24)
"""A drill that failed is run again after this, if it is not due before."""
GRACE = 2
"""So many pauses after the last one that passed, a drill is overdue."""


@dataclass(frozen=True, slots=True)
class Last:
    """The last drill of a kind, and the last one that passed."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    passed: bool = False
    passed_at: datetime | None = None
    problems: tuple[str, ...] = ()


def due(last: Mapping[Mode, Last], pauses: Mapping[Mode, timedelta], at: datetime) -> Mode | None:
    """Return the kind of drill to run now, the one that waits longest first."""
    waiting = [
        (began is not None, began, mode)
        for mode, pause in pauses.items()
        if pause
        for began in [last[mode].started_at]
        if began is None or at - began >= (pause if last[mode].passed else min(pause, AGAIN))
    ]
    return min(waiting, key=lambda one: (one[0], one[1] or at), default=(None, None, None))[2]


def notices(last: Mapping[Mode, Last], pauses: Mapping[Mode, timedelta], at: datetime) -> Iterable[str]:
    """Yield one line for each kind of drill that a person has to look after."""
    for mode, one in last.items():
        pause = pauses[mode]
        if one.started_at is not None and not one.passed:
            why = one.problems[0] if one.problems else "it runs still, or did not end"
            yield f"drill {mode} of {one.started_at:%Y-%m-%d %H:%M} failed: {why}"
        elif pause and one.passed_at is not None and at - one.passed_at > GRACE * pause:
            yield f"drill {mode} is overdue: the last one passed {one.passed_at:%Y-%m-%d %H:%M}"
