"""What happens to each attribute: PS3.15 Annex E as tables, every option a switch, and what else may stay.

Tables E.1-1, E.3.4-1 and E.3.10-1 stand in `tables/`, with the reviewed list of attributes outside table E.1-1
that may stay (`kept.tsv`). Whatever is in none of them goes, at any depth: an allow-list. An action is resolved once
per set of options, so that it costs one dictionary access per element. Does not touch a data set; headers.py does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from site_node.deidentify.codes import canonical

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_TABLES = Path(__file__).parent / "tables"


class Action(Enum):
    """What happens to an attribute; the codes of PS3.15 E.1.1."""

    DUMMY = "D"  # a value of the VR that is not empty and says nothing
    ZERO = "Z"  # empty
    REMOVE = "X"
    KEEP = "K"  # as it is, once it has the form `Kept` names; the items of a sequence are cleaned in turn
    CLEAN = "C"  # what identifies is taken out of it; dates are moved
    UID = "U"  # remapped consistently; registered UIDs stay


class Kept(Enum):
    """In which form an attribute outside table E.1-1 may stay."""

    NUMBER = "NUMBER"  # every value is a number
    TERM = "TERM"  # every value is a defined term, or made of their words
    TEXT = "TEXT"  # cleaned as a descriptor
    CODE = "CODE"  # part of a coded concept, which codes.py judges as a whole
    UID = "UID"  # remapped; registered UIDs stay
    SEQUENCE = "SEQUENCE"  # its items are cleaned
    BULK = "BULK"  # samples, tables and coordinates: bytes stay as they are


class Dates(Enum):
    """What becomes of dates and times (PS3.15 E.3.6)."""

    REMOVE = "remove"
    MODIFIED = "modified"
    FULL = "full"


class Option(Enum):
    """An option of the profile: its code and meaning in PS3.16 CID 7050."""

    CLEAN_PIXEL_DATA = ("113101", "Clean Pixel Data Option")
    CLEAN_RECOGNIZABLE_VISUAL_FEATURES = ("113102", "Clean Recognizable Visual Features Option")
    CLEAN_GRAPHICS = ("113103", "Clean Graphics Option")
    CLEAN_STRUCTURED_CONTENT = ("113104", "Clean Structured Content Option")
    CLEAN_DESCRIPTORS = ("113105", "Clean Descriptors Option")
    RETAIN_FULL_DATES = ("113106", "Retain Longitudinal Temporal Information Full Dates Option")
    RETAIN_MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
    RETAIN_PATIENT_CHARACTERISTICS = ("113108", "Retain Patient Characteristics Option")
    RETAIN_DEVICE_IDENTITY = ("113109", "Retain Device Identity Option")
    RETAIN_UIDS = ("113110", "Retain UIDs Option")
    RETAIN_SAFE_PRIVATE = ("113111", "Retain Safe Private Option")
    RETAIN_INSTITUTION_IDENTITY = ("113112", "Retain Institution Identity Option")


BASIC = ("113100", "Basic Application Confidentiality Profile")

# The option each column of tables E.1-1 and E.3.4-1 stands for.
COLUMNS = MappingProxyType(
    {
        "private": Option.RETAIN_SAFE_PRIVATE,
        "uids": Option.RETAIN_UIDS,
        "device": Option.RETAIN_DEVICE_IDENTITY,
        "institution": Option.RETAIN_INSTITUTION_IDENTITY,
        "characteristics": Option.RETAIN_PATIENT_CHARACTERISTICS,
        "full": Option.RETAIN_FULL_DATES,
        "modified": Option.RETAIN_MODIFIED_DATES,
        "descriptors": Option.CLEAN_DESCRIPTORS,
        "structured": Option.CLEAN_STRUCTURED_CONTENT,
        "graphics": Option.CLEAN_GRAPHICS,
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the profile; the defaults are Filmroom's policy.

    What is cleaned stays more useful than what is removed, so every Clean option is on. Of the Retain options those
    are on that identify nobody by themselves: moved dates and the standard's own list of safe private attributes.
    """

    clean_pixel_data: bool = True
    clean_recognizable_visual_features: bool = True
    clean_graphics: bool = True
    clean_structured_content: bool = True
    clean_descriptors: bool = True
    dates: Dates = Dates.MODIFIED
    retain_patient_characteristics: bool = False
    retain_device_identity: bool = False
    retain_institution_identity: bool = False
    retain_uids: bool = False
    retain_safe_private: bool = True

    def chosen(self) -> frozenset[Option]:
        """Return the options that are switched on."""
        switches = {Option[field.name.upper()] for field in fields(self) if getattr(self, field.name) is True}
        if self.dates is Dates.MODIFIED:
            switches.add(Option.RETAIN_MODIFIED_DATES)
        if self.dates is Dates.FULL:
            switches.add(Option.RETAIN_FULL_DATES)
        return frozenset(switches)


class ByType(NamedTuple):
    """The action on an attribute by its type in the information object: index it with 0 (neither), 1 or 2."""

    other: Action
    type_1: Action
    type_2: Action


class Row(NamedTuple):
    """A row of table E.1-1: the action of the Basic Profile, and that of each option which has one."""

    tag: str  # 8 hexadecimal digits, "x" for any; or PRIVATE
    name: str
    basic: str
    options: Mapping[Option, str]


class ContentRow(NamedTuple):
    """A row of table E.3.4-1: actions on a content item by its concept name."""

    scheme: str
    code: str
    meaning: str
    value_type: str
    basic: str
    options: Mapping[Option, str]


# PS3.15 E.1.1: a compound takes the first of its codes that leaves the information object valid. A single X or Z
# is raised too where the type asks for more: an empty or a dummy value protects as well as none and stays valid.
_D, _Z, _X = Action.DUMMY, Action.ZERO, Action.REMOVE
COMPOUNDS = MappingProxyType(
    {
        "D": ByType(_D, _D, _D),
        "Z": ByType(_Z, _D, _Z),
        "X": ByType(_X, _D, _Z),
        "X/Z": ByType(_X, _D, _Z),
        "X/D": ByType(_X, _D, _Z),
        "X/Z/D": ByType(_X, _D, _Z),
        "Z/D": ByType(_Z, _D, _Z),
        "U": ByType(Action.UID, Action.UID, Action.UID),
        # A segmentation points to its images through a sequence of type 2: it stays, with UIDs remapped.
        "X/Z/U*": ByType(_X, Action.UID, Action.UID),
        "K": ByType(Action.KEEP, Action.KEEP, Action.KEEP),
        "C": ByType(Action.CLEAN, Action.CLEAN, Action.CLEAN),
    }
)

# Rows that stand for more tags than a table holds. What is in no table goes, which is their action: curves are
# retired and cannot be cleaned as graphics, and of private attributes `Profile.private` names what may stay.
UNCOUNTED = frozenset({"50xxxxxx", "PRIVATE"})

# MakerNote, DeviceSettingDescription, FrameOriginTimestamp, CertifiedTimestamp: opaque bytes, which nobody can clean.
OPAQUE = frozenset({"0016002B", "0016004B", "00340007", "04000310"})

_OVERLAYS = 0x60
_REPEATS = range(0, 0x20, 2)  # PS3.5 7.6: the groups 6000 to 601E
_BY_STRICTNESS = (_X, _Z, _D, Action.UID, Action.CLEAN, Action.KEEP)
_REFERENCES = frozenset({"UIDREF", "IMAGE", "COMPOSITE", "WAVEFORM"})


class Profile:
    """The profile under some options: an action for every attribute that is not dropped.

    `actions` and `kept` are the fast way: `actions[tag][type]`, with 0, 1 or 2 for the type. What `actions` lacks is
    in no table: it goes, or is emptied (type 2) or replaced by a dummy (type 1).
    """

    __slots__ = ("_content", "actions", "chosen", "kept", "options", "private")

    def __init__(self, options: Options) -> None:
        self.options = options
        self.chosen = options.chosen()
        self.kept: Mapping[int, Kept] = KEPT
        self.actions: Mapping[int, ByType] = MappingProxyType({**self._outside(), **self._inside()})
        self._content: Mapping[tuple[str, str, str], Action] = self._content_actions()
        self.private: Mapping[tuple[str, int, int], str] = (
            safe_private_table() if Option.RETAIN_SAFE_PRIVATE in self.chosen else {}
        )

    @staticmethod
    @cache
    def of(options: Options) -> Profile:
        """Return the profile under `options`, made once per process."""
        return Profile(options)

    def action(self, tag: int, required: int | None = None) -> Action | None:
        """Return what happens to an attribute of type `required` (1, 2 or None), or None if no table has it."""
        by_type = self.actions.get(tag)
        return None if by_type is None else by_type[required or 0]

    def content_action(self, code: str, scheme: str, value_type: str = "") -> Action | None:
        """Return what happens to the content item of a concept name, or None if table E.3.4-1 lacks it.

        Some concepts have a row per value type; for a value type without one the strictest of them counts.
        """
        key = canonical(scheme, code)
        return self._content.get((*key, value_type)) or self._content.get((*key, ""))

    def safe_private(self, group: int, element: int, creator: str) -> str | None:
        """Return the VR of a private attribute that may stay (`element`: its low byte), or None.

        Source: PS3.15 table E.3.10-1, without what is stored as opaque bytes: nobody can look into them.
        """
        return self.private.get((creator, group, element))

    def method_codes(self, done: Collection[Option]) -> tuple[tuple[str, str], ...]:
        """Return code and meaning of what was done to an instance, of what these options ask.

        Source: PS3.16 CID 7050; PS3.15 E.1.1: only what was done may be declared.
        """
        return (BASIC, *(option.value for option in Option if option in self.chosen and option in done))

    def _inside(self) -> dict[int, ByType]:
        return {
            tag: COMPOUNDS[row.basic] if row.tag in OPAQUE else self._resolve(row)
            for row in rows()
            for tag in _tags(row.tag)
        }

    def _resolve(self, row: Row | ContentRow) -> ByType:
        """Return the action of the options that are on, else the Basic Profile's.

        Where one option keeps and another cleans, cleaning wins: it loses only what identifies. The dates of a
        device's calibration stay only as other dates do, though Retain Device Identity would keep them: else the
        instance could not declare its dates removed.
        """
        if Option.RETAIN_FULL_DATES in row.options and self.options.dates is Dates.REMOVE:
            return COMPOUNDS[row.basic]
        codes = {code for option, code in row.options.items() if option in self.chosen}
        return COMPOUNDS["C" if "C" in codes else "K" if "K" in codes else row.basic]

    def _outside(self) -> dict[int, ByType]:
        text = COMPOUNDS["C" if Option.CLEAN_DESCRIPTORS in self.chosen else "X"]
        uid = COMPOUNDS["K" if Option.RETAIN_UIDS in self.chosen else "U"]
        forms = {Kept.TEXT: text, Kept.UID: uid}
        # The description of an overlay is of no use, and invalid, without the overlay.
        overlays = Option.CLEAN_GRAPHICS in self.chosen
        return {tag: forms.get(how, COMPOUNDS["K"]) for tag, how in KEPT.items() if overlays or tag >> 24 != _OVERLAYS}

    def _content_actions(self) -> dict[tuple[str, str, str], Action]:
        actions: dict[tuple[str, str, str], Action] = {}
        for row in content_rows():
            # Without the template nobody knows whether the item may be missing: X/D leaves a dummy.
            action = self._resolve(row).type_1 if row.basic == "X/D" else self._resolve(row).other
            # A dummy reference is a remapped one (PS3.15 E.3.4).
            if action is Action.DUMMY and row.value_type in _REFERENCES:
                action = Action.UID
            for value_type in (row.value_type, ""):
                key = row.scheme, row.code, value_type
                actions[key] = min(action, actions.get(key, action), key=_BY_STRICTNESS.index)
        return actions


@cache
def rows() -> tuple[Row, ...]:
    """Return table E.1-1 of PS3.15 2026d."""
    return tuple(Row(row["tag"], row["name"], row["basic"], _options(row)) for row in _read("confidentiality.tsv"))


@cache
def content_rows() -> tuple[ContentRow, ...]:
    """Return table E.3.4-1 of PS3.15 2026d."""
    return tuple(
        ContentRow(row["scheme"], row["code"], row["meaning"], row["value_type"], row["basic"], _options(row))
        for row in _read("content_items.tsv")
    )


@cache
def safe_private_table() -> Mapping[tuple[str, int, int], str]:
    """Return the VR of each safe private attribute by creator, group and low byte of the element."""
    opaque = ("", "OB", "OW", "UN")
    return {
        (row["creator"], int(row["group"], 16), int(row["element"], 16)): row["vr"]
        for row in _read("safe_private.tsv")
        if row["vr"] not in opaque
    }


def _options(row: Mapping[str, str]) -> Mapping[Option, str]:
    return {option: row[column] for column, option in COLUMNS.items() if row[column]}


def _tags(pattern: str) -> Iterable[int]:
    """Return the tags a row stands for; none for private attributes and for curves, which are never in a table."""
    if pattern in UNCOUNTED:
        return ()
    if "xx" in pattern:
        return tuple(int(pattern.replace("xx", f"{repeat:02X}"), 16) for repeat in _REPEATS)
    return (int(pattern, 16),)


def _kept() -> Iterator[tuple[int, Kept]]:
    forms = {how.value: how for how in Kept}
    for tag, _, how in _cells("kept.tsv")[1:]:
        for each in _tags(tag):
            yield each, forms[how]


def _read(name: str) -> Iterator[Mapping[str, str]]:
    header, *lines = _cells(name)
    for cells in lines:
        yield dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))


def _cells(name: str) -> list[list[str]]:
    lines = (_TABLES / name).read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


KEPT: Mapping[int, Kept] = MappingProxyType(dict(_kept()))
