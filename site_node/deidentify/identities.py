"""What an instance says about persons, in every form that it can take in a text.

Names, numbers, dates and places are broken into runs of letters and runs of digits, without case and
accents; a form is the runs joined. So `Müller-Lüdenscheidt, J.`, `MUELLER LUEDENSCHEIDT^JAN` and
`janmueller` meet, and so do `MRN-0012 345` and `mrn12345`. Knows what this instance says; patterns
and words that hold for every text are in text.py.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, lru_cache
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

from site_node.deidentify.vocabulary import Mark, contexts, vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RUN = re.compile(r"[^\W\d_]+|\d+")
# The runs of a form that are looked up together; a number in eight pairs, or an address's line.
_WINDOW = 8
_LETTERS_APART = 32  # Q u v o: single letters and digits are looked up together as far as a long name goes
# What stands between two runs of one form: a blank, a comma, brackets, a caret, a line's end.
_GAP = 3
# A letter in a name alone is an initial and two may be a word of any language; they count beside others.
_SHORT_NAME = 2
_SHORT_WORD = 3
_SHORT_NUMBER = 3
_EMBEDDED = 4
# Descriptions repeat from file to file; a report does not, and none of it is kept in memory.
_CACHED_LENGTH = 128
# A register's number within an identifier: MRN0012345 is also 12345.
_CORE = 4
# Of a telephone number the last digits are told apart, whatever was dialled before them.
_SUBSCRIBER = 7

_MONTHS = {
    name: month
    for month, names in enumerate(
        (
            "january jan januar janvier enero gennaio januari janeiro ene gen janv janner",
            "february feb februar fevrier febrero febbraio februari fevereiro fev fevr feber",
            "march mar marz maerz mars marzo maart marco mrz mrt",
            "april apr avril abril aprile avr abr",
            "may mai mayo maggio mei maio mag",
            "june jun juni juin junio giugno junho giu",
            "july jul juli juillet julio luglio julho lug juil",
            "august aug aout agosto augustus ago",
            "september sep sept septembre septiembre settembre setembro set",
            "october oct oktober octobre octubre ottobre outubro okt ott out",
            "november nov novembre noviembre novembro",
            "december dec dezember decembre diciembre dicembre dezembro dez dic",
        ),
        1,
    )
    for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_APART = r"[\s.,/_-]{0,3}(?:(?:of|de|del|di)[ ])?"
# A day as people write it, in folded text: numbers with a divider, or a month by name.
_WRITTEN_DAY = re.compile(
    rf"""(?<![\d.])(?:
    (?P<n1>\d{{1,4}})(?P<sep>\s?[./_-]\s?|\s)(?P<n2>\d{{1,2}})(?P=sep)(?P<n3>\d{{4}}|\d{{1,2}})
    |(?P<d1>\d{{1,2}})(?:st|nd|rd|th|er|[.ºª])?{_APART}\b(?P<m1>{_MONTH})\b{_APART}(?P<y1>'?\d{{4}}|'?\d\d)?
    |(?P<d3>\d{{1,2}})(?P<m3>{_MONTH})(?P<y3>\d{{4}}|\d\d)
    )(?!\d)|(?<![a-z])(?P<m2>{_MONTH})\b{_APART}(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s?(?:mm|cm|ms))(?:{_APART}(?P<y2>\d{{4}}|'\d\d))?
    |(?<!\d)(?P<y4>\d{{4}})[\s/_-]?(?P<m4>{_MONTH})[\s/_-]?(?P<d4>\d{{1,2}})(?!\d)""",
    re.VERBOSE,
)
# A year of two digits is of this century or the last.
_CENTURY = 100
_YEAR = re.compile(r"(?:19|20)\d\d")
_DATE = re.compile(r"(\d{4})[.:/-]?(\d{2})[.:/-]?(\d{2})")

# Letters that no accent makes, and how they are also written.
_LETTERS = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "\u0131": "i", "ħ": "h"}
)
_SPELLINGS = (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("å", "aa"), ("ø", "oe"))
_COLLAPSED = (("ae", "a"), ("oe", "o"), ("ue", "u"), ("aa", "a"))

# What a reader of pictures takes one for the other, as one letter of each group.
_SHAPES = str.maketrans("01i|5$8269q", "olllssbzggg")
_PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"))
_MISREAD_FROM = 4
_MISREAD_TWICE_FROM = 8


Span = tuple[int, int]


@cache
def _fold_character(character: str) -> str:
    """Return a character's letters; some letters are capitals again once they are taken apart."""
    folded, before = character, ""
    while folded != before:
        before = folded
        apart = unicodedata.normalize("NFKD", folded.casefold().translate(_LETTERS))
        folded = "".join(c for c in apart if not unicodedata.combining(c))
    return folded


def fold(text: str) -> str:
    """Return `text` without case and accents.

    >>> fold("Müller-Ørsted ß")
    'muller-orsted ss'
    """
    return text.lower() if text.isascii() else "".join(map(_fold_character, text))


def runs(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, folded run) of each run of letters or digits in `text`.

    >>> runs("MRN-0012")
    [(0, 3, 'mrn'), (4, 8, '0012')]
    """
    if text.isascii():
        return [(m.start(), m.end(), m[0]) for m in _RUN.finditer(text.lower())]
    folded, origin = [], []
    for index, character in enumerate(text):
        plain = _fold_character(character)
        folded.append(plain)
        origin += [index] * len(plain)
    found = (m for m in _RUN.finditer("".join(folded)))
    return [(origin[m.start()], _beyond(text, origin[m.end() - 1] + 1), m[0]) for m in found]


def _beyond(text: str, end: int) -> int:
    """Return `end` after the accents that stand on the letter before it."""
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end


@dataclass(frozen=True, slots=True)
class Identities:
    """The forms of an instance's values.

    `forms` are joined runs; `embedded` may stand within a run that is no word, and `leads` are what they
    begin with; `initials` count beside another form. `days` are told from a text however they are
    written, `written` as they stand, with gaps or without; `proper` are words of a
    dictionary that count where they begin with a capital, `labels` count as a whole alone: CT01.
    """

    forms: frozenset[str] = frozenset()
    embedded: tuple[str, ...] = ()
    initials: frozenset[str] = frozenset()
    days: frozenset[date] = frozenset()
    written: tuple[str, ...] = ()
    leads: frozenset[str] = frozenset()
    proper: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        names: Iterable[str] = (),
        ids: Iterable[str] = (),
        dates: Iterable[str] = (),
        places: Iterable[str] = (),
        contacts: Iterable[str] = (),
        other: Iterable[str] = (),
        stations: Iterable[str] = (),
    ) -> Identities:
        """Return the forms of raw, decoded values: PN with its carets, DA, DT, TM, text as it stood."""
        forms: set[str] = set()
        embedded: set[str] = set()
        initials: set[str] = set()
        days: set[date] = set()
        written: set[str] = set()
        proper: set[str] = set()
        labels: set[str] = set()
        for values, make in (
            (names, _name_forms),
            (ids, _identifier_forms),
            (dates, _date_forms),
            (places, _place_forms),
            (contacts, _contact_forms),
            (other, _text_forms),
            (stations, _station_forms),
        ):
            found = list(map(make, values))
            forms.update(*[each.forms for each in found])
            embedded.update(*[each.embedded for each in found])
            initials.update(*[each.initials for each in found])
            days.update(*[each.days for each in found])
            written.update(*[each.written for each in found])
            proper.update(*[each.proper for each in found])
            labels.update(*[each.labels for each in found])
        return cls(
            frozenset(forms),
            tuple(sorted(embedded)),
            frozenset(initials),
            frozenset(days),
            tuple(sorted(written)),
            frozenset(form[:_EMBEDDED] for form in embedded),
            frozenset(proper),
            tuple(sorted(labels)),
        )

    def spans(self, text: str) -> list[Span]:
        """Return the merged half-open places in `text` where a form stands."""
        if not (self.forms or self.written or self.proper or self.labels):
            return []
        if self._absent(text):
            return []
        found = runs(text)
        hit = self._hits(text, found)
        if hit and self.initials:
            _take_initials(text, found, hit, self.initials)
        places = [(found[i][0], found[j - 1][1]) for i, j in hit]
        if self.days:
            places += [(start, end) for start, end, days in written_days(text) if not self.days.isdisjoint(days)]
        for value in self.written:
            places += [m.span() for m in _with_gaps(value).finditer(text)]
        for label in self.labels:
            places += [m.span() for m in _alone(label).finditer(text)]
        return merged(places)

    def _absent(self, text: str) -> bool:
        """Return whether a short text surely holds nothing of this: the answer for nearly all of them."""
        if len(text) > _CACHED_LENGTH:
            return False
        joined, pieces = _grams(text)
        if not self.forms.isdisjoint(joined) or not self.proper.isdisjoint(joined) or not self.leads.isdisjoint(pieces):
            return False
        if self.labels and any(_alone(label).search(text) for label in self.labels):
            return False
        if self.written and any(_with_gaps(value).search(text) for value in self.written):
            return False
        return not self.days or not any(not self.days.isdisjoint(days) for *_, days in _short_days(text))

    def _hits(self, text: str, found: list[tuple[int, int, str]]) -> list[Span]:
        """Return the ranges of runs that make a form."""
        forms, hit = self.forms, []
        words = vocabulary().words
        folded = fold(text)
        embedded = [e for e in self.embedded if e in folded]
        for i, (begin, _, first) in enumerate(found):
            joined = first.lstrip("0") if first[0] == "0" else first
            town = first in self.proper and text[begin].isupper()
            if town or joined in forms or (embedded and first not in words and any(e in first for e in embedded)):
                hit.append((i, i + 1))
            for j in range(i + 1, min(i + _LETTERS_APART, len(found))):
                start, _, run = found[j]
                if start - found[j - 1][1] > _GAP or _too_far(j - i, joined):
                    break
                joined += run
                if joined in forms:
                    hit.append((i, j + 1))
        return hit

    def resembles(self, text: str) -> bool:
        """Return whether a form stands in `text` if a reader of pictures misread one or two characters."""
        if self.spans(text):
            return True
        words = vocabulary().words
        read = [run for _, _, run in runs(text)]
        pieces = {_shape(run) for run in _RUN_OF_BOTH.findall(fold(text)) if run not in words}
        if any(run not in words for run in read):
            pieces |= {
                _shape("".join(read[i:j])) for i in range(len(read)) for j in range(i + 2, min(i + 6, len(read) + 1))
            }
        pieces = {piece for piece in pieces if len(piece) >= _MISREAD_FROM - 1}
        return any(_alike(_shape(form), piece) for form in self.forms if len(form) >= _MISREAD_FROM for piece in pieces)


_RUN_OF_BOTH = re.compile(r"[\w|$]+")


def _too_far(apart: int, joined: str) -> bool:
    """Return whether a run stands too far from the first of those `joined`: single letters reach farther."""
    return apart >= _WINDOW and len(joined) > apart


@lru_cache(maxsize=4096)
def _with_gaps(value: str) -> re.Pattern[str]:
    """Return a word of a script whose words do not stand apart as it may stand: its characters may."""
    return re.compile(rf"[\s.,·\u30fb^/_-]{{0,{_GAP}}}".join(map(re.escape, value)))


@lru_cache(maxsize=4096)
def _alone(label: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W_]){re.escape(label)}(?![^\W_])", re.IGNORECASE)


@lru_cache(maxsize=8192)
def _grams(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return all that a short text's runs make when joined, and every four letters in a row."""
    folded = fold(text)
    found = _RUN.findall(folded)
    joined = set()
    for i in range(len(found)):
        run = found[i].lstrip("0")
        joined.add(run)
        for apart, other in enumerate(found[i + 1 : i + _LETTERS_APART], 1):
            if _too_far(apart, run):
                break
            run += other
            joined.add(run)
    pieces = frozenset([folded[at : at + _EMBEDDED] for at in range(len(folded) - _EMBEDDED + 1)])
    return frozenset(joined), pieces


@lru_cache(maxsize=8192)
def _short_days(text: str) -> list[tuple[int, int, frozenset[date]]]:
    return written_days(text)


def written_days(text: str) -> list[tuple[int, int, frozenset[date]]]:
    """Return (start, end, the days it may be) of each day written in `text`, in any order of its numbers.

    A day without a year, and one that no calendar has, may be no day at all.
    """
    if not any(map(str.isdigit, text)):
        return []
    folded = fold(text)
    if len(folded) != len(text):  # rare letters that fold to two; the place is then told by the runs alone
        folded = text.lower() if len(text.lower()) == len(text) else text
    return [(m.start(), m.end(), _days(m)) for m in _WRITTEN_DAY.finditer(folded)]


def _days(match: re.Match[str]) -> frozenset[date]:
    parts = match.groupdict()
    if parts["n1"]:
        numbers = [int(parts[n]) for n in ("n1", "n2", "n3")]
        orders = {
            (numbers[0], numbers[1], numbers[2]),
            (numbers[2], numbers[1], numbers[0]),
            (numbers[2], numbers[0], numbers[1]),
        }
    else:
        which = next(n for n in "1234" if parts[f"m{n}"])
        year = (parts[f"y{which}"] or "").strip("'")
        orders = {(int(year), _MONTHS[parts[f"m{which}"]], int(parts[f"d{which}"]))} if year else set()
    return frozenset(day for order in orders for day in _calendar(*order))


def _calendar(year: int, month: int, day: int) -> Iterator[date]:
    """Yield the day in each century that a year of two digits leaves open."""
    for full in (year,) if year >= _CENTURY else (1900 + year, 2000 + year):
        try:
            yield date(full, month, day)
        except ValueError:
            return


def merged(places: Iterable[Span]) -> list[Span]:
    """Return half-open places in order, those that touch as one."""
    out: list[Span] = []
    for start, end in sorted(places):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _take_initials(text: str, found: list[tuple[int, int, str]], hit: list[Span], initials: frozenset[str]) -> None:
    """Add the initials and short parts that stand beside a hit."""
    taken = {i for start, end in hit for i in range(start, end)}
    for start, end in list(hit):
        for i in (start - 1, start - 2, end, end + 1):
            beside = i + 1 in taken if i < start else i - 1 in taken
            if 0 <= i < len(found) and beside and i not in taken and found[i][2] in initials:
                left, right = (found[i], found[i + 1]) if i < start else (found[i - 1], found[i])
                if right[0] - left[1] <= _GAP and "\n" not in text[left[1] : right[0]]:
                    taken.add(i)
                    hit.append((i, i + 1))


def _variants(run: str, original: str) -> set[str]:
    """Return how a run of letters is also written: without accents, and with letters for them."""
    found = {run}
    if not original.isascii():
        low = unicodedata.normalize("NFC", original).casefold()
        for letter, letters in _SPELLINGS:
            low = low.replace(letter, letters)
        found.add(fold(low))
    else:
        collapsed = run
        for letters, letter in _COLLAPSED:
            collapsed = collapsed.replace(letters, letter)
        found.add(collapsed)
    return {f for f in found if f}


@lru_cache(maxsize=4096)
def _name_forms(value: str) -> Identities:
    """Return the forms of a person's name: PN of PS3.5 6.2, or as it is written in a text."""
    forms: set[str] = set()
    embedded: set[str] = set()
    initials: set[str] = set()
    written: set[str] = set()
    for group in value.split("="):
        parts = _name_parts(group, forms, initials, written)
        for variants in parts:
            for variant in variants:
                if len(variant) > _SHORT_NAME:
                    forms.add(variant)
                else:
                    initials.add(variant)
                if len(variant) >= _EMBEDDED:
                    embedded.add(variant)
        forms |= set(_joined(parts))
        whole = "".join(run for _, _, run in runs(group))
        if len(whole) > _SHORT_NAME:
            forms.add(whole)
    return Identities(frozenset(forms), tuple(embedded), frozenset(initials), written=tuple(written))


def _name_parts(group: str, forms: set[str], initials: set[str], written: set[str]) -> list[set[str]]:
    """Return the spellings of each part of one group, and put away what is no part of the alphabet's names."""
    parts = []
    for start, end, run in runs(group):
        original = group[start:end]
        if not run.isalpha():
            forms |= {run.lstrip("0")} if len(run) > _SHORT_NUMBER else set()
        elif not run.isascii() and not _alphabetic(run):
            written.add(original)
        elif run in contexts()["particles"]:
            initials.add(run)
        elif run not in contexts()["no-name"]:
            initials.add(run[0])
            parts.append(_variants(run, original))
    return parts


def _joined(parts: list[set[str]]) -> Iterator[str]:
    """Yield two parts of a name together, whole or as an initial, in either order."""
    for one, other in permutations(parts[:6], 2):
        for left in one:
            for right in other:
                yield left + right
                if len(right) > _SHORT_NAME:
                    yield left[0] + right
                if len(left) > _SHORT_NAME:
                    yield left + right[0]
    if len(parts) > _SHORT_NAME:
        yield "".join(min(p)[0] for p in parts)


# Unicode's blocks of Thai and Lao, of Chinese, Japanese and their radicals, and of their compatible forms.
_WRITTEN_TOGETHER = (range(0x0E00, 0x0F00), range(0x2E80, 0xA000), range(0xF900, 0xFB00), range(0x20000, 0x32000))


def _alphabetic(run: str) -> bool:
    """Return whether words of this script stand apart; Chinese, Japanese and Thai words do not."""
    return not any(ord(c) in block for c in run for block in _WRITTEN_TOGETHER)


@lru_cache(maxsize=4096)
def _identifier_forms(value: str) -> Identities:
    """Return the forms of an identifier: with and without prefix, zeros and what divides it."""
    found = [run for _, _, run in runs(value)]
    forms: set[str] = set()
    joined = "".join(found)
    if len(joined) > _SHORT_NUMBER or (len(joined) == _SHORT_NUMBER and not joined.isdigit()):
        forms |= {joined.lstrip("0"), "".join(run.lstrip("0") for run in found)}
        forms.add("".join(run.lstrip("0") if i == 0 else run for i, run in enumerate(found)))
    digits = [run for run in found if run.isdigit()]
    for run in digits:
        core = run.lstrip("0")
        if len(core) >= _CORE and not _YEAR.fullmatch(core):
            forms.add(core)
    together = "".join(digits).lstrip("0")
    if len(together) > _CORE:
        forms.add(together)
    words = vocabulary().words
    forms |= {run for run in found if run.isalpha() and len(run) > _SHORT_WORD and run not in words}
    forms = {form for form in forms if form and form not in words}
    return Identities(frozenset(forms))


@lru_cache(maxsize=4096)
def _date_forms(value: str) -> Identities:
    """Return the forms of a day (DA, DT) or of a time of day (TM)."""
    match = _DATE.match(value.strip())
    try:
        day = date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        day = None
    if day is None:
        return _time_forms(value)
    year, month, number = match.groups() if match else ("", "", "")
    short, monthly = year[2:], month + number
    orders = (
        year + monthly,
        number + month + year,
        monthly + year,
        short + monthly,
        number + month + short,
        monthly + short,
    )
    return Identities(frozenset(order.lstrip("0") for order in orders), days=frozenset({day}))


def _time_forms(value: str) -> Identities:
    digits = re.match(r"\s*(\d\d):?(\d\d):?(\d\d)", value)
    return Identities(frozenset({"".join(digits.groups()).lstrip("0")} - {""})) if digits else Identities()


@lru_cache(maxsize=4096)
def _place_forms(value: str) -> Identities:
    """Return the forms of an address or of an institution: those of a text, and words that are towns too."""
    parts = [re.findall(r"[^\W\d_]+(?![\w])", part) for part in _PLACE_PARTS.split(value)]
    alone = {fold(words[0]) for words in parts if len(words) == 1 and len(parts) > 1}
    words = {word for part in parts for word in part if word[0].isupper()}
    return replace(_text_forms(value), proper=frozenset(word for word in map(fold, words) if _is_town(word, alone)))


# The parts of an address: 5 High St, Reading.
_PLACE_PARTS = re.compile(r"[,;^=\n\r]")
_MAYBE_TOWN = (Mark.PLAIN, Mark.TECHNICAL_NAME)


def _is_town(word: str, alone: set[str]) -> bool:
    """Return whether a word is a place's beside its meaning: Bath, and Reading where it is a part of its own."""
    mark = vocabulary().words.get(word)
    if len(word) <= _SHORT_NAME or word in contexts()["no-place"]:
        return False
    return mark is Mark.PLAIN_NAME or (mark in _MAYBE_TOWN and word in alone)


@lru_cache(maxsize=4096)
def _text_forms(value: str) -> Identities:
    """Return the forms of any text: whole, and by its rare parts."""
    found = [(run, value[start:end]) for start, end, run in runs(value)]
    forms: set[str] = set()
    for run, original in found:
        if run.isdigit():
            forms |= {run.lstrip("0")} if len(run) >= _CORE else set()
        elif _telling(run):
            forms |= _variants(run, original)
    for (one, _), (other, _) in pairwise(found):
        if not (_common(one) and _common(other)):
            forms.add((one + other).lstrip("0"))
    if 1 < len(found) <= _WINDOW and not all(_common(run) for run, _ in found):
        forms.add("".join(run for run, _ in found).lstrip("0"))
    written = {original for run, original in found if not run.isascii() and not _alphabetic(run)}
    return Identities(frozenset(f for f in forms if len(f) > _SHORT_NAME), written=tuple(written))


# A station's name that words of the technique would hide: CT01 and US-3, but neither CT nor 3T.
_STATION = re.compile(r"[^\W\d_]{2,}[\w.-]*\d[\w.-]*")


@lru_cache(maxsize=4096)
def _station_forms(value: str) -> Identities:
    """Return the forms of what a machine is called where it stands."""
    return replace(_text_forms(value), labels=(value,) if _STATION.fullmatch(value) else ())


_NAME_MARKS = (Mark.NAME, Mark.EPONYM, Mark.EPONYM_IN_CONTEXT)


@lru_cache(maxsize=16384)
def _telling(run: str) -> bool:
    """Return whether a word alone tells a place."""
    mark = vocabulary().words.get(run)
    return len(run) > _SHORT_NAME and run not in contexts()["no-place"] and (mark is None or mark in _NAME_MARKS)


@lru_cache(maxsize=16384)
def _common(run: str) -> bool:
    if run in contexts()["no-place"] or vocabulary().technical(run):
        return True
    return len(run) == 1 or (run.isdigit() and len(run) < _CORE)


@lru_cache(maxsize=4096)
def _contact_forms(value: str) -> Identities:
    """Return the forms of a telephone number, an electronic address or whatever else reaches somebody."""
    digits = "".join(re.findall(r"\d", value))
    if len(digits) >= _SUBSCRIBER and not re.search(r"[A-Za-z]{4}", value):
        forms = {digits.lstrip("0"), digits[-_SUBSCRIBER:].lstrip("0"), digits[-10:].lstrip("0")}
        groups = [run for _, _, run in runs(value) if run.isdigit()]
        forms |= {"".join(groups[i:]).lstrip("0") for i in range(len(groups))}
        return Identities(frozenset(form for form in forms if len(form) > _CORE))
    return _text_forms(value)


def _shape(text: str) -> str:
    """Return `text` with one letter for those that look alike."""
    out = text.translate(_SHAPES)
    for pair, letter in _PAIRS:
        out = out.replace(pair, letter)
    return out


def _alike(form: str, read: str) -> bool:
    """Return whether `read` holds `form` but for one misread character, or two of a long form."""
    if form in read:
        return True
    allowed = 2 if len(form) >= _MISREAD_TWICE_FROM else 1 if len(form) > _MISREAD_FROM else 0
    if abs(len(form) - len(read)) > allowed or not allowed:
        return False
    return _distance(form, read, allowed) <= allowed


def _distance(one: str, other: str, most: int) -> int:
    """Return Levenshtein's distance, or more than `most` once it is that."""
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
        if min(row) > most:
            return most + 1
        above = row
    return above[-1]
