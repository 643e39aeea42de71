"""Text hidden in compressed images: finds it, changes nothing.

Reads the markers of JPEG, JPEG-LS and JPEG 2000 codestreams. Comments and application segments
can hold names that no viewer shows, and bytes after the end of the image can hold anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydicom.encaps import generate_fragments, generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

COMMENT = "codestream-comment"
MALFORMED = "codestream-malformed"
TRAILING_BYTES = "codestream-trailing-bytes"
UNKNOWN = "codestream-unknown"

# ISO/IEC 10918-1 table B.1 and 15444-1 table A.2.
_SOI, _EOI, _SOS, _COM = 0xFFD8, 0xFFD9, 0xFFDA, 0xFFFE
_SOC, _SOT, _SOD, _EOC, _COM_2000 = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9, 0xFF64
_APPLICATION = range(0xFFE0, 0xFFF0)
_NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # after a scan; RSTn belong to it

# Application segments of fixed form: JFIF without thumbnail, Adobe's colour transform.
_HARMLESS_APPLICATION = re.compile(rb"JFIF\0.{7}\0\0|Adobe.{7}", re.DOTALL)
# What encoders write of themselves, in full: any other wording is a comment.
_HARMLESS_COMMENT = re.compile(
    rb"\0\x01(Created by (GDCM/)?OpenJPEG version |Kakadu-v?|Creator: JasPer Version )[\d.]{1,9}\0?"
)


def finding(ds: Dataset, transfer_syntax: UID, frames: int) -> str | None:
    """Return why the compressed PixelData may hide text, or None if nothing was found."""
    read = _READERS.get(transfer_syntax)
    if read is None:
        return UNKNOWN
    offsets, *fragments = generate_fragments(ds.PixelData)
    stored = sum(map(len, fragments))
    for frame in generate_frames(ds.PixelData, number_of_frames=frames):
        stored -= len(frame)
        if (fault := read(frame)) is not None:
            return fault
    # PS3.5 A.4: the offset table is empty or has 4 bytes a frame; each fragment is of a frame.
    return TRAILING_BYTES if stored or len(offsets) not in (0, 4 * frames) else None


def _rle(frame: bytes) -> str | None:
    """Accept: RLE (PS3.5 annex G) has neither comments nor application segments."""
    del frame
    return None


def _jpeg(frame: bytes) -> str | None:
    at = 2
    marker = _marker(frame, 0)
    if marker != _SOI:
        return MALFORMED
    while (marker := _marker(frame, at)) is not None:
        if marker == _EOI:
            return _after_the_end(frame[at + 2 :])
        body = _segment(frame, at)
        if marker == _COM or (marker in _APPLICATION and not _HARMLESS_APPLICATION.fullmatch(body)):
            return COMMENT
        at += 4 + len(body)
        if marker == _SOS:
            found = _NEXT_MARKER.search(frame, at)
            at = found.start() if found else len(frame)
    return MALFORMED


def _jpeg_2000(frame: bytes) -> str | None:
    at, tile, tile_end = 2, 0, 0
    if _marker(frame, 0) != _SOC:
        return MALFORMED
    while (marker := _marker(frame, at)) is not None:
        if marker == _EOC:
            return _after_the_end(frame[at + 2 :])
        if marker == _SOD:
            at = tile_end
            continue
        body = _segment(frame, at)
        if marker == _COM_2000 and not _HARMLESS_COMMENT.fullmatch(body):
            return COMMENT
        if marker == _SOT:
            tile, length = at, int.from_bytes(body[2:6])
            # Psot = 0: the tile part reaches to the end of the codestream (A.4.2).
            tile_end = tile + length if length else frame.rfind(b"\xff\xd9")
            if tile_end <= tile:
                return MALFORMED
        at += 4 + len(body)
    return MALFORMED


def _marker(frame: bytes, at: int) -> int | None:
    """Return the marker at `at`, or None where there is none."""
    word = frame[at : at + 2]
    return int.from_bytes(word) if len(word) == 2 and word[0] == 0xFF else None  # a marker's form  # noqa: PLR2004 -- the JPEG marker's two bytes, the first always FF


def _segment(frame: bytes, at: int) -> bytes:
    """Return the body of the marker segment at `at`; its length word counts itself."""
    length = int.from_bytes(frame[at + 2 : at + 4])
    return frame[at + 4 : at + 2 + max(length, 2)]


def _after_the_end(rest: bytes) -> str | None:
    # Fragments are padded to even length (PS3.5 A.4); some encoders pad with FF.
    return TRAILING_BYTES if rest.strip(b"\0\xff") else None


_READERS: dict[UID, Callable[[bytes], str | None]] = {
    RLELossless: _rle,
    **dict.fromkeys(
        (
            JPEGBaseline8Bit,
            JPEGExtended12Bit,
            JPEGLossless,
            JPEGLosslessSV1,
            JPEGLSLossless,
            JPEGLSNearLossless,
        ),
        _jpeg,
    ),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), _jpeg_2000),
}
