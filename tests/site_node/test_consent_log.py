"""Every consent record is a leaf of the log, and the log grows without telling what happened."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent import BATCH, Entry, entry_leaf, nodes_of, record_digest, tree_root, verify_consistency, verify_inclusion
from consent.merkle import inclusion_proof
from site_node import consent_log, consents
from site_node.store import (
    consent_checkpoint,
    consent_opening,
    consent_record,
    open_store,
)
from site_node.store import consent_log as log_table
from tests.site_node.hospital import NOON, PSEUDONYMS, bundle, consent_of

if TYPE_CHECKING:
    from pathlib import Path

    from site_node.consent_log import Published


def load(store: sa.Engine, *patients: str) -> None:
    consents.load(store, bundle(*map(consent_of, patients)), PSEUDONYMS, NOON)


def publish(store: sa.Engine) -> Published:
    with store.begin() as db:
        return consent_log.publish(db, lambda size, root: f"{size} {root.hex()}", NOON)


def leaves(store: sa.Engine) -> list[bytes]:
    with store.connect() as db:
        rows = db.execute(sa.select(log_table).order_by(log_table.c.place)).all()
    return [leaf for row in rows for leaf in consent_log.split(row.leaves)]


def records(store: sa.Engine) -> list[int | None]:
    with store.connect() as db:
        rows = db.execute(sa.select(log_table.c.records).order_by(log_table.c.place)).scalars()
        return [number for text in rows for number in json.loads(text)]


def openings(store: sa.Engine) -> dict[int, sa.Row[tuple[int, bytes, bytes]]]:
    with store.connect() as db:
        return {row.record: row for row in db.execute(sa.select(consent_opening))}


def test_a_records_leaf_is_there_with_the_record_and_opens_to_it(store: sa.Engine) -> None:
    load(store, "N0", "N1")
    consents.withdraw(store, PSEUDONYMS.patient("N0"), NOON)

    with store.connect() as db:
        rows = db.execute(sa.select(consent_record).order_by(consent_record.c.number)).all()
    assert [row.number for row in rows] == sorted(openings(store)) == [1, 2, 3]
    for row in rows:
        entry = Entry(
            row.patient,
            row.consent_id,
            row.number,
            json.loads(row.resource)["status"],
            record_digest(row.resource, row.studies, row.doubt),
            row.recorded_at,
        )
        opening = openings(store)[row.number]
        assert entry_leaf(opening.salt, entry) == opening.leaf


def test_a_record_that_was_not_stored_has_no_leaf(store: sa.Engine) -> None:
    load(store, "N0")
    load(store, "N0")  # unchanged

    assert list(openings(store)) == [1]


def test_a_status_that_is_no_text_is_none(store: sa.Engine) -> None:
    resource = consent_of("N0") | {"status": 7}
    consents.load(store, bundle(resource), PSEUDONYMS, NOON)

    with store.connect() as db:
        (entry,) = [one for some in consent_log.entries(db) for one in some]
    assert entry.status == ""


@pytest.mark.parametrize("changes", [0, 1, 5, 63])
def test_a_publication_appends_the_same_whatever_happened(store: sa.Engine, changes: int) -> None:
    publish(store)
    load(store, *(f"N{number}" for number in range(changes)))

    assert publish(store).size == 2 * BATCH
    assert sum(number is not None for number in records(store)) == changes


def test_what_is_too_much_for_one_publication_doubles_it(store: sa.Engine) -> None:
    load(store, *(f"N{number}" for number in range(64)))  # and the anchor of the ledger

    assert publish(store).size == 2 * BATCH
    assert publish(store).size == 3 * BATCH


def test_leaves_and_padding_lie_in_no_order_of_their_own(store: sa.Engine) -> None:
    load(store, *(f"N{number}" for number in range(32)))
    publish(store)

    assert leaves(store) == sorted(leaves(store))
    real = [place for place, number in enumerate(records(store)) if number is not None]
    assert len(real) == 32
    assert real != list(range(32))


def test_every_record_is_in_the_log_once_and_proves_it(store: sa.Engine) -> None:
    load(store, "N0", "N1")
    publish(store)
    load(store, "N2")
    done = publish(store)

    made = openings(store)
    assert sorted(number for number in records(store) if number) == [1, 2, 3]
    with store.connect() as db:
        nodes = consent_log.nodes(db)
        for place, number in enumerate(records(store)):
            if number is not None:
                proof = inclusion_proof(place, done.size, nodes)
                assert verify_inclusion(made[number].leaf, place, done.size, proof, done.root)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0, 1, 64, 65, 200, 300]), min_size=1, max_size=6))
def test_the_kept_nodes_give_the_roots_and_proofs_of_the_whole_tree(tmp_path: Path, loads: list[int]) -> None:
    store = open_store(tmp_path / f"{os.urandom(4).hex()}.db")
    states, patient = list[consent_log.Published](), 0
    for count in loads:
        load(store, *(f"N{patient + number}" for number in range(count)))
        patient += count
        states.append(publish(store))

    whole = nodes_of(leaves(store))
    assert [state.root for state in states] == [tree_root(state.size, whole) for state in states]
    with store.connect() as db:
        for old in states:
            proof = [bytes.fromhex(one) for one in consent_log.grown(db, old.size, states[-1].size)]
            assert verify_consistency(old.size, states[-1].size, old.root, states[-1].root, proof)
    store.dispose()


def test_a_publication_does_not_read_the_whole_log(store: sa.Engine) -> None:
    load(store, *(f"N{number}" for number in range(1000)))
    publish(store)
    statements = list[str]()
    sa.event.listen(store, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    publish(store)

    assert len([text for text in statements if "consent_log" in text]) < 30


def test_a_state_of_the_log_is_known_if_it_was_signed(store: sa.Engine) -> None:
    done = publish(store)

    with store.connect() as db:
        assert [consent_log.known_size(db, size) for size in (0, done.size, done.size + BATCH, 1)] == [
            True,
            True,
            False,
            False,
        ]
        (row,) = db.execute(sa.select(consent_checkpoint)).all()
    assert (row.size, row.root, row.note) == (BATCH, done.root, f"{BATCH} {done.root.hex()}")
    assert hashlib.sha256(b"").digest() != done.root


@pytest.mark.parametrize("table", ["consent_opening", "consent_log", "consent_log_node", "consent_checkpoint"])
def test_what_was_published_cannot_be_changed_or_deleted(store: sa.Engine, table: str) -> None:
    load(store, "N0")
    publish(store)

    for statement in ("DELETE FROM TABLE", "UPDATE TABLE SET rowid = 99", "REPLACE INTO TABLE SELECT * FROM TABLE"):
        with pytest.raises(sa.exc.IntegrityError, match="append only"), store.begin() as db:
            db.exec_driver_sql(statement.replace("TABLE", table))
