"""What a person sees of stored values: the grey or colour that a viewer would show.

A viewer's window hides what lies outside of it, and burned-in text often lies at the extremes. The
curve used here therefore mixes the window that the file asks for with the frame's own range, so
that text has contrast in either. Made for looking, never for storing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

from site_node.deidentify.transcoding import FAULTS, quiet
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

_WHITE = 255.0
# Shares of the curve: what the file asks for, the bulk of the frame, the frame's whole range.
_ASKED, _BULK, _RANGE = 0.5, 0.4, 0.1
_TAIL_PERCENT = 0.5  # what counts as the extremes of a frame
_SAMPLED = 1 << 18  # values a percentile is taken of
_TABLE_BITS = 16  # deeper values are computed one by one
_BYTE = 8
_FULL_LUT = 1 << 16  # PS3.3 C.11.1.1: a count of 0 entries means this many


@dataclass(frozen=True, slots=True)
class Tone:
    """How an instance's stored values become what is seen."""

    inverted: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    modality: NDArray[np.float64] | None = None  # values of a modality LUT, from `modality_first` on
    modality_first: int = 0
    asked: NDArray[np.float64] | None = None  # (2, n): modality values and the grey asked for, 0..1
    palette: NDArray[np.uint8] | None = None  # (entry, 3)
    palette_first: int = 0
    padding: tuple[int, int] | None = None  # stored values without meaning, both included

    def grey(self, samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
        """Return a grey frame as a person sees it."""
        if samples.dtype.kind == "f":
            return self._curve(np.nan_to_num(samples.astype(np.float64)), samples, bits)
        low, high = int(samples.min()), int(samples.max())
        if high - low >= 1 << _TABLE_BITS:
            return self._curve(samples.astype(np.float64), samples, bits)
        # As many computations as there are values, not pixels.
        table = self._curve(np.arange(low, high + 1, dtype=np.float64), samples, bits)
        return np.take(table, samples.astype(np.int64) - low if low else samples)

    def colours(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the colours of a frame of palette entries."""
        if self.palette is None:
            raise UnreadableInstance("RedPaletteColorLookupTableData: absent")
        entries = np.clip(samples.astype(np.int64) - self.palette_first, 0, len(self.palette) - 1)
        return self.palette[entries]

    def _modality(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.modality is None:
            return values * self.slope + self.intercept
        entries = np.clip(values - self.modality_first, 0, len(self.modality) - 1).astype(np.int64)
        return self.modality[entries]

    def _curve(self, values: NDArray[np.float64], samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
        step = max(1, samples.size // _SAMPLED)
        seen = samples.reshape(-1)[::step].astype(np.float64)
        extremes = np.array([samples.min(), samples.max()], dtype=np.float64)
        if self.padding is not None:
            kept = seen[(seen < self.padding[0]) | (seen > self.padding[1])]
            seen = kept if kept.size else seen
        seen, extremes, values = (self._modality(np.nan_to_num(part)) for part in (seen, extremes, values))
        bulk = np.percentile(seen, [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
        shares = [(_BULK, _ramp(values, *bulk)), (_RANGE, _ramp(values, extremes.min(), extremes.max()))]
        if self.asked is not None:
            shares.append((_ASKED, np.interp(values, *self.asked)))
        elif bits <= _BYTE and samples.dtype.kind in "ui":
            lowest = -(1 << bits >> 1) if samples.dtype.kind == "i" else 0
            ends = self._modality(np.array([lowest, lowest + (1 << bits) - 1], np.float64))
            shares.append((_ASKED, _ramp(values, ends.min(), ends.max())))  # shown as it is
        else:
            shares.append((_ASKED, _ramp(values, *bulk)))
        curve: NDArray[np.float64] = np.sum([share * part for share, part in shares], axis=0)
        return np.rint(_WHITE * (1 - curve if self.inverted else curve)).astype(np.uint8)


def tone(ds: Dataset, *, inverted: bool, coloured: bool, signed: bool) -> Tone:
    """Return how the values of `ds` are shown; `coloured` where they are entries of a palette.

    Raises: UnreadableInstance if a palette is needed and cannot be read.
    Source: PS3.4 annex N (rendering), PS3.3 C.7.6.3.1.5, C.11.1, C.11.2.
    """
    if coloured:
        palette, first = _palette(ds, signed=signed)
        return Tone(palette=palette, palette_first=first)
    inverted = inverted or ds.get("PresentationLUTShape") == "INVERSE"
    try:
        with quiet():
            slope, intercept = _rescale(ds)
            modality, first = _modality_lut(ds, signed=signed)
            return Tone(inverted, slope, intercept, modality, first, _asked(ds), padding=_padding(ds))
    except FAULTS:
        return Tone(inverted)  # only the view is poorer


def to_rgb(ybr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB of YBR_FULL samples.

    Source: PS3.3 C.7.6.3.1.2 (ITU-R BT.601).
    """
    y, blue, red = (ybr[..., index].astype(np.float32) for index in range(3))
    blue, red = blue - 128, red - 128
    rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=-1)
    seen: NDArray[np.uint8] = np.rint(np.clip(rgb, 0, _WHITE)).astype(np.uint8)
    return seen


def to_bytes(samples: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return colour samples of any depth as bytes."""
    if bits <= _BYTE:
        return samples.astype(np.uint8)
    top = int(samples.max())
    # A header may promise more bits than the samples use.
    bits = max(_BYTE, min(bits, top.bit_length()))
    return (samples >> (bits - _BYTE)).astype(np.uint8)


def _ramp(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    if high <= low:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (high - low), 0, 1)


def _group(ds: Dataset, keyword: str) -> Dataset:
    """Return where an enhanced image keeps a macro, the first frame's; else `ds` itself.

    Source: PS3.3 C.7.6.16 (functional groups).
    """
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        macro = next((item.get(keyword) for item in ds.get(groups) or ()), None)
        if macro:
            found: Dataset = macro[0]
            return found
    return ds


def _rescale(ds: Dataset) -> tuple[float, float]:
    group = _group(ds, "PixelValueTransformationSequence")
    slope, intercept = float(group.get("RescaleSlope") or 1), float(group.get("RescaleIntercept") or 0)
    return slope, intercept


def _modality_lut(ds: Dataset, *, signed: bool) -> tuple[NDArray[np.float64] | None, int]:
    if not ds.get("ModalityLUTSequence"):
        return None, 0
    count, first = _extent(ds.ModalityLUTSequence[0].LUTDescriptor, signed=signed)
    table = apply_modality_lut(np.arange(first, first + count), ds)
    return np.asarray(table, dtype=np.float64), first


def _asked(ds: Dataset) -> NDArray[np.float64] | None:
    """Return the curve that the file asks for, as points, or None."""
    group = _group(ds, "FrameVOILUTSequence")
    centres, widths = _several(group.get("WindowCenter")), _several(group.get("WindowWidth"))
    if centres and widths:
        centre, half = centres[0], max(widths[0], 1.0) / 2
        return np.array([[centre - half, centre + half], [0.0, 1.0]])
    if not ds.get("VOILUTSequence"):
        return None
    count, first = _extent(ds.VOILUTSequence[0].LUTDescriptor, signed=int(ds.get("PixelRepresentation") or 0) == 1)
    inputs = np.arange(first, first + count)
    greys = np.asarray(apply_voi(inputs, ds), dtype=np.float64)
    spread = greys.max() - greys.min()
    return np.array([inputs, (greys - greys.min()) / spread]) if spread else None


def _several(value: Any) -> list[float]:  # pydicom's values have no type  # noqa: ANN401 -- pydicom's values have no type
    if value is None or value == "":
        return []
    return [float(value)] if isinstance(value, int | float | str) else [float(part) for part in value]


def _padding(ds: Dataset) -> tuple[int, int] | None:
    value = ds.get("PixelPaddingValue")
    if value is None:
        return None
    limit = ds.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    return ends[0], ends[1]


def _extent(descriptor: Any, *, signed: bool) -> tuple[int, int]:  # as above  # noqa: ANN401 -- pydicom's values have no type
    """Return how many entries a LUT has and the stored value of its first."""
    count, first = int(descriptor[0]) & 0xFFFF or _FULL_LUT, int(descriptor[1])
    if signed:
        first = (first & 0xFFFF ^ 0x8000) - 0x8000
    return count, first


def _palette(ds: Dataset, *, signed: bool) -> tuple[NDArray[np.uint8], int]:
    try:
        with quiet():
            count, first = _extent(ds.RedPaletteColorLookupTableDescriptor, signed=signed)
            colours = apply_color_lut(np.arange(first, first + count), ds)[..., :3]
    except FAULTS:
        raise UnreadableInstance("RedPaletteColorLookupTableData: cannot be read") from None
    # Some devices write 8 bits into tables that they declare to have 16.
    deep = colours.dtype.itemsize > 1 and int(colours.max()) > _WHITE
    return (colours >> _BYTE if deep else colours).astype(np.uint8), first
