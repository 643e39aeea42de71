"""Consent statistics of a task: counted here, told to the consortium as ranges, and only when a range changed.

What was told last is kept by question: what was asked of the consents, of which dataset. Two tasks that ask the same
are told the same, so that the difference of two answers says nothing; and within `INTERVAL` the same question has the
same answer, so that the moment at which a range changes is not the moment of a withdrawal.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from consent import ConsentStatistics, Deny, Outcome, RangeCounts, count_range
from site_node import ledger
from site_node.store import told_statistics

if TYPE_CHECKING:
    from site_node.config import Identity
    from site_node.gate import Gate, Snapshot

INTERVAL: Final = timedelta(days=7)
_NAMES: Final = {outcome: outcome.value.replace("-", "_") for outcome in Outcome}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What would leave for a task now; `question` names what it answers, and `counted_at` when it was counted."""

    statistics: ConsentStatistics
    question: str
    counted_at: datetime


def prepare(db: sa.Connection, gate: Gate, identity: Identity, digest: str, at: datetime) -> Prepared | Deny:
    """Return what would be told of the task with `digest`, or why nothing may: it is asked as for a round.

    That fewer studies are permitted than a round needs is no reason to be silent: the lowest range says as much.
    """
    snapshot = gate.explained(digest, at)
    if isinstance(snapshot, Deny):
        return snapshot
    question = _question(snapshot)
    studies, counted_at = _told(snapshot, _last(db, question), at)
    made = ConsentStatistics(
        federation=identity.federation,
        site=identity.site,
        task=digest,
        dataset=snapshot.grants[0].dataset,
        modality=snapshot.task.input.modality,
        as_of=counted_at.astimezone(UTC).date(),
        studies=studies,
    )
    return Prepared(made, question, counted_at)


def is_known(db: sa.Connection, prepared: Prepared, signer: str) -> bool:
    """Return whether the coordinator was handed just this, signed with the key of this membership, for this task."""
    columns = told_statistics.c
    query = sa.select(columns.studies, columns.dataset, columns.signer).where(columns.task == prepared.statistics.task)
    last = db.execute(query.where(columns.handed_over_at.is_not(None)).order_by(columns.number.desc())).first()
    told = (_json(prepared.statistics.studies), prepared.statistics.dataset, signer)
    return last is not None and (last.studies, last.dataset, last.signer) == told


def note(db: sa.Connection, prepared: Prepared, signer: str, at: datetime) -> int:
    """Put on record what is about to be told, before it is; return its number."""
    made = prepared.statistics
    added = db.execute(
        sa.insert(told_statistics)
        .values(
            task=made.task,
            question=prepared.question,
            dataset=made.dataset,
            studies=_json(made.studies),
            signer=signer,
            counted_at=prepared.counted_at.isoformat(),
            told_at=at.isoformat(),
        )
        .returning(told_statistics.c.number)
    )
    ledger.write(db, at, "site:statistics:told", task=made.task, dataset=made.dataset, **made.studies.model_dump())
    return int(added.scalar_one())


def note_handed_over(db: sa.Connection, number: int, at: datetime) -> None:
    """Put on record that the coordinator has it."""
    columns = told_statistics.c
    db.execute(sa.update(told_statistics).where(columns.number == number).values(handed_over_at=at.isoformat()))


def _told(snapshot: Snapshot, last: tuple[RangeCounts, datetime] | None, at: datetime) -> tuple[RangeCounts, datetime]:
    if last is not None and at - last[1] < INTERVAL:
        return last
    counts = Counter(verdict.outcome for verdict in snapshot.cohort.verdicts.values())
    before = last[0].model_dump() if last else {}
    ranges = {name: count_range(counts[outcome], before.get(name)) for outcome, name in _NAMES.items()}
    return RangeCounts(**ranges), at


def _last(db: sa.Connection, question: str) -> tuple[RangeCounts, datetime] | None:
    """Return what was told last in answer to a question, handed over or not, and when it was counted."""
    columns = told_statistics.c
    query = sa.select(told_statistics).where(columns.question == question).order_by(columns.number.desc())
    row = db.execute(query).first()
    if row is None:
        return None
    return RangeCounts.model_validate_json(row.studies), datetime.fromisoformat(row.counted_at)


def _question(snapshot: Snapshot) -> str:
    """Return the name of what is asked: request, legal basis, and the studies of a dataset that a kind of task uses."""
    asked = (
        asdict(snapshot.request),
        asdict(snapshot.basis),
        snapshot.grants[0].dataset,
        snapshot.task.kind,
        snapshot.task.input.modality,
    )
    return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()


def _json(studies: RangeCounts) -> str:
    return studies.model_dump_json()
