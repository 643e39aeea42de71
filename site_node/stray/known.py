"""The dictionary of known patients in the site's database: who arrives is added, as keyed digests alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from site_node.store import stray_known
from site_node.stray.digests import Keyer, numbers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from site_node.deidentify.pseudonym import Pseudonymiser
    from site_node.stray.dictionary import Table
    from site_node.stray.digests import Entry


DIGESTS = "stray-digests"  # purpose of the key


def keyer(pseudonymiser: Pseudonymiser) -> Keyer:
    """Return what makes digests of a site: its key follows from the pseudonym key and is gone with it."""
    return Keyer(pseudonymiser.subkey(DIGESTS))


def add(db: sa.Connection, entries: Iterable[Entry]) -> int:
    """Add what is known of patients; return how many digests are new."""
    rows = {(one.digest.to_bytes(8), one.person.to_bytes(8), one.kind) for one in entries}
    if not rows:
        return 0
    values = [{"digest": digest, "person": person, "kind": kind} for digest, person, kind in sorted(rows)]
    return db.execute(insert(stray_known).on_conflict_do_nothing(), values).rowcount


def add_ids(db: sa.Connection, pseudonymiser: Pseudonymiser, patient_ids: Iterable[str]) -> int:
    """Add patients of whom the PatientID is known alone."""
    by = keyer(pseudonymiser)
    return add(db, (entry for one in patient_ids for entry in numbers(by.person(one.strip()), (one,), by)))


def forget(db: sa.Connection) -> None:
    """Take every known patient out of the dictionary."""
    db.execute(sa.delete(stray_known))


def table(db: sa.Connection) -> Table:
    """Return the dictionary."""
    from site_node.stray.dictionary import Table  # noqa: PLC0415 -- it brings words, and those who only add need none

    columns = stray_known.c
    rows = db.execute(sa.select(columns.digest, columns.person).order_by(columns.digest, columns.person)).all()
    digests = np.frombuffer(b"".join(row.digest for row in rows), ">u8").astype(np.uint64)
    persons = np.frombuffer(b"".join(row.person for row in rows), ">u8").astype(np.uint64)
    return Table(digests, persons)
