"""The tree of the studies that were used: what a site commits to in a round without naming any.

Pure. A leaf is a keyed name of a study and a salted digest of the decision on it. Leaves lie in the
order of their keys, so that a study's absence can be proven by its neighbours. Random leaves fill
the tree up to a size that follows from the published range of counts; they are derived from the
digest of all verdicts, so that the root holds fast the studies left out as well.

Source: RFC 6962 section 2.1 (tree); RFC 2104 (HMAC); FIPS 202 (SHAKE256); RFC 8785.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from consent.merkle import inclusion_proof, leaf_hash, nodes_of, tree_root, verify_inclusion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consent.merkle import Nodes

KEY_BYTES: Final = 32
ENTRY_BYTES: Final = 64
SECRET_BYTES: Final = 32
MINIMUM_SIZE: Final = 256


@dataclass(frozen=True, slots=True)
class Decided:
    """What a leaf says of its study.

    `consents` are the leaves of the consent log that were decided on, in hexadecimal;
    `evaluated_at` is ISO 8601, `data_manifest_sha256` the digest of the list of files used.
    """

    consents: tuple[str, ...]
    decision: str
    policy: str
    evaluated_at: str
    data_manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Included:
    """Where an entry lies in the tree, and its path to the root."""

    index: int
    entry: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EligibilityTree:
    """The entries of one opening, in the order of their keys; made by `eligibility_tree`."""

    secret: bytes = field(repr=False)
    entries: tuple[bytes, ...] = field(repr=False)
    nodes: Nodes = field(repr=False, compare=False)
    root: bytes

    def include(self, study: str) -> Included | None:
        """Return where `study` lies; None if it is not in the tree."""
        place, key = self._place(study)
        found = place < len(self.entries) and self.entries[place].startswith(key)
        return self._included(place) if found else None

    def exclude(self, study: str) -> tuple[Included, ...]:
        """Return the neighbours between which `study` would lie, one at either end of the tree.

        Nothing is returned for a study in the tree: there is no such proof.
        """
        place, _ = self._place(study)
        if self.include(study) is not None:
            return ()
        return tuple(self._included(n) for n in (place - 1, place) if 0 <= n < len(self.entries))

    def _place(self, study: str) -> tuple[int, bytes]:
        key = study_key(self.secret, study)
        return bisect_left(self.entries, key), key

    def _included(self, place: int) -> Included:
        return Included(place, self.entries[place], inclusion_proof(place, len(self.entries), self.nodes))


def padded_size(lowest: int) -> int:
    """Return the size of the tree for the range of counts that begins at `lowest`: 256, or four times it.

    A function of the range alone, so that it tells no more than the range does.
    """
    return max(MINIMUM_SIZE, 4 * lowest)


def eligibility_tree(secret: bytes, decided: Mapping[str, Decided], verdicts_sha256: str, size: int) -> EligibilityTree:
    """Return the tree over the studies in `decided`, filled up to `size` leaves.

    `verdicts_sha256` is the digest of all verdicts of the opening, of permitted studies and others.

    Raises: ValueError if the secret has not 32 bytes or `size` leaves no room for a random leaf.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret of a tree has {SECRET_BYTES} bytes")
    if len(decided) >= size:
        raise ValueError("the tree is too small for its studies")
    entries = [study_entry(secret, study, said) for study, said in decided.items()]
    entries += _random_entries(secret, verdicts_sha256, size - len(entries))
    entries.sort()
    nodes = nodes_of([leaf_hash(entry) for entry in entries])
    return EligibilityTree(secret, tuple(entries), nodes, tree_root(size, nodes))


def study_key(secret: bytes, study: str) -> bytes:
    """Return the name of `study` in the tree of this secret."""
    return hmac.digest(secret, b"key\0" + study.encode(), "sha256")


def study_entry(secret: bytes, study: str, decided: Decided) -> bytes:
    """Return the key of `study` and the salted digest of what was decided."""
    salt = hmac.digest(secret, b"salt\0" + study.encode(), "sha256")
    return study_key(secret, study) + hashlib.sha256(salt + _canonical(decided)).digest()


def verify_included(entry: bytes, found: Included, size: int, root: bytes) -> bool:
    """Whether `found` shows that `entry` is in the tree of `size` leaves with `root`."""
    return found.entry == entry and _lies_in(found, size, root)


def verify_excluded(key: bytes, neighbours: tuple[Included, ...], size: int, root: bytes) -> bool:
    """Whether `neighbours` show that no entry under `key` is in the tree of `size` leaves with `root`.

    They are adjacent, one on either side; or the first alone, or the last.
    """
    if not all(_lies_in(one, size, root) for one in neighbours):
        return False
    match neighbours:
        case (left, right):
            return left.index + 1 == right.index and _key(left) < key < _key(right)
        case (one,):
            return (one.index == 0 and key < _key(one)) or (one.index == size - 1 and _key(one) < key)
    return False


def _lies_in(found: Included, size: int, root: bytes) -> bool:
    return len(found.entry) == ENTRY_BYTES and verify_inclusion(
        leaf_hash(found.entry), found.index, size, found.proof, root
    )


def _key(found: Included) -> bytes:
    return found.entry[:KEY_BYTES]


def _canonical(decided: Decided) -> bytes:
    said = {
        "consents": decided.consents,
        "data_manifest_sha256": decided.data_manifest_sha256,
        "decision": decided.decision,
        "evaluated_at": decided.evaluated_at,
        "policy": decided.policy,
    }
    return _ENCODE(said).encode()


_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""RFC 8785's form of texts whose names stand in order already; many times as fast."""


def _random_entries(secret: bytes, verdicts_sha256: str, count: int) -> list[bytes]:
    stream = hashlib.shake_256(secret + b"padding\0" + verdicts_sha256.encode()).digest(ENTRY_BYTES * count)
    return [stream[start : start + ENTRY_BYTES] for start in range(0, len(stream), ENTRY_BYTES)]
