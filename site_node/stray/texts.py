"""Plain texts, and letters in bytes that are no text."""

from __future__ import annotations

import base64
import codecs
import re
import zlib
from typing import TYPE_CHECKING

import numpy as np

from site_node.stray.finding import Sort
from site_node.stray.pieces import PACKED, TOO_LARGE, Fault, Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.stray.pieces import Here, Part

_CHUNK = 1 << 20
_HEAD = 1 << 14
_MAX_LINE = 16_384  # characters; a longer line is looked at in parts that overlap
_OVERLAP = 256
_LEAST = 6
_SAMPLE, _LEAST_SAMPLE = 1 << 16, 1 << 12
_NO_REDUNDANCY = 0.97  # of its size, deflated: compressed and encrypted bytes only grow, floating-point numbers shrink
_RUN = re.compile(rb"[\x20-\x7e\x80-\xf4]{6,}")
_WIDE = re.compile(rb"(?:[\x20-\x7e]\x00){6,}")
_LETTERS = re.compile(r"[^\W\d_]{3}|\d{5}")
# How it begins, or a line of it: RFC 2045 6.8 writes 76 letters, RFC 7468 64. Fewer hold less than a name and a number.
_BASE64, _BASE64_END = re.compile(r"[A-Za-z0-9+/]{60,76}"), re.compile(r"[A-Za-z0-9+/]{1,76}={0,2}")
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


def text(content: memoryview, here: Here, coded: str) -> Iterator[Part]:
    """Yield each line that says anything, and what lies in lines of base64, as in mail."""
    block: list[str] = []
    for number, line in enumerate(lines(content, coded), 1):
        for at in range(0, max(len(line), 1), _MAX_LINE - _OVERLAP):
            part = line[at : at + _MAX_LINE].strip()
            if len(part) > 2:  # noqa: PLR2004 -- the shortest name
                yield Piece(here.at(f"line {number}"), part)
        plain = line.strip()
        if _BASE64.fullmatch(plain) and (not block or len(plain) == len(block[0])):
            block.append(plain)
            continue
        if block:
            yield from _block([*block, plain] if _BASE64_END.fullmatch(plain) else block, here, number)
            block.clear()
    if block:
        yield from _block(block, here, number)


def _block(block: list[str], here: Here, number: int) -> Iterator[Part]:
    at = f"base64 in lines to {number}"
    if len(block) * len(block[0]) > here.budget.limits.one:
        yield Fault(here.at(at), TOO_LARGE)
    elif raw := decoded("".join(block)):
        yield from here.within(at, raw)


def decoded(said: str) -> bytes:
    """Return what lies in base64 or a `data:` URL of it, nothing if it is neither. Source: RFC 4648 4, RFC 2397."""
    head, comma, rest = said.partition(",")
    if comma and head.startswith("data:"):
        said = rest if head.endswith(";base64") else ""
    if not _BASE64.match(said):
        return b""
    try:
        return base64.b64decode("".join(said.split()), validate=True)
    except ValueError:
        return b""


def strings(content: memoryview, here: Here, what: str = "byte", sort: Sort = Sort.BYTES) -> Iterator[Piece]:
    """Yield runs of letters in bytes, of one byte each and of two."""
    for start, window in _windows(content):
        yield from _letters(window, here, what, sort, start)


def among_numbers(content: memoryview, here: Here, what: str = "byte") -> Iterator[Piece]:
    """Yield runs of 8 or more letters of ASCII in the bytes of numbers, many times as fast as `strings` does."""
    for start, window in _windows(content):
        yield from _dense(window, here, what, start)


def unknown(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield letters in bytes of a form that is not known; what is packed hides its letters, and is told."""
    packed = False
    for start, window in _windows(content):
        if is_packed(window):
            packed = True
            yield from _dense(window, here, "byte", start)
        else:
            yield from _letters(window, here, "byte", Sort.BYTES, start)
    if packed:
        yield Fault(here.trail, PACKED)


def is_packed(window: bytes) -> bool:
    """Return whether bytes are compressed or encrypted: no redundancy is left in them."""
    sample = window[:_SAMPLE]
    return len(sample) >= _LEAST_SAMPLE and len(zlib.compress(sample, 1)) > _NO_REDUNDANCY * len(sample)


def _windows(content: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield parts that overlap, each with where it begins."""
    for start in range(0, len(content), _CHUNK):
        yield start, bytes(content[start : start + _CHUNK + _OVERLAP])


def _letters(window: bytes, here: Here, what: str, sort: Sort, start: int) -> Iterator[Piece]:
    for pattern, coded in ((_RUN, ""), (_WIDE, "utf-16-le")):
        for match in pattern.finditer(window):
            if match.start() >= _CHUNK:
                break
            said = match[0].decode(coded) if coded else _decoded(match[0])
            if _LETTERS.search(said):
                yield Piece(here.at(f"{what} {start + match.start()}"), said, sort=sort)


def _dense(window: bytes, here: Here, what: str, start: int) -> Iterator[Piece]:
    raw = np.frombuffer(window, np.uint8)
    # Whether 1, 2, 4, 8 letters begin at a byte.
    letters = (raw - np.uint8(0x20)) < 0x7F - 0x20
    for width in (1, 2, 4):
        letters = letters[:-width] & letters[width:]
    begins = np.flatnonzero(letters)
    breaks = np.flatnonzero(np.diff(begins) > 1)
    for first, last in zip(begins[[0, *(breaks + 1)]], begins[[*breaks, -1]], strict=True) if len(begins) else ():
        said = window[first : last + 8].decode("ascii")
        if first < _CHUNK and _LETTERS.search(said):
            yield Piece(here.at(f"{what} {start + first}"), said, sort=Sort.BYTES)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
