"""Text of every repertoire of DICOM as str. What cannot be decoded comes out as U+FFFD, never raises.

Only decodes: what is written is UTF-8 (ISO_IR 192).
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from site_node.deidentify.stream import DataSet

_SPECIFIC = 0x00080005  # SpecificCharacterSet
# PS3.3 C.12.1.1.2: defined terms without "ISO 2022" or "ISO_IR" and Python's codec for each.
_CODECS = {
    "": "ascii",
    "6": "ascii",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "144": "iso8859_5",
    "127": "iso8859_6",
    "126": "iso8859_7",
    "138": "iso8859_8",
    "148": "iso8859_9",
    "203": "iso8859_15",
    "13": "shift_jis",
    "166": "tis_620",
    "87": "iso2022_jp",
    "159": "iso2022_jp_2",
    "149": "euc_kr",
    "58": "gb2312",
    "192": "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}  # fmt: skip -- a table
# PS3.5 6.1.2.5, PS3.3 tables C.12-3 and C.12-4: escape sequences; those of multi-byte Japanese stay for the codec.
_ESCAPES = {
    b"(B": "ascii",
    b"-A": "latin_1",
    b"-B": "iso8859_2",
    b"-C": "iso8859_3",
    b"-D": "iso8859_4",
    b"-L": "iso8859_5",
    b"-G": "iso8859_6",
    b"-F": "iso8859_7",
    b"-H": "iso8859_8",
    b"-M": "iso8859_9",
    b"-b": "iso8859_15",
    b")I": "shift_jis",
    b"(J": "shift_jis",
    b"-T": "tis_620",
    b"$B": "iso2022_jp",
    b"$@": "iso2022_jp",
    b"$(D": "iso2022_jp_2",
    b"$)C": "euc_kr",
    b"$)A": "gb2312",
}  # fmt: skip -- a table
_ESCAPE = re.compile(rb"\x1b(\$\([A-D]|\$\)[A-C]|\$[@AB]|[()\-.][A-Za-z])")
_JAPANESE = ("iso2022_jp", "iso2022_jp_2")
_PREFIX = re.compile(r"^(ISO[_ ]?IR|ISO[_ ]2022[_ ]IR)[_ ]?", re.IGNORECASE)


@cache
def codec(specific: bytes) -> str:
    """Return Python's name for the first repertoire of a SpecificCharacterSet; "" where it is not a known one."""
    first = specific.split(b"\\")[0].decode("ascii", "replace").strip(" \0")
    return _CODECS.get(_PREFIX.sub("", first).strip(), "")


def of(ds: DataSet, outer: str) -> str:
    """Return the codec of a data set's first repertoire; an item without one has that of the data set around it."""
    element = ds.get(_SPECIFIC)
    if element is None or isinstance(element.value, list) or not element.value:
        return outer
    return codec(bytes(element.value)) or outer


def decode(raw: bytes, first: str) -> str:
    """Return text whose first repertoire is `first`, with the others that its escape sequences name.

    Source: PS3.5 6.1.2.5.
    """
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    if b"\x1b" not in raw:
        return _decoded(raw, first)
    text, begin, current, prefix = "", 0, first, b""
    for found in _ESCAPE.finditer(raw):
        text += _fragment(raw[begin : found.start()], current, prefix, first)
        begin, prefix = found.end(), found.group()
        current = _ESCAPES.get(found.group(1), "")
    return text + _fragment(raw[begin:], current, prefix, first)


def _fragment(raw: bytes, current: str, escape: bytes, first: str) -> str:
    """Return a fragment between escape sequences; the Japanese codecs know their own."""
    if current in _JAPANESE:
        return (escape + raw).decode(current, "replace")
    return _decoded(raw, current or first)


def _decoded(raw: bytes, name: str) -> str:
    for candidate in (name, "utf_8"):
        if candidate and candidate != "ascii":
            try:
                return raw.decode(candidate)
            except UnicodeDecodeError:
                continue
    if not name or name == "ascii":
        # Undeclared bytes are most often a Western European's.
        return raw.decode("ascii") if raw.isascii() else raw.decode("latin_1")
    return raw.decode(name, "replace")
