"""Keyed digests that stand for what is known of patients: nobody without the key can read one or test a guess.

A digest is 64 bits of HMAC-SHA-256 (RFC 2104) under a key of the site.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, NamedTuple

from site_node.second_look.folding import fold

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIR, FAMILY, NUMBER, BIRTH = range(4)
_BYTES = 8
_MIN_NUMBER, _MIN_DIGITS, _MIN_BARE = 5, 4, 6


class Entry(NamedTuple):
    """One thing known of a person, both as digests."""

    digest: int
    kind: int
    person: int


class Keyer:
    """Makes digests under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, domain: str, text: str) -> int:
        """Return 64 bits that stand for `text`; each domain has its own."""
        said = f"{domain}\0{text}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hmac.digest(self._key, said, "sha256")[:_BYTES])

    def token(self, domain: str, text: str) -> str:
        """Return the same as 16 hexadecimal digits."""
        return f"{self.digest(domain, text):016x}"

    def person(self, patient_id: str) -> int:
        """Return what stands for a patient."""
        return self.digest("person", patient_id)


def numbers(person: int, texts: tuple[str, ...], keyer: Keyer) -> Iterator[Entry]:
    """Yield the numbers of a person, as digests."""
    for number in {form for text in texts for form in number_forms(text)}:
        yield Entry(keyer.digest("number", number), NUMBER, person)


def number_forms(text: str) -> set[str]:
    """Return the writings by which a number is known: letters and digits, and its digits without leading zeros."""
    plain = "".join(filter(str.isalnum, fold(text)))
    digits = "".join(filter(str.isdigit, plain))
    forms = {plain} if len(plain) >= _MIN_NUMBER and len(digits) >= _MIN_DIGITS else set()
    if len(bare := digits.lstrip("0")) >= _MIN_BARE:
        forms.add(bare)
    return forms
