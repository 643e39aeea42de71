"""The hospital's own record for auditors: what was decided and what left, in the order it happened.

Entries are named `source:subject:action` and written in the transaction of what they record. Details hold digests,
counts and reasons; never a patient's value. Each entry's hash covers the one before it, and each publication of the
consent log holds the newest one fast (`site_node.consent_log`): what is anchored so cannot be altered unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from site_node.store import ledger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

NOTHING: Final = "0" * 64
"""What the first entry's hash covers as the one before it."""


def write(db: sa.Connection, at: datetime, entry: str, **detail: str | float) -> None:
    """Append one entry."""
    number, before = head(db)
    moment, said = at.isoformat(), json.dumps(detail)
    made = entry_hash(before, number + 1, moment, entry, said)
    db.execute(sa.insert(ledger).values(number=number + 1, at=moment, entry=entry, detail=said, hash=made))


def head(db: sa.Connection) -> tuple[int, str]:
    """Return number and hash of the newest entry; 0 and `NOTHING` where there is none."""
    columns = ledger.c
    last = db.execute(sa.select(columns.number, columns.hash).order_by(sa.desc(columns.number)).limit(1)).first()
    return (last.number, last.hash) if last else (0, NOTHING)


def entry_hash(before: str, number: int, at: str, entry: str, detail: str) -> str:
    """Return the hash of an entry, over that of the one before it."""
    return hashlib.sha256(json.dumps([before, number, at, entry, detail]).encode()).hexdigest()


def row_digest(row: Mapping[str, object]) -> str:
    """Return the digest by which an entry names a row of another table."""
    plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def text_digest(text: str) -> str:
    """Return the digest by which an entry names a text that is kept elsewhere."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
