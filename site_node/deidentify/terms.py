"""Which values of code strings may stay: defined terms of PS3.3, and what is made of their words.

Code strings are meant for such terms, yet anything can be typed into them. A value that is no defined term of any
attribute stays if all its words are words of such terms, as in T2_STAR_MAP or CT_SOM5 SPI; long numbers never do.
Names that engineers give, of pulse sequences, kernels, coils and models, are judged in the same spirit.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path

_TABLES = Path(__file__).parent / "tables"
_MAX_DIGITS = 3  # fewer than a date, a telephone number or a record number has
_B_VALUE = re.compile(r"B[0-9]{4}")
# PS3.16: ContextIdentifier and TemplateIdentifier are the numbers of its tables.
_TABLE_NUMBER = re.compile(r"[0-9]{1,5}")
# PS3.3 C.7.6.1.1.1: a direction is made of the letters of its three axes, or of those of a quadruped.
_DIRECTION = re.compile(r"[APLRHF]{1,3}|(?:LE|RT|D|V|CR|CD|R|M|L|PA|PL|DI){1,4}")
_FORMS = {
    0x0008010F: _TABLE_NUMBER,
    0x0040DB00: _TABLE_NUMBER,
    0x00200020: _DIRECTION,
    0x00720700: _DIRECTION,
}
_PLAIN = re.compile(r"[A-Z0-9_ +*./-]*")
_LETTERS = re.compile(r"[A-Z]+")


@lru_cache(maxsize=65536)
def code_string_ok(tag: int, value: str) -> bool:
    """Say whether a single value of the code string `tag` is a defined term or made of the words of such terms."""
    value = value.strip(" ")
    if not value or value in _terms():
        return True
    if tag in _FORMS:
        return _FORMS[tag].fullmatch(value) is not None
    # Small letters are against the VR and yet are written.
    value = value.upper()
    words = _LETTERS.findall(value)
    few = sum(character in "0123456789" for character in value) <= _MAX_DIGITS
    if _B_VALUE.fullmatch(value):
        return True
    return few and _PLAIN.fullmatch(value) is not None and all(word in _words() for word in words)


def is_defined(value: str) -> bool:
    """Say whether a value is a defined term of some attribute, and so says nothing of a person."""
    return value in _terms()


@cache
def _terms() -> frozenset[str]:
    lines = (
        line for name in ("terms.txt", "term_words.txt") for line in (_TABLES / name).read_text("utf-8").splitlines()
    )
    return frozenset(line for line in lines if not line.startswith("#"))


@cache
def _words() -> frozenset[str]:
    return frozenset(word for term in _terms() for word in _LETTERS.findall(term))


# Attributes whose text an engineer chose, not the person who examined: models, versions, sequences, kernels, coils.
TECHNICAL = frozenset(
    {
        *(0x00080070, 0x00081090, 0x00180024, 0x00180085, 0x00181018, 0x00181019, 0x00181020, 0x00181022, 0x00181023),
        *(0x00181061, 0x00181064, 0x00181160, 0x00181161, 0x00181180, 0x001811A4, 0x001811B0, 0x00181210, 0x00181250),
        *(0x00181251, 0x00181260, 0x00181261, 0x00181401, 0x00185010, 0x00185020, 0x00185021, 0x00187008, 0x0018702B),
        *(0x00189005, 0x00189046, 0x00189047, 0x00189320, 0x00189525, 0x00201040, 0x00209056, 0x00209421, 0x00281054),
        *(0x00281055, 0x00283004, 0x00480106, 0x006A000E, 0x00541101, 0x00541103, 0x00541105, 0x00620009, 0x00660031),
        *(0x00660036, 0x30020052, 0x300A00F9),
    }
)
_SEPARATORS = re.compile(r"[\s_,;:/\\()\[\]+*=-]+")
_VERSION = re.compile(r"[A-Za-z]{0,2}[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}[A-Za-z]?")
_DATE = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{2,3}")
_MIXED = re.compile(r"[A-Za-z]{0,5}[0-9]{1,3}[A-Za-z]{1,4}[0-9]{0,2}[A-Za-z]?|[A-Za-z]{1,5}[0-9]{1,3}|b[0-9]{4}t?")
_ABBREVIATION = 2  # letters
_MAX_LABEL_DIGITS = 7  # fewer than a date has


@lru_cache(maxsize=16384)
def technical_ok(tag: int, value: str) -> bool:
    """Say whether a text that an engineer chose is made of known words, versions and short mixtures of both.

    It may stay then, unless it holds what the instance says of persons: the caller looks for that.
    """
    if tag not in TECHNICAL:
        return False
    tokens = [token.strip(".") for token in _SEPARATORS.split(value)]
    tokens = [token for token in tokens if token]
    digits = sum(character.isdigit() for character in value)
    numbers = sum(token.isdigit() for token in tokens)
    return digits <= _MAX_LABEL_DIGITS and numbers <= 2 and all(map(_is_technical, tokens))  # noqa: PLR2004 -- a date has 3


def _is_technical(token: str) -> bool:
    if token.upper() in _words() or (len(token) <= _ABBREVIATION and token.isascii() and token.isalpha()):
        return True
    if _DATE.fullmatch(token):
        return False
    return _VERSION.fullmatch(token) is not None or _MIXED.fullmatch(token) is not None
