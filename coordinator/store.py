"""The coordinator's database: its tables, and how it is opened.

SQLite with full synchronisation (PostgreSQL speaks the same SQLAlchemy and comes with its first user). Tables only; the
modules that own a subject hold its queries. Nothing here names a patient: the coordinator never learns of one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import event

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

metadata = sa.MetaData()

invitation = sa.Table(
    "invitation",
    metadata,
    sa.Column("token_sha256", sa.String, primary_key=True),
    sa.Column("site", sa.String, nullable=False, unique=True),
    sa.Column("expires_at", sa.String, nullable=False),
    sa.Column("used_at", sa.String),
)

# Memberships, with the keys of each: a revoked site that is invited again begins a new one.
member = sa.Table(
    "member",
    metadata,
    sa.Column("node_id", sa.String, primary_key=True),  # 64-bit unsigned
    sa.Column("site", sa.String, nullable=False),
    sa.Column("node_key", sa.LargeBinary, nullable=False),
    sa.Column("receipt_key", sa.LargeBinary, nullable=False),
    sa.Column("certificate_sha256", sa.String, nullable=False, unique=True),
    sa.Column("joined_at", sa.String, nullable=False),
    sa.Column("revoked_at", sa.String),
)
sa.Index("one_membership", member.c.site, unique=True, sqlite_where=member.c.revoked_at.is_(None))

partner = sa.Table(
    "partner",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("token_sha256", sa.String, nullable=False, unique=True),
    sa.Column("added_at", sa.String, nullable=False),
    sa.Column("revoked_at", sa.String),
)

task = sa.Table(
    "task",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("submitted_at", sa.String, nullable=False),
)

# Who submitted a task: two partners with the same document share its runs.
submission = sa.Table(
    "submission",
    metadata,
    sa.Column("task", sa.String, sa.ForeignKey("task.digest"), primary_key=True),
    sa.Column("partner", sa.String, sa.ForeignKey("partner.name"), primary_key=True),
)

run = sa.Table(
    "run",
    metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("task", sa.String, sa.ForeignKey("task.digest"), nullable=False),
    sa.Column("state", sa.String, nullable=False),  # requested | running | finished | failed | stopped | superseded
    sa.Column("detail", sa.String, nullable=False),
    sa.Column("requested_at", sa.String, nullable=False),
    sa.Column("started_at", sa.String),
    sa.Column("ended_at", sa.String),
    # A run that takes up an earlier one has that one's rounds up to `carried_rounds` as its own.
    sa.Column("derived_from", sa.String, sa.ForeignKey("run.run")),
    sa.Column("carried_rounds", sa.Integer),
    sa.Column("superseded_by", sa.String, sa.ForeignKey("run.run")),
)

# A closed round; round 0 is the initial model. Written before the next round opens.
round_ = sa.Table(
    "round",
    metadata,
    sa.Column("run", sa.String, sa.ForeignKey("run.run"), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("model_before", sa.String, nullable=False),
    sa.Column("model_after", sa.String, nullable=False),
    sa.Column("metrics", sa.Text, nullable=False),
    sa.Column("opened_at", sa.Float, nullable=False),
    sa.Column("last_reply_at", sa.Float, nullable=False),
    sa.Column("closed_at", sa.Float, nullable=False),
    sa.Column("first_byte_at", sa.Float),
    sa.Column("made_in", sa.String, nullable=False),  # the run that made it; another one where it was carried over
)

# What each member did in each round: the receipt that was verified, or why nothing was counted.
contribution = sa.Table(
    "contribution",
    metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("outcome", sa.String, nullable=False),  # counted | abstained | refused | absent | retracted
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("update", sa.String, nullable=False),  # sha256; empty if none
    sa.Column("metrics", sa.Text, nullable=False),
    sa.Column("receipt", sa.LargeBinary),
    sa.Column("verify_s", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("receipt_digest", sa.String, nullable=False, index=True),  # sha256 of the envelope; empty if none
    sa.Column("made_in", sa.String, nullable=False),  # the run that the receipt speaks of
)

# Each site's receipts form a chain; its head as the coordinator has seen it.
receipt_head = sa.Table(
    "receipt_head",
    metadata,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("receipt", sa.LargeBinary, nullable=False),  # whose envelope names the key, and so the membership
)

# What members told of contributions whose permission was withdrawn, as they signed it.
withdrawal_notice = sa.Table(
    "withdrawal_notice",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("site", sa.String, nullable=False),
    sa.Column("run", sa.String, nullable=False),  # may be one that is not known here
    sa.Column("envelope", sa.LargeBinary, nullable=False),
    sa.Column("received_at", sa.String, nullable=False),
)

# The receipts those notices name. What is in here is never counted in a round that closes later.
withdrawn_receipt = sa.Table(
    "withdrawn_receipt",
    metadata,
    sa.Column("receipt", sa.String, primary_key=True),  # sha256 of the envelope
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("notice", sa.String, sa.ForeignKey("withdrawal_notice.digest"), nullable=False),
    sa.Column("standing", sa.String, nullable=False),  # retracted | aggregated | unknown, as it was answered
)


def open_store(path: Path) -> sa.Engine:
    """Open the database at `path`, making it (mode 0600) if it is not there."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    metadata.create_all(engine)
    return engine
