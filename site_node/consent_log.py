"""The site's consent log: every consent record ever held is a leaf of it, and what was published stays as it was.

A record's leaf is made in the transaction that stores the record. A publication puts all leaves that wait into the log,
one that holds the ledger's newest entry fast, and random ones to fill it up, and signs the new state. What a leaf of a
record says, and how many are appended, is in `consent.log`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from consent import (
    BATCH,
    BATCH_LEVEL,
    Entry,
    batch_of,
    consistency_proof,
    entry_leaf,
    leaf_hash,
    node_hash,
    nodes_of,
    record_digest,
    tree_root,
)
from consent.log import SALT_BYTES
from site_node import ledger
from site_node.store import consent_checkpoint, consent_log, consent_log_node, consent_opening, consent_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from consent import Nodes

HASH_BYTES: Final = 32
AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Published:
    """A state of the log that was signed: its size in leaves, its root, the signed note."""

    size: int
    root: bytes
    note: str


def note_records(db: sa.Connection) -> None:
    """Make the leaf of each consent record that has none yet, in the transaction that stored it."""
    last = db.execute(sa.select(sa.func.coalesce(sa.func.max(consent_opening.c.record), 0))).scalar_one()
    for entries in _entries(db, consent_record.c.number > last):
        salts = os.urandom(SALT_BYTES * len(entries))
        rows = []
        for place, entry in enumerate(entries):
            salt = salts[SALT_BYTES * place : SALT_BYTES * (place + 1)]
            rows.append((entry.version, salt, entry_leaf(salt, entry)))
        # Told in SQL, which is twice as fast for the many records of a first load.
        db.exec_driver_sql("INSERT INTO consent_opening (record, salt, leaf) VALUES (?, ?, ?)", rows)


def publish(db: sa.Connection, sign: Callable[[int, bytes], str], at: datetime) -> Published:
    """Append what waits and random leaves, sign the new state with `sign(size, root)`, and return it.

    One of them holds the ledger fast (`anchor`). Whatever `db` sees of the consent records is in the log afterwards.
    """
    old = db.execute(sa.select(consent_checkpoint).order_by(sa.desc(consent_checkpoint.c.size)).limit(1)).first()
    size, last = (old.size, old.last_record) if old else (0, 0)
    columns = consent_opening.c
    waiting = db.execute(sa.select(columns.leaf, columns.record).where(columns.record > last)).all()
    appended: list[tuple[bytes, int | None]] = [(row.leaf, row.record) for row in waiting]
    last = max((row.record for row in waiting), default=last)
    entry, head = ledger.head(db)
    salt = os.urandom(SALT_BYTES)
    appended.append((anchor(salt, head), None))
    padding = batch_of(len(appended)) - len(appended)
    appended += [(os.urandom(HASH_BYTES), None) for _ in range(padding)]
    appended.sort(key=lambda pair: pair[0])  # all kinds are random: the order tells nothing
    _append(db, size, appended)
    size += len(appended)
    root = tree_root(size, nodes(db))
    note = sign(size, root)
    anchored = {"ledger_number": entry, "ledger_salt": salt}
    state = {"size": size, "root": root, "last_record": last, "note": note, "at": at.isoformat()}
    db.execute(sa.insert(consent_checkpoint).values(**state, **anchored))
    return Published(size, root, note)


def anchor(salt: bytes, head: str) -> bytes:
    """Return the leaf that holds the ledger's newest hash fast; without its salt it is as a random one."""
    return leaf_hash(b"ledger\0" + salt + bytes.fromhex(head))


def known_size(db: sa.Connection, size: int) -> bool:
    """Whether this site ever signed its log at `size`; nothing at all is known without a signature."""
    return size == 0 or db.execute(sa.select(1).where(consent_checkpoint.c.size == size)).first() is not None


def grown(db: sa.Connection, old: int, new: int) -> tuple[str, ...]:
    """Return the proof that the log of `new` leaves begins with that of `old`, in hexadecimal."""
    return tuple(one.hex() for one in consistency_proof(old, new, nodes(db)))


def leaves_of(db: sa.Connection, records: Sequence[int]) -> dict[int, str]:
    """Return the leaf of each consent record, in hexadecimal."""
    columns = consent_opening.c
    wanted = sa.select(sa.func.json_each(json.dumps(list(records))).table_valued("value").c.value)
    rows = db.execute(sa.select(columns.record, columns.leaf).where(columns.record.in_(wanted)))
    return {row.record: row.leaf.hex() for row in rows}


def nodes(db: sa.Connection) -> Nodes:
    """Return a reader of the log's complete subtrees."""

    def read(level: int, place: int) -> bytes:
        if level >= BATCH_LEVEL:
            columns = consent_log_node.c
            query = sa.select(columns.hash).where(columns.level == level, columns.place == place)
            return bytes(db.execute(query).scalar_one())
        batch, within = divmod(place, 1 << BATCH_LEVEL - level)
        query = sa.select(consent_log.c.leaves).where(consent_log.c.place == batch)
        return nodes_of(split(db.execute(query).scalar_one()))(level, within)

    return read


def split(leaves: bytes) -> list[bytes]:
    """Return the hashes that stand in a row one after another."""
    return [leaves[start : start + HASH_BYTES] for start in range(0, len(leaves), HASH_BYTES)]


def entries(db: sa.Connection) -> Iterator[Sequence[Entry]]:
    """Yield every consent record as its leaf has to say it, some at a time, in their order."""
    return _entries(db, consent_record.c.number > 0)


def _append(db: sa.Connection, size: int, appended: Sequence[tuple[bytes, int | None]]) -> None:
    first, roots, rows = size // BATCH, list[bytes](), []
    for start in range(0, len(appended), BATCH):
        leaves, records = zip(*appended[start : start + BATCH], strict=True)
        rows.append({"place": first + len(roots), "leaves": b"".join(leaves), "records": json.dumps(records)})
        roots.append(tree_root(BATCH, nodes_of(leaves)))
    db.execute(sa.insert(consent_log), rows)
    level, read = BATCH_LEVEL, nodes(db)
    while roots:
        made = [{"level": level, "place": first + number, "hash": root} for number, root in enumerate(roots)]
        db.execute(sa.insert(consent_log_node), made)
        if first % 2:
            first -= 1
            roots.insert(0, read(level, first))
        roots = [node_hash(*pair) for pair in zip(roots[::2], roots[1::2], strict=False)]
        level, first = level + 1, first // 2


def _entries(db: sa.Connection, which: sa.ColumnElement[bool]) -> Iterator[list[Entry]]:
    columns = consent_record.c
    # The database reads the status; a resource in which it is no text has none.
    is_text = sa.func.json_valid(columns.resource) & (sa.func.json_type(columns.resource, "$.status") == "text")
    status = sa.case((is_text, sa.func.json_extract(columns.resource, "$.status")), else_="").label("status")
    rows = db.execute(
        sa.select(
            columns.number,
            columns.patient,
            columns.consent_id,
            columns.resource,
            columns.studies,
            columns.doubt,
            columns.recorded_at,
            status,
        )
        .where(which)
        .order_by(columns.number)
    )
    for some in rows.partitions(AT_ONCE):
        yield [
            Entry(
                patient=row.patient,
                consent_id=row.consent_id,
                version=row.number,
                status=row.status,
                record_sha256=record_digest(row.resource, row.studies, row.doubt),
                recorded_at=row.recorded_at,
            )
            for row in some
        ]
