"""Keyed replacements for identifiers, the same for the same input.

Nothing is stored: whoever lacks the key can neither undo a pseudonym nor test a guess. Does not
decide which attribute is replaced; profile.py does.
"""

from __future__ import annotations

import base64
import hmac
import uuid

KEY_BYTES = 32
# 100 bits: 20 base32 characters without padding, and no collision among a country's patients.
_PATIENT_CHARACTERS = 20
_SHIFT_DAYS = range(365, 3651)


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
        from pydicom._uid_dict import UID_dictionary  # noqa: PLC0415 -- slow, and a node in its rounds makes no UIDs

        original = original.strip("\0 ")
        if original in UID_dictionary:
            return original
        digest = self._digest("uid", original)
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"

    def days(self, patient_id: str) -> int:
        """Return by how many days this patient's dates move back: one to ten years."""
        number = int.from_bytes(self._digest("days", patient_id.strip()))
        return _SHIFT_DAYS[number % len(_SHIFT_DAYS)]

    def _digest(self, domain: str, text: str) -> bytes:
        message = f"filmroom/{domain}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, message, "sha256")
