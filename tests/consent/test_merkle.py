"""The log's arithmetic against the published values, the definition, and whoever tampers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    nodes_of,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle" / "rfc6962.json").read_text())
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]
LEAVES = [leaf_hash(bytes.fromhex(entry)) for entry in VECTORS["entries"]]
SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")
INCLUSION = [(v["index"], v["size"], tuple(map(bytes.fromhex, v["proof"]))) for v in VECTORS["inclusion"]]
CONSISTENCY = [(v["old"], v["new"], tuple(map(bytes.fromhex, v["proof"]))) for v in VECTORS["consistency"]]
MANY = [leaf_hash(index.to_bytes(2)) for index in range(40)]
"""Every shape of tree up to five levels."""


# ------------------------------------------------------------------ the published values


def test_every_complete_subtree_has_its_published_hash() -> None:
    nodes = nodes_of(LEAVES)

    found = [[nodes(level, index).hex() for index in range(8 >> level)] for level in range(4)]

    assert found == VECTORS["nodes"]


def test_every_size_has_its_published_root() -> None:
    assert [tree_root(size, nodes_of(LEAVES)) for size in range(9)] == ROOTS


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_an_inclusion_proof_is_the_published_one(index: int, size: int, proof: tuple[bytes, ...]) -> None:
    assert inclusion_proof(index, size, nodes_of(LEAVES)) == proof
    assert verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_a_consistency_proof_is_the_published_one(old: int, new: int, proof: tuple[bytes, ...]) -> None:
    assert consistency_proof(old, new, nodes_of(LEAVES)) == proof
    assert verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


def _bent(proof: tuple[bytes, ...], *strangers: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield the proof with each published fault: too much before or behind, too little, a bit turned."""
    for stranger in (b"", SOME_HASH, *strangers):
        yield (*proof, stranger)
        yield (stranger, *proof)
    for position, element in enumerate(proof):
        yield (*proof[:position], bytes([element[0] ^ 8, *element[1:]]), *proof[position + 1 :])
    if proof:
        yield proof[:-1]
        yield (proof[0], SOME_HASH, *proof[1:])
        yield (proof[0], *proof)


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_an_inclusion_proof_with_a_published_fault_is_refused(index: int, size: int, proof: tuple[bytes, ...]) -> None:
    leaf, root = LEAVES[index], ROOTS[size]

    for wrong in (index - 1, index + 1, index ^ 2):
        assert not verify_inclusion(leaf, wrong, size, proof, root)
    for wrong in (size * 2, size // 2):
        assert not verify_inclusion(leaf, index, wrong, proof, root)
    assert not verify_inclusion(b"WrongLeaf", index, size, proof, root)
    for wrong_root in (EMPTY_ROOT, SOME_HASH, b""):
        assert not verify_inclusion(leaf, index, size, proof, wrong_root)
    for bent in _bent(proof, root):
        assert not verify_inclusion(leaf, index, size, bent, root)


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY[1:])
def test_a_consistency_proof_with_a_published_fault_is_refused(old: int, new: int, proof: tuple[bytes, ...]) -> None:
    first, second = ROOTS[old], ROOTS[new]

    for wrong in (old - 1, old + 1, old ^ 2):
        assert not verify_consistency(wrong, new, first, second, proof)
    for wrong in (new * 2, new // 2):
        assert not verify_consistency(old, wrong, first, second, proof)
    assert not verify_consistency(old, new, b"WrongRoot", second, proof)
    assert not verify_consistency(old, new, first, b"WrongRoot", proof)
    assert not verify_consistency(old, new, second, first, proof)
    assert not verify_consistency(old, new, first, second, ())
    for bent in _bent(proof, first, second):
        assert not verify_consistency(old, new, first, second, bent)


@pytest.mark.parametrize(
    ("old", "new", "old_root", "new_root", "proof"),
    [
        pytest.param(1, 0, ROOTS[1], EMPTY_ROOT, (), id="to the empty log"),
        pytest.param(2, 1, ROOTS[2], ROOTS[1], (), id="to a smaller log"),
        pytest.param(1, 2, ROOTS[1], ROOTS[2], (), id="without a proof"),
        pytest.param(0, 0, EMPTY_ROOT, SOME_HASH, (), id="an empty log with another root"),
        pytest.param(0, 0, SOME_HASH, SOME_HASH, (), id="an empty log with no such root"),
        pytest.param(0, 1, SOME_HASH, ROOTS[1], (), id="from an empty log with no such root"),
        pytest.param(1, 1, ROOTS[1], SOME_HASH, (), id="two roots of one size"),
        pytest.param(0, 0, EMPTY_ROOT, EMPTY_ROOT, (EMPTY_ROOT,), id="a proof where none belongs, 0 0"),
        pytest.param(0, 1, EMPTY_ROOT, ROOTS[1], (EMPTY_ROOT,), id="a proof where none belongs, 0 1"),
        pytest.param(1, 1, ROOTS[1], ROOTS[1], (EMPTY_ROOT,), id="a proof where none belongs, 1 1"),
        pytest.param(-1, 1, ROOTS[1], ROOTS[1], (), id="a negative size"),
    ],
)
def test_logs_that_do_not_begin_one_another_are_refused(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: tuple[bytes, ...]
) -> None:
    assert not verify_consistency(old, new, old_root, new_root, proof)


# ------------------------------------------------------------------ every small log


def _by_definition(leaves: Sequence[bytes]) -> bytes:
    """Return MTH of RFC 6962 section 2.1, word for word: slow, and plainly right."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = max(1 << bit for bit in range(len(leaves).bit_length()) if 1 << bit < len(leaves))
    return node_hash(_by_definition(leaves[:k]), _by_definition(leaves[k:]))


def test_the_root_of_every_small_log_is_that_of_the_definition() -> None:
    nodes = nodes_of(MANY)

    for size in range(len(MANY) + 1):
        assert tree_root(size, nodes) == _by_definition(MANY[:size])


def test_every_leaf_of_every_small_log_proves_its_own_place_and_no_other() -> None:
    nodes = nodes_of(MANY)

    for size in range(1, len(MANY) + 1):
        root = tree_root(size, nodes)
        for index in range(size):
            proof = inclusion_proof(index, size, nodes)
            held = [place for place in range(size) if verify_inclusion(MANY[index], place, size, proof, root)]
            assert held == [index]


def test_every_small_log_proves_that_it_begins_every_larger_one_and_no_other_does() -> None:
    nodes = nodes_of(MANY)
    roots = [tree_root(size, nodes) for size in range(len(MANY) + 1)]

    for new in range(len(MANY) + 1):
        for old in range(new + 1):
            proof = consistency_proof(old, new, nodes)
            assert verify_consistency(old, new, roots[old], roots[new], proof)
            if old:
                assert not verify_consistency(old, new, SOME_HASH, roots[new], proof)


def test_a_proof_reads_no_subtree_that_is_not_whole() -> None:
    size = 21
    nodes = nodes_of(MANY)

    def whole_alone(level: int, index: int) -> bytes:
        assert (index + 1) << level <= size
        return nodes(level, index)

    tree_root(size, whole_alone)
    for index in range(size):
        inclusion_proof(index, size, whole_alone)
        consistency_proof(index, size, whole_alone)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_a_leaf_outside_the_log_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_proof(index, size, nodes_of(MANY))


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3)])
def test_no_proof_is_made_of_a_log_that_shrinks(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="shrink"):
        consistency_proof(old, new, nodes_of(MANY))


def test_a_negative_size_has_no_root() -> None:
    with pytest.raises(ValueError, match="negative"):
        tree_root(-1, nodes_of(MANY))


# ------------------------------------------------------------------ whoever tampers


@given(st.data(), st.integers(2, 200))
def test_one_byte_changed_anywhere_breaks_a_proof_of_inclusion(data: st.DataObject, size: int) -> None:
    leaves = [leaf_hash(index.to_bytes(2)) for index in range(size)]
    index = data.draw(st.integers(0, size - 1))
    parts = [leaves[index], tree_root(size, nodes_of(leaves)), *inclusion_proof(index, size, nodes_of(leaves))]

    part, place = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 31))
    changed = bytearray(parts[part])
    changed[place] ^= data.draw(st.integers(1, 255))
    parts[part] = bytes(changed)

    assert not verify_inclusion(parts[0], index, size, parts[2:], parts[1])


@given(st.data(), st.integers(2, 200))
def test_a_log_with_one_past_entry_changed_cannot_prove_that_it_grew(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(1, new - 1))
    leaves = [leaf_hash(index.to_bytes(2)) for index in range(new)]
    seen = tree_root(old, nodes_of(leaves))

    leaves[data.draw(st.integers(0, old - 1))] = SOME_HASH
    rewritten = nodes_of(leaves)

    proof = consistency_proof(old, new, rewritten)
    assert not verify_consistency(old, new, seen, tree_root(new, rewritten), proof)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=12), st.integers(0, 70), st.integers(0, 70))
def test_no_made_up_proof_joins_two_roots(proof: list[bytes], old: int, new: int) -> None:
    assert not verify_consistency(old, new, SOME_HASH, ROOTS[8], proof)


def test_bytes_cannot_move_from_one_hash_to_the_next() -> None:
    left, right = LEAVES[:2]
    root = node_hash(left, right)

    assert node_hash(left + right[:1], right[1:]) == root
    assert not verify_inclusion(left + right[:1], 0, 2, (right[1:],), root)


def test_a_proof_does_not_climb_above_the_root() -> None:
    above = node_hash(SOME_HASH, ROOTS[1])
    assert not verify_inclusion(LEAVES[0], 0, 1, (SOME_HASH,), above)

    old, new, proof = CONSISTENCY[3]
    first, second = node_hash(SOME_HASH, ROOTS[old]), node_hash(SOME_HASH, ROOTS[new])
    assert not verify_consistency(old, new, first, second, (*proof, SOME_HASH))
