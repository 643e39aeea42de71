"""The profile applied to one instance: each function says what is left of an element of its kind.

Which function an attribute gets is decided in rules.py. What is left is an element of the same tag whose value holds
nothing of a person, or None where the attribute goes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from site_node.deidentify import charsets, codes, concepts, icc, tags
from site_node.deidentify.dates import Shift
from site_node.deidentify.profile import Action, Dates, Option, Profile
from site_node.deidentify.stream import DataSet, Element, text
from site_node.deidentify.terms import TECHNICAL, code_string_ok, is_defined, technical_ok
from site_node.deidentify.text import clean as clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.deidentify.identities import Identities
    from site_node.deidentify.pseudonym import Pseudonymiser
    from site_node.deidentify.rules import Plan

# What the notes of an instance can say.
GRAPHICS_REMOVED = "graphics-removed"
ICON_REMOVED = "icon-removed"
DOCUMENT_LEFT_OUT = "document-left-out"

# Bytes of a number of each binary VR.
WIDTHS = {"AT": 4, "US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "SV": 8, "UV": 8}
# VRs that can hold a long number, as `struct` has them.
_PACKED = {"UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
# A dummy of each VR: it is not empty, it is valid, and it says nothing.
_DUMMIES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), b"REMOVED"),
    "AS": b"000D",
    "DA": b"19000101",
    "DS": b"0",
    "DT": b"19000101000000",
    "IS": b"0",
    "TM": b"000000",
    "UR": b"urn:removed",
}
REPLACING = (Action.REMOVE, Action.DUMMY, Action.ZERO)

_LONG_TEXT = frozenset({"LT", "ST", "UT"})
_MAX_CHARACTERS = {"SH": 16, "LO": 64}  # PS3.5 6.2
_ANY_LENGTH = 1 << 30
_NUMBER = rb"[ \0]*(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?[ \0]*)?"
_NUMBERS = re.compile(_NUMBER + rb"(?:\\" + _NUMBER + rb")*")
_MAX_NUMBER = 64  # bytes of a single number, with padding to spare
_SHORTEST_NUMBER = 3  # 1e9
_UID = re.compile(r"(?<![\d.])(?:[0-2](?:\.(?:0|[1-9]\d*)){4,}|2\.25\.[1-9]\d{5,})(?![\d.])")
_UID_FORM = re.compile(rb"[0-9.]{1,64}")
_AGE = re.compile(rb"(\d{3})[DWMY]")
_OLDEST = 89  # 45 CFR 164.514(b)(2)(i)(C): ages over 89 are one category
_ZONE = re.compile(rb"[+-]\d{4}[ \0]*")
_TOKEN_LENGTH = 12
# Bytes in place of a table: text if three quarters can be printed, and so short that nobody would miss them.
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t\r\n"
_UNPRINTABLE_IN_TEXT = 0.25
_LEAST_HIDDEN, _MAX_NAME, _MAX_HIDDEN = 4, 256, 1 << 16
_WIDEST = 8  # bytes of the longest number; eight bytes of one can all be printed by chance
_FILE_ID_PART = 7  # PS3.10 8.2: at most eight characters
_IMAGE_TYPES = (tags.IMAGE_TYPE, tags.FRAME_TYPE)
_CREATORS = range(0x10, 0x100)  # PS3.5 7.8.1


class Rule(NamedTuple):
    """What becomes of an attribute in one information object; without `clean` it is dropped."""

    clean: CleanFunction | None
    tag: int
    vr: str
    vrs: frozenset[str]  # in which it may come
    type: int  # 1 or 2 of PS3.5 7.4, else 0
    gather: int | None  # the kind of identity that its value is
    below: Plan | None  # of a sequence's items
    most: int = 0  # values by the dictionary's multiplicity; 0 if there may be any number


class Cleaner:
    """The profile applied to the data set of one patient."""

    __slots__ = (
        "_codes",
        "_dates",
        "_mapped",
        "_packed",
        "_terms",
        "_texts",
        "codec",
        "identities",
        "notes",
        "numbers",
        "patient",
        "profile",
        "pseudonymiser",
        "shift",
    )  # fmt: skip -- one name after the other

    def __init__(
        self,
        profile: Profile,
        pseudonymiser: Pseudonymiser,
        patient: str,
        identities: Identities,
        numbers: frozenset[float],
    ) -> None:
        self.profile, self.pseudonymiser, self.identities, self.numbers = profile, pseudonymiser, identities, numbers
        self._packed = {vr: frozenset(_packed(numbers, code)) for vr, code in _PACKED.items()}
        self.patient = pseudonymiser.patient(patient).encode()
        dates = profile.options.dates
        self.shift = (
            Shift.of(pseudonymiser, patient) if dates is Dates.MODIFIED else Shift(0, 0, zones=dates is Dates.FULL)
        )
        self.codec = ""
        self.notes: set[str] = set()
        self._mapped: dict[bytes, bytes] = {}
        self._dates: dict[tuple[str, bytes], bytes] = {}
        self._texts: dict[tuple[str, int | str, bytes], bytes] = {}
        self._terms: dict[tuple[int, bytes], bytes] = {}
        self._codes: dict[tuple[object, ...], list[tuple[int, Element]]] = {}

    def dataset(self, ds: DataSet, plan: Plan) -> DataSet:
        """Return what stays of a data set or of an item."""
        outer = self.codec
        if tags.CHARSET in ds:
            self.codec = charsets.of(ds, outer)
        out: DataSet = {}
        private: list[Element] = []
        for tag, element in ds.items():
            if tag & 0x10000:  # `tags.is_private`, without a call for each of hundreds
                private.append(element)
                continue
            rule = plan[tag]
            clean = rule.clean
            if clean is None:
                continue
            kept = clean(self, element, rule) if element.vr in rule.vrs else self.nothing(rule)
            if kept is not None:
                out[tag] = kept
        if private and self.profile.private:
            kept_private = self._private(private, plan)
            out = dict(sorted((out | kept_private).items())) if kept_private else out
        self.codec = outer
        return out

    def item(self, ds: DataSet, plan: Plan) -> DataSet:
        """Return what stays of an item, a coded concept in it judged as a whole."""
        out = self.dataset(ds, plan)
        if tags.CODE in ds or tags.MEANING in ds or tags.LONG_CODE in ds or tags.URN_CODE in ds:
            code = self._concept(ds)
            return dict(sorted([*code, *out.items()])) if out else dict(code)
        if tags.SCHEME in ds:
            scheme = text(ds, tags.SCHEME)
            kept = Element(tags.SCHEME, "SH", (scheme if codes.scheme_ok(scheme) else concepts.LOCAL_SCHEME).encode())
            return dict(sorted([(tags.SCHEME, kept), *out.items()]))
        return out

    def content_item(self, ds: DataSet, plan: Plan) -> DataSet:
        """Return a content item; what its concept's action takes out is replaced, so that relationships stay.

        Source: PS3.15 table E.3.4-1, PS3.3 C.17.3.
        """
        out = self.item(ds, plan)
        if content_action(ds, self.profile) not in REPLACING:
            return out
        kind = text(ds, tags.VALUE_TYPE)
        value = _CONTENT_VALUES.get(kind)
        if value is not None and value[0] in out:
            tag, vr = value
            out[tag] = Element(tag, vr, _DUMMIES[vr])
        if kind == "NUM" and tags.MEASURED in out:
            out[tags.MEASURED] = Element(tags.MEASURED, "SQ", [])
        if kind == "CODE" and tags.CONCEPT_CODE in out:
            out[tags.CONCEPT_CODE] = Element(tags.CONCEPT_CODE, "SQ", [concepts.item(*concepts.UNKNOWN)])
        return out

    def nothing(self, rule: Rule) -> Element | None:
        """Return what takes the place of a value of which nothing stays."""
        if rule.type == 1:
            return self.dummy(rule, b"")
        return Element(rule.tag, rule.vr, [] if rule.vr == "SQ" else b"") if rule.type else None

    def dummy(self, rule: Rule, value: bytes) -> Element:
        """Return a dummy of the attribute's VR; for the same term always the same one, so that links stay."""
        vr = rule.vr
        if vr == "SQ":
            return Element(rule.tag, vr, [])
        if vr == "UI":
            return Element(rule.tag, vr, self.pseudonymiser.uid("").encode())
        if vr == "CS" and value:
            return Element(rule.tag, vr, b"X" + self.pseudonymiser.token("term", value.hex(), _TOKEN_LENGTH).encode())
        return Element(rule.tag, vr, _DUMMIES.get(vr) or bytes(WIDTHS.get(vr, 2)))

    def mapped(self, uid: str) -> bytes:
        """Return the UID that stands for `uid`, or `uid` itself where the options retain UIDs."""
        ascii_uid = uid.encode("ascii", "replace")
        if Option.RETAIN_UIDS in self.profile.chosen and _UID_FORM.fullmatch(ascii_uid):
            return ascii_uid
        return self.pseudonymiser.uid(uid).encode()

    def uids(self, value: bytes) -> bytes:
        """Return the value of a UI element remapped."""
        known = self._mapped.get(value)
        if known is None:
            parts = (part.decode("ascii", "replace").strip(" \0") for part in value.split(b"\\"))
            known = self._mapped[value] = b"\\".join(self.mapped(part) if part else b"" for part in parts)
        return known

    def moved(self, vr: str, value: bytes) -> bytes:
        """Return the value of a DA, DT or TM element moved, without what is none."""
        known = self._dates.get((vr, value))
        if known is None:
            move = {"DA": self.shift.date, "DT": self.shift.moment, "TM": self.shift.time}[vr]
            parts = map(move, value.decode("ascii", "replace").split("\\"))
            known = self._dates[vr, value] = "\\".join(part for part in parts if part).encode()
        return known

    def cleaned(self, tag: int, vr: str, value: bytes) -> bytes:
        """Return text without what identifies, in UTF-8; by its tag it may be one that engineers chose."""
        key = (self.codec, tag if tag in TECHNICAL else vr, value)
        known = self._texts.get(key)
        if known is None:
            said = charsets.decode(value, self.codec)
            if vr in _LONG_TEXT:
                kept = self._words(tag, said.rstrip(" \0"), _ANY_LENGTH)
            else:
                longest = _MAX_CHARACTERS.get(vr, _ANY_LENGTH)
                kept = "\\".join(self._words(tag, part.strip(" \0"), longest) for part in said.split("\\"))
            known = self._texts[key] = b"" if not kept.strip("\\ ") else kept.encode()
        return known

    def retained(self, value: bytes) -> bytes:
        """Return text that the options retain, without what the instance says of persons, in UTF-8."""
        said = charsets.decode(value, self.codec)
        for start, stop in reversed(self.identities.spans(said)):
            said = said[:start] + said[stop:]
        return said.strip(" \0").encode()

    def terms(self, tag: int, value: bytes) -> bytes:
        """Return the terms of a code string that may stay; an image type keeps its places."""
        known = self._terms.get((tag, value))
        if known is None:
            other = "OTHER" if tag in _IMAGE_TYPES else None
            parts = (part.strip(" \0") for part in value.decode("ascii", "replace").split("\\"))
            kept = (part if not part or self._is_term(tag, part) else other for part in parts)
            known = self._terms[tag, value] = "\\".join(part for part in kept if part is not None).encode()
        return known

    def _is_term(self, tag: int, value: str) -> bool:
        """Return whether a value is a term; what only looks like one is none if the instance says it of persons."""
        return code_string_ok(tag, value) and (is_defined(value) or not self.identities.spans(value))

    def _words(self, tag: int, said: str, longest: int) -> str:
        """Return `said` cleaned; a UID in it is remapped as everywhere, where there is room."""
        if not said or (technical_ok(tag, said) and not self.identities.spans(said)):
            return said
        if "." not in said or _UID.search(said) is None:
            return clean_text(said, self.identities)
        parts, begin = [], 0
        for found in _UID.finditer(said):
            parts += [clean_text(said[begin : found.start()], self.identities), self.mapped(found.group()).decode()]
            begin = found.end()
        parts.append(clean_text(said[begin:], self.identities))
        joined = _joined(parts)
        return joined if len(joined) <= longest else _joined(parts[::2])

    def says_something(self, value: bytes) -> bool:
        """Whether bytes that should be numbers are text, or hold what the instance says of persons."""
        value = value.rstrip(b"\0 ")
        if len(value) < _LEAST_HIDDEN:
            return False
        unprintable = len(value.translate(None, _PRINTABLE))
        if unprintable <= len(value) * _UNPRINTABLE_IN_TEXT:
            return True
        return len(value) <= _MAX_NAME and bool(self.identities.spans(charsets.decode(value, self.codec)))

    def is_somebodys(self, value: bytes | memoryview, vr: str) -> bool:
        """Whether the value of an attribute for numbers is somebody's number or day, however it is written."""
        if not self.numbers or len(value) > _MAX_NUMBER:
            return False
        if vr in ("DS", "IS"):
            parts = (part.strip(b" \0") for part in bytes(value).split(b"\\"))
            return any(abs(float(part)) in self.numbers for part in parts if len(part) >= _SHORTEST_NUMBER)
        packed, width = self._packed.get(vr, frozenset()), WIDTHS.get(vr, 2)
        return any(value[at : at + width] in packed for at in range(0, len(value), width))

    def spells(self, value: bytes | memoryview) -> bool:
        """Whether the bytes of numbers are words: all can be printed, and are many, or somebody's."""
        if len(value) > _MAX_HIDDEN:
            return False
        bare = bytes(value).strip(b"\0 ")
        if len(bare) < _LEAST_HIDDEN or bare.translate(None, _PRINTABLE):
            return False
        return len(bare) > _WIDEST or bool(self.identities.spans(bare.decode("ascii")))

    def _concept(self, ds: DataSet) -> list[tuple[int, Element]]:
        """Return the elements of a coded concept by tag; most are met many times in an instance."""
        code, scheme, meaning = ds.get(tags.CODE), ds.get(tags.SCHEME), ds.get(tags.MEANING)
        if code is None or scheme is None or meaning is None or tags.SCHEME_VERSION in ds:
            return [(element.tag, element) for element in self._judged(ds)]
        key = (code.value, scheme.value, meaning.value)
        known = self._codes.get(key)
        if known is None:
            known = self._codes[key] = [(element.tag, element) for element in self._judged(ds)]
        return known

    def _judged(self, ds: DataSet) -> Iterator[Element]:
        """Yield what stays of a coded concept. Source: PS3.3 section 8."""
        tag = next((tag for tag in _CODE_VRS if tag in ds), tags.CODE)
        value, scheme = text(ds, tag), text(ds, tags.SCHEME)
        said = raw(ds[tags.MEANING]) if tags.MEANING in ds else b""
        meaning, cleaned = (
            charsets.decode(said, self.codec).strip(" \0"),
            self.cleaned(tags.MEANING, "LO", said).decode(),
        )
        standard = codes.meaning(scheme, value, meaning)
        if value and (standard or self._may_stay(scheme, value)):
            # What the file itself says stays if it is harmless as a whole.
            cleaned = cleaned if cleaned == meaning and cleaned else standard or cleaned
        else:
            token = self.pseudonymiser.token("code", f"{scheme}\0{value}", _TOKEN_LENGTH)
            tag, value, scheme = tags.CODE, token, concepts.LOCAL_SCHEME
        yield Element(tag, _CODE_VRS[tag], value.encode())
        if scheme:
            yield Element(tags.SCHEME, "SH", scheme.encode())
        version = text(ds, tags.SCHEME_VERSION)
        if codes.version_ok(version) and not self.identities.spans(version):
            yield Element(tags.SCHEME_VERSION, "SH", version.encode())
        yield Element(tags.MEANING, "LO", (cleaned or "Removed").encode())

    def _may_stay(self, scheme: str, value: str) -> bool:
        somebodys = value.isdecimal() and float(value) in self.numbers
        if somebodys or not codes.scheme_ok(scheme):
            return False
        return codes.code_ok(scheme, value) or clean_text(value, self.identities) == value

    def _private(self, elements: list[Element], plan: Plan) -> DataSet:
        """Return the private attributes that are held to be safe, with their creators.

        Source: PS3.15 E.3.10; PS3.5 7.8.1.
        """
        safe, creators = self.profile.private, _creators(self.profile)
        blocks: dict[int, str] = {}
        for element in elements:
            low = element.tag & 0xFFFF
            if low in _CREATORS and not isinstance(element.value, list):
                creator = raw(element).decode("ascii", "replace").strip(" \0")
                if creator in creators:
                    blocks[element.tag >> 16 << 8 | low] = creator
        kept: DataSet = {}
        for element in elements if blocks else ():
            tag = element.tag
            creator = blocks.get(tag >> 8, "")
            vr = safe.get((creator, tag >> 16, tag & 0xFF)) if creator else None
            private = self._safe(element, vr, plan) if vr else None
            if private is not None:
                place = tag & 0xFFFF0000 | tag >> 8 & 0xFF
                kept[place] = Element(place, "LO", creator.encode())
                kept[tag] = private
        return kept

    def _safe(self, element: Element, vr: str, plan: Plan) -> Element | None:
        """Return a safe private attribute, if its value is what the VR says."""
        clean = _SAFE.get(vr)
        if clean is None or element.vr not in (vr, "UN") or (vr == "SQ") != isinstance(element.value, list):
            return None
        below = plan.below(element.tag) if vr == "SQ" else None
        return clean(self, element._replace(vr=vr), Rule(clean, element.tag, vr, frozenset({vr}), 0, None, below))


def _packed(numbers: frozenset[float], code: str) -> Iterator[bytes]:
    """Yield the bytes of each number that fits in the form `code` of `struct`, in either byte order."""
    for value in numbers:
        for order in "<>":
            with suppress(OverflowError, struct.error):
                yield struct.pack(order + code, value if code in "fd" else int(value))


CleanFunction: TypeAlias = Callable[[Cleaner, Element, Rule], Element | None]


def raw(element: Element) -> bytes:
    """Return the bytes of an element that is no sequence; of one that is, none."""
    value = element.value
    if isinstance(value, bytes):
        return value
    return b"" if isinstance(value, list) else bytes(value)


def content_action(item: DataSet, profile: Profile) -> Action | None:
    """Return what table E.3.4-1 says of a content item by its concept name."""
    names = item.get(tags.CONCEPT_NAME)
    if names is None or not isinstance(names.value, list) or not names.value:
        return None
    concept = names.value[0]
    return profile.content_action(text(concept, tags.CODE), text(concept, tags.SCHEME), text(item, tags.VALUE_TYPE))


def number(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep what is a number, and nobody's."""
    value = element.value
    if isinstance(value, list):
        return cleaner.nothing(rule)
    if rule.vr in ("DS", "IS"):
        surplus = rule.most and b"\\" in bytes(value) and bytes(value).count(b"\\") >= rule.most
        if surplus or _NUMBERS.fullmatch(value) is None or cleaner.is_somebodys(value, rule.vr):
            return cleaner.nothing(rule)
        return element
    count, rest = divmod(len(value), WIDTHS.get(element.vr, 2))
    if rest or count > rule.most > 0 or cleaner.is_somebodys(value, element.vr):
        return cleaner.nothing(rule)
    if len(value) >= _LEAST_HIDDEN and cleaner.spells(value):
        return cleaner.nothing(rule)
    return element


def pixels(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep the pixels as they are."""
    del cleaner, rule
    return element


def bulk(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep samples and tables, but no text in their place."""
    value = element.value
    if isinstance(value, list) or (len(value) <= _MAX_HIDDEN and cleaner.says_something(bytes(value))):
        return cleaner.nothing(rule)
    return element


def colours(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep the colours of a colour profile."""
    kept = icc.without_words(raw(element))
    return Element(rule.tag, element.vr, kept) if kept else cleaner.nothing(rule)


def term(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep terms of the standard."""
    value = raw(element)
    if not value:
        return element
    kept = cleaner.terms(rule.tag, value)
    if kept.strip(b"\\"):
        return Element(rule.tag, element.vr, kept)
    return cleaner.dummy(rule, value.strip(b" \0")) if rule.type == 1 else cleaner.nothing(rule)


def cleaned_text(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep the words that identify nobody."""
    value = raw(element)
    if not value:
        return element
    kept = cleaner.cleaned(rule.tag, element.vr, value)
    return Element(rule.tag, element.vr, kept) if kept else cleaner.nothing(rule)


def retained_text(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep what an option retains."""
    kept = cleaner.retained(raw(element))
    return Element(rule.tag, element.vr, kept) if kept else cleaner.nothing(rule)


def uid(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Remap; registered UIDs stay."""
    value = raw(element)
    return Element(rule.tag, "UI", cleaner.uids(value)) if value.strip(b" \0") else element


def moved(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Move a date or time by the patient's distance."""
    value = raw(element)
    if not value:
        return element
    kept = cleaner.moved(rule.vr, value)
    return Element(rule.tag, rule.vr, kept) if kept else cleaner.nothing(rule)


def age(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep an age; over 89 years it is 90."""
    value = raw(element).strip(b" \0")
    found = _AGE.fullmatch(value)
    if found is None:
        return cleaner.nothing(rule)
    over = value.endswith(b"Y") and int(found.group(1)) > _OLDEST
    return Element(rule.tag, "AS", b"090Y" if over else value)


def zone(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Keep an offset from UTC."""
    return element if _ZONE.fullmatch(raw(element)) else cleaner.nothing(rule)


def dummy(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Put a dummy there; a sequence keeps its items, cleaned, so that it stays valid."""
    if rule.vr == "SQ":
        return sequence(cleaner, element, rule)
    return cleaner.dummy(rule, raw(element).strip(b" \0"))


def empty(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Leave the attribute without a value."""
    del cleaner, element
    return Element(rule.tag, rule.vr, [] if rule.vr == "SQ" else b"")


def patient(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Put the patient's pseudonym there."""
    del element
    return Element(rule.tag, rule.vr, cleaner.patient)


def sequence(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Clean the items."""
    items, below = element.value, rule.below
    if not isinstance(items, list) or below is None:
        return cleaner.nothing(rule)
    return Element(rule.tag, "SQ", [cleaner.item(item, below) if item else item for item in items], element.undefined)


def content(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Clean the items of a content tree."""
    items, below = element.value, rule.below
    if not isinstance(items, list) or below is None:
        return cleaner.nothing(rule)
    return Element(rule.tag, "SQ", [cleaner.content_item(item, below) for item in items], element.undefined)


def graphics(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Drop curves and overlays: nobody can tell what they draw, and a plane without its data is invalid."""
    del element, rule
    cleaner.notes.add(GRAPHICS_REMOVED)
    return None


def icon(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Drop the small picture: it shows what the large one did before it was cleaned."""
    del element, rule
    cleaner.notes.add(ICON_REMOVED)
    return None


def document(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Leave the document out: whoever cleans it gives it back, and if nobody does, none of it stays."""
    cleaner.notes.add(DOCUMENT_LEFT_OUT)
    return Element(rule.tag, element.vr, b"\0\0")


def file_id(cleaner: Cleaner, element: Element, rule: Rule) -> Element | None:
    """Put a pseudonymous path there. Source: PS3.10 8.2."""
    path = raw(element).strip(b" \0").decode("latin_1")
    token = cleaner.pseudonymiser.token("file", path, 2 * _FILE_ID_PART)
    return Element(rule.tag, rule.vr, f"DICOM\\{token[:_FILE_ID_PART]}\\{token[_FILE_ID_PART:]}".encode())


def _joined(parts: list[str]) -> str:
    return " ".join(part.strip() for part in parts if part.strip())


@cache
def _creators(profile: Profile) -> frozenset[str]:
    return frozenset(creator for creator, _, _ in profile.private)


_CODE_VRS = {tags.CODE: "SH", tags.LONG_CODE: "UC", tags.URN_CODE: "UR"}
_CONTENT_VALUES = {
    "TEXT": (tags.TEXT_VALUE, "UT"),
    "PNAME": (tags.PERSON_VALUE, "PN"),
    "DATE": (tags.DATE_VALUE, "DA"),
    "TIME": (tags.TIME_VALUE, "TM"),
    "DATETIME": (tags.MOMENT_VALUE, "DT"),
}
# A safe private attribute by its VR; bytes that nobody can look into are not safe.
_SAFE: dict[str, CleanFunction] = {
    **dict.fromkeys((*WIDTHS, "DS", "IS"), number),
    **dict.fromkeys(("LO", "SH", "LT", "ST", "UT", "UC"), cleaned_text),
    **dict.fromkeys(("DA", "DT", "TM"), moved),
    "CS": term,
    "UI": uid,
    "SQ": sequence,
}
