"""Which attributes an information object asks for: the types 1 and 2 of PS3.3, at every depth.

The table is compiled (`tests/site_node/deidentify/make_tables.py`) and read row by row as it is needed. Conditional
types count as the plain ones, for an attribute that is there is there because its condition holds. A class the table
does not know is read with the modules that every image has.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLE = Path(__file__).parent / "tables" / "attribute_types.tsv"
_ANY = "*"
_CONTENT_SEQUENCE = 0x0040A730
_OVERLAY_GROUPS, _WITHOUT_REPEAT = 0x60, 0xFF00FFFF

Type = Literal[1, 2]


class Item:
    """What a data set, or an item of a sequence, asks for: `types[tag]` is 1 or 2, other tags are of no type."""

    __slots__ = ("_children", "types")

    def __init__(self, types: Mapping[int, Type], children: Mapping[int, str]) -> None:
        self.types = types
        self._children = children

    def type(self, tag: int) -> Type | None:
        """Return the type of an attribute, if it is one of 1 and 2."""
        if tag >> 24 == _OVERLAY_GROUPS:
            tag &= _WITHOUT_REPEAT
        return self.types.get(tag)

    def item(self, tag: int) -> Item:
        """Return what the items of the sequence `tag` ask for; a content tree repeats itself (PS3.3 C.17.3)."""
        row = self._children.get(tag)
        if row is not None:
            return _item(row)
        return self if tag == _CONTENT_SEQUENCE else MACROS


# PS3.3 tables 8.8-1 and 10-11: what the items of any sequence need, if they are coded concepts or references.
MACROS = Item({0x00080100: 1, 0x00080102: 1, 0x00080104: 1, 0x00081150: 1, 0x00081155: 1}, {})


def iod(sop_class: str) -> Item:
    """Return what the data set of a SOP class asks for.

    Source: PS3.3 annex A, with modules, macros and functional groups joined.
    """
    rows = _rows()
    return _item(rows.get(sop_class) or rows[_ANY])


def required(sop_class: str, path: tuple[int, ...]) -> Type | None:
    """Return the type of the attribute at `path` (tags of sequences, then its own), if it is one of 1 and 2."""
    *sequences, tag = path
    item = iod(sop_class)
    for sequence in sequences:
        item = item.item(sequence)
    return item.type(tag)


@cache
def _item(row: str) -> Item:
    types: dict[int, Type] = {}
    children: dict[int, str] = {}
    for entry in _rows()[row].split(" "):
        tag = int(entry[:8], 16)
        if entry[9] == "1":
            types[tag] = 1
        elif entry[9] == "2":
            types[tag] = 2
        if entry[10:]:
            children[tag] = entry[11:]
    return Item(types, children)


@cache
def _rows() -> Mapping[str, str]:
    lines = _TABLE.read_text("utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines if not line.startswith("#"))
