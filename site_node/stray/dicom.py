"""A DICOM file: its attributes, nested and private ones too, its preamble and bulk, its pixels and overlays."""

from __future__ import annotations

import re
import struct
import warnings
from typing import TYPE_CHECKING, cast

import numpy as np
import pydicom

from site_node.errors import UnreadableInstance
from site_node.second_look import reading
from site_node.second_look.pixels import UNREADABLE, Window, views
from site_node.stray.finding import Sort
from site_node.stray.pieces import DAMAGED, Fault, Piece, View
from site_node.stray.texts import strings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from site_node.second_look.reading import File, Spoken
from site_node.stray.pieces import Here, Part

_PREAMBLE = 128
_MAX_BULK = 1 << 20
_ITEMS, _HEAD, _TAIL = 64, 2048, 1024  # fragments of compressed pixels, and how much of each is looked at
_BULK = frozenset(("UN", "OB", "OW", "OD", "OF", "OL", "OV"))
_SILENT = frozenset(("UI", "DS", "IS", "AS", "TM", "DT"))  # numbers, times and names of things
_TERSE = frozenset(("CS", "AE"))  # codes and titles are no language
_NO_TEXT = frozenset((
    "PixelData", "OverlayData", "FloatPixelData", "DoubleFloatPixelData", "WaveformData", "CurveData",
    "AudioSampleData", "SpectroscopyData", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "ICCProfile", "LUTData",
))  # fmt: skip
_PATIENTS = frozenset((
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson",
    "PatientAlternativeNames",
))  # fmt: skip
_OVERLAY = re.compile(r"OverlayData|\(60[0-9A-F]{2},3000\)")
_DOCUMENT = "EncapsulatedDocument"
# Sections that a scanner computes show no text; what was drawn, photographed or captured may.
_COMPUTED = frozenset(("CT", "MR", "PT", "NM", "SEG", "RTDOSE"))


def is_dicom(head: bytes) -> bool:
    """Return whether a file begins as one does, with or without a preamble. Source: PS3.10 7.1."""
    if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return True
    group, element = struct.unpack_from("<HH", head.ljust(4, b"\xff"))
    return group in (2, 8) and element < 0x20 and (head[4:6].isalpha() or head[6:8] == b"\0\0")  # noqa: PLR2004 -- what data sets begin with


def dicom(content: memoryview, here: Here, pictures: str) -> Iterator[Part]:
    """Yield what a DICOM file says; `pictures` is `none`, `suspect` or `all`."""
    try:
        file = reading.read(content)
    except UnreadableInstance:
        yield Fault(here.trail, DAMAGED)
        yield from strings(content[:_MAX_BULK], here)
        return
    for one in file.spoken:
        yield from _said(one, here)
    if bytes(content[_PREAMBLE : _PREAMBLE + 4]) == b"DICM" and any(content[:_PREAMBLE]):
        yield from strings(content[:_PREAMBLE], here, "preamble, byte", Sort.PROSE)
    yield from _bulk(content, file, here)
    if pictures == "all" or (pictures == "suspect" and _may_show_text(file.spoken)):
        yield from _seen(content, file, here)


def _said(one: Spoken, here: Here) -> Iterator[Piece]:
    if one.vr in _SILENT:
        return
    label = one.keyword
    if one.vr == "PN":
        label = "PatientName" if one.keyword in _PATIENTS else "PhysicianName"
    for value in one.values:
        if value:
            yield Piece(here.at(one.path), value, label, Sort.BYTES if one.vr in _TERSE else Sort.PROSE)


def _bulk(content: memoryview, file: File, here: Here) -> Iterator[Part]:
    """Yield letters in values that are no text, in compressed frames' heads, and behind the pixels."""
    if file.deflated:
        return
    ends = (*file.extents[1:], None)
    for extent, after in zip(file.extents, ends, strict=True):
        stop = after.start if after is not None else len(content)
        value = content[extent.start : stop]
        if extent.keyword == _DOCUMENT:
            yield from here.within(_DOCUMENT, value[12:])
        elif extent.keyword in _NO_TEXT or _OVERLAY.fullmatch(extent.keyword) or len(value) > _MAX_BULK:
            continue
        elif extent.vr in _BULK or (extent.vr == "SQ" and b"UN\0\0" in bytes(value)):
            yield from strings(value, here, f"{extent.keyword}, byte")
    start, stop = file.pixels
    if stop > start and bytes(content[start : start + 4]) == b"\xfe\xff\x00\xe0":
        for at in _fragments(content, start, stop):
            yield from strings(content[at : at + _HEAD], here, "PixelData, byte")
        yield from strings(content[max(start, stop - _TAIL) : stop], here, "PixelData's end, byte")
    if stop < len(content) and (not file.extents or file.extents[-1].start < stop):
        yield from strings(content[stop : stop + _MAX_BULK], here, "behind the pixels, byte")


def _fragments(content: memoryview, at: int, stop: int) -> Iterator[int]:
    for _ in range(_ITEMS):
        if at + 8 > stop:
            return
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        yield at + 8
        at += 8 + length


def _may_show_text(spoken: tuple[Spoken, ...]) -> bool:
    first = {one.keyword: one.values for one in reversed(spoken) if not one.parents}
    if first.get("BurnedInAnnotation", ("",))[0] == "YES":
        return True
    if first.get("PatientIdentityRemoved", ("",))[0] == "YES" and first.get("BurnedInAnnotation", ("",))[0] == "NO":
        return False
    captured = "ConversionType" in first or "SECONDARY" in first.get("ImageType", ())
    return captured or first.get("Modality", ("",))[0] not in _COMPUTED


def _seen(content: memoryview, file: File, here: Here) -> Iterator[Part]:
    if file.pixels[1] > file.pixels[0]:
        try:
            for number, view in enumerate(views(content), 1):
                yield View(here.at(f"pixels, view {number}"), view)
        except UnreadableInstance:
            yield Fault(here.at("pixels"), "pixels cannot be decoded")
    if any(_OVERLAY.fullmatch(extent.keyword) for extent in file.extents):
        yield from _overlays(content, here)


def _overlays(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield planes of graphics as a person sees them. Source: PS3.3 C.9.2."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(cast("BinaryIO", Window(content)), force=True, stop_before_pixels=True)
            for group in range(0x6000, 0x6020, 2):
                if (group, 0x3000) in ds:
                    plane = np.asarray(ds.overlay_array(group))
                    for frame in plane.reshape(-1, *plane.shape[-2:])[:1]:
                        yield View(here.at(f"overlay {group:04X}"), (frame > 0).astype(np.uint8) * 255)
    except UNREADABLE:
        yield Fault(here.at("overlay"), "overlay cannot be decoded")
