"""What an instance says about persons, places and days: the values that the profile takes out, before they go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from site_node.deidentify import charsets, tags
from site_node.deidentify.cleaner import REPLACING, content_action, raw
from site_node.deidentify.identities import Identities

if TYPE_CHECKING:
    from site_node.deidentify.rules import Plan
    from site_node.deidentify.stream import DataSet, Part10


class Gathered(NamedTuple):
    """Decoded values by kind."""

    names: set[str]
    ids: set[str]
    dates: set[str]
    places: set[str]
    contacts: set[str]
    other: set[str]
    stations: set[str]

    def identities(self) -> Identities:
        """Return the values as what text is searched for."""
        return Identities.of(**{kind: sorted(values) for kind, values in self._asdict().items()})

    def numbers(self) -> frozenset[float]:
        """Return the numbers that are somebody's: in an attribute for a number they are no measurement."""
        return frozenset(
            float(value)
            for value in self.ids | self.contacts | self.dates
            if value.isdecimal() and len(value) >= _ID_DIGITS
        )


_NAMES, _IDS, _DATES, _PLACES, _CONTACTS, _OTHER, _STATIONS = range(7)
_ID_DIGITS = 5  # a number of fewer digits is nobody's
# Of private attributes of one item at most: enough for what a vendor repeats of the patient.
_MAX_PRIVATE_VALUES = 64
_MAX_CHARACTERS = 64  # of an id; longer text would make harmless words identities
_WHOLE = (_NAMES, _PLACES, _CONTACTS)
# Shorter values than these say nothing, and would take harmless words with them.
_LEAST = (1, 1, 1, 2, 2, 3, 2)
_PRIVATE_KINDS = {"PN": _NAMES, "DA": _DATES, "DT": _DATES, "LO": _OTHER, "SH": _OTHER}
_TEXT = frozenset({"LO", "SH", "LT", "ST", "UT", "UC", "AE", "UR"})
_LONG_TEXT = frozenset({"LT", "ST", "UT"})
# The kind of a removed attribute by its keyword: the first that is found.
_KINDS = (
    (re.compile(r"StationName"), _STATIONS),
    (re.compile(r"Telephone|Telecom|Email|Phone|URL|URI|Contact"), _CONTACTS),
    (re.compile(r"Institution|Department|Address|Country|Region|Residence|Location|City|Organization"), _PLACES),
    (re.compile(r"ID$|IDs$|IDNumber|Identifier|Number|Identification|Token|Barcode|Label"), _IDS),
    (re.compile(r"Physician|Operator|Person|Patient.*Name|Responsible|Author|Observer|Approver|Reviewer"), _NAMES),
)


def kind(tag: int, vr: str, keyword: str, *, removed: bool) -> int | None:
    """Return which kind of identity an attribute's value is (a place in `Gathered`), or None if it is none."""
    if vr == "PN":
        return _NAMES
    if vr in ("DA", "DT"):
        return _DATES
    if tag in tags.CODE_PARTS or not removed or vr not in _TEXT:
        return _OTHER if removed and vr == "UN" and not keyword else None
    found = next((kind for form, kind in _KINDS if form.search(keyword)), _OTHER)
    # A sentence is no identity, and would make its words ones.
    return None if vr in _LONG_TEXT and found in (_OTHER, _IDS, _STATIONS) else found


def gather(source: Part10, plan: Plan) -> Gathered:
    """Return every value that the profile takes out and that says something of a person, place or day."""
    values: set[tuple[int, str, bytes]] = set()
    for tag in tags.APPLICATION_ENTITIES:
        if tag in source.meta:
            values.add((_OTHER, "", raw(source.meta[tag])))
    _walk(source.elements, plan, "", values)
    found = Gathered(*(set() for _ in Gathered._fields))
    for place, codec, value in values:
        for part in charsets.decode(value, codec).split("\\"):
            said = part.strip(" \0")
            if len(said) >= _LEAST[place] and (place in _WHOLE or len(said) <= _MAX_CHARACTERS):
                found[place].add(said)
    return found


def _walk(ds: DataSet, plan: Plan, codec: str, values: set[tuple[int, str, bytes]]) -> None:
    if tags.CHARSET in ds:
        codec = charsets.of(ds, codec)
    private = 0
    for tag, element in ds.items():
        if tag & 0x10000:  # `tags.is_private`, without a call for each of hundreds
            place = _PRIVATE_KINDS.get(element.vr)
            if place is not None and tag & 0xFF00 and element.value and private < _MAX_PRIVATE_VALUES:
                private += 1
                values.add((place, codec, raw(element)))
            continue
        rule, value = plan[tag], element.value
        if isinstance(value, list):
            below = rule.below or plan.below(tag)
            for item in filter(None, value):
                _walk(item, below, codec, values)
                if tag == tags.CONTENT and content_action(item, plan.profile) in REPLACING and tags.TEXT_VALUE in item:
                    values.add((_IDS, codec, raw(item[tags.TEXT_VALUE])))
        elif rule.gather is not None and value:
            values.add((rule.gather, codec, raw(element)))
