"""A receipt as an honest site makes it, for tests that change it."""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent import (
    BATCH,
    ENGINE,
    POLICY,
    TERMINOLOGY,
    Checkpoint,
    Eligibility,
    LogClaim,
    consistency_proof,
    federation_recipient,
    leaf_hash,
    log_origin,
    nodes_of,
    padded_size,
    sign_checkpoint,
    tree_root,
)

FEDERATION: Final = "north-sea"
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LEAVES: Final = [leaf_hash(str(number).encode()) for number in range(20 * BATCH)]


def state(batches: int, other: bytes = b"") -> Checkpoint:
    """Return a state of the log of `north` with so many batches; `other` replaces its first leaf."""
    leaves = [leaf_hash(other), *LEAVES[1:]] if other else LEAVES
    size = batches * BATCH
    return Checkpoint(log_origin(FEDERATION, "north", KEY.public_key()), size, tree_root(size, nodes_of(leaves)))


def signed(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the note of a state, signed under its own name."""
    return sign_checkpoint(checkpoint, checkpoint.origin, key)


def grown(old: int, new: int) -> tuple[str, ...]:
    """Return the proof that the log grew from so many batches to so many; none where it shrank."""
    if old > new:
        return ()
    return tuple(one.hex() for one in consistency_proof(old * BATCH, new * BATCH, nodes_of(LEAVES)))


def log_claim(key: Any, known: int = 3, first: int = 4, second: int = 5, **changes: Any) -> LogClaim:
    """Return what a receipt says of the log; sizes in batches."""
    said = {
        "snapshot": signed(state(first), key),
        "recheck": signed(state(second), key),
        "since": grown(known, first),
        "consistency": grown(first, second),
    }
    return LogClaim(**{**said, **changes})


def eligibility(lowest: int = 16, **changes: Any) -> Eligibility:
    """Return what a receipt says of the studies."""
    said = {
        "root": "e" * 64,
        "padded_size": padded_size(lowest),
        "policy": POLICY,
        "engine": ENGINE,
        "terminology": TERMINOLOGY,
        "purposes": ("CLINTRCH",),
        "activity": ("MLTRAINING",),
        "recipients": (federation_recipient(FEDERATION),),
        "basis": "consent",
    }
    return Eligibility(**{**said, **changes})
