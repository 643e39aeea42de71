"""What the members tell of the consents for a task: taken in if it is the sender's own, and shown side by side.

Only the last statement of each member on each task is kept. Members whose membership ended are not shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from consent import RangeCounts, StatisticsInvalid, open_statistics, range_bounds
from coordinator.errors import PeerError
from coordinator.store import member, statistic, task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date, datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from consent import ConsentStatistics

OUTCOMES: Final = tuple(RangeCounts.model_fields)
_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Told:
    """What one member told of a task."""

    site: str
    dataset: str
    modality: str
    as_of: str
    studies: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Expected:
    federation: str
    site: str
    knows_task: bool
    held: date | None
    today: date


def take(store: sa.Engine, federation: str, site: str, key: Ed25519PublicKey, envelope: bytes, at: datetime) -> None:
    """Keep a statement of the member `site`, which signs with `key`, in place of what it told of the task before.

    Raises: PeerError with the reason why it is not taken: one of `CHECKS`, or `statistics-` and what is wrong with
        the envelope.
    """
    try:
        made = open_statistics(envelope, key)
    except StatisticsInvalid as error:
        raise PeerError(f"statistics-{error.reason}") from error
    mine = (statistic.c.site == site) & (statistic.c.task == made.task)
    with store.begin() as db:
        held = db.scalar(sa.select(statistic.c.as_of).where(mine))
        known = db.scalar(sa.select(task.c.digest).where(task.c.digest == made.task))
        before = type(made.as_of).fromisoformat(held) if held else None
        expected = _Expected(federation, site, known is not None, before, at.astimezone(UTC).date())
        for reason, holds in CHECKS.items():
            if not holds(made, expected):
                raise PeerError(reason)
        db.execute(sa.delete(statistic).where(mine))
        db.execute(
            sa.insert(statistic).values(
                site=site,
                task=made.task,
                dataset=made.dataset,
                modality=made.modality,
                studies=made.studies.model_dump_json(),
                as_of=made.as_of.isoformat(),
                envelope=envelope,
                received_at=at.isoformat(),
            )
        )


CHECKS: Final[Mapping[str, Callable[[ConsentStatistics, _Expected], bool]]] = {
    "another-federation": lambda made, expected: made.federation == expected.federation,
    "another-site": lambda made, expected: made.site == expected.site,
    "unknown-task": lambda _made, expected: expected.knows_task,
    "dated-ahead": lambda made, expected: made.as_of <= expected.today + _ONE_DAY,
    "older-than-held": lambda made, expected: expected.held is None or expected.held <= made.as_of,
}


def told(store: sa.Engine, digest: str) -> list[Told]:
    """Return what the members told of a task, in the order of their names."""
    active = member.c.revoked_at.is_(None)
    query = sa.select(statistic).join(member, (member.c.site == statistic.c.site) & active)
    with store.connect() as db:
        rows = db.execute(query.where(statistic.c.task == digest).order_by(statistic.c.site)).all()
    return [Told(row.site, row.dataset, row.modality, row.as_of, json.loads(row.studies)) for row in rows]


def total(found: Sequence[Told]) -> dict[str, tuple[int, int]]:
    """Return for each outcome the lowest and the highest number of studies that the ranges leave open together."""
    bounds = {name: [range_bounds(one.studies[name]) for one in found] for name in OUTCOMES}
    return {name: (sum(low for low, _ in pairs), sum(high for _, high in pairs)) for name, pairs in bounds.items()}
