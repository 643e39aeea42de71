"""The reader keeps records between questions; whatever happens in between, it tells what a new reader would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from site_node import consents
from site_node.store import open_store
from tests.site_node.hospital import NOON, PSEUDONYMS, bundle, consent_of

if TYPE_CHECKING:
    import pytest
    import sqlalchemy as sa

PATIENTS = ("A1", "A2", "A3")
patients = st.sampled_from(PATIENTS)
moves = st.one_of(
    st.tuples(st.just("load"), patients, st.sampled_from(["permit", "deny"]), st.integers(1, 28)),
    st.tuples(st.just("break"), patients, st.just(""), st.just(0)),
    st.tuples(st.just("withdraw"), patients, st.just(""), st.just(0)),
    st.tuples(st.just("ask"), patients, st.sampled_from(["one", "all"]), st.just(0)),
)


def _move(store: sa.Engine, what: str, patient: str, kind: str, day: int) -> None:
    meta = {"lastUpdated": f"2026-02-{day:02d}T00:00:00Z"}
    if what == "load":
        consents.load(store, bundle(consent_of(patient, kind, meta=meta)), PSEUDONYMS, NOON)
    elif what == "break":
        consents.load(store, bundle(consent_of(patient) | {"patient": 1}), PSEUDONYMS, NOON)
    elif what == "withdraw":
        consents.withdraw(store, PSEUDONYMS.patient(patient), NOON)


@settings(max_examples=25, deadline=None)
@given(st.lists(moves, max_size=12), st.integers(0, 3))
def test_a_reader_that_kept_records_tells_what_a_new_one_tells(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, str, int]], keep: int
) -> None:
    path = tmp_path_factory.mktemp("reader") / "site.db"
    store, other_process = open_store(path), open_store(path)
    reader = consents.ConsentReader(keep)
    for what, patient, kind, day in history:
        _move(other_process, what, patient, kind, day)
        asked = None if kind == "all" else {PSEUDONYMS.patient(patient)}
        with store.connect() as db:
            epoch = consents.current_epoch(db)
            told = reader.read(db, epoch, asked)
            everything = consents.ConsentReader().read(db, epoch)
        wanted = everything if asked is None else {name: everything[name] for name in asked & everything.keys()}
        assert told == wanted
    store.dispose()
    other_process.dispose()
