"""Where the frames of compressed PixelData lie, and how they are put together again.

Knows items, fragments and offset tables (PS3.5 A.4); does not look into a frame further than its
last marker, and only where neither table nor count says which fragments belong together.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Span = tuple[int, int]  # half-open, in bytes of the stored value

_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_HEAD = 8  # a tag and a length
_PADDING = b"\0\xff"
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000 alike
_FAR = 0xFFFFFFFF  # an offset table holds 32 bits


def fragments(stored: memoryview) -> tuple[Span, list[Span]]:
    """Return the place of the basic offset table's value, and those of the fragments.

    A sequence delimiter ends the value, whether it was handed over or not.
    Raises: UnreadableInstance where an item is not one or is cut off.
    Source: PS3.5 table A.4-1.
    """
    found: list[Span] = []
    at = 0
    while at + _HEAD <= len(stored):
        tag, length = bytes(stored[at : at + 4]), int.from_bytes(stored[at + 4 : at + _HEAD], "little")
        if tag == _DELIMITER:
            break
        at += _HEAD
        if tag != _ITEM or at + length > len(stored):
            raise UnreadableInstance("PixelData: fragments are not items")
        found.append((at, at + length))
        at += length
    if not found:
        raise UnreadableInstance("PixelData: no fragments")
    return found[0], found[1:]


def frames(stored: memoryview, count: int, extended_offsets: Sequence[int] = ()) -> tuple[tuple[Span, ...], ...]:
    """Return the places of each frame's fragments.

    Fragments that no frame needs are left out.
    Raises: UnreadableInstance where fragments and NumberOfFrames do not fit.
    Source: PS3.5 A.4, PS3.3 C.7.6.3.1.8 (extended offset table).
    """
    table, parts = fragments(stored)
    offsets: tuple[int, ...] = tuple(extended_offsets)
    if not offsets and (table[1] - table[0]) == 4 * count:
        offsets = struct.unpack(f"<{count}I", stored[slice(*table)])
    # One frame needs no table; one fragment a frame is what everybody writes.
    if count == 1 and parts:
        return (tuple(parts),)
    if len(parts) == count:
        return tuple((part,) for part in parts)
    grouped = _by_offsets(parts, offsets, count) or _by_ends(stored, parts, count)
    if grouped is None:
        raise UnreadableInstance("PixelData: fragments differ from NumberOfFrames")
    return grouped


def _by_offsets(parts: list[Span], offsets: Sequence[int], count: int) -> tuple[tuple[Span, ...], ...] | None:
    """Return the fragments from each offset to the next, or None where the table does not fit."""
    if not parts or len(offsets) != count:
        return None
    # Offsets count from the first fragment's item to that of another.
    places = {start - parts[0][0]: index for index, (start, _) in enumerate(parts)}
    firsts = [places.get(offset) for offset in offsets]
    known = [first for first in firsts if first is not None]
    if len(known) != count or known[0] != 0 or sorted(set(known)) != known:
        return None
    return tuple(tuple(parts[a:b]) for a, b in zip(known, [*known[1:], len(parts)], strict=True))


def _by_ends(stored: memoryview, parts: list[Span], count: int) -> tuple[tuple[Span, ...], ...] | None:
    """Return the fragments up to each end-of-image marker, or None where they give too few frames."""
    grouped: list[tuple[Span, ...]] = []
    open_frame: list[Span] = []
    for start, stop in parts:
        open_frame.append((start, stop))
        if bytes(stored[max(start, stop - 16) : stop]).rstrip(_PADDING + b"\n").endswith(_END_OF_IMAGE):
            grouped.append(tuple(open_frame))
            open_frame = []
    return tuple(grouped[:count]) if len(grouped) >= count else None


def item(pieces: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield an item that holds `pieces`, padded to even length."""
    length = sum(map(len, pieces))
    yield _ITEM + (length + length % 2).to_bytes(4, "little")
    yield from pieces
    if length % 2:
        yield b"\0"


def offset_table(lengths: Iterable[int]) -> bytes:
    """Return the item of the basic offset table for frames of these lengths, one fragment each.

    The table is empty where an offset passes 32 bits, which is always allowed.
    """
    offsets, at = [], 0
    for length in lengths:
        offsets.append(at)
        at += _HEAD + length + length % 2
    if not offsets or offsets[-1] > _FAR:
        return _ITEM + bytes(4)
    return _ITEM + (4 * len(offsets)).to_bytes(4, "little") + struct.pack(f"<{len(offsets)}I", *offsets)
