"""Everything that a text says of a person: known patients, labelled values, numbers with their checks, names.

Pure: takes a text and the label it stands under, and returns what stands where. Knows no file.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from site_node.deidentify.vocabulary import Mark, vocabulary
from site_node.second_look.folding import fold
from site_node.second_look.words import technical
from site_node.stray import lexicon, messages
from site_node.stray.addresses import addresses
from site_node.stray.days import birth_days, days_in
from site_node.stray.finding import Confidence, Kind, Match, Sort
from site_node.stray.labels import announces, is_of_a_thing, plausible
from site_node.stray.names import names
from site_node.stray.numbers import shaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.stray.dictionary import Dictionary

VERSION = 3  # of what is found: a file that an older version read is read again
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"(?<![\w.])[A-Za-z]{0,6}[-_ ./]?\d[\d./-]*\d[A-Za-z]{0,2}(?!\w)")
# Numbers of the standard, of programs and of things, which hold any other number now and then.
_NO_NUMBER = re.compile(r"\d+(?:\.\d+){4,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\b[0-9a-fA-F]{24,}\b")
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{2,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.[a-zA-Z]{2,12}(?![\w-])")
_OFFICES = lexicon.section("offices")
_THINGS = re.compile(
    r"(?:part|p/n|ref|cat(?:alog(?:ue)?)?|lot|model|serial|s/n|sn|version|item|order code|art)\.?\W{0,3}(?:no|nr)?\W*$",
    re.IGNORECASE,
)
_CREDITS = re.compile(r"copyright|\(c\)|©|licen[cs]e|\bauthors?\b|maintainer|contributor", re.IGNORECASE)
# Words before a value in running text; what they announce is told by `labels`.
_INNER = re.compile(
    rf"(?<!\w)(?P<label>{lexicon.labels('label-in-text').pattern})"
    r"(?P<glue>\.?\s*(?:no|nr|number)?\.?(?:['\"]?\s*[:=#]\s*[('\"]*|\s+))(?=\S)"
)
_NAME_WORD = r"[^\W\d_a-zß-öø-ÿ](?:['\u2019-]?\w)*\.?"
_NAME_VALUE = re.compile(rf"{_NAME_WORD}(?:(?:, ?| |\^|-){_NAME_WORD}){{0,3}}")
_ID_VALUE = re.compile(r"[A-Za-z]{0,6}[-/ ]?\d[\w/-]*(?:[ .-]\d{2,}[\w-]*){0,4}")
_PHONE_VALUE = re.compile(r"\+?[\d(][\d ()./-]{5,18}\d")
_REST = re.compile(r"(?=\D*\d)[^\n;|]{6,80}")
_BIRTH_REACH = 16
_LONG = 2000  # characters; a longer value is no value of a label


class Detector:
    """Finds identities in texts; one for each process, since it keeps what it was asked."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._known = dictionary
        self._short = lru_cache(maxsize=16384)(self._all)

    def find(self, text: str, label: str = "", sort: Sort = Sort.PROSE) -> tuple[Match, ...]:
        """Return what `text` says of persons.

        `label` is the column, attribute or key that it stands under.
        """
        find = self._short if len(text) < _LONG else self._all
        return find(text, label, sort)

    def _all(self, text: str, label: str, sort: Sort) -> tuple[Match, ...]:
        bare = _NO_NUMBER.sub(lambda match: "\0" * len(match[0]), text) if _DIGIT.search(text) else text
        found = list(self._known_in(bare)) if len(self._known) else []
        if sort is not Sort.TOGETHER:
            found += self._labelled(text, label) if label and len(text) < _LONG else ()
            found += _inner(bare)
            found += _programs(text)
            # One number in a hundred of any kind passes a check of two digits.
            found += _numbers(bare) if sort is not Sort.NUMBERS and not is_of_a_thing(label) else ()
            found += _mails(text) if "@" in text else ()
        if sort is Sort.PROSE:
            found += names(text)
            found += addresses(text)
        return _without_doubles(found)

    def _labelled(self, text: str, label: str) -> Iterator[Match]:
        kind = announces(label)
        if kind is not None and plausible(kind, text):
            yield Match(kind, "labelled", Confidence.CERTAIN, 0, len(text), fold(text.strip()))

    def _known_in(self, text: str) -> Iterator[Match]:
        found = [(match.start(), match.end(), fold(match[0])) for match in _WORD.finditer(text)]
        certain = [*self._pairs(found), *self._known_numbers(text)]
        yield from certain
        yield from self._families(found)
        persons = {match.person for match in certain}
        # A day is somebody's birth date always: it says something beside what names that person alone.
        for start, end, days in days_in(text) if persons else ():
            for day in days:
                if shared := persons.intersection(self._known.born(day)):
                    value = day.isoformat()
                    yield Match(Kind.BIRTH_DATE, "known-patient", Confidence.CERTAIN, start, end, value, min(shared))

    def _pairs(self, found: list[tuple[int, int, str]]) -> Iterator[Match]:
        """Yield two names of one patient that stand side by side, or with one word between them."""
        for i, (start, _, word) in enumerate(found):
            for _, end, other in found[i + 1 : i + 3]:
                if word != other and (person := self._known.pair(word, other)):
                    value = " ".join(sorted((word, other)))
                    yield Match(Kind.NAME, "known-patient", Confidence.CERTAIN, start, end, value, person)

    def _known_numbers(self, text: str) -> Iterator[Match]:
        for match in _NUMBER.finditer(text):
            if person := self._known.number(match[0]):
                value = "".join(filter(str.isalnum, fold(match[0])))
                yield Match(Kind.IDENTIFIER, "known-patient", Confidence.CERTAIN, *match.span(), value, person)

    def _families(self, found: list[tuple[int, int, str]]) -> Iterator[Match]:
        """Yield surnames of known patients that stand alone; any word is somebody's, so it is possible at most."""
        for start, end, word in found:
            mark = vocabulary().words.get(word)
            if mark in (None, Mark.NAME) and word not in technical() and (person := self._known.family(word)):
                yield Match(Kind.NAME, "known-surname", Confidence.POSSIBLE, start, end, word, person)


def _inner(text: str) -> Iterator[Match]:
    """Yield values that a label in the text itself announces: DOB: 17.4.1961."""
    # In small letters, which is faster than to pass over their case; one letter alone would become two.
    for label in _INNER.finditer(text.replace("\u0130", "I").lower()):
        kind, at = announces(text[slice(*label.span("label"))]), label.end()
        spoken = not any(letter in label["glue"] for letter in ":=#")
        if kind is Kind.BIRTH_DATE:
            for start, end, day in birth_days(text[at : at + 2 * _BIRTH_REACH]):
                if start <= 1:
                    yield Match(kind, "label-in-text", Confidence.CERTAIN, at + start, at + end, day)
                    break
            continue
        pattern = {Kind.NAME: _NAME_VALUE, Kind.IDENTIFIER: _ID_VALUE, Kind.CONTACT: _PHONE_VALUE, Kind.ADDRESS: _REST}
        value = pattern[kind].match(text, at) if kind in pattern else None
        if (
            kind is None
            or value is None
            or (spoken and kind in (Kind.NAME, Kind.ADDRESS))
            or not plausible(kind, value[0])
        ):
            continue
        confidence = Confidence.LIKELY if spoken or kind is Kind.ADDRESS else Confidence.CERTAIN
        yield Match(kind, "label-in-text", confidence, *value.span(), fold(value[0]))


def _programs(text: str) -> Iterator[Match]:
    """Yield what programs write of a patient into logs."""
    for label, start, end in messages.values(text):
        if (kind := announces(label)) is not None and plausible(kind, text[start:end]):
            yield Match(kind, "message", Confidence.CERTAIN, start, end, fold(text[start:end].strip()))


def _numbers(text: str) -> Iterator[Match]:
    for shape, match in shaped(text):
        if not _THINGS.search(text, max(0, match.start() - 20), match.start()):
            value = "".join(filter(str.isalnum, fold(match[0])))
            yield Match(shape.kind, shape.rule, shape.confidence, *match.span(), value)


def _mails(text: str) -> Iterator[Match]:
    if _CREDITS.search(text):
        return
    for match in _MAIL.finditer(text):
        local = fold(match[0].partition("@")[0])
        parts = [part for part in re.split(r"[^a-z]+", local) if part]
        if local in _OFFICES or not parts:
            continue
        named = any(part in vocabulary().given or vocabulary().words.get(part) is Mark.NAME for part in parts)
        sure = named or (len(parts) > 1 and all(vocabulary().words.get(part) is None for part in parts[-1:]))
        confidence = Confidence.LIKELY if sure else Confidence.POSSIBLE
        yield Match(Kind.CONTACT, "mail-address", confidence, *match.span(), fold(match[0]))


def _without_doubles(found: list[Match]) -> tuple[Match, ...]:
    """Return the surest of those that say the same of the same place, in the order of the text."""
    kept: list[Match] = []
    for match in sorted(found, key=lambda one: (-one.confidence, one.rule != "known-patient", one.start, -one.end)):
        if not any(one.start < match.end and match.start < one.end and _weighs(one, match) for one in kept):
            kept.append(match)
    return tuple(sorted(kept, key=lambda one: one.start))


def _weighs(one: Match, other: Match) -> bool:
    """Return whether a match makes an overlapping one needless: of its kind, or surer."""
    return one.kind is other.kind or one.confidence >= other.confidence


def masked(text: str, matches: tuple[Match, ...]) -> str:
    """Return `text` with what identifies replaced by blocks of one length, and no letter that a terminal obeys."""
    out, last = [], 0
    for match in sorted(matches, key=lambda one: one.start):
        if match.start >= last:
            out += [text[last : match.start], "▒▒▒"]
            last = match.end
    shown = "".join((*out, text[last:]))
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
