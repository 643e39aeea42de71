"""Which rule each attribute of an information object has: the profile's action, by VR and by type, resolved once.

A rule is a function of cleaner.py with what it needs; an attribute that no table lists is dropped, or emptied or
replaced by a dummy where its type asks for it. Never sees a value.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from site_node.deidentify import cleaner, gathering, tags
from site_node.deidentify.cleaner import CleanFunction, Rule
from site_node.deidentify.profile import Action, Dates, Kept, Profile
from site_node.deidentify.stream import dictionary_vr

if TYPE_CHECKING:
    from site_node.deidentify.iods import Item

_TEXT = ("LO", "SH", "LT", "ST", "UT", "UC")
_NUMERIC = (*cleaner.WIDTHS, "DS", "IS")
_DATES = ("DA", "DT", "TM")
# VRs that writers take for each other without harm.
_ALIKE = tuple(map(frozenset, (_TEXT, ("DS", "IS"), ("US", "SS"), ("UL", "SL"), ("OB", "OW"))))

# Action C on an attribute of table E.1-1, by VR; a VR that is not here cannot be cleaned.
_CLEANED: dict[str, CleanFunction] = {
    **dict.fromkeys(_TEXT, cleaner.cleaned_text),
    **dict.fromkeys(_NUMERIC, cleaner.number),
    **dict.fromkeys(_DATES, cleaner.moved),
    "AS": cleaner.age,
    "CS": cleaner.term,
    "PN": cleaner.dummy,
    "UI": cleaner.uid,
}
# Action K, by VR: what an option retains stays as it is written.
_RETAINED: dict[str, CleanFunction] = {**_CLEANED, **dict.fromkeys((*_TEXT, "AE"), cleaner.retained_text)}
_FORMS: dict[Kept, CleanFunction | None] = {
    Kept.NUMBER: cleaner.number,
    Kept.TERM: cleaner.term,
    Kept.TEXT: cleaner.cleaned_text,
    Kept.CODE: None,  # `Cleaner.item` judges the concept as a whole
    Kept.UID: cleaner.uid,
    Kept.SEQUENCE: cleaner.sequence,
    Kept.BULK: cleaner.bulk,
}
_BY_TYPE: dict[int, CleanFunction] = {1: cleaner.dummy, 2: cleaner.empty}
# What the engine does by itself, whatever a table says of the attribute's VR.
_SPECIAL: dict[int, CleanFunction | None] = {
    tags.PATIENT_NAME: cleaner.patient,
    tags.PATIENT_ID: cleaner.patient,
    tags.CONTENT: cleaner.content,
    tags.DOCUMENT: cleaner.document,
    tags.FILE_ID: cleaner.file_id,
    tags.ICON: cleaner.icon,
    tags.COLOURS: cleaner.colours,
    tags.RETRIEVE_URI: cleaner.dummy,
    # Written anew.
    tags.CHARSET: None,
    tags.IDENTITY_REMOVED: None,
    tags.METHOD: None,
    tags.METHOD_CODES: None,
    tags.LONGITUDINAL: None,
    # They hold or sign what is no longer there.
    tags.SIGNATURES: None,
    tags.MAC_PARAMETERS: None,
    tags.ENCRYPTED: None,
}


_MOST_REMEMBERED = 8192


class Plan(dict[int, Rule]):
    """The rules of a data set or item of an information object, by tag, resolved as they are needed."""

    __slots__ = ("item", "profile", "root")

    def __init__(self, profile: Profile, item: Item, *, root: bool) -> None:
        super().__init__()
        self.profile, self.item, self.root = profile, item, root

    def __missing__(self, tag: int) -> Rule:
        rule = self._resolve(tag)
        # Of unlisted tags there are too many to remember them all.
        if len(self) < _MOST_REMEMBERED or tag in _keywords():
            self[tag] = rule
        return rule

    def below(self, tag: int) -> Plan:
        """Return the plan of the items of the sequence `tag`."""
        return plan(self.profile, self.item.item(tag), root=False)

    def _resolve(self, tag: int) -> Rule:
        vr, type_ = dictionary_vr(tag), self.item.type(tag) or 0
        clean = self._clean(tag, vr, type_)
        removed = clean in (None, cleaner.dummy, cleaner.empty, cleaner.patient)
        gathered = gathering.kind(tag, vr, _keywords().get(tag, ""), removed=removed)
        below = self.below(tag) if vr == "SQ" and clean is not None else None
        most = _most_values(tag) if clean is cleaner.number else 0
        return Rule(clean, tag, vr, _vrs(tag, vr), type_, gathered, below, most)

    def _clean(self, tag: int, vr: str, type_: int) -> CleanFunction | None:  # noqa: PLR0911 -- a list of cases
        if tag in _SPECIAL:
            return _SPECIAL[tag]
        if not tag & 0xFFFF:  # PS3.5 7.2: the length of a group
            return None
        if tags.is_graphic(tag):
            return cleaner.graphics
        if tag in tags.PIXELS:
            return cleaner.pixels if self.root else None
        dates = self.profile.options.dates
        if tag == tags.TIMEZONE:
            return cleaner.zone if dates is Dates.FULL else None
        actions = self.profile.actions.get(tag)
        if actions is not None:
            # X/Z/U*: a reference that may be kept is kept, with its UIDs remapped.
            refers = vr == "SQ" and actions.type_1 is Action.UID
            return self._by_action(tag, vr, Action.UID if refers else actions[type_], type_)
        if vr in _DATES and tag in _keywords() and dates is not Dates.REMOVE:
            return cleaner.moved
        return _BY_TYPE.get(type_)

    def _by_action(  # noqa: PLR0911 -- a list of cases
        self, tag: int, vr: str, action: Action, type_: int
    ) -> CleanFunction | None:
        if action is Action.REMOVE:
            return None
        if action is Action.ZERO:
            return cleaner.empty
        if vr == "SQ":
            return cleaner.sequence
        if action is Action.DUMMY:
            return cleaner.uid if vr == "UI" else cleaner.dummy
        kept = self.profile.kept.get(tag)
        if kept is not None:
            return _FORMS[kept]
        if action is Action.UID:
            return cleaner.uid if vr == "UI" else _BY_TYPE.get(type_)
        return (_RETAINED if action is Action.KEEP else _CLEANED).get(vr) or _BY_TYPE.get(type_)


@cache
def plan(profile: Profile, item: Item, *, root: bool) -> Plan:
    """Return the plan of a data set (`root`) or item; there are as many as rows in the table of types."""
    return Plan(profile, item, root=root)


@cache
def _keywords() -> dict[int, str]:
    from pydicom._dicom_dict import DicomDictionary  # noqa: PLC0415 -- slow, and a node in its rounds reads no files

    return {tag: entry[4] for tag, entry in DicomDictionary.items()}


@cache
def _choices() -> dict[int, frozenset[str]]:
    from pydicom._dicom_dict import DicomDictionary  # noqa: PLC0415 -- as above

    return {tag: frozenset(entry[0].split(" or ")) for tag, entry in DicomDictionary.items() if " or " in entry[0]}


def _most_values(tag: int) -> int:
    """Return how many values an attribute may have; 0 if there is no most. Source: PS3.6 section 6, PS3.5 6.4."""
    from pydicom._dicom_dict import DicomDictionary  # noqa: PLC0415 -- as above

    several = DicomDictionary[tag][1].split(" or ") if tag in DicomDictionary else ["n"]
    return 0 if any(each.endswith("n") for each in several) else max(int(each.split("-")[-1]) for each in several)


def _vrs(tag: int, vr: str) -> frozenset[str]:
    """Return the VRs in which an attribute may come."""
    several = _choices().get(tag)
    if several is not None:
        return several | {"UN"} if tag in tags.PIXELS else several
    return next((alike for alike in _ALIKE if vr in alike), frozenset({vr}))
