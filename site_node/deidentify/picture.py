"""The frames of an instance, read where they lie: one at a time, never the whole in memory.

Gives a frame as it is stored, as samples, and as a person sees it. Does not change anything;
blanking.py does. Video is not read: such an instance waits for a person.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset

from site_node.deidentify import codestream, encapsulation, tone, transcoding
from site_node.deidentify.transcoding import FAULTS, UNDECODABLE
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from numpy.typing import NDArray

VIDEO = "video-not-readable"
UNKNOWN_SYNTAX = "transfer-syntax-not-readable"
TOO_LARGE = "frame-too-large"

_VIDEO = frozenset(
    {
        *uid.MPEGTransferSyntaxes,
        # PS3.6 annex A: fragmentable MPEG and HEVC; SMPTE ST 2110; JPIP, whose pixels are elsewhere.
        "1.2.840.10008.1.2.4.100.1",
        "1.2.840.10008.1.2.4.101.1",
        "1.2.840.10008.1.2.4.102.1",
        "1.2.840.10008.1.2.4.103.1",
        "1.2.840.10008.1.2.4.104.1",
        "1.2.840.10008.1.2.4.105.1",
        "1.2.840.10008.1.2.4.106.1",
        "1.2.840.10008.1.2.4.107",
        "1.2.840.10008.1.2.4.108",
        "1.2.840.10008.1.2.4.94",
        "1.2.840.10008.1.2.4.95",
        "1.2.840.10008.1.2.4.204",
        "1.2.840.10008.1.2.4.205",
        "1.2.840.10008.1.2.7.1",
        "1.2.840.10008.1.2.7.2",
        "1.2.840.10008.1.2.7.3",
    }
)
# Native frames inside fragments, plain or deflated (PS3.5 A.4.11, A.4.13).
ENCAPSULATED_NATIVE = "1.2.840.10008.1.2.1.98"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_NATIVE = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)
_CODED = frozenset(
    {
        *uid.JPEGTransferSyntaxes,
        *codestream.RETIRED_JPEG,
        *uid.JPEGLSTransferSyntaxes,
        *uid.JPEG2000TransferSyntaxes,
        *uid.RLETransferSyntaxes,
        ENCAPSULATED_NATIVE,
        DEFLATED_FRAMES,
    }
) - {
    # Part 2 of JPEG 2000: several components in one stream, which no codec here reads.
    "1.2.840.10008.1.2.4.92",
    "1.2.840.10008.1.2.4.93",
}
_JPEG = frozenset({*uid.JPEGTransferSyntaxes, *codestream.RETIRED_JPEG})
_RGB_WHEN_DECODED = frozenset({"YBR_ICT", "YBR_RCT"})
_YBR = frozenset({"YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"})
_HALF_CHROMA = "YBR_FULL_422"
PALETTE = "PALETTE COLOR"
_DEPTHS = frozenset({1, 8, 16, 32, 64})
_MAX_FRAME_BYTES = 1 << 30  # bounds memory whatever a header claims; the largest detectors need 1/20
_MAX_SIDE = 0xFFFF  # Rows and Columns are US
_COLOURS = 3
_BYTE = 8


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of stored pixels, half-open."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Picture:
    """The pixels of an instance; the fields are the attributes of those names.

    `stored` is the value of PixelData: never copied whole, and still compressed if it was.
    """

    stored: memoryview
    transfer_syntax: str
    frames: int
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    photometric: str
    planar_configuration: int
    floating: bool
    swapped: bool  # bytes were stored in big-endian words
    spans: tuple[tuple[encapsulation.Span, ...], ...]  # of each frame's fragments; empty if native
    tone: tone.Tone
    overlay_inside: bool  # the header says that a plane of graphics lies in unused bits

    @property
    def encapsulated(self) -> bool:
        """Return whether each frame lies in fragments."""
        return bool(self.spans)

    @property
    def subsampled(self) -> bool:
        """Return whether native pixels share their colour in pairs (PS3.3 C.7.6.3.1.2)."""
        return self.photometric == _HALF_CHROMA and not self.is_coded

    @property
    def is_coded(self) -> bool:
        """Return whether a codec is needed to read a frame."""
        return self.encapsulated and self.transfer_syntax not in (ENCAPSULATED_NATIVE, DEFLATED_FRAMES)

    @property
    def values(self) -> int:
        """Return the number of stored values in a native frame."""
        stored_samples = 2 if self.subsampled else self.samples
        return self.rows * self.columns * stored_samples

    @property
    def frame_bytes(self) -> int:
        """Return the length of a native frame; single bits are rounded up (frames may share a byte)."""
        return (self.values * self.bits_allocated + 7) // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of a stored native value."""
        size = max(1, self.bits_allocated // 8)
        order = ">" if self.transfer_syntax == uid.ExplicitVRBigEndian else "<"
        kind = "f" if self.floating else "i" if self.pixel_representation else "u"
        return np.dtype(f"{order}{kind}{size}")

    @property
    def layout(self) -> transcoding.Layout:
        """Return what a codec must know."""
        return transcoding.Layout(
            self.transfer_syntax,
            self.rows,
            self.columns,
            self.samples,
            self.bits_allocated,
            self.bits_stored,
            self.pixel_representation,
            self.photometric,
        )

    @property
    def photometric_decoded(self) -> str:
        """Return the photometric interpretation of what `decode` gives."""
        if self.photometric in _RGB_WHEN_DECODED:
            return "RGB"
        return "YBR_FULL" if self.photometric in _YBR else self.photometric

    def coded(self, index: int) -> bytes | memoryview:
        """Return a frame of an encapsulated picture as it lies there; joined if in several fragments."""
        parts = [self.stored[start:stop] for start, stop in self.spans[index]]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def native(self, index: int) -> NDArray[Any]:
        """Return the stored values of a native frame, one after the other, in place if they can be.

        Shape:  (value,); single bits come out as bytes of 0 and 1.
        Raises: UnreadableInstance.
        """
        if self.encapsulated:
            raw: bytes | memoryview = self.coded(index)
            if self.transfer_syntax == DEFLATED_FRAMES:
                raw = _inflate(raw, self.frame_bytes)
            start = 0
        elif self.bits_allocated == 1:
            # PS3.5 8.1.1: frames of single bits follow each other without a gap.
            first = index * self.values
            raw, start = self.stored[first // 8 : (first + self.values + 7) // 8], first % 8
        else:
            # Of bytes in big-endian words, a word may begin in the frame before.
            start = index * self.frame_bytes % 2 if self.swapped else 0
            raw = self.stored[index * self.frame_bytes - start :]
        if self.bits_allocated == 1:
            bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
            values = bits[start : start + self.values]
        elif len(raw) < self.frame_bytes:
            raise UnreadableInstance(UNDECODABLE)
        elif self.swapped:
            words = raw[: (start + self.frame_bytes + 1) // 2 * 2]
            values = np.frombuffer(words, ">u2").astype("<u2").view(np.uint8)[start : start + self.values]
        else:
            values = np.frombuffer(raw, self.dtype, self.values)
        if len(values) != self.values:
            raise UnreadableInstance(UNDECODABLE)
        return values

    def decode(self, index: int) -> NDArray[Any]:
        """Return the samples of a frame, without what lies in unused bits.

        Shape:  (row, column), or (row, column, sample) in colour.
        Raises: UnreadableInstance.
        Source: PS3.5 8.1.1.
        """
        return self._decode(index)[0]

    def view(self, index: int) -> NDArray[np.uint8]:
        """Return a frame as a person sees it.

        Shape:  (row, column), or (row, column, 3) in red, green and blue.
        Raises: UnreadableInstance.
        """
        samples, photometric = self._decode(index)
        if samples.ndim == 2:  # grey has no third axis  # noqa: PLR2004 -- grey has no third axis
            if photometric == PALETTE:
                return self.tone.colours(samples)
            return self.tone.grey(samples, self.bits_stored)
        colours = tone.to_bytes(samples, self.bits_stored)
        return tone.to_rgb(colours) if photometric in _YBR else colours

    def _decode(self, index: int) -> tuple[NDArray[Any], str]:
        if not 0 <= index < self.frames:
            raise ValueError("no such frame")
        if self.is_coded:
            return self.read(bytes(self.coded(index)))
        return self.arrange(self.meant(self.native(index))), self.photometric_decoded

    def read(self, coded: bytes) -> tuple[NDArray[Any], str]:
        """Return the samples of a coded frame, and their photometric interpretation.

        Raises: UnreadableInstance.
        """
        layout = self.layout
        if layout.transfer_syntax in codestream.RETIRED_JPEG:
            layout = replace(layout, transfer_syntax=uid.JPEGExtended12Bit)  # the codec reads the stream alone
        cleaned = codestream.clean(memoryview(coded), self.transfer_syntax, self.rows * self.columns)
        whole = codestream.MALFORMED not in cleaned.found
        if layout.transfer_syntax == uid.RLELossless:
            # The codec takes what follows the pixels for pixels, and dies of runs that go too far.
            if not whole:
                raise UnreadableInstance(UNDECODABLE)
            coded = b"".join(cleaned.pieces)
        # Codecs make room for what the stream claims.
        if (claim := codestream.claim(coded)) is not None:
            if claim.rows and (claim.rows, claim.columns) != (self.rows, self.columns):
                raise UnreadableInstance("PixelData: size of a frame differs from Rows and Columns")
            if claim.bits <= _BYTE < self.bits_allocated and self.transfer_syntax in _JPEG:
                layout = replace(layout, bits_allocated=_BYTE, bits_stored=min(_BYTE, self.bits_stored))
        samples, photometric = transcoding.decode(coded, layout, whole=whole)
        samples = samples.astype(self.dtype.newbyteorder("="), copy=False)
        # Without such a plane, a stream that uses more bits than its header says keeps them.
        return self.meant(samples) if self.overlay_inside else samples, photometric

    def meant(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return native values as their header means them: BitsStored up to HighBit, signed or not."""
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if self.floating or self.bits_stored == self.bits_allocated:
            return values
        left = self.bits_allocated - 1 - self.high_bit
        right = self.bits_allocated - self.bits_stored
        # A signed type fills from the left with its sign.
        shifted: NDArray[Any] = (values << left) >> right
        return shifted

    def arrange(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return native values as (row, column) or (row, column, sample); half colour is spread out."""
        if self.subsampled:
            pairs = values.reshape(self.rows, self.columns // 2, 4)
            luma = pairs[..., :2].reshape(self.rows, self.columns)
            blue, red = (np.repeat(pairs[..., part], 2, axis=1) for part in (2, 3))
            return np.stack([luma, blue, red], axis=-1)
        if self.samples == 1:
            return values.reshape(self.rows, self.columns)
        if self.planar_configuration:
            return np.moveaxis(values.reshape(self.samples, self.rows, self.columns), 0, -1)
        return values.reshape(self.rows, self.columns, self.samples)


def refusal(transfer_syntax: str) -> str | None:
    """Return why pixels of this transfer syntax are not read here, or None if they are."""
    if transfer_syntax in _VIDEO:
        return VIDEO
    return None if transfer_syntax in _NATIVE | _CODED else UNKNOWN_SYNTAX


def picture(
    ds: Dataset, stored: memoryview, *, transfer_syntax: str | None = None, words: bool | None = None
) -> Picture:
    """Return the pixels of `ds`, whose PixelData (or float pixel data) has the value `stored`.

    `ds` needs no PixelData of its own. An icon's item lacks file meta information: its
    `transfer_syntax` is told. `words` says whether PixelData's VR is OW, which moves bytes about in
    big endian; it is taken from `ds` if that has PixelData.
    Raises: UnreadableInstance naming the attribute; for what is not read here, `refusal`'s reason.
    Source: PS3.3 C.7.6.3 (image pixel), PS3.5 8.1 and annex A.
    """
    syntax = transfer_syntax or _text(getattr(ds, "file_meta", Dataset()), "TransferSyntaxUID")
    if (reason := refusal(syntax)) is not None:
        raise UnreadableInstance(reason)
    found = _describe(ds, memoryview(stored), syntax, words=words)
    if found.samples * found.rows * found.columns * max(1, found.bits_allocated // 8) > _MAX_FRAME_BYTES:
        raise UnreadableInstance(TOO_LARGE)
    if found.encapsulated:
        return found
    if len(stored) < (found.frames * found.values * found.bits_allocated + 7) // 8:
        raise UnreadableInstance("PixelData: shorter than Rows, Columns and NumberOfFrames")
    return found


def _describe(ds: Dataset, stored: memoryview, syntax: str, *, words: bool | None) -> Picture:
    frames = _number(ds, "NumberOfFrames", 1) or 1
    rows, columns = _number(ds, "Rows"), _number(ds, "Columns")
    samples = _number(ds, "SamplesPerPixel", 1)
    allocated = _number(ds, "BitsAllocated")
    floating = "BitsStored" not in ds and allocated in (32, 64)
    bits = allocated if floating else _number(ds, "BitsStored", allocated)
    high = bits - 1 if floating else _number(ds, "HighBit", bits - 1)
    signed = 0 if floating else _number(ds, "PixelRepresentation", 0)
    planar = _number(ds, "PlanarConfiguration", 0) if samples > 1 else 0
    photometric = _text(ds, "PhotometricInterpretation") or ("RGB" if samples == _COLOURS else "MONOCHROME2")
    for keyword, sound in (
        ("NumberOfFrames", frames > 0),
        ("Rows", 0 < rows <= _MAX_SIDE),
        ("Columns", 0 < columns <= _MAX_SIDE),
        ("SamplesPerPixel", samples in (1, _COLOURS)),
        ("BitsAllocated", allocated in _DEPTHS),
        ("BitsStored", 0 < bits <= allocated),
        ("HighBit", bits - 1 <= high < allocated),
        ("PixelRepresentation", signed in (0, 1)),
        ("PlanarConfiguration", planar in (0, 1)),
        ("PhotometricInterpretation", photometric != PALETTE or samples == 1),
    ):
        if not sound:
            raise UnreadableInstance(f"{keyword}: does not describe an image")
    encapsulated = syntax not in _NATIVE
    if photometric == _HALF_CHROMA and not encapsulated:
        # Some writers name the colour of the JPEG that the pixels came from.
        whole = frames * rows * columns * samples
        photometric = "YBR_FULL" if len(stored) >= whole or columns % 2 else photometric
    if words is None:
        words = "PixelData" in ds and ds["PixelData"].VR == "OW"
    return Picture(
        stored=stored,
        transfer_syntax=syntax,
        frames=frames,
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=allocated,
        bits_stored=bits,
        high_bit=high,
        pixel_representation=signed,
        photometric=photometric,
        planar_configuration=planar,
        floating=floating,
        swapped=words and syntax == uid.ExplicitVRBigEndian and allocated == _BYTE,
        spans=encapsulation.frames(stored, frames, _extended_offsets(ds, frames)) if encapsulated else (),
        overlay_inside=_has_overlay_inside(ds),
        tone=tone.tone(ds, inverted=photometric == "MONOCHROME1", coloured=photometric == PALETTE, signed=signed == 1),
    )


def _number(ds: Dataset, keyword: str, default: int | None = None) -> int:
    try:
        value = ds.get(keyword)
        if value is None or value == "":
            value = default
        return int(value)  # absent and required: a TypeError, as meant
    except FAULTS:
        raise UnreadableInstance(f"{keyword}: absent or not a number") from None


def _text(ds: Dataset, keyword: str) -> str:
    try:
        return str(ds.get(keyword) or "").strip()
    except FAULTS:
        raise UnreadableInstance(f"{keyword}: cannot be read") from None


def _has_overlay_inside(ds: Dataset) -> bool:
    """Return whether a plane of graphics lies in unused bits of PixelData (PS3.5 8.1.2)."""
    return any((group, 0x0010) in ds and (group, 0x3000) not in ds for group in range(0x6000, 0x6020, 2))


def _extended_offsets(ds: Dataset, frames: int) -> tuple[int, ...]:
    try:
        table = ds.get("ExtendedOffsetTable") or b""
    except FAULTS:
        return ()
    if not isinstance(table, bytes) or len(table) != 8 * frames:
        return ()
    return tuple(np.frombuffer(table, "<u8").tolist())


def _inflate(raw: bytes | memoryview, length: int) -> bytes:
    """Return a deflated frame, never more than it may hold."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, length + 1)[:length]
    except zlib.error:
        raise UnreadableInstance(UNDECODABLE) from None
