"""Boxes blanked in stored pixels, frame by frame; all that lies outside of them stays as it is.

No frame is compressed with loss a second time: a lossless syntax is written losslessly again,
JPEG blocks are replaced inside the compressed stream, and what can be neither is stored plain.
Frames without a box are passed on as they lie, less the text that compressed streams can hide.
Where the boxes come from is not known here.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from pydicom import uid
from pydicom.uid import UID

from site_node.deidentify import codestream, encapsulation, jpeg, lossless_jpeg, transcoding
from site_node.deidentify.picture import DEFLATED_FRAMES, PALETTE, Box, Picture
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

Chunk: TypeAlias = bytes | memoryview

UNUSED_BITS = "unused-bits-cleared"
TRAILING_BYTES = "bytes-after-the-last-frame"
STORED_PLAIN = "stored-uncompressed"
STORED_LOSSLESS = "stored-losslessly"

_TRANSFER_SYNTAX, _PHOTOMETRIC, _PLANAR = 0x00020010, 0x00280004, 0x00280006
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_LOSSY = 0x00282110
_MAX_NATIVE_BYTES = 0xFFFFFFFE  # PS3.5 7.1.1: the length of a value
_BYTE = 8
_SMALL = 4096  # bytes that may be kept in memory for each frame
_NO_COLOUR = 128  # PS3.3 C.7.6.3.1.2: the middle of the colour differences

# The syntax in which a frame is written anew, inside the instance's own syntax. A lossy syntax of
# JPEG-LS and JPEG 2000 permits lossless frames as well (PS3.5 A.4.3, A.4.4).
_REWRITTEN_AS = {
    uid.RLELossless: uid.RLELossless,
    uid.JPEGLSLossless: uid.JPEGLSLossless,
    uid.JPEGLSNearLossless: uid.JPEGLSLossless,
    uid.JPEG2000Lossless: uid.JPEG2000Lossless,
    uid.JPEG2000: uid.JPEG2000Lossless,
}
_LOSSY_JPEG = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit})
_LOSSLESS_JPEG = frozenset({uid.JPEGLossless, uid.JPEGLosslessSV1})


@dataclass(frozen=True, slots=True)
class Blanked:
    """PixelData anew: `chunks` is its value, to be written in order and read once.

    `length` is the value's, or None for fragments, which a sequence delimiter follows (it is not
    among the chunks). `vr` is what PixelData's must become, None if it stays. `changes` are
    top-level attributes by tag, None to remove; `notes` says what else was done, in words safe to
    show. `lossy_again` is never true: such a case is stored without loss, and `notes` says so.
    """

    chunks: Iterator[Chunk]
    length: int | None
    transfer_syntax: str
    touched: Mapping[int, tuple[Box, ...]]
    changes: Mapping[int, str | int | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    vr: str | None = None
    lossy_again: bool = False


def blank(picture: Picture, boxes: Sequence[Box] | Mapping[int, Sequence[Box]], *, plain: bool = False) -> Blanked:
    """Return PixelData with `boxes` blanked: on every frame, or on each frame those of its index.

    Outside the boxes every stored value stays; of a lossy JPEG, every pixel more than 16 away; and
    of a 4:2:2 pair, the colour that a pixel shares with a blanked one goes. `plain` stores the
    frames uncompressed whatever they were.
    Raises: UnreadableInstance if a frame cannot be read, also while the chunks are read.
    """
    touched = _touched(picture, boxes)
    if not picture.encapsulated:
        return _native(picture, touched)
    touched = _with_overlays(picture, touched)
    coder = None if plain else _coder(picture, touched)
    return _plain(picture, touched) if coder is None else _recoded(picture, touched, coder)


def strip(picture: Picture) -> Blanked | None:
    """Return PixelData without hidden text, or None where there is none; every sample stays.

    Taken out are comments and application segments, bytes after the end of a frame or of all,
    fragments of no frame, and planes in unused bits.
    """
    if picture.encapsulated:
        if _with_overlays(picture, {}):
            return blank(picture, ())
        found = _Frames(picture)
        return _recoded(picture, {}, found.cleaned, found) if found.notes else None
    stripped = _native(picture, {})
    return stripped if stripped.notes else None


def _touched(picture: Picture, boxes: Sequence[Box] | Mapping[int, Sequence[Box]]) -> dict[int, tuple[Box, ...]]:
    """Return the boxes of each frame that has any, cut to the image."""
    per_frame = boxes if isinstance(boxes, Mapping) else dict.fromkeys(range(picture.frames), boxes)
    touched = {}
    for index in sorted(per_frame):
        if not 0 <= index < picture.frames:
            raise ValueError("no such frame")
        cut = tuple(
            Box(max(0, box.top), max(0, box.left), min(picture.rows, box.bottom), min(picture.columns, box.right))
            for box in per_frame[index]
        )
        if inside := tuple(box for box in cut if box.top < box.bottom and box.left < box.right):
            touched[index] = inside
    return touched


def _with_overlays(picture: Picture, touched: dict[int, tuple[Box, ...]]) -> dict[int, tuple[Box, ...]]:
    """Return the frames to code anew: all of them where a plane of graphics lies in coded samples.

    A lossy syntax cannot hold one.
    """
    unused = picture.bits_stored < picture.bits_allocated
    if not (unused and picture.overlay_inside and picture.is_coded) or picture.transfer_syntax in _LOSSY_JPEG:
        return touched
    return {index: touched.get(index, ()) for index in range(picture.frames)}


def _cleared(touched: Mapping[int, tuple[Box, ...]]) -> tuple[str, ...]:
    return (UNUSED_BITS,) if any(not boxes for boxes in touched.values()) else ()


# Values: what is written into a box.


def _fill(picture: Picture, samples: NDArray[Any], photometric: str) -> list[float]:
    """Return the values of a pixel that looks black, sample by sample.

    Grey takes the darkest value that the frame has, so that no reader's range is stretched.
    """
    if picture.samples > 1:
        middle = _NO_COLOUR << max(0, picture.bits_stored - 8)
        return [0, middle, middle] if photometric.startswith("YBR") else [0, 0, 0]
    if photometric == PALETTE and picture.tone.palette is not None:
        darkest = int(picture.tone.palette.astype(np.int64).sum(axis=1).argmin())
        return [darkest + picture.tone.palette_first]
    light_is_low = picture.tone.inverted != (picture.tone.slope < 0)
    if picture.bits_allocated == 1:
        return [int(light_is_low)]
    return [(np.nanmax if light_is_low else np.nanmin)(samples).item()]


def _paint(samples: NDArray[Any], boxes: Sequence[Box], fill: Sequence[float]) -> None:
    """Blank boxes in a frame of (row, column) or (row, column, sample)."""
    for box in boxes:
        samples[box.top : box.bottom, box.left : box.right] = fill if len(fill) > 1 else fill[0]


def _paint_native(picture: Picture, values: NDArray[Any], boxes: Sequence[Box]) -> None:
    """Blank boxes in a native frame's stored values, in place."""
    fill = _fill(picture, picture.meant(values), picture.photometric)
    if picture.subsampled:
        quads = values.reshape(picture.rows, picture.columns // 2, 4)
        luma = quads[..., :2].reshape(picture.rows, picture.columns).copy()
        _paint(luma, boxes, fill[:1])
        quads[..., :2] = luma.reshape(picture.rows, -1, 2)
        for box in boxes:
            quads[box.top : box.bottom, box.left // 2 : (box.right + 1) // 2, 2:] = fill[1:]
        return
    if not picture.floating and picture.bits_stored < picture.bits_allocated:
        low = picture.high_bit + 1 - picture.bits_stored
        fill = [int(part) << low for part in fill]
    _paint(picture.arrange(values), boxes, fill)  # a view of `values`


def _foreign_bits(picture: Picture, values: NDArray[Any]) -> NDArray[Any] | None:
    """Return the stored values with nothing in unused bits, or None where nothing is there.

    A sign that goes on into unused bits is no foreign content; padding values are let be.
    Source: PS3.5 8.1.1, 8.1.2.
    """
    unused = picture.bits_allocated - picture.bits_stored
    if picture.floating or not unused or picture.bits_allocated == 1:
        return None
    low = picture.high_bit + 1 - picture.bits_stored
    bits = values.view(values.dtype.str.replace("i", "u"))
    allowed = ((1 << picture.bits_stored) - 1) << low
    if not int(np.bitwise_or.reduce(bits)) & ~allowed:
        return None
    whole = picture.meant(values) << low
    if (sound := whole == values).all():
        return None
    sound |= bits & allowed == bits
    if picture.tone.padding is not None:
        sound |= (values >= picture.tone.padding[0]) & (values <= picture.tone.padding[1])
    if sound.all():
        return None
    cleared: NDArray[Any] = np.where(sound, values, whole).astype(values.dtype)
    return cleared


# Native frames.


def _native(picture: Picture, touched: Mapping[int, tuple[Box, ...]]) -> Blanked:
    total = (picture.frames * picture.values * picture.bits_allocated + 7) // 8
    foreign = (
        frozenset(index for index in range(picture.frames) if _foreign_bits(picture, picture.native(index)) is not None)
        if picture.bits_stored < picture.bits_allocated
        else frozenset()
    )
    notes: tuple[str, ...] = (UNUSED_BITS,) if foreign else ()
    if any(picture.stored[total : total + 1]) or len(picture.stored) > total + total % 2:
        notes += (TRAILING_BYTES,)
    chunks = _native_frames(picture, touched, foreign, total)
    return Blanked(_even(chunks, total), total + total % 2, picture.transfer_syntax, touched, notes=notes)


def _native_frames(
    picture: Picture, touched: Mapping[int, tuple[Box, ...]], foreign: frozenset[int], total: int
) -> Iterator[Chunk]:
    if not touched and not foreign:
        yield picture.stored[: total + total % 2 if picture.swapped else total]
        return
    frames = (_native_frame(picture, index, touched, foreign) for index in range(picture.frames))
    if picture.bits_allocated == 1:
        yield from _packed(frames)
    elif picture.swapped:
        yield from _words(bytes(frame.view(np.uint8)) for frame in frames)
    else:
        for frame in frames:
            yield frame.view(np.uint8).data


def _native_frame(
    picture: Picture, index: int, touched: Mapping[int, tuple[Box, ...]], foreign: frozenset[int]
) -> NDArray[Any]:
    values = picture.native(index)
    if index not in touched and index not in foreign:
        return values
    cleared = _foreign_bits(picture, values) if index in foreign else None
    values = values.copy() if cleared is None else cleared
    _paint_native(picture, values, touched.get(index, ()))
    return values


def _packed(frames: Iterator[NDArray[Any]]) -> Iterator[Chunk]:
    """Yield frames of single bits without gaps (PS3.5 8.1.1)."""
    left = np.zeros(0, np.uint8)
    for frame in frames:
        bits = np.concatenate([left, frame])
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        left = bits[whole:]
    yield np.packbits(left, bitorder="little").tobytes()


def _words(frames: Iterator[bytes]) -> Iterator[Chunk]:
    """Yield bytes in big-endian words, which may begin in one frame and end in the next."""
    left = b""
    for frame in frames:
        joined = left + frame
        whole = len(joined) // 2 * 2
        yield np.frombuffer(joined[:whole], "<u2").astype(">u2").tobytes()
        left = joined[whole:]
    if left:
        yield b"\0" + left


def _even(chunks: Iterator[Chunk], total: int) -> Iterator[Chunk]:
    length = 0
    for chunk in chunks:
        length += len(chunk)
        yield chunk
    if total % 2 and length == total:
        yield b"\0"


# Frames in fragments.

Coder: TypeAlias = "Callable[[int, tuple[Box, ...]], Sequence[Chunk]]"


class _Frames:
    """The frames of an encapsulated picture without hidden text."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._known: dict[int, codestream.Cleaned] = {}
        notes: dict[str, None] = {}
        table, parts = encapsulation.fragments(picture.stored)
        if len(parts) != sum(map(len, picture.spans)) or table[1] - table[0] not in (0, 4 * picture.frames):
            notes[codestream.TRAILING_BYTES] = None
        self.lengths = []
        for index in range(picture.frames):
            cleaned = self._clean(index)
            notes |= dict.fromkeys(cleaned.found)
            self.lengths.append(sum(map(len, cleaned.pieces)))
            # Views of the source cost nothing to keep; frames joined or made anew are made again.
            if len(picture.spans[index]) == 1 and sum(len(p) for p in cleaned.pieces if isinstance(p, bytes)) < _SMALL:
                self._known[index] = cleaned
        notes.pop(codestream.UNKNOWN, None)
        self.notes = tuple(notes)

    def cleaned(self, index: int, boxes: tuple[Box, ...] = ()) -> Sequence[Chunk]:
        """Return a frame's pieces."""
        del boxes
        return (self._known.get(index) or self._clean(index)).pieces

    def _clean(self, index: int) -> codestream.Cleaned:
        picture = self._picture
        if not picture.is_coded:
            return _unwrapped(picture, index)
        return codestream.clean(
            memoryview(picture.coded(index)), picture.transfer_syntax, picture.rows * picture.columns
        )


def _recoded(
    picture: Picture, touched: Mapping[int, tuple[Box, ...]], coder: Coder, known: _Frames | None = None
) -> Blanked:
    """Return the picture in its own syntax, touched frames coded anew."""
    known = known or _Frames(picture)
    changes: dict[int, str | int | None] = {_EXTENDED_OFFSETS: None, _EXTENDED_LENGTHS: None}
    notes = known.notes
    notes += _cleared(touched)
    syntax = UID(picture.transfer_syntax)
    if touched and _REWRITTEN_AS.get(syntax, syntax) != syntax:
        notes += (STORED_LOSSLESS,)
    if touched and picture.photometric == "YBR_ICT":
        changes[_PHOTOMETRIC] = "YBR_RCT"
        touched = {index: touched.get(index, ()) for index in range(picture.frames)}
    return Blanked(
        _fragments(picture.frames, touched, known, coder),
        None,
        picture.transfer_syntax,
        {index: boxes for index, boxes in touched.items() if boxes},
        changes,
        notes,
    )


def _fragments(frames: int, touched: Mapping[int, tuple[Box, ...]], known: _Frames, coder: Coder) -> Iterator[Chunk]:
    # What is coded only later has no length yet; an empty table is always allowed (PS3.5 A.4).
    yield encapsulation.offset_table([] if touched else known.lengths)
    for index in range(frames):
        pieces = coder(index, touched[index]) if index in touched else known.cleaned(index)
        yield from encapsulation.item(pieces)


def _coder(picture: Picture, touched: Mapping[int, tuple[Box, ...]]) -> Coder | None:
    """Return what codes a blanked frame in the picture's own syntax, or None if nothing can.

    The first touched frame is tried, before anything is written.
    """
    if not touched:
        return lambda index, _: (picture.coded(index),)
    coder = _choice(picture)
    if coder is None:
        return None
    first = next(iter(touched))
    try:
        coded = coder(first, touched[first])
    except UnreadableInstance:
        return None
    return lambda index, boxes: coded if index == first else coder(index, boxes)


def _choice(picture: Picture) -> Coder | None:
    syntax = UID(picture.transfer_syntax)
    if not picture.is_coded:
        return lambda index, boxes: _wrapped(picture, index, boxes)
    if syntax in _LOSSY_JPEG:
        return lambda index, boxes: _redacted(picture, index, boxes)
    if syntax in _LOSSLESS_JPEG:
        return lambda index, boxes: _anew(picture, index, boxes, lossless_jpeg.encode)
    if syntax not in _REWRITTEN_AS:
        return None
    photometric = picture.photometric.replace("ICT", "RCT")
    layout = replace(picture.layout, transfer_syntax=_REWRITTEN_AS[syntax], photometric=photometric)
    if syntax == uid.RLELossless:
        layout = replace(layout, bits_stored=picture.bits_allocated)  # RLE codes whole bytes (PS3.5 annex G)

    def encode(samples: NDArray[Any], bits: int) -> bytes:
        del bits
        return transcoding.encode(samples, layout)

    return lambda index, boxes: _anew(picture, index, boxes, encode)


def _wrapped(picture: Picture, index: int, boxes: tuple[Box, ...]) -> Sequence[Chunk]:
    """Return a native frame that lies in a fragment, plain or deflated."""
    values = picture.native(index)
    cleared = _foreign_bits(picture, values)
    values = values.copy() if cleared is None else cleared
    _paint_native(picture, values, boxes)
    return _wrap(picture, values)


def _unwrapped(picture: Picture, index: int) -> codestream.Cleaned:
    """Return a native frame that lies in a fragment, less what is not of it."""
    values, raw = picture.native(index), picture.coded(index)
    found: tuple[str, ...] = ()
    if picture.transfer_syntax == DEFLATED_FRAMES:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        rest = inflate.decompress(raw, picture.frame_bytes + 1)[picture.frame_bytes :] + inflate.unused_data
    else:
        rest = bytes(raw[picture.frame_bytes :])
    if rest.strip(b"\0"):
        found += (codestream.TRAILING_BYTES,)
    if (cleared := _foreign_bits(picture, values)) is not None:
        found += (UNUSED_BITS,)
        values = cleared
    return codestream.Cleaned(tuple(_wrap(picture, values)) if found else (raw,), found)


def _wrap(picture: Picture, values: NDArray[Any]) -> Sequence[Chunk]:
    raw = np.packbits(values, bitorder="little") if picture.bits_allocated == 1 else values
    if picture.transfer_syntax != DEFLATED_FRAMES:
        return (raw.tobytes(),)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (deflate.compress(raw.tobytes()) + deflate.flush(),)


def _redacted(picture: Picture, index: int, boxes: tuple[Box, ...]) -> Sequence[Chunk]:
    """Return a JPEG frame whose blocks under the boxes are flat."""
    frame = codestream.clean(memoryview(picture.coded(index)), picture.transfer_syntax, picture.rows * picture.columns)
    light = picture.tone.inverted != (picture.tone.slope < 0)
    return (jpeg.redact(b"".join(frame.pieces), boxes, bright=light, ybr=picture.photometric.startswith("YBR")),)


def _anew(
    picture: Picture, index: int, boxes: tuple[Box, ...], encode: Callable[[NDArray[Any], int], bytes]
) -> Sequence[Chunk]:
    """Return a frame decoded, blanked and coded without loss; read back, as encoders have limits."""
    samples = _blanked(picture, index, boxes)
    coded = encode(samples, picture.bits_stored)
    photometric = picture.photometric.replace("ICT", "RCT")
    back, _ = replace(picture, photometric=photometric).read(coded)
    if not np.array_equal(back, samples):
        raise UnreadableInstance("PixelData: cannot be encoded")
    return (coded,)


def _blanked(picture: Picture, index: int, boxes: tuple[Box, ...]) -> NDArray[Any]:
    samples = np.array(picture.decode(index))
    if boxes:
        _paint(samples, boxes, _fill(picture, samples, picture.photometric_decoded))
    return samples


def _plain(picture: Picture, touched: Mapping[int, tuple[Box, ...]]) -> Blanked:
    """Return the picture uncompressed; in RLE if a value cannot be that long."""
    # What a stream says of its colour may differ from the header.
    photometric = picture.read(bytes(picture.coded(0)))[1] if picture.is_coded else picture.photometric_decoded
    changes: dict[int, str | int | None] = {_EXTENDED_OFFSETS: None, _EXTENDED_LENGTHS: None}
    changes[_PHOTOMETRIC] = photometric
    if picture.samples > 1:
        changes[_PLANAR] = 0
    if picture.transfer_syntax in _LOSSY_JPEG:
        changes[_LOSSY] = "01"  # PS3.3 C.7.6.1.1.5: once lossy, always said so
    blanked = {index: boxes for index, boxes in touched.items() if boxes}
    notes = _cleared(touched)
    frames = (_blanked(picture, index, touched.get(index, ())) for index in range(picture.frames))
    values = picture.frames * picture.rows * picture.columns * picture.samples
    total = (values * picture.bits_allocated + 7) // 8
    if total > _MAX_NATIVE_BYTES:
        changes[_TRANSFER_SYNTAX] = str(uid.RLELossless)
        layout = replace(
            picture.layout,
            transfer_syntax=uid.RLELossless,
            photometric=photometric,
            bits_stored=picture.bits_allocated,
        )
        chunks = _items(transcoding.encode(frame, layout) for frame in frames)
        return Blanked(chunks, None, uid.RLELossless, blanked, changes, (*notes, STORED_LOSSLESS))
    changes[_TRANSFER_SYNTAX] = str(uid.ExplicitVRLittleEndian)
    raw: Iterator[Chunk] = (frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes() for frame in frames)
    if picture.bits_allocated == 1:
        raw = _packed(frame.reshape(-1) for frame in frames)
    return Blanked(
        _even(raw, total),
        total + total % 2,
        uid.ExplicitVRLittleEndian,
        blanked,
        changes,
        (*notes, STORED_PLAIN),
        "OB" if picture.bits_allocated <= _BYTE else "OW",  # PS3.5 A.2
    )


def _items(frames: Iterator[bytes]) -> Iterator[Chunk]:
    yield encapsulation.offset_table([])
    for frame in frames:
        yield from encapsulation.item((frame,))
