"""What a search says of a place: the kind of identity, the rule that saw it, how surely, and how grave that is."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a text identifies somebody by."""

    NAME = "name"
    IDENTIFIER = "identifier"
    BIRTH_DATE = "birth-date"
    CONTACT = "contact"
    ADDRESS = "address"
    STAFF = "staff"
    PLACE = "place"


class Sort(StrEnum):
    """What sort of text it is, and so by what it is judged."""

    PROSE = "prose"  # people wrote it: by everything
    BYTES = "bytes"  # letters among bytes: by all but names of strangers
    NUMBERS = "numbers"  # letters among bytes of numbers, mostly by chance: by the dictionary and labels alone
    TOGETHER = "together"  # values of several fields that stood apart: by the dictionary alone


class Confidence(IntEnum):
    """How surely a text is what it seems to be."""

    POSSIBLE = 1  # its shape alone
    LIKELY = 2  # its shape, and words or a check digit beside it
    CERTAIN = 3  # it stands where a patient's value belongs, or is a known patient's


class Risk(IntEnum):
    """How grave a finding is."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3

    @property
    def word(self) -> str:
        """The risk in lower case."""
        return self.name.lower()


_DIRECT = frozenset((Kind.NAME, Kind.IDENTIFIER, Kind.BIRTH_DATE))
_REACHES = frozenset((Kind.CONTACT, Kind.ADDRESS))


def risk_of(kind: Kind, confidence: Confidence) -> Risk:
    """Return how grave it is: what names a patient directly weighs as much as it is sure, the rest less."""
    if kind in _DIRECT:
        return Risk(int(confidence))
    if kind in _REACHES and confidence > Confidence.POSSIBLE:
        return Risk.MEDIUM
    return Risk.LOW


class Match(NamedTuple):
    """What stands in a text, half-open; `value` is it in one writing and never leaves the process that reads."""

    kind: Kind
    rule: str
    confidence: Confidence
    start: int
    end: int
    value: str
    person: int = 0  # of the dictionary, 0 if unknown


class Finding(NamedTuple):
    """The same value found by the same rule in one file; `place` is where it stands first, without any value."""

    kind: Kind
    rule: str
    confidence: Confidence
    place: str
    digest: str
    times: int

    @property
    def risk(self) -> Risk:
        """How grave it is."""
        return risk_of(self.kind, self.confidence)
