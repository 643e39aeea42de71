"""The gate's decisions as FHIR AuditEvents, from the record of each opening; they stay in the hospital.

One event for each study that was asked about, in the state that was decided, permitted or not. Where the gate refused
before it came to the consents (no approved task, no grant) there is no decision on any study.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import GateDecision, Outcome
from site_node import permissions
from site_node.eligibility import read_rows
from site_node.store import eligibility

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.config import Identity

_OPENINGS_AT_ONCE = 4  # each holds the verdict on every study


def decisions(
    db: sa.Connection,
    identity: Identity,
    after: int = 0,
    since: datetime | None = None,
    run: str | None = None,
    patient: str | None = None,
) -> Iterator[tuple[int, GateDecision]]:
    """Yield each decision with the number of its opening, in the order of the openings.

    `after` leaves out the openings up to that number, so that a reading goes on where one ended; `since` those decided
    earlier; `patient` (pseudonym) all studies of others.
    """
    columns, number = eligibility.c, sa.literal_column("rowid", sa.Integer).label("number")
    query = sa.select(number, eligibility).where(number > after).order_by(number)
    if run is not None:
        query = query.where(columns.run == run)
    tasks = permissions.tasks(db)
    for row in db.execute(query.execution_options(yield_per=_OPENINGS_AT_ONCE)):
        at = datetime.fromisoformat(row.evaluated_at)
        if since is not None and at < since:
            continue
        task = tasks[row.task].task
        for place, verdict in enumerate(read_rows(row.rows)):
            if patient is not None and verdict.patient != patient:
                continue
            yield (
                row.number,
                GateDecision(
                    number=f"{row.number}.{place}",
                    at=at,
                    site=identity.site,
                    federation=identity.federation,
                    address=identity.fleet_address,
                    project=task.project,
                    task=row.task,
                    run=row.run,
                    round=row.round,
                    kind=row.kind,
                    nonce=row.nonce,
                    phase="abstained" if row.root is None else "released",
                    study=verdict.study,
                    patient=verdict.patient,
                    outcome=Outcome(verdict.outcome),
                    reason=verdict.reason,
                    purposes=task.purpose.purposes,
                    consents=verdict.records,
                ),
            )
