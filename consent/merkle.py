"""The arithmetic of an append-only log: its root, and short proofs of what it holds and that it grew.

Pure functions over a reader of complete subtrees, so that a log of any size proves with the few
hashes it stores. A *leaf* here is always the hash of an entry, as `leaf_hash` returns it. Knows no
signature and keeps nothing.

Source: RFC 6962 section 2.1; RFC 9162 section 2.1 (the same tree, with the algorithms that verify).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

Nodes = Callable[[int, int], bytes]
"""`nodes(level, index)` is the hash over the leaves from `index * 2**level` to before
`(index + 1) * 2**level`; it is asked for subtrees alone that lie whole within the log."""

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a log without entries (RFC 6962 section 2.1: MTH({}))."""


# ------------------------------------------------------------------ the tree


def leaf_hash(entry: bytes) -> bytes:
    """Return the leaf of `entry`: SHA-256 of 0x00 and the entry.

    Source: RFC 6962 section 2.1. The first byte keeps a leaf from passing for a node.
    """
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees: SHA-256 of 0x01 and both hashes.

    Source: RFC 6962 section 2.1.
    """
    return hashlib.sha256(b"\x01" + left + right).digest()


def nodes_of(leaves: Sequence[bytes]) -> Nodes:
    """Return a reader of every complete subtree of `leaves`, all of them kept in memory.

    The reader raises IndexError where the subtree is not whole.
    """
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(*pair) for pair in zip(below[::2], below[1::2], strict=False)])

    def read(level: int, index: int) -> bytes:
        return levels[level][index]

    return read


def tree_root(size: int, nodes: Nodes) -> bytes:
    """Return the root of the first `size` leaves.

    Raises: ValueError if `size` is negative.
    Source: RFC 6962 section 2.1 (Merkle Tree Hash).
    """
    if size < 0:
        raise ValueError("a log has no negative size")
    return _root(0, size, nodes) if size else EMPTY_ROOT


# ------------------------------------------------------------------ proofs


def inclusion_proof(index: int, size: int, nodes: Nodes) -> tuple[bytes, ...]:
    """Return what proves that the leaf at `index` is among the first `size`.

    Raises: ValueError unless 0 <= `index` < `size`.
    Source: RFC 6962 section 2.1.1 (PATH).
    """
    if not 0 <= index < size:
        raise ValueError("the log of this size has no such leaf")
    return _path(index, 0, size, nodes)


def consistency_proof(old: int, new: int, nodes: Nodes) -> tuple[bytes, ...]:
    """Return what proves that the first `new` leaves begin with the first `old`.

    Empty where there is nothing to prove: from no leaves, and from a log to itself.

    Raises: ValueError unless 0 <= `old` <= `new`.
    Source: RFC 6962 section 2.1.2 (PROOF, SUBPROOF).
    """
    if not 0 <= old <= new:
        raise ValueError("a log does not shrink")
    return _subproof(old, 0, new, nodes, known=True) if old else ()


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that `leaf` stands at `index` in the log of `size` leaves with `root`.

    Source: RFC 9162 section 2.1.3.2, with its step numbers.
    """
    # 1
    if not 0 <= index < size or not _are_hashes(leaf, root, *proof):
        return False
    # 2, 3
    fn, sn, r = index, size - 1, leaf
    # 4
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            fn, sn = _climb(fn, sn)
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    # 5
    return sn == 0 and r == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the log of `new` leaves with `new_root` begins with that of `old`.

    The log without entries has one root, `EMPTY_ROOT`, and begins every log.

    Source: RFC 9162 section 2.1.4.2, with its step numbers; the two cases before them by the
        definition of the tree (C2SP tlog-witness: "The proof MUST be empty if the old size is zero").
    """
    if not 0 <= old <= new or not _are_hashes(old_root, new_root, *proof):
        return False
    if old == new:
        return not proof and old_root == new_root and (old > 0 or old_root == EMPTY_ROOT)
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    # 1
    if not proof:
        return False
    # 2
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    # 3
    fn, sn = old - 1, new - 1
    # 4
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    # 5
    fr = sr = path[0]
    # 6
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            fn, sn = _climb(fn, sn)
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    # 7
    return sn == 0 and fr == old_root and sr == new_root


# ------------------------------------------------------------------ within the tree


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size`, where RFC 6962 divides a tree."""
    return 1 << (size - 1).bit_length() - 1


def _root(begin: int, end: int, nodes: Nodes) -> bytes:
    """Return MTH(D[begin:end]): its complete subtrees, largest first, folded from the right."""
    parts = []
    for level in reversed(range((end - begin).bit_length())):
        if (end - begin) >> level & 1:
            parts.append(nodes(level, begin >> level))
            begin += 1 << level
    root = parts.pop()
    for left in reversed(parts):
        root = node_hash(left, root)
    return root


def _path(index: int, begin: int, end: int, nodes: Nodes) -> tuple[bytes, ...]:
    """Return PATH(index - begin, D[begin:end])."""
    if end - begin == 1:
        return ()
    middle = begin + _split(end - begin)
    if index < middle:
        return (*_path(index, begin, middle, nodes), _root(middle, end, nodes))
    return (*_path(index, middle, end, nodes), _root(begin, middle, nodes))


def _subproof(old: int, begin: int, end: int, nodes: Nodes, *, known: bool) -> tuple[bytes, ...]:
    """Return SUBPROOF(old - begin, D[begin:end], known)."""
    if old == end:
        return () if known else (_root(begin, end, nodes),)
    middle = begin + _split(end - begin)
    if old <= middle:
        return (*_subproof(old, begin, middle, nodes, known=known), _root(middle, end, nodes))
    return (*_subproof(old, middle, end, nodes, known=False), _root(begin, middle, nodes))


def _climb(fn: int, sn: int) -> tuple[int, int]:
    """Shift both right until the lowest bit of `fn` is set or `fn` is 0: up while a left child."""
    while fn and not fn & 1:
        fn, sn = fn >> 1, sn >> 1
    return fn, sn


def _are_hashes(*values: bytes) -> bool:
    """Whether each is as long as a hash: else bytes could move from one to its neighbour unseen."""
    return all(len(value) == HASH_BYTES for value in values)
