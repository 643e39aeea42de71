"""Text hidden in compressed frames: found, and taken out without decoding a pixel.

Reads the markers of JPEG, JPEG-LS and JPEG 2000 codestreams and the segments of RLE. Comments and
application segments can hold names that no viewer shows, and bytes after the end of the image can
hold anything. What decoding needs stays as it is; of an application segment that decoding needs,
a fixed form stays.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

if TYPE_CHECKING:
    from collections.abc import Callable


# Progressive, hierarchical and arithmetic processes (PS3.6 annex A); old archives hold them.
RETIRED_JPEG = tuple(UID(f"1.2.840.10008.1.2.4.{number}") for number in (52, 53, 54, 55, 56, *range(58, 67)))

COMMENT = "codestream-comment"
MALFORMED = "codestream-malformed"
TRAILING_BYTES = "codestream-trailing-bytes"
UNKNOWN = "codestream-unknown"

# ISO/IEC 10918-1 table B.1 and 15444-1 table A.2.
_SOI, _EOI, _SOS, _COM = 0xFFD8, 0xFFD9, 0xFFDA, 0xFFFE
_SOC, _SIZ, _SOT, _SOD, _EOC, _COM_2000 = 0xFF4F, 0xFF51, 0xFF90, 0xFF93, 0xFFD9, 0xFF64
_TLM = 0xFF55
_APP0, _APP8, _APP14 = 0xFFE0, 0xFFE8, 0xFFEE
_START_OF_FRAME = (frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}) | {0xFFF7}
_NEEDED = _START_OF_FRAME | {0xFFC4, 0xFFCC, 0xFFDA, 0xFFDB, 0xFFDC, 0xFFDD, 0xFFDE, 0xFFDF, 0xFFF8}
_FILL = 0xFFFF  # a byte before a marker that says nothing (B.1.1.2)
_SIZ_READ, _SOF_READ = 41, 9  # up to Ssiz of the first component; up to X
_ALONE = frozenset({0xFF01, *range(0xFFD0, 0xFFD8)})  # without a length
_NEEDED_2000 = frozenset(range(0xFF50, 0xFF64)) - {0xFF54, 0xFF5A, 0xFF5B, 0xFF62}
_NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # after a scan; RSTn belong to it

# Application segments of fixed form. JFIF: no thumbnail, a version and a density that spell nothing;
# Adobe: the colour transform; "mrfx": the colour transform of a JPEG-LS encoder.
_HARMLESS_JFIF = re.compile(rb"JFIF\0\x01[\0-\x02][\0-\x02][\0-\x09].[\0-\x09].\0\0", re.DOTALL)
_HARMLESS_ADOBE = re.compile(rb"Adobe\0[\x64\x65][\0\x40\x80\xc0]\0[\0\x40\x80\xc0]\0[\0-\x02]")
_HARMLESS_MRFX = re.compile(rb"mrfx[\0-\x05]")
_JFIF = b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
_ADOBE = b"Adobe\0\x64\0\0\0\0"
_ADOBE_LENGTH, _ADOBE_TRANSFORM = 12, 11
# What encoders write of themselves, in full: any other wording is a comment.
_HARMLESS_COMMENT = re.compile(
    rb"\0\x01(Created by (GDCM/)?OpenJPEG version |Kakadu-v?|Creator: JasPer Version )[\d.]{1,9}\0?"
)
_PADDING = b"\0\xff"  # fragments are padded to even length (PS3.5 A.4); some encoders pad with FF
_RLE_HEADER = 64
_RLE_SEGMENTS = 15
_RLE_NOTHING = 128


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A frame without hidden text, in pieces; `found` says why anything was taken out."""

    pieces: tuple[bytes | memoryview, ...]
    found: tuple[str, ...]


class _Pieces:
    """Parts of a frame, joined where they follow each other, and what was found between them."""

    def __init__(self, frame: memoryview) -> None:
        self._frame = frame
        self._parts: list[tuple[int, int] | bytes] = []
        self._found: dict[str, None] = {}

    def keep(self, start: int, stop: int) -> None:
        last = self._parts[-1] if self._parts else None
        if isinstance(last, tuple) and last[1] == start:
            self._parts[-1] = (last[0], stop)
        else:
            self._parts.append((start, stop))

    def put(self, new: bytes) -> None:
        self._parts.append(new)

    def note(self, reason: str) -> None:
        self._found[reason] = None

    @property
    def found(self) -> tuple[str, ...]:
        return tuple(self._found)

    def end(self, at: int) -> Cleaned:
        """Return the frame that ends at `at`; as it was if nothing was found."""
        if bytes(self._frame[at:]).strip(_PADDING):
            self.note(TRAILING_BYTES)
        if not self._found:
            return Cleaned((self._frame,), ())
        parts = (part if isinstance(part, bytes) else self._frame[slice(*part)] for part in self._parts)
        return Cleaned(tuple(parts), tuple(self._found))


def clean(frame: memoryview, transfer_syntax: str, pixels: int) -> Cleaned:
    """Return a frame of `pixels` pixels without what decoding does not need.

    A frame whose markers cannot be followed stays as it is from there on, and is called malformed.
    """
    cleaner = _CLEANERS.get(UID(transfer_syntax))
    return Cleaned((frame,), (UNKNOWN,)) if cleaner is None else cleaner(frame, pixels)


@dataclass(frozen=True, slots=True)
class Claim:
    """The size that a frame claims to have, and the bits of its first sample."""

    rows: int
    columns: int
    bits: int


def claim(frame: bytes | memoryview) -> Claim | None:
    """Return what a JPEG, JPEG-LS or JPEG 2000 frame claims of its size, or None if it says nothing."""
    view = memoryview(frame)
    at = 2
    if _marker(view, 0) == _SOC:
        if _marker(view, at) != _SIZ or len(view) < at + _SIZ_READ:
            return None
        width, height, left, top = struct.unpack_from(">4I", view, at + 6)
        return Claim(height - top, width - left, (view[at + _SIZ_READ - 1] & 0x7F) + 1)
    while (marker := _marker(view, at)) is not None and marker != _SOS:
        if marker == _FILL or marker in _ALONE:
            at += 1 if marker == _FILL else 2
            continue
        if marker in _START_OF_FRAME and len(view) >= at + _SOF_READ:
            bits, height, width = struct.unpack_from(">B2H", view, at + 4)
            return Claim(height, width, bits)
        at = _after_segment(view, at)
    return None


def _jpeg(frame: memoryview, pixels: int) -> Cleaned:
    """Clean JPEG and JPEG-LS.

    Source: ISO/IEC 10918-1 annex B, 14495-1 annex C.
    """
    del pixels
    kept = _Pieces(frame)
    at = 0
    if _marker(frame, 0) != _SOI:
        kept.note(MALFORMED)
        at = bytes(frame).find(b"\xff\xd8\xff")
        if at < 0:
            kept.keep(0, len(frame))
            return kept.end(len(frame))
    kept.keep(at, at + 2)
    at += 2
    while at < len(frame):
        marker = _marker(frame, at)
        if marker is None or (marker & 0xFF) < 0x80 or marker in _ALONE:  # no segment starts here  # noqa: PLR2004 -- JPEG has no marker below FF80 but TEM
            kept.note(MALFORMED)
            at = _next_marker(frame, at + 1)
        elif marker == _FILL:
            at += 1
        elif marker == _EOI:
            kept.keep(at, at + 2)
            return kept.end(at + 2)
        else:
            at = _jpeg_segment(kept, frame, at, marker)
    kept.note(MALFORMED)
    return kept.end(len(frame))


def _jpeg_segment(kept: _Pieces, frame: memoryview, at: int, marker: int) -> int:
    """Keep, replace or drop the segment at `at`; return where the next marker is."""
    after = _after_segment(frame, at)
    if marker in _NEEDED:
        after = _next_marker(frame, after) if marker == _SOS else after
        kept.keep(at, after)
        return after
    body = bytes(frame[at + 4 : after])
    harmless, fixed = _application(marker, body)
    if harmless:
        kept.keep(at, after)
        return after
    kept.note(COMMENT)
    if fixed:
        kept.put(marker.to_bytes(2) + (len(fixed) + 2).to_bytes(2) + fixed)
    return after


def _application(marker: int, body: bytes) -> tuple[bool, bytes]:
    """Return whether a segment hides nothing, and else what decoding needs of it, in fixed form."""
    if marker == _APP0 and body.startswith(b"JFIF\0"):
        return bool(_HARMLESS_JFIF.fullmatch(body)), _JFIF
    if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= _ADOBE_LENGTH:
        transform = min(body[_ADOBE_TRANSFORM], 2)
        return bool(_HARMLESS_ADOBE.fullmatch(body)), _ADOBE + bytes([transform])
    if marker == _APP8 and body.startswith(b"mrfx"):
        return bool(_HARMLESS_MRFX.fullmatch(body)), body[:5]
    return False, b""


def _jpeg_2000(frame: memoryview, pixels: int) -> Cleaned:
    """Clean JPEG 2000 and high-throughput JPEG 2000.

    Source: ISO/IEC 15444-1 annex A.
    """
    del pixels
    if _marker(frame, 0) != _SOC:
        return _boxed(frame)
    kept = _Pieces(frame)
    kept.keep(0, 2)
    at = _header_2000(kept, frame, 2)
    resized = False
    while _marker(frame, at) == _SOT:
        tile = _Pieces(frame)
        data = _header_2000(tile, frame, _after_segment(frame, at))
        length = int.from_bytes(frame[at + 6 : at + 10])
        # Psot = 0: the tile part reaches to the end of the codestream (A.4.2).
        end = at + length if length else bytes(frame).rfind(b"\xff\xd9")
        if _marker(frame, data) != _SOD or end < data:
            kept.note(MALFORMED)
            break
        shorter = tile.end(len(frame))
        if tile.found:
            header = shorter.pieces
            resized = True
            lost = (data - _after_segment(frame, at)) - sum(map(len, header))
            kept.put(
                bytes(frame[at : at + 6]) + (length and length - lost).to_bytes(4) + bytes(frame[at + 10 : at + 12])
            )
            for piece in header:
                kept.put(bytes(piece))
            kept.note(COMMENT)
        else:
            kept.keep(at, data)
        kept.keep(data, min(end, len(frame)))
        at = end
    if _marker(frame, at) == _EOC:
        kept.keep(at, at + 2)
        return _without_lengths(kept.end(at + 2)) if resized else kept.end(at + 2)
    kept.note(MALFORMED)
    kept.keep(at, len(frame))
    return kept.end(len(frame))


def _header_2000(kept: _Pieces, frame: memoryview, at: int) -> int:
    """Keep the segments of a header that decoding needs; return where it ends."""
    while (marker := _marker(frame, at)) is not None and marker not in (_SOT, _SOD, _EOC):
        after = _after_segment(frame, at)
        harmless = marker == _COM_2000 and _HARMLESS_COMMENT.fullmatch(bytes(frame[at + 4 : after]))
        if marker in _NEEDED_2000 or harmless:
            kept.keep(at, after)
        else:
            kept.note(COMMENT)
        at = after
    return at


def _without_lengths(cleaned: Cleaned) -> Cleaned:
    """Return a codestream whose tile parts have become shorter, its table of their lengths anew.

    Source: ISO/IEC 15444-1 A.7.1 (TLM).
    """
    frame = memoryview(b"".join(cleaned.pieces))
    lengths, at = [], 2
    tables: list[tuple[int, int]] = []
    while (marker := _marker(frame, at)) is not None and marker not in (_SOT, _EOC):
        after = _after_segment(frame, at)
        tables += [(at, after)] if marker == _TLM else []
        at = after
    while _marker(frame, at) == _SOT:
        length = int.from_bytes(frame[at + 6 : at + 10]) or len(frame) - 2 - at
        lengths.append(length)
        at += length
    anew = bytearray(frame)
    for start, stop in tables:
        style = frame[start + 5]
        number, wide = style >> 4 & 3, 4 if style & 0x40 else 2
        for place in range(start + 6, stop - wide - number + 1, number + wide):
            if lengths:
                anew[place + number : place + number + wide] = lengths.pop(0).to_bytes(wide)
    return Cleaned((bytes(anew),), cleaned.found)


def _boxed(frame: memoryview) -> Cleaned:
    """Return the codestream of a frame that was wrapped into a JP2 file, against PS3.5 A.4.4."""
    kept = _Pieces(frame)
    kept.note(MALFORMED)
    start = bytes(frame).find(b"jp2c\xff\x4f\xff\x51")
    if start < 0:
        kept.keep(0, len(frame))
        return kept.end(len(frame))
    inner = _jpeg_2000(frame[start + 4 :], 0)
    return Cleaned(inner.pieces, tuple(dict.fromkeys((MALFORMED, *inner.found))))


def _rle(frame: memoryview, pixels: int) -> Cleaned:
    """Clean RLE: its header has room for 15 offsets, and a segment may go on after its last pixel.

    Source: PS3.5 annex G.
    """
    kept = _Pieces(frame)
    if len(frame) < _RLE_HEADER:
        kept.note(MALFORMED)
        kept.keep(0, len(frame))
        return kept.end(len(frame))
    count, *offsets = struct.unpack("<16I", frame[:_RLE_HEADER])
    ends = [*offsets[1:count], len(frame)]
    sound = 0 < count <= _RLE_SEGMENTS and all(
        _RLE_HEADER <= a <= b <= len(frame) for a, b in zip(offsets[:count], ends, strict=True)
    )
    if not sound:
        kept.note(MALFORMED)
        kept.keep(0, len(frame))
        return kept.end(len(frame))
    if any(offsets[count:]) or bytes(frame[_RLE_HEADER : offsets[0]]).strip(b"\0"):
        kept.note(TRAILING_BYTES)
    segments: list[bytes | memoryview] = []
    for start, stop in zip(offsets[:count], ends, strict=True):
        segment = frame[start:stop]
        length, decoded = _rle_length(segment, pixels)
        if decoded != pixels:
            kept.note(MALFORMED)
        if bytes(segment[length:]).strip(b"\0"):
            kept.note(TRAILING_BYTES)
        segments.append(segment[:length] if length % 2 == 0 else bytes(segment[:length]) + b"\0")
    if not kept.found:
        return Cleaned((frame,), ())
    starts = [_RLE_HEADER]
    for kept_bytes in segments[:-1]:
        starts.append(starts[-1] + len(kept_bytes))
    header = struct.pack("<16I", count, *starts, *[0] * (_RLE_SEGMENTS - count))
    return Cleaned((header, *segments), kept.found)


def _rle_length(segment: memoryview, pixels: int) -> tuple[int, int]:
    """Return how many bytes of a segment its pixels take, and how many pixels there are.

    A last run that is cut off or goes too far makes another number of them.
    """
    at = out = 0
    length = len(segment)
    while out < pixels and at < length:
        run = segment[at]
        if run < _RLE_NOTHING:
            at += run + 2
            out += run + 1
        elif run > _RLE_NOTHING:
            at += 2
            out += 257 - run
        else:
            at += 1
    return (at, out) if at <= length else (length, 0)


def _marker(frame: memoryview, at: int) -> int | None:
    """Return the marker at `at`, or None where there is none."""
    word = bytes(frame[at : at + 2])
    return int.from_bytes(word) if len(word) == 2 and word[0] == 0xFF else None  # a marker's form  # noqa: PLR2004 -- the JPEG marker's two bytes, the first always FF


def _after_segment(frame: memoryview, at: int) -> int:
    """Return where the marker segment at `at` ends; its length word counts itself."""
    return at + 2 + max(int.from_bytes(frame[at + 2 : at + 4]), 2)


def _next_marker(frame: memoryview, at: int) -> int:
    found = _NEXT_MARKER.search(frame, at)
    return found.start() if found else len(frame)


_CLEANERS: dict[UID, Callable[[memoryview, int], Cleaned]] = {
    RLELossless: _rle,
    **dict.fromkeys((*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *RETIRED_JPEG), _jpeg),
    **dict.fromkeys(JPEG2000TransferSyntaxes, _jpeg_2000),
}
