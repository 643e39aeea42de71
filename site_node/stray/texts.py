"""Plain texts, and letters in bytes that are no text."""

from __future__ import annotations

import base64
import codecs
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from site_node.stray.finding import Sort
from site_node.stray.pieces import PACKED, TOO_LARGE, Fault, Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from site_node.stray.pieces import Here, Part

    _Read = Callable[[bytes], Iterator[tuple[int, str]]]

_CHUNK = 1 << 20
_HEAD = 1 << 14
_MAX_LINE = 16_384  # characters
_OVERLAP = 256
_LEAST = 6
_WINDOW = 1 << 16
_LEAST_PACKED = 1 << 12
_HIGH, _MOSTLY = bytes(range(0x80, 0x100)), 0.7
_NO_REDUNDANCY = 0.97  # of its size, deflated: compressed and encrypted bytes only grow, floating-point numbers shrink
_RUN = re.compile(rb"[\x20-\x7e\x80-\xf4]{6,}")
_MAYBE_UTF8 = re.compile(rb"[\0-\x7f]*[\xc2-\xf4][\x80-\xbf]")
# How an archive begins: zip, gzip, bzip2, xz, 7z, rar; and how a database, a PDF and a video do.
_BEGINS = re.compile(
    rb"PK\x03\x04[\x0a-\x3f]\0|\x1f\x8b\x08[\0-\x1f].{4}[\0\2\4][\0-\x0d\xff]|BZh[1-9]1AY&SY|\xfd7zXZ\0"
    rb"|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|SQLite format 3\0|%PDF-[12]\.\d[\r\n]|\0\0\0.ftyp",
    re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]{3}|\d{5}")
# How it begins, or a line of it: RFC 2045 6.8 writes 76 letters, RFC 7468 64. Fewer hold less than a name and a number.
_LEAST_BASE64 = 60
_BASE64, _BASE64_END = re.compile(rf"[A-Za-z0-9+/]{{{_LEAST_BASE64},76}}"), re.compile(r"[A-Za-z0-9+/]{1,76}={0,2}")
# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    *((mark, "utf-32") for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
    *((mark, "utf-16") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))


def encoding(content: memoryview) -> str:
    """Return the encoding of a text, to be read with `ELSE_LATIN`, or "" if the bytes are none."""
    head = bytes(content[:_HEAD])
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        wide = len(head) > _LEAST and head[1::2].count(0) > 0.9 * len(head[1::2]) and head[::2].count(0) == 0
        return "utf-16-le" if wide else ""
    if len(head.translate(None, _CONTROLS)) < len(head):
        return ""
    return "utf-8"


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    """Return what bytes say that are no UTF-8: texts change their encoding on the way, and few say which they have."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


ELSE_LATIN = "stray-else-latin"
codecs.register_error(ELSE_LATIN, _as_latin)


def lines(content: memoryview, coded: str) -> Iterator[str]:
    """Yield the lines of a text, without ever holding all of a large one."""
    decoder = codecs.getincrementaldecoder(coded)(ELSE_LATIN)
    rest = ""
    for at in range(0, len(content), _CHUNK):
        rest += decoder.decode(bytes(content[at : at + _CHUNK]))
        *whole, rest = rest.split("\n")
        yield from whole
        while len(rest) > _CHUNK:
            yield rest[:_CHUNK]
            rest = rest[_CHUNK - _OVERLAP :]
    yield rest + decoder.decode(b"", final=True)


def parted(said: str) -> tuple[str, ...]:
    """Return a text, a long one in parts that overlap: to look for names takes longer than a text is longer."""
    if len(said) <= _MAX_LINE:
        return (said,)
    return tuple(said[at : at + _MAX_LINE] for at in range(0, len(said) - _OVERLAP, _MAX_LINE - _OVERLAP))


def text(content: memoryview, here: Here, coded: str) -> Iterator[Part]:
    """Yield each line that says anything, and what lies in lines of base64, as in mail."""
    block: list[str] = []
    for number, line in enumerate(lines(content, coded), 1):
        plain = line.strip()
        if len(plain) > 2:  # noqa: PLR2004 -- the shortest name
            yield Piece(here.at(f"line {number}"), plain)
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
    if len(said) < _LEAST_BASE64:
        return b""
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
    yield from _pieces(content, here, what, _letters, sort)


def among_numbers(content: memoryview, here: Here, what: str = "byte") -> Iterator[Piece]:
    """Yield runs of 8 or more letters of ASCII in the bytes of numbers, many times as fast as `strings` does."""
    yield from _pieces(content, here, what, _dense, Sort.NUMBERS)


def mixed(content: memoryview, here: Here, what: str = "byte") -> Iterator[Piece]:
    """Yield runs of letters, and those of 8 or more alone where bytes are packed."""
    for start in range(0, len(content), _WINDOW):
        read, sort = (_dense, Sort.NUMBERS) if is_packed(content[start : start + _WINDOW]) else (_letters, Sort.BYTES)
        yield from _window(content, here, what, read, sort, start)


def unknown(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield letters in bytes of a form that is not known, and whether some hide what they say."""
    yield from mixed(content, here)
    yield from packed(content, here)


def packed(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield what a file within bytes says, and that they hide what they say, if some do."""
    yield from appended(content, here)
    if any(is_packed(content[start : start + _WINDOW]) for start in range(0, len(content), _WINDOW)):
        yield Fault(here.trail, PACKED)


def appended(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield what a file says that goes on from amid another one: an archive behind a picture or a program."""
    if begins := _BEGINS.search(content, 1):
        yield from here.within(f"from byte {begins.start()}", content[begins.start() :])


def is_packed(window: bytes | memoryview) -> bool:
    """Return whether bytes are compressed or encrypted: no redundancy is left in them."""
    return len(window) >= _LEAST_PACKED and len(zlib.compress(window, 1)) > _NO_REDUNDANCY * len(window)


def _pieces(content: memoryview, here: Here, what: str, read: _Read, sort: Sort) -> Iterator[Piece]:
    for start in range(0, len(content), _WINDOW):
        yield from _window(content, here, what, read, sort, start)


def _window(content: memoryview, here: Here, what: str, read: _Read, sort: Sort, start: int) -> Iterator[Piece]:
    for at, said in read(bytes(content[start : start + _WINDOW + _OVERLAP])):
        if at < _WINDOW and _LETTERS.search(said):
            yield Piece(here.at(f"{what} {start + at}"), said, sort=sort)


def _letters(window: bytes) -> Iterator[tuple[int, str]]:
    for match in _RUN.finditer(window):
        if said := _decoded(match[0]):
            yield match.start(), said
    yield from _wide(window)


def _wide(window: bytes) -> Iterator[tuple[int, str]]:
    """Yield runs of 6 or more letters of two bytes, many times as fast as an expression finds them."""
    raw = np.frombuffer(window, np.uint8)
    # Whether 1, 2, 4, 6 of them begin at a byte.
    letters = _is_letter(raw[:-1]) & (raw[1:] == 0)
    for width in (2, 4, 4):
        letters = letters[:-width] & letters[width:]
    for first, last in _runs(letters, 2):
        yield first, window[first : last + 12].decode("utf-16-le")


def _is_letter(raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (raw - np.uint8(0x20)) < 0x7F - 0x20


def _dense(window: bytes) -> Iterator[tuple[int, str]]:
    # Whether 1, 2, 4, 8 letters begin at a byte.
    letters = _is_letter(np.frombuffer(window, np.uint8))
    for width in (1, 2, 4):
        letters = letters[:-width] & letters[width:]
    for first, last in _runs(letters, 1):
        yield first, window[first : last + 8].decode("ascii")


def _runs(letters: NDArray[np.bool_], apart: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last place of those that are `apart` bytes from the next."""
    begins = np.flatnonzero(letters)
    if len(begins):
        breaks = np.flatnonzero(np.diff(begins) > apart)
        yield from zip(begins[[0, *(breaks + 1)]].tolist(), begins[[*breaks, -1]].tolist(), strict=True)


def _decoded(raw: bytes) -> str:
    """Return the text of bytes; nothing if they are in no encoding of ours and few are letters of ASCII."""
    if raw.isascii() or _MAYBE_UTF8.match(raw):  # to be told otherwise by an exception takes long
        with suppress(UnicodeDecodeError):
            return raw.decode("utf-8")
    plain = len(raw.translate(None, _HIGH))
    return raw.decode("latin-1") if plain > _MOSTLY * len(raw) else ""
