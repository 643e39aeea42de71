"""Byte searches of everything that left the hospitals, for planted identities and for pixels.

A search says where something was found, never what. It reads bodies as they are: it does not
decompress, decrypt or decode them, so it is evidence beside the release rules and not their proof.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

WINDOW: Final = 8  # bytes that are looked up at once
SHORTEST_RUN: Final = 2 * WINDOW  # any such run of a row holds one whole window of its grid
FEWEST_VALUES: Final = 4  # a window with fewer different bytes is background, not picture
_BLOCK: Final = 1 << 18  # windows looked up at a time: fits a processor's cache
_SPARSE: Final = 8  # slots of the lookup table for each window in it, about
_FEWEST_BITS, _MOST_BITS = 16, 26
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: Fibonacci hashing
_BASE64_BITS: Final = 6


@dataclass(frozen=True, slots=True)
class Hit:
    """Where something was found: in which body, from which byte on, in which form.

    `needle` is the place of the text or image among those that were looked for.
    """

    body: int
    offset: int
    needle: int
    form: str


def planted_hits(bodies: Iterable[bytes], planted: Sequence[str]) -> list[Hit]:
    """Give every place where a planted text stands, in any of its forms.

    Forms are UTF-8, Latin-1, UTF-16-LE and JSON escapes, in any case of ASCII letters; hexadecimal;
    and Base64 at each of its three alignments.

    Raises: ValueError if a text is too short to be looked for.
    """
    if not planted:
        return []
    needles = _Needles(planted)
    return [hit for number, body in enumerate(bodies) for hit in needles.hits(number, body)]


def pixel_hits(bodies: Iterable[bytes], images: Iterable[NDArray[np.generic]]) -> list[Hit]:
    """Give every run of at least 16 bytes that stands in a body and in a row of an image.

    Rows are taken as stored, as bytes scaled to 0-255, and as float32, all little endian.

    Shape:  images are `(row, column)` or `(slice, row, column)`.
    """
    rows = _Rows(images)
    return [hit for number, body in enumerate(bodies) for hit in rows.hits(number, body)]


class _Windows:
    """A set of eight-byte windows, looked up at every byte of a body."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._entries = np.argsort(words, kind="stable")
        self._words = words[self._entries]
        bits = max(_FEWEST_BITS, min(_MOST_BITS, (_SPARSE * len(words)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, np.bool_)
        self._maybe[self._slots(words)] = True

    def found(self, body: bytes) -> list[tuple[int, NDArray[np.intp]]]:
        """Give each offset in `body` where a window stands, in order, with the entries it has."""
        found = [
            (WINDOW * (start + int(place)) + shift, self._entries[first:last])
            for shift in range(min(WINDOW, len(body) - WINDOW + 1))
            for start, words in _blocks(body, shift)
            for place, first, last in self._known(words)
        ]
        return sorted(found, key=lambda each: each[0])

    def _known(self, words: NDArray[np.uint64]) -> Iterator[tuple[int, int, int]]:
        maybe = np.flatnonzero(self._maybe[self._slots(words)])
        first = np.searchsorted(self._words, words[maybe], "left")
        last = np.searchsorted(self._words, words[maybe], "right")
        known = first < last
        yield from zip(maybe[known], first[known], last[known], strict=True)

    def _slots(self, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (words * _SPREAD) >> self._shift


def _blocks(body: bytes, shift: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    words = np.frombuffer(body, "<u8", (len(body) - shift) // WINDOW, shift)
    for start in range(0, len(words), _BLOCK):
        yield start, words[start : start + _BLOCK]


class _Form(NamedTuple):
    """One way a text may stand in a body; what is not `exact` is searched in any case."""

    content: bytes
    name: str
    exact: bool


class _Needles:
    """Planted texts in all their forms."""

    def __init__(self, planted: Sequence[str]) -> None:
        self._forms = [(form, place) for place, text in enumerate(planted) for form in _forms(text)]
        starts = b"".join(form.content[:WINDOW].lower() for form, _ in self._forms)
        self._windows = _Windows(np.frombuffer(starts, "<u8"))

    def hits(self, number: int, body: bytes) -> Iterator[Hit]:
        """Give the hits in body `number`."""
        lower = body.lower()
        for offset, entries in self._windows.found(lower):
            for form, needle in (self._forms[entry] for entry in entries):
                if (body if form.exact else lower).startswith(form.content, offset):
                    yield Hit(number, offset, needle, form.name)


def _forms(text: str) -> list[_Form]:
    if len(text) < WINDOW:
        raise ValueError(f"a planted text needs at least {WINDOW} characters")
    encodings = ("utf-8", "latin-1") if max(text) <= "\xff" else ("utf-8",)
    written = {json.dumps(text)[1:-1].encode(): "json", text.encode("utf-16-le"): "utf-16-le"}
    written |= {text.encode(encoding): encoding for encoding in reversed(encodings)}
    raw = {case.encode(code) for case in (text, text.lower(), text.upper()) for code in encodings}
    return [
        *(_Form(content.lower(), name, exact=False) for content, name in written.items()),
        *(_Form(each.hex().encode(), "hex", exact=False) for each in raw),
        *(_Form(coded, "base64", exact=True) for each in raw for coded in _base64_forms(each)),
    ]


def _base64_forms(content: bytes) -> set[bytes]:
    """Give what stays of `content` in Base64, whatever stands before and after it."""
    forms = set()
    for before in range(3):
        first = -(-8 * before // _BASE64_BITS)
        end = 8 * (before + len(content)) // _BASE64_BITS
        padded = b"\0" * before + content
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(padded)[first:end])
    return forms


class _Block(NamedTuple):
    """The rows of one image in one form, and which windows of their grid are looked for."""

    rows: NDArray[np.uint8]  # (row, byte)
    kept: NDArray[np.intp]  # windows, counted along the rows
    image: int
    form: str


class _Rows:
    """The rows of images in all their forms.

    Windows lie on a grid of eight bytes along each row, so a run of 16 bytes holds one of them.
    """

    def __init__(self, images: Iterable[NDArray[np.generic]]) -> None:
        self._blocks = [
            _block(change(image), number, form)
            for number, image in enumerate(images)
            for form, change in _PIXEL_FORMS.items()
        ]
        self._ends = np.cumsum([len(block.kept) for block in self._blocks])
        words = [_grid(block.rows).ravel()[block.kept] for block in self._blocks]
        self._windows = _Windows(np.concatenate([np.empty(0, "<u8"), *words]))

    def hits(self, number: int, body: bytes) -> Iterator[Hit]:
        """Give the hits in body `number`, each run once."""
        passed = 0
        content = np.frombuffer(body, np.uint8)
        for offset, entries in self._windows.found(body):
            if offset < passed:
                continue
            for entry in entries:
                block, row, column = self._place(int(entry))
                start, end = _run(content, offset, block.rows[row], column)
                if end - start >= SHORTEST_RUN:
                    yield Hit(number, start, block.image, block.form)
                    passed = end
                    break

    def _place(self, entry: int) -> tuple[_Block, int, int]:
        """Give the block, row and byte of a row where a looked-up window comes from."""
        place = int(np.searchsorted(self._ends, entry, "right"))
        block = self._blocks[place]
        window = block.kept[entry - int(self._ends[place])]  # the difference is negative
        row, column = divmod(int(window), block.rows.shape[1] // WINDOW)
        return block, row, WINDOW * column


def _scaled(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = image.astype(np.float64)
    low, high = values.min(), values.max()
    return np.asarray(np.round((values - low) * (255 / max(high - low, 1))), np.uint8)


_PIXEL_FORMS: Final[Mapping[str, Callable[[NDArray[np.generic]], NDArray[np.generic]]]] = {
    "as stored": lambda image: image,
    "bytes": _scaled,
    "float32": lambda image: image.astype("<f4"),
}


def _block(image: NDArray[np.generic], number: int, form: str) -> _Block:
    rows = np.ascontiguousarray(image.reshape(-1, image.shape[-1])).view(np.uint8)
    windows = np.sort(_grid(rows).reshape(-1, 1).view(np.uint8), axis=1)
    different = 1 + np.count_nonzero(np.diff(windows, axis=1), axis=1)
    return _Block(rows, np.flatnonzero(different >= FEWEST_VALUES), number, form)


def _grid(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Give the windows of each row, as (row, window); what is left of a row has none."""
    whole = rows.shape[1] // WINDOW * WINDOW
    return np.ascontiguousarray(rows[:, :whole]).view("<u8")


def _run(body: NDArray[np.uint8], offset: int, row: NDArray[np.uint8], column: int) -> tuple[int, int]:
    """Give start and end of the run in `body` that is equal to `row` around the given place."""
    back = min(offset, column)
    ahead = min(len(body) - offset, len(row) - column)
    before = body[offset - back : offset] == row[column - back : column]
    after = body[offset : offset + ahead] == row[column : column + ahead]
    return offset - _agreeing(before[::-1]), offset + _agreeing(after)


def _agreeing(equal: NDArray[np.bool_]) -> int:
    """Give how many elements are true before the first that is not."""
    return len(equal) if equal.all() else int(np.argmin(equal))
