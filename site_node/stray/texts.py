"""Plain texts, and letters in bytes that are no text."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from site_node.stray.finding import Sort
from site_node.stray.pieces import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.stray.pieces import Here

_CHUNK = 1 << 20
_HEAD = 1 << 14
_MAX_LINE = 16_384  # characters; a longer line is looked at in parts that overlap
_OVERLAP = 256
_LEAST = 6
_RUN = re.compile(rb"[\x20-\x7e\x80-\xf4]{6,}")
_WIDE = re.compile(rb"(?:[\x20-\x7e]\x00){6,}")
_LETTERS = re.compile(r"[^\W\d_]{3}|\d{5}")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))


def encoding(content: memoryview) -> str:
    """Return the encoding of a text, or "" if the bytes are none."""
    head = bytes(content[:_HEAD])
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        wide = len(head) > _LEAST and head[1::2].count(0) > 0.9 * len(head[1::2]) and head[::2].count(0) == 0
        return "utf-16-le" if wide else ""
    if len(head.translate(None, _CONTROLS)) < len(head):
        return ""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def lines(content: memoryview, coded: str) -> Iterator[str]:
    """Yield the lines of a text, without ever holding all of a large one."""
    decoder = codecs.getincrementaldecoder(coded)("replace")
    rest = ""
    for at in range(0, len(content), _CHUNK):
        rest += decoder.decode(bytes(content[at : at + _CHUNK]))
        *whole, rest = rest.split("\n")
        yield from whole
        while len(rest) > _CHUNK:
            yield rest[:_CHUNK]
            rest = rest[_CHUNK - _OVERLAP :]
    yield rest + decoder.decode(b"", final=True)


def text(content: memoryview, here: Here, coded: str) -> Iterator[Piece]:
    """Yield each line that says anything."""
    for number, line in enumerate(lines(content, coded), 1):
        for at in range(0, max(len(line), 1), _MAX_LINE - _OVERLAP):
            part = line[at : at + _MAX_LINE].strip()
            if len(part) > 2:  # noqa: PLR2004 -- the shortest name
                yield Piece(here.at(f"line {number}"), part)


def strings(content: memoryview, here: Here, what: str = "byte", sort: Sort = Sort.BYTES) -> Iterator[Piece]:
    """Yield runs of letters in bytes, of one byte each and of two."""
    for start in range(0, len(content), _CHUNK):
        window = bytes(content[start : start + _CHUNK + _OVERLAP])
        for pattern, coded in ((_RUN, ""), (_WIDE, "utf-16-le")):
            for match in pattern.finditer(window):
                if match.start() >= _CHUNK:
                    break
                said = match[0].decode(coded) if coded else _decoded(match[0])
                if _LETTERS.search(said):
                    yield Piece(here.at(f"{what} {start + match.start()}"), said, sort=sort)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
