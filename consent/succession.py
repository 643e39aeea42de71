"""The signed statement by which a site's receipt key gives way to the next one.

The old key signs it, so that nobody else can name a successor, and the new one, so that nobody
names a key that is another's. Pure: which key is in force is for the coordinator to know.

Source: RFC 8785 (JCS). Receipts begin with `DSSEv1` and checkpoints with their origin where this
    statement begins with its type, so that none can be taken for another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import rfc8785
from cryptography.exceptions import InvalidSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SUCCESSION_TYPE: Final = "https://filmroom.org/receipt-key-succession/v1"


@dataclass(frozen=True, slots=True)
class Succession:
    """A new receipt key, with the signatures of the key before it and of its own."""

    key: Ed25519PublicKey
    by_old: bytes
    by_new: bytes


def succeed(federation: str, site: str, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> Succession:
    """Return what makes `new` the receipt key of `site` after `old`."""
    statement = _statement(federation, site, new.public_key())
    return Succession(new.public_key(), old.sign(statement), new.sign(statement))


def is_succession(asked: Succession, federation: str, site: str, old: Ed25519PublicKey) -> bool:
    """Return whether `old` and the new key both signed that the one follows the other at this site."""
    statement = _statement(federation, site, asked.key)
    try:
        old.verify(asked.by_old, statement)
        asked.key.verify(asked.by_new, statement)
    except InvalidSignature:
        return False
    return True


def _statement(federation: str, site: str, key: Ed25519PublicKey) -> bytes:
    said = {"federation": federation, "site": site, "key": key.public_bytes_raw().hex()}
    return SUCCESSION_TYPE.encode() + b"\n" + rfc8785.dumps(said)
