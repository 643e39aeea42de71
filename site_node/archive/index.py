"""The archive's index: what is staged, and what was last known to be good.

A file of its own beside the staging folder (mode 0600): it holds paths, and is a cache that can be made again: what is
staged from the originals, what is good from the last good snapshot.
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


class Name(sa.TypeDecorator[str]):
    """A file's name as the operating system has it: bytes, which need not be UTF-8."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> bytes | None:
        """Return the name's bytes."""
        return None if value is None else os.fsencode(value)

    def process_result_value(self, value: bytes | None, _dialect: sa.Dialect) -> str | None:
        """Return the name as Python has it."""
        return None if value is None else os.fsdecode(value)


def _stat() -> tuple[sa.Column[int], ...]:
    return tuple(sa.Column(name, sa.Integer, nullable=False) for name in ("size", "mtime_ns", "ctime_ns", "inode"))


# Originals as they were staged; a size of -1 means: to be read again.
original = sa.Table(
    "original",
    metadata,
    sa.Column("path", Name, primary_key=True),
    *_stat(),
    sa.Column("study", sa.String, nullable=False, index=True),
    sa.Column("SOPInstanceUID", sa.String, nullable=False),
    sa.Column("pixels", sa.String, nullable=False),
    sa.Column("is_dicom", sa.Boolean, nullable=False),
    sa.Index("original_pixels", "SOPInstanceUID", "pixels"),
)

# Studies that are staged, and their lines of the manifest.
study = sa.Table(
    "study",
    metadata,
    sa.Column("study", sa.String, primary_key=True),
    sa.Column("line", sa.LargeBinary, nullable=False),
)

# Files of the staging folder as they were written.
staged = sa.Table(
    "staged",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    *_stat(),
    sa.Column("study", sa.String, nullable=False, index=True),
)

# Images of the last good snapshot: these pixels belong to this SOP Instance UID.
good = sa.Table(
    "good",
    metadata,
    sa.Column("path", Name, primary_key=True),
    sa.Column("SOPInstanceUID", sa.String, nullable=False, index=True),
    sa.Column("pixels", sa.String, nullable=False),
    sa.Column("inode", sa.Integer, nullable=False),
)

# The snapshot, by restic's id, that `good` was filled from.
baseline = sa.Table("baseline", metadata, sa.Column("snapshot", sa.String, primary_key=True))


def open_index(path: Path) -> sa.Engine:
    """Open the index at `path`, making it (mode 0600) if it is not there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    metadata.create_all(engine)
    return engine
