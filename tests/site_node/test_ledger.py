"""The ledger: written with what it records, or not at all."""

from __future__ import annotations

import json

import sqlalchemy as sa

from site_node import ledger
from site_node.store import ledger as table
from tests.site_node.hospital import NOON


def entries(store: sa.Engine) -> list[tuple[str, str, object]]:
    with store.connect() as db:
        rows = db.execute(sa.select(table).order_by(table.c.number)).all()
    return [(row.at, row.entry, json.loads(row.detail)) for row in rows]


def test_entries_stand_in_the_order_they_were_written(store: sa.Engine) -> None:
    with store.begin() as db:
        ledger.write(db, NOON, "site:update:released", round=1)
        ledger.write(db, NOON, "site:round:abstained", reason="consent")

    assert entries(store) == [
        (NOON.isoformat(), "site:update:released", {"round": 1}),
        (NOON.isoformat(), "site:round:abstained", {"reason": "consent"}),
    ]


def test_an_entry_goes_with_the_transaction_it_records(store: sa.Engine) -> None:
    with store.connect() as db, db.begin() as transaction:
        ledger.write(db, NOON, "site:update:released")
        transaction.rollback()

    assert entries(store) == []
