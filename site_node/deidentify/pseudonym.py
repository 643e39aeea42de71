"""Keyed replacements for identifiers, the same for the same input.

Nothing is stored: whoever lacks the key can neither undo a pseudonym nor test a guess. Does not
decide which attribute is replaced; profile.py does.
"""

from __future__ import annotations

import base64
import hmac
from functools import cache
from typing import NamedTuple

KEY_BYTES = 32
# 100 bits: 20 base32 characters without padding, and no collision among a country's patients.
_PATIENT_CHARACTERS = 20
_SHIFT_DAYS = range(365, 3651)
_SHIFT_SECONDS = range(1, 86_400)
_KEY_ID_DIGITS = 16
# RFC 9562 section 5.4: the bits of a UUID of version 4 that are random, and the others as they have to be.
_UUID_RANDOM = ~(0xF << 76 | 0x3 << 62)
_UUID_VERSION_4 = 0x4 << 76 | 0x2 << 62


class Known(NamedTuple):
    """One original and the pseudonym that stands for it; kind is `patient`, `study`, `series` or `instance`."""

    kind: str
    pseudonym: str
    original: str


class Pseudonymiser:
    """Pseudonyms of one site; `key` is its secret of 32 random bytes.

    Source: HMAC (RFC 2104) with SHA-256; each kind of pseudonym has its own domain.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a pseudonym key has {KEY_BYTES} bytes")
        self._key = key

    def patient(self, patient_id: str) -> str:
        """Return "P" and 20 letters or digits for a PatientID; padding spaces do not count."""
        digest = self._digest("patient", patient_id.strip())
        return "P" + base64.b32encode(digest).decode()[:_PATIENT_CHARACTERS]

    def uid(self, original: str) -> str:
        """Return the UID that stands for `original`; one registered by DICOM stays as it is.

        Source: PS3.5 B.2 (a UID made from a UUID), PS3.6 annex A (registered UIDs).
        """
        original = original.strip("\0 ")
        if original in _registered():
            return original
        number = int.from_bytes(self._digest("uid", original)[:16])
        return f"2.25.{number & _UUID_RANDOM | _UUID_VERSION_4}"

    def days(self, patient_id: str) -> int:
        """Return by how many days this patient's dates move back: one to ten years."""
        number = int.from_bytes(self._digest("days", patient_id.strip()))
        return _SHIFT_DAYS[number % len(_SHIFT_DAYS)]

    def seconds(self, patient_id: str) -> int:
        """Return by how many seconds this patient's times of day move, modulo 24 hours: 1 to 86399.

        Times of day stay on their day, so an interval across which midnight falls, before or after the move, is
        off by a whole day; intervals of days, and of times on one side of midnight, are kept.
        """
        number = int.from_bytes(self._digest("seconds", patient_id.strip()))
        return _SHIFT_SECONDS[number % len(_SHIFT_SECONDS)]

    def micros(self, patient_id: str) -> int:
        """Return by how many microseconds more this patient's times with fractions of a second move: 1 to 999999."""
        return 1 + int.from_bytes(self._digest("micros", patient_id.strip())) % 999_999

    def token(self, domain: str, text: str, length: int) -> str:
        """Return `length` letters and digits that stand for `text`; each domain has its own.

        Raises: ValueError if `length` is not positive.
        """
        if length < 1:
            raise ValueError("a token has at least one character")
        letters = ""
        while len(letters) < length:
            part = self._digest(f"token/{domain}", f"{len(letters)}\0{text}")
            letters += base64.b32encode(part).decode().rstrip("=")
        return letters[:length]

    @property
    def key_id(self) -> str:
        """The name of the key: 16 hexadecimal digits that say which key was used and nothing about it."""
        return self._digest("key-id", "").hex()[:_KEY_ID_DIGITS]

    def subkey(self, purpose: str) -> bytes:
        """Return a key of 32 bytes for `purpose`; it is gone with this one, and this one does not follow from it."""
        return self._digest("subkey", purpose)

    def _digest(self, domain: str, text: str) -> bytes:
        message = f"filmroom/{domain}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, message, "sha256")


@cache
def _registered() -> frozenset[str]:
    from pydicom._uid_dict import UID_dictionary  # noqa: PLC0415 -- slow, and a node in its rounds makes no UIDs

    return frozenset(UID_dictionary)
