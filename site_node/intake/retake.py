"""An original that a person decided about, run through intake again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node.intake.folder import Intake, alone_in
from site_node.intake.judging import Job, Judge
from site_node.store import disposition

if TYPE_CHECKING:
    from datetime import datetime

    from site_node.deidentify.instance import Decision
    from site_node.intake.judging import Verdict


def retake(intake: Intake, source_sha256: str, decision: Decision, at: datetime) -> Verdict:
    """Return what becomes of the held file with this SHA-256 under `decision`; it is then on disk and on record.

    Raises: ConfigurationError if another process takes in for this site.
    """
    query = sa.select(disposition.c.kept_as).where(disposition.c.source_sha256 == source_sha256)
    with alone_in(intake.incoming):
        with intake.store.connect() as db:
            path = intake.root / db.execute(query).scalar_one()
        (verdict,) = intake.commit([(path, Judge(intake.settings)(Job(path, decision)))], at, again=True)
    return verdict
