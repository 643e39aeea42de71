"""Blocks of a lossy JPEG made flat inside its compressed stream: no other pixel is coded anew.

Walks the Huffman codes of a sequential JPEG, puts flat blocks where a box touches, and mends the
one difference that the block after each of them holds. Every other coefficient keeps its code, so
the picture elsewhere is the same to the bit. Knows the sequential processes with Huffman codes of
8 and 12 bits; not progressive, arithmetic or hierarchical coding.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from site_node.deidentify.picture import Box

# ISO/IEC 10918-1 table B.1.
_EOI, _SOS, _DQT, _DHT, _DRI, _APP0, _APP14 = 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xE0, 0xEE
_SEQUENTIAL = (0xC0, 0xC1)
_OTHER_FRAMES = frozenset({0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xDC, 0xDE, 0xDF})
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_AFTER_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SIDE = 8  # of a block
_COEFFICIENTS = 64
_WHOLE_BLOCK = bytes((0, 63, 0))  # Ss, Se, Ah and Al of a sequential scan
_WORD = 16  # the longest Huffman code
_ENTRIES = 1 << _WORD
_RGB_IDS = (b"RGB", b"rgb")
_ADOBE_YBR = 1
_COLOURS = 3
_MAX_BLOCKS_IN_MCU = 10  # B.2.3

# An entry of a table of codes: bits to pass, and how far to go on in the block above these.
_BITS = 6
_BITS_MASK = (1 << _BITS) - 1
_END = 1000  # added to the place in the block at its end code
_LAST_END = _END + _COEFFICIENTS - 1
_NO_CODE = 5000


@dataclass(slots=True)
class _Huffman:
    """A Huffman table; codes added to it are longer than its own and change none of them."""

    dc: bool
    number: int
    counts: bytes
    symbols: bytes
    added: list[int] = field(default_factory=list)
    codes: dict[int, tuple[int, int]] = field(default_factory=dict)  # symbol to code and length
    next: int = 0  # the first free code of full length

    def __post_init__(self) -> None:
        code, place = 0, 0
        for length, count in enumerate(self.counts, 1):
            for _ in range(count):
                self.codes.setdefault(self.symbols[place], (code, length))
                code, place = code + 1, place + 1
            if code > 1 << length:
                _refuse()
            code <<= 1
        self.next = code >> 1

    def code(self, symbol: int) -> tuple[int, int]:
        """Return the code of `symbol`, added where the table lacks it.

        Source: ISO/IEC 10918-1 C.2; the code of ones alone is kept free.
        """
        if symbol not in self.codes:
            if self.next >= _ENTRIES - 1:
                _refuse()
            self.codes[symbol] = (self.next, _WORD)
            self.added.append(symbol)
            self.next += 1
        return self.codes[symbol]

    def segment(self) -> bytes:
        """Return the table as it is written (B.2.4.2)."""
        counts = bytearray(self.counts)
        counts[-1] += len(self.added)
        head = (0 if self.dc else 1 << 4) | self.number
        return bytes([head]) + bytes(counts) + self.symbols + bytes(self.added)


@dataclass(frozen=True, slots=True)
class _Component:
    """A component of the frame; `flat` is the quantised value of a blanked block."""

    wide: int
    high: int
    flat: int
    touched: NDArray[np.bool_]  # (block row, block column), whole MCUs


@dataclass(frozen=True, slots=True)
class _Frame:
    rows: int
    columns: int
    precision: int
    components: tuple[tuple[int, int, int, int], ...]  # identifier, horizontal, vertical, quantisation table


@dataclass(slots=True)
class _Stream:
    """What has been read of a JPEG stream, and what it becomes."""

    frame: _Frame | None = None
    quantisation: dict[int, int] = field(default_factory=dict)  # of the mean value, by table
    tables: dict[tuple[bool, int], _Huffman] = field(default_factory=dict)
    interval: int = 0
    ybr: bool = False
    out: list[bytes | list[_Huffman]] = field(default_factory=list)


def redact(frame: bytes, boxes: Sequence[Box], *, bright: bool, ybr: bool) -> bytes:
    """Return a JPEG frame whose blocks under `boxes` are flat and black; white if `bright`.

    `ybr` says what three components are where the stream itself does not. At most 15 pixels around
    a box belong to its blocks, where colour is halved both ways.
    Raises: UnreadableInstance for processes that are not known here, and for damaged streams.
    Source: ISO/IEC 10918-1 annexes B, C and F.
    """
    stream = _Stream(ybr=ybr)
    try:
        at = _headers(stream, frame, 2)
        while frame[at + 1] == _SOS:
            at = _scan(stream, frame, at, boxes, bright=bright)
            at = _headers(stream, frame, at)
    except (IndexError, KeyError, ValueError):
        _refuse()
    return b"\xff\xd8" + b"".join(map(_rendered, stream.out)) + b"\xff\xd9"


def _refuse() -> NoReturn:
    raise UnreadableInstance("PixelData: blocks cannot be replaced")


def _rendered(part: bytes | list[_Huffman]) -> bytes:
    if isinstance(part, bytes):
        return part
    body = b"".join(table.segment() for table in part)
    return b"\xff\xc4" + (len(body) + 2).to_bytes(2) + body


def _headers(stream: _Stream, frame: bytes, at: int) -> int:
    """Read segments up to a scan or the end of the image; return where that is."""
    while True:
        if frame[at] != 0xFF:  # a marker's first byte  # noqa: PLR2004 -- a marker's first byte is FF
            _refuse()
        marker = frame[at + 1]
        if marker in (_SOS, _EOI):
            return at
        after = at + 2 + int.from_bytes(frame[at + 2 : at + 4])
        body = frame[at + 4 : after]
        stream.out.append(list(_huffman_tables(stream, body)) if marker == _DHT else frame[at:after])
        if marker in _OTHER_FRAMES:
            _refuse()
        if marker in _READERS:
            _READERS[marker](stream, body)
        at = after


def _restart_interval(stream: _Stream, body: bytes) -> None:
    stream.interval = int.from_bytes(body[:2])


def _jfif(stream: _Stream, body: bytes) -> None:
    stream.ybr |= body.startswith(b"JFIF")


def _adobe(stream: _Stream, body: bytes) -> None:
    if body.startswith(b"Adobe"):
        stream.ybr = body[11] == _ADOBE_YBR


def _start_of_frame(stream: _Stream, body: bytes) -> None:
    rows, columns = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    parts = [body[6 + 3 * index : 9 + 3 * index] for index in range(body[5])]
    components = tuple((part[0], part[1] >> 4, part[1] & 15, part[2]) for part in parts)
    if not rows or not columns or len(components) not in (1, _COLOURS) or not all(h and v for _, h, v, _ in components):
        _refuse()
    if bytes(part[0] for part in components) in _RGB_IDS:
        stream.ybr = False
    stream.frame = _Frame(rows, columns, body[0], components)


def _quantisation(stream: _Stream, body: bytes) -> None:
    at = 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        stream.quantisation[number] = int.from_bytes(body[at + 1 : at + 2 + wide])
        at += 1 + _COEFFICIENTS * (1 + wide)


_READERS: dict[int, Callable[[_Stream, bytes], None]] = {
    **dict.fromkeys(_SEQUENTIAL, _start_of_frame),
    _DQT: _quantisation,
    _DRI: _restart_interval,
    _APP0: _jfif,
    _APP14: _adobe,
}


def _huffman_tables(stream: _Stream, body: bytes) -> Iterator[_Huffman]:
    at = 0
    while at < len(body):
        counts = body[at + 1 : at + 17]
        symbols = body[at + 17 : at + 17 + sum(counts)]
        table = _Huffman(body[at] >> 4 == 0, body[at] & 15, counts, symbols)
        stream.tables[table.dc, table.number] = table
        yield table
        at += 17 + len(symbols)


def _flat(frame: _Frame, quantisation: int, *, bright: bool, middle: bool) -> int:
    """Return the mean value of a block of darkest, lightest or middle samples; clipped when decoded."""
    half = 1 << (frame.precision - 1)
    mean = 0 if middle else _SIDE * ((half - 1) if bright else half)
    size = -(-mean // quantisation)
    return size if bright else -size


def _component(stream: _Stream, index: int, boxes: Sequence[Box], *, bright: bool) -> _Component:
    if stream.frame is None:
        _refuse()
    frame = stream.frame
    _, wide, high, table = frame.components[index]
    most_wide, most_high = (max(part[axis] for part in frame.components) for axis in (1, 2))
    mcu_rows, mcu_columns = -(-frame.rows // (_SIDE * most_high)), -(-frame.columns // (_SIDE * most_wide))
    touched = np.zeros((mcu_rows * high, mcu_columns * wide), np.bool_)
    for box in boxes:
        top, bottom = box.top * high // (_SIDE * most_high), -(-box.bottom * high // (_SIDE * most_high))
        left, right = box.left * wide // (_SIDE * most_wide), -(-box.right * wide // (_SIDE * most_wide))
        touched[top:bottom, left:right] = True
    colour = len(frame.components) == _COLOURS
    flat = _flat(
        frame, stream.quantisation[table], bright=bright and not colour, middle=colour and stream.ybr and index > 0
    )
    return _Component(wide, high, flat, touched)


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of the scan's smallest unit, and the tables that it is coded with."""

    component: int  # of the scan
    row: int
    column: int
    dc: list[int]
    ac: list[int]
    ac_single: list[int]
    dc_table: _Huffman
    ac_table: _Huffman
    flat: int
    touched: NDArray[np.bool_]
    down: int  # blocks from one unit to the next below, and beside
    across: int


def _scan(stream: _Stream, data: bytes, at: int, boxes: Sequence[Box], *, bright: bool) -> int:
    """Put a scan with flat blocks out; return where the marker after it is."""
    if stream.frame is None:
        _refuse()
    frame = stream.frame
    after = at + 2 + int.from_bytes(data[at + 2 : at + 4])
    header = data[at + 4 : after]
    count = header[0]
    if header[1 + 2 * count :] != _WHOLE_BLOCK:
        _refuse()
    if (found := _AFTER_SCAN.search(data, after)) is None:
        _refuse()
    end = found.start()
    chosen = [header[1 + 2 * index : 3 + 2 * index] for index in range(count)]
    identifiers = [part[0] for part in frame.components]
    places = [identifiers.index(part[0]) for part in chosen]
    components = [_component(stream, place, boxes, bright=bright) for place in places]
    blocks: list[_Block] = []
    for index, (component, (_, tables)) in enumerate(zip(components, chosen, strict=True)):
        dc, ac = stream.tables[True, tables >> 4], stream.tables[False, tables & 15]
        wide, high = (1, 1) if count == 1 else (component.wide, component.high)
        blocks += [
            _Block(
                index,
                row,
                column,
                _dc_entries(dc.counts, dc.symbols),
                *_ac_entries(ac.counts, ac.symbols),
                dc,
                ac,
                component.flat,
                component.touched,
                high,
                wide,
            )
            for row in range(high)
            for column in range(wide)
        ]
    if len(blocks) > _MAX_BLOCKS_IN_MCU:
        _refuse()
    rows, columns = _units(frame, components[0], interleaved=count > 1)
    stream.out.append(data[at:after])
    total = rows * columns
    step = stream.interval or total
    pieces = _RESTART.split(data[after:end])
    if len(pieces) != -(-total // step):
        _refuse()
    for index, piece in enumerate(pieces):
        units = range(index * step, min(total, (index + 1) * step))
        if index:
            stream.out.append(bytes((0xFF, 0xD0 + (index - 1) % 8)))
        stream.out.append(_interval(piece, units, columns, blocks) if _is_touched(units, columns, blocks) else piece)
    return end


def _units(frame: _Frame, component: _Component, *, interleaved: bool) -> tuple[int, int]:
    """Return how many units a scan has, down and across (A.2.2, A.2.3)."""
    most_wide, most_high = (max(part[axis] for part in frame.components) for axis in (1, 2))
    if interleaved:
        return -(-frame.rows // (_SIDE * most_high)), -(-frame.columns // (_SIDE * most_wide))
    rows, columns = -(-frame.rows * component.high // most_high), -(-frame.columns * component.wide // most_wide)
    return -(-rows // _SIDE), -(-columns // _SIDE)


def _is_touched(units: range, columns: int, blocks: list[_Block]) -> bool:
    first, last = units.start // columns, (units.stop - 1) // columns
    return any(block.touched[first * block.down : (last + 1) * block.down].any() for block in blocks)


def _interval(piece: bytes, units: range, columns: int, blocks: list[_Block]) -> bytes:
    """Return the codes of some units, touched blocks flat.

    Source: ISO/IEC 10918-1 F.2.2 (decoding), F.1.2 (coding).
    """
    plain = piece.replace(b"\xff\x00", b"\xff")
    # 32 bits from each byte on, so that 16 can be taken from any bit on.
    tail = np.frombuffer(plain + b"\xff" * 8, np.uint8).astype(np.uint32)
    words = array("I", (tail[:-3] << 24 | tail[1:-2] << 16 | tail[2:-1] << 8 | tail[3:]).tobytes())
    before = [0] * len(blocks)  # mean values as they were, by component
    written = [0] * len(blocks)  # and as they are in the new stream
    edits: list[tuple[int, int, str]] = []
    at = 0
    touched = [block.touched.tolist() for block in blocks]
    for unit in units:
        row, column = divmod(unit, columns)
        for block, is_touched in zip(blocks, touched, strict=True):
            start = at
            entry = block.dc[words[at >> 3] >> (16 - (at & 7)) & 0xFFFF]
            size = entry >> 5
            at += (entry & 31) + size
            part = block.component
            previous = before[part]
            if size:
                low = at - size
                bits = words[low >> 3] >> (32 - (low & 7) - size) & ((1 << size) - 1)
                before[part] = previous + (bits if bits >> (size - 1) else bits + 1 - (1 << size))
            after_mean = at
            at = _skip(block, words, at)
            if is_touched[row * block.down + block.row][column * block.across + block.column]:
                end_code, length = block.ac_table.code(0)
                codes = _difference(block.dc_table, block.flat - written[part]) + f"{end_code:0{length}b}"
                edits.append((start, at, codes))
                written[part] = block.flat
                continue
            if written[part] != previous:
                edits.append((start, after_mean, _difference(block.dc_table, before[part] - written[part])))
            written[part] = before[part]
    if at > 8 * len(plain):
        _refuse()
    return _edited(plain, at, edits)


def _skip(block: _Block, words: array[int], at: int) -> int:
    """Return where the block ends whose coefficients begin at bit `at`."""
    entries, place = block.ac, 1
    while place < _COEFFICIENTS:
        entry = entries[words[at >> 3] >> (16 - (at & 7)) & 0xFFFF]
        at += entry & _BITS_MASK
        place += entry >> _BITS
    if place == _COEFFICIENTS or _END < place <= _LAST_END:
        return at
    # Several codes were taken at once and the last of them are the next block's.
    at -= entry & _BITS_MASK
    place -= entry >> _BITS
    while place < _COEFFICIENTS:
        entry = block.ac_single[words[at >> 3] >> (16 - (at & 7)) & 0xFFFF]
        at += entry & _BITS_MASK
        place += entry >> _BITS
    if place == _COEFFICIENTS or _END < place <= _LAST_END:
        return at
    return _refuse()


def _difference(table: _Huffman, difference: int) -> str:
    """Return the code of a difference of mean values (F.1.2.1)."""
    size = abs(difference).bit_length()
    code, length = table.code(size)
    if not size:
        return f"{code:0{length}b}"
    bits = difference if difference > 0 else difference + (1 << size) - 1
    return f"{code:0{length}b}{bits:0{size}b}"


def _edited(plain: bytes, end: int, edits: list[tuple[int, int, str]]) -> bytes:
    """Return the first `end` bits with the edits made, filled up with ones and stuffed (F.1.2.3)."""
    bits = np.unpackbits(np.frombuffer(plain, np.uint8))
    parts: list[NDArray[np.uint8]] = []
    at = 0
    for start, stop, codes in edits:
        if start > at:
            parts.append(bits[at:start])
        parts.append(np.frombuffer(codes.encode(), np.uint8) & np.uint8(1))
        at = stop
    parts.append(bits[at:end])
    joined = np.concatenate(parts)
    joined = np.concatenate([joined, np.ones(-len(joined) % 8, np.uint8)])
    return np.packbits(joined).tobytes().replace(b"\xff", b"\xff\x00")


def _lengths(counts: bytes, symbols: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each 16 bits the length of the code they begin with, 0 if none, and its symbol."""
    length, symbol = np.zeros(_ENTRIES, np.int64), np.zeros(_ENTRIES, np.int64)
    code, place = 0, 0
    for bits, count in enumerate(counts, 1):
        for _ in range(count):
            first = code << (_WORD - bits)
            length[first : first + (1 << (_WORD - bits))] = bits
            symbol[first : first + (1 << (_WORD - bits))] = symbols[place]
            code, place = code + 1, place + 1
        code <<= 1
    return length, symbol


@lru_cache(maxsize=16)
def _dc_entries(counts: bytes, symbols: bytes) -> list[int]:
    """Return for each 16 bits the length of the code and, above 5 bits, the size that follows.

    What is no code claims a size that no stream can hold.
    """
    length, symbol = _lengths(counts, symbols)
    if symbols and max(symbols) > _WORD:
        _refuse()
    entries: list[int] = np.where(length > 0, symbol << 5 | length, _WORD << 5 | 31).tolist()
    return entries


@lru_cache(maxsize=16)
def _ac_entries(counts: bytes, symbols: bytes) -> tuple[list[int], list[int]]:
    """Return for each 16 bits how far as many whole codes as they hold lead, and how far the first."""
    length, symbol = _lengths(counts, symbols)
    size = symbol & 15
    bits, place = length + size, (symbol >> 4) + 1
    ends = (size == 0) & (symbol != 0xF0)  # all but sixteen zeros  # noqa: PLR2004 -- ZRL of table F.1
    place = np.where(ends, _END, place)
    bits, place = np.where(length > 0, bits, 1), np.where(length > 0, place, _NO_CODE)
    single = place << _BITS | bits
    peek = np.arange(_ENTRIES)
    many_bits, many_place = bits.copy(), place.copy()
    for _ in range(_WORD):
        rest = (peek << np.minimum(many_bits, _WORD)) & (_ENTRIES - 1)
        fits = (many_place < _END) & (many_bits + bits[rest] <= _WORD) & (length[rest] > 0)
        if not fits.any():
            break
        many_place += np.where(fits, place[rest], 0)
        many_bits += np.where(fits, bits[rest], 0)
    return (many_place << _BITS | many_bits).tolist(), single.tolist()
