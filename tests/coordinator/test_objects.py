"""Our object store behaves as Flower's own, and keeps its files exactly as long as its objects."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.object_store import NoObjectInStoreError

from coordinator.objects import INLINE_BYTES, MAX_OBJECTS, FileObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def flowers_own(_folder: Path) -> InMemoryObjectStore:
    return InMemoryObjectStore()


def ours(folder: Path) -> FileObjectStore:
    return FileObjectStore(folder / "objects")


@pytest.fixture(params=[flowers_own, ours])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> InMemoryObjectStore:
    made: InMemoryObjectStore = request.param(tmp_path)
    return made


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], set[str]]:
    return lambda: {path.name for path in (tmp_path / "objects").iterdir()}


@pytest.fixture
def file_store(tmp_path: Path) -> FileObjectStore:
    return ours(tmp_path)


def record(*sizes: int) -> ArrayRecord:
    arrays = {f"a{size}": Array(np.full(size, size % 251, np.uint8)) for size in sizes}
    return ArrayRecord(arrays)


def kept(store: InMemoryObjectStore, made: ArrayRecord, run: int = 1) -> dict[str, bytes]:
    """Store a record with all its parts and return their contents."""
    contents = {name: part.deflate() for name, part in get_all_nested_objects(made).items()}
    for name in store.preregister(run, get_object_tree(made)):
        store.put(name, contents[name])
    return contents


SMALL, LARGE = 100, INLINE_BYTES * 2


def test_contents_come_back_as_they_were_put(store: InMemoryObjectStore) -> None:
    contents = kept(store, record(SMALL, LARGE))

    assert {name: store.get(name) for name in contents} == contents
    assert len(store) == len(contents)


def test_what_is_known_is_asked_for_once(store: InMemoryObjectStore) -> None:
    made = record(SMALL, LARGE)
    wanted = store.preregister(1, get_object_tree(made))
    contents = kept(store, made)

    again = store.preregister(2, get_object_tree(made))

    assert set(wanted) == contents.keys()
    assert again == []


def test_an_object_that_has_not_arrived_is_empty_and_an_unknown_one_is_none(store: InMemoryObjectStore) -> None:
    made = record(LARGE)
    store.preregister(1, get_object_tree(made))

    assert store.get(made.object_id) == b""
    assert store.get("0" * 64) is None


def test_a_content_with_another_digest_is_refused(store: InMemoryObjectStore) -> None:
    made = record(LARGE)
    store.preregister(1, get_object_tree(made))

    with pytest.raises(ValueError, match="content"):
        store.put(made.object_id, record(SMALL).deflate())
    assert store.get(made.object_id) == b""


@pytest.mark.parametrize("junk", [b"", b"\x00filmroom:file", b"x" * LARGE])
def test_a_content_that_is_no_object_is_refused(store: InMemoryObjectStore, junk: bytes) -> None:
    with pytest.raises(UnexpectedObjectContentError):
        store.put(hashlib.sha256(junk).hexdigest(), junk)


def test_an_object_that_was_not_announced_is_refused(store: InMemoryObjectStore) -> None:
    made = record(LARGE)
    contents = {name: part.deflate() for name, part in get_all_nested_objects(made).items()}

    for name, content in contents.items():
        with pytest.raises(NoObjectInStoreError):
            store.put(name, content)


def test_putting_again_changes_nothing(store: InMemoryObjectStore) -> None:
    contents = kept(store, record(LARGE))

    for name, content in contents.items():
        store.put(name, content)

    assert {name: store.get(name) for name in contents} == contents


def test_a_part_shared_by_two_objects_stays_until_both_are_gone(store: InMemoryObjectStore) -> None:
    one, other = record(LARGE), record(LARGE, SMALL)
    contents = kept(store, one) | kept(store, other)

    store.delete(one.object_id)
    after_one = {name for name in contents if name in store}
    store.delete(other.object_id)

    assert after_one == get_all_nested_objects(other).keys()
    assert len(store) == 0


def test_an_object_that_another_refers_to_is_not_deleted(store: InMemoryObjectStore) -> None:
    made = record(LARGE)
    contents = kept(store, made)

    for name in contents.keys() - {made.object_id}:
        store.delete(name)

    assert {name: store.get(name) for name in contents} == contents


def test_deleting_a_run_deletes_its_objects(store: InMemoryObjectStore) -> None:
    kept(store, record(LARGE), run=2**63 + 5)

    store.delete_objects_in_run(2**63 + 5)

    assert len(store) == 0


def test_contents_above_the_bound_lie_in_files_and_leave_with_their_objects(
    file_store: FileObjectStore, files: Callable[[], set[str]]
) -> None:
    made = record(SMALL, LARGE)
    contents = kept(file_store, made)
    large = {name for name, content in contents.items() if len(content) > INLINE_BYTES}

    held = files()
    file_store.delete(made.object_id)

    assert held == large != set()
    assert files() == set()


def test_the_files_of_a_run_leave_with_it(file_store: FileObjectStore, files: Callable[[], set[str]]) -> None:
    kept(file_store, record(LARGE), run=1)
    kept(file_store, record(LARGE + 1), run=2)

    file_store.delete_objects_in_run(1)
    of_the_other = files()
    file_store.delete_objects_in_run(2)

    assert len(of_the_other) == 1
    assert files() == set()


@pytest.mark.parametrize("absolute", ["", "absolute"])
def test_deleting_what_is_no_object_touches_no_file(file_store: FileObjectStore, tmp_path: Path, absolute: str) -> None:
    victim = tmp_path / "coordinator.db"
    victim.write_text("kept")

    file_store.delete(str(victim) if absolute else "../coordinator.db")

    assert victim.exists()


def test_a_store_starts_empty_and_removes_what_a_killed_one_left(tmp_path: Path, files: Callable[[], set[str]]) -> None:
    contents = kept(ours(tmp_path), record(SMALL, LARGE))
    left = files()

    second = ours(tmp_path)

    assert left
    assert files() == set()
    assert [second.get(name) for name in contents] == [None] * len(contents)


def test_clearing_removes_the_files(file_store: FileObjectStore, files: Callable[[], set[str]]) -> None:
    kept(file_store, record(LARGE))

    file_store.clear()

    assert len(file_store) == 0
    assert files() == set()


def test_an_object_is_whole_once_its_last_part_has_arrived(file_store: FileObjectStore) -> None:
    made = record(SMALL, LARGE)
    contents = {name: part.deflate() for name, part in get_all_nested_objects(made).items()}
    file_store.preregister(1, get_object_tree(made))

    missing = []
    for name, content in contents.items():
        missing.append(file_store.missing(made.object_id))
        file_store.put(name, content)

    assert None not in missing
    assert file_store.missing(made.object_id) is None
    with pytest.raises(NoObjectInStoreError):
        file_store.missing("0" * 64)


def test_a_known_object_is_not_announced_with_other_parts(file_store: FileObjectStore) -> None:
    made = record(LARGE)
    contents = kept(file_store, made)

    with pytest.raises(ValueError, match="other parts"):
        file_store.preregister(2, ObjectTree(object_id=made.object_id))

    assert {name: file_store.get(name) for name in contents} == contents


def test_an_object_does_not_have_other_parts_elsewhere_in_its_message(file_store: FileObjectStore) -> None:
    tree = ObjectTree(object_id=f"{0:064x}")
    for number in range(1, 40):  # each names the one before in full and again as if it had no parts
        leaf = ObjectTree(object_id=tree.object_id)
        tree = ObjectTree(object_id=f"{number:064x}", children=[tree, leaf])

    with pytest.raises(ValueError, match="other parts"):
        file_store.preregister(1, tree)

    assert len(file_store) == 0


def test_a_message_of_too_many_objects_is_refused_whole(file_store: FileObjectStore) -> None:
    children = [ObjectTree(object_id=f"{number:064x}") for number in range(MAX_OBJECTS)]

    with pytest.raises(ValueError, match="allowed"):
        file_store.preregister(1, ObjectTree(object_id="f" * 64, children=children))

    assert len(file_store) == 0
