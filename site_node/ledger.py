"""The hospital's own record for auditors: what was decided and what left, in the order it happened.

Entries are named `source:subject:action` and written in the transaction of what they record. Details hold digests,
counts and reasons; never a patient's value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node.store import ledger

if TYPE_CHECKING:
    from datetime import datetime


def write(db: sa.Connection, at: datetime, entry: str, **detail: str | float) -> None:
    """Append one entry."""
    db.execute(sa.insert(ledger).values(at=at.isoformat(), entry=entry, detail=json.dumps(detail)))
