"""Frames coded as lossless JPEG, which no codec at hand writes.

Process 14 with the first predictor (selection value 1), one Huffman table made for the frame. Does
not read: transcoding.py does.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CATEGORIES = 17  # ISO/IEC 10918-1 table H.2: differences of 0 to 16 bits
_LONGEST = 16
_MODULO = 1 << 16  # H.1.2.1: differences are taken modulo 2^16


def encode(samples: NDArray[Any], bits: int) -> bytes:
    """Return a frame coded without loss.

    Shape:  (row, column) or (row, column, sample), 8 or 16 bits; signed values keep their bits.
    Source: ISO/IEC 10918-1 annex H, PS3.5 A.4.1 (JPEG lossless, process 14, selection value 1).
    """
    planes = samples[..., np.newaxis] if samples.ndim == 2 else samples  # one component  # noqa: PLR2004 -- grey has no third axis
    values = planes.astype(np.int64) & ((1 << bits) - 1)
    rows, columns, count = values.shape
    predicted = np.empty_like(values)
    # H.1.2.1: beside on the line, above at its start, the middle of the range at the very start.
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (bits - 1)
    differences = ((values - predicted + _MODULO // 2 - 1) % _MODULO - (_MODULO // 2 - 1)).reshape(-1)
    sizes = _sizes(differences)
    counts, symbols = _table(np.bincount(sizes, minlength=_CATEGORIES))
    header = struct.pack(">BHHB", bits, rows, columns, count)
    header += b"".join(bytes((index + 1, 0x11, 0)) for index in range(count))
    scan = bytes([count]) + b"".join(bytes((index + 1, 0)) for index in range(count)) + b"\1\0\0"
    return (
        b"\xff\xd8"
        + _segment(0xC3, header)
        + _segment(0xC4, b"\0" + counts + symbols)
        + _segment(0xDA, scan)
        + _bits(differences, sizes, counts, symbols)
        + b"\xff\xd9"
    )


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def _sizes(differences: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many bits each difference has."""
    table = np.zeros(_MODULO // 2 + 1, np.int64)
    for size in range(_CATEGORIES):
        table[1 << size >> 1 : 1 << size] = size
    table[0] = 0
    return table[np.abs(differences)]


def _table(frequencies: NDArray[np.int64]) -> tuple[bytes, bytes]:
    """Return how many codes there are of each length, and their symbols, the shortest first.

    Source: ISO/IEC 10918-1 annex K.2: an entry that is never used keeps the code of ones free.
    """
    trees = [(int(weight), [symbol]) for symbol, weight in enumerate(frequencies) if weight]
    trees.append((0, [_CATEGORIES]))
    lengths = dict.fromkeys((symbols[0] for _, symbols in trees), 0)
    while len(trees) > 1:
        trees.sort(key=lambda tree: (-tree[0], tree[1][0] != _CATEGORIES))
        (one, left), (other, right) = trees.pop(), trees.pop()
        for symbol in left + right:
            lengths[symbol] += 1
        trees.append((one + other, left + right))
    counts = [0] * (2 * _CATEGORIES)
    for length in lengths.values():
        counts[length] += 1
    for length in range(len(counts) - 1, _LONGEST, -1):
        _shorten(counts, length)
    longest = max(length for length, number in enumerate(counts) if number)
    counts[longest] -= 1  # the entry that is never used
    symbols = sorted(
        (symbol for symbol in lengths if symbol != _CATEGORIES), key=lambda symbol: (lengths[symbol], symbol)
    )
    return bytes(counts[1 : _LONGEST + 1]), bytes(symbols)


def _shorten(counts: list[int], length: int) -> None:
    """Move the codes of a length to shorter ones, two by two (figure K.3)."""
    while counts[length]:
        donor = next(shorter for shorter in range(length - 2, 0, -1) if counts[shorter])
        counts[length] -= 2
        counts[length - 1] += 1
        counts[donor + 1] += 2
        counts[donor] -= 1


def _bits(differences: NDArray[np.int64], sizes: NDArray[np.int64], counts: bytes, symbols: bytes) -> bytes:
    """Return the codes of all differences, filled up with ones and stuffed.

    Source: ISO/IEC 10918-1 H.1.2.2, F.1.2.3.
    """
    code_of, length_of = np.zeros(_CATEGORIES, np.int64), np.zeros(_CATEGORIES, np.int64)
    code, place = 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            code_of[symbols[place]], length_of[symbols[place]] = code, length
            code, place = code + 1, place + 1
        code <<= 1
    # A difference of 16 bits is 32768 alone and has none that follow (table H.2).
    extra = np.where(sizes == _LONGEST, 0, sizes)
    low = np.where(differences < 0, differences + (1 << extra) - 1, differences) & ((1 << extra) - 1)
    words, lengths = (code_of[sizes] << extra) | low, length_of[sizes] + extra
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    # Each code, of 31 bits at most, goes into the 32-bit word where it begins and into the next.
    starts = ends - lengths
    index, offset = starts >> 5, starts & 31
    wide = words.astype(np.uint64) << (64 - offset - lengths).astype(np.uint64)
    out = np.zeros((total >> 5) + 2, np.uint64)
    np.add.at(out, index, wide >> np.uint64(32))
    np.add.at(out, index + 1, wide & np.uint64(0xFFFFFFFF))
    packed = out.astype(np.uint32).astype(">u4").tobytes()[: (total + 7) // 8]
    filled = packed if total % 8 == 0 else packed[:-1] + bytes([packed[-1] | ((1 << (-total % 8)) - 1)])
    return filled.replace(b"\xff", b"\xff\x00")
