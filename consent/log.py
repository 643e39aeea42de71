"""What stands in a site's consent log: one leaf for each consent record, and padding.

Pure. A leaf commits to a record and tells nothing about it: it is salted, and its opening stays in
the hospital. A publication appends 64 leaves or that many times a power of two, whether or not
anything changed, so that the size of the log tells neither a count nor a withdrawal; a bulk load
shows as the power of two that holds it.

Source: RFC 6962 section 2.1 (leaf hash); RFC 8785 (canonical JSON).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final

from consent.merkle import leaf_hash

BATCH: Final = 64
"""How many leaves a publication appends at least; every size of a log is a multiple."""
BATCH_LEVEL: Final = 6
"""The level of the tree's nodes that stand for one batch."""
SALT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A consent record as its leaf commits to it.

    `version` is the record's number at the site, `status` the source's word, `record_sha256` what
    `record_digest` returns, `recorded_at` ISO 8601.
    """

    patient: str
    consent_id: str
    version: int
    status: str
    record_sha256: str
    recorded_at: str


def record_digest(resource: str, studies: str, doubt: str | None) -> str:
    """Return the digest of all a record says: the resource, the pseudonyms of its studies, a doubt.

    SHA-256 over the SHA-256 of each in this order; a doubt that is not there has none.
    """
    parts = (resource, studies) if doubt is None else (resource, studies, doubt)
    return hashlib.sha256(b"".join(hashlib.sha256(_bytes(part)).digest() for part in parts)).hexdigest()


def entry_leaf(salt: bytes, entry: Entry) -> bytes:
    """Return the leaf of `entry`; patient and consent stand in it by an HMAC under the salt.

    Raises: ValueError if `salt` has not 32 bytes.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"the salt of a leaf has {SALT_BYTES} bytes")
    return leaf_hash(
        _bytes(
            _ENCODE(
                {
                    "consent_hmac": _hmac(salt, "consent", entry.consent_id),
                    "patient_hmac": _hmac(salt, "patient", entry.patient),
                    "record_sha256": entry.record_sha256,
                    "recorded_at": entry.recorded_at,
                    "salt": salt.hex(),
                    "status": entry.status,
                    "version": entry.version,
                }
            )
        )
    )


def batch_of(pending: int) -> int:
    """Return how many leaves a publication appends to hold `pending` records: 64, or 64 doubled as often as it takes.

    Raises: ValueError if `pending` is negative.
    """
    if pending < 0:
        raise ValueError("fewer than no records wait")
    return max(BATCH, 1 << (pending - 1).bit_length()) if pending else BATCH


def _hmac(salt: bytes, kind: str, text: str) -> str:
    return hmac.digest(salt, _bytes(f"{kind}\0{text}"), "sha256").hex()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_ENCODE: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""RFC 8785's form of texts and small integers whose names stand in order already."""
