"""What a label announces: a column, an attribute, a key, or words before a colon, in seven languages.

A label is believed, and what it announces has only to be possible: `plausible` says whether it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from site_node.deidentify.vocabulary import Mark, vocabulary
from site_node.second_look.folding import fold
from site_node.second_look.words import words
from site_node.stray import lexicon
from site_node.stray.days import birth_days
from site_node.stray.finding import Kind

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_APART = re.compile(r"[^\w]+|_+")

_ANNOUNCED = tuple((kind, lexicon.labels(f"label-{kind}")) for kind in lexicon.ORDER)
_NO_PERSON, _THINGS = lexicon.section("no-person"), lexicon.section("things")


@lru_cache(maxsize=16384)
def normal(label: str) -> str:
    """Return the words of a label, folded: PatientBirthDate and patient_birth_date are the same."""
    return " ".join(filter(None, _APART.split(fold(_CAMEL.sub(" ", label)))))


@lru_cache(maxsize=16384)
def announces(label: str) -> Kind | None:
    """Return what a label announces, if it announces an identity."""
    said = normal(label)
    if not said or not _NO_PERSON.isdisjoint(said.split()):
        return None
    return next((kind for kind, pattern in _ANNOUNCED if pattern.fullmatch(said)), None)


@lru_cache(maxsize=16384)
def is_of_a_thing(label: str) -> bool:
    """Return whether a label says that the value is a thing's number, which may look like a person's."""
    return not _THINGS.isdisjoint(normal(label).split())


# What stands for a patient, or for nobody: our pseudonyms, research numbers, the words of blank forms.
_PSEUDONYM = re.compile(
    r"P[A-Z2-7]{20}|(?:sub|subj(?:ect)?|anon(?:ym\w*)?|case|pat(?:ient)?|phantom|test|pseudo)[-_ #]*\d{0,5}"
    r"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32,}|\d+(?:\.\d+){3,}|urn:\S+|https?://\S+|[\W_0]*|x+",
    re.IGNORECASE,
)
_NOBODY = lexicon.section("nobody")
_PLAIN = frozenset((Mark.TECHNICAL, Mark.PLAIN))
_MAX_NAME = 8
_MIN_PHONE, _MIN_IDENTIFIER, _MIN_ADDRESS, _MIN_WORD = 6, 4, 6, 3
_MAX_VALUE = 200
_MAIL = re.compile(r"[^\s@]+@[^\s@]+\.[a-zA-Z]{2,}")


def plausible(kind: Kind, value: str) -> bool:
    """Return whether a value is possibly what its label announces, and somebody's."""
    text = value.strip(" \t\r\n\"'^\\")
    if not text or len(text) > _MAX_VALUE or _PSEUDONYM.fullmatch(text):
        return False
    found = words(text)
    if all(word in _NOBODY for word in found):
        return False
    return _PLAUSIBLE[kind](text, found)


def _is_name(text: str, found: tuple[str, ...]) -> bool:
    letters = [word for word in found if word.isalpha() and (len(word) > 1 or not word.isascii())]
    if not letters or len(found) > _MAX_NAME or sum(map(str.isdigit, text)) > len("2001"):
        return False
    table = vocabulary().words
    return not all(word in _NOBODY or table.get(word) in _PLAIN for word in letters)


def _is_identifier(text: str, found: tuple[str, ...]) -> bool:
    plain = "".join(found)
    return len(plain) >= _MIN_IDENTIFIER and sum(map(str.isdigit, plain)) > 2 and len(text.split()) <= _MAX_NAME  # noqa: PLR2004 -- 3 digits


def _is_birth(text: str, found: tuple[str, ...]) -> bool:
    del found
    return any(True for _ in birth_days(text))


def _is_contact(text: str, found: tuple[str, ...]) -> bool:
    del found
    return _MAIL.search(text) is not None or sum(map(str.isdigit, text)) >= _MIN_PHONE


def _is_address(text: str, found: tuple[str, ...]) -> bool:
    if "://" in text or "0x" in text.lower() or _MAIL.fullmatch(text):
        return False
    return len(text) >= _MIN_ADDRESS and any(word.isalpha() and len(word) >= _MIN_WORD for word in found)


def _is_place(text: str, found: tuple[str, ...]) -> bool:
    return not text.isdigit() and any(len(word) > _MIN_WORD for word in found)


_PLAUSIBLE = {
    Kind.NAME: _is_name,
    Kind.STAFF: _is_name,
    Kind.IDENTIFIER: _is_identifier,
    Kind.BIRTH_DATE: _is_birth,
    Kind.CONTACT: _is_contact,
    Kind.ADDRESS: _is_address,
    Kind.PLACE: _is_place,
}
