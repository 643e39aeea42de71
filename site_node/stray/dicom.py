"""A DICOM file: its attributes, nested and private ones too, its preamble and bulk, its pixels and overlays."""

from __future__ import annotations

import re
import struct
import warnings
from typing import TYPE_CHECKING, cast

import numpy as np
import pydicom
from pydicom.uid import ImplicitVRLittleEndian

from site_node.errors import UnreadableInstance
from site_node.second_look import reading
from site_node.second_look.pixels import UNREADABLE, Window, views
from site_node.stray.finding import Sort
from site_node.stray.pieces import DAMAGED, NOT_ALL_SEEN, TOO_LARGE, Fault, LeftOut, Piece, View
from site_node.stray.texts import among_numbers, packed, strings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from site_node.second_look.reading import File, Spoken
from site_node.stray.pieces import Here, Part

_PREAMBLE = 128
_HEAD, _TAIL = 2048, 1024  # bytes of each fragment of compressed pixels that may hold comments
# Segments for applications and comments. Source: ITU-T T.81 table B.1 (APPn, COM), T.800 table A.2 (COM).
_COMMENTS = re.compile(rb"\xff[\xe0-\xef\xfe\x64]")
_BULK = frozenset(("UN", "OB", "OW", "OD", "OF", "OL", "OV"))
_SILENT = frozenset(("UI", "DS", "IS", "AS", "TM", "DT"))  # numbers, times and names of things
_TERSE = frozenset(("CS", "AE"))  # codes and titles are no language
_PIXELS = frozenset(("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
_NUMBERS = frozenset((
    "OverlayData", "WaveformData", "CurveData", "AudioSampleData", "SpectroscopyData", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "ICCProfile", "LUTData",
))  # fmt: skip
# A value of bytes or of long text in a sequence: its VR and two bytes of zero. Source: PS3.5 7.1.2.
_NESTED = re.compile(rb"(?:UN|O[BDFLVW]|UT|UC)\0\0")
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


def dicom(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield what a DICOM file says, and what it shows as far as pictures are looked at."""
    try:
        file = reading.read(content)
    except UnreadableInstance:
        yield Fault(here.trail, DAMAGED)
        yield from strings(content, here)
        return
    for one in file.spoken:
        yield from _said(one, here)
    if bytes(content[_PREAMBLE : _PREAMBLE + 4]) == b"DICM" and any(content[:_PREAMBLE]):
        yield from strings(content[:_PREAMBLE], here, "preamble, byte", Sort.PROSE)
    yield from _bulk(content, file, here)
    if here.pictures == "all" or (here.looks and _may_show_text(file.spoken)):
        yield from _seen(content, file, here)
    elif _has_pixels(file):
        yield LeftOut("pixels that a scanner computed or de-identification looked at" if here.looks else "pixels")


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
        yield from _deflated(content, file, here)
        return
    ends = (*file.extents[1:], None)
    for extent, after in zip(file.extents, ends, strict=True):
        stop = after.start if after is not None else len(content)
        value, what = content[extent.start : stop], f"{extent.keyword}, byte"
        if extent.keyword == _DOCUMENT:
            # PS3.5 7.1.2 and 7.1.3: the head of a value has 12 bytes where it names its VR, else 8.
            yield from here.within(_DOCUMENT, value[12 if bytes(value[4:6]).isalpha() else 8 :])
        elif extent.keyword in _PIXELS:
            continue
        elif extent.keyword in _NUMBERS or _OVERLAY.fullmatch(extent.keyword):
            yield from among_numbers(value, here, what)
        elif extent.vr in _BULK or len(value) > reading.MAX_VALUE:
            yield from strings(value, here, what)
            yield from packed(value, here)
        elif extent.vr == "SQ":
            yield from _nested(value, file, here, what)
    yield from _pixel_bytes(content, file, here)


def _deflated(content: memoryview, file: File, here: Here) -> Iterator[Part]:
    try:
        for number, window in enumerate(reading.inflated(content, file.extents[-1].start), 1):
            yield from strings(memoryview(window), here, f"data set, window {number}, byte")
    except UnreadableInstance:
        yield Fault(here.trail, TOO_LARGE)


def _nested(value: memoryview, file: File, here: Here, what: str) -> Iterator[Part]:
    """Yield letters in bytes within a sequence: all where it tells that there are bytes, else as among numbers."""
    if _NESTED.search(value):
        yield from strings(value, here, what)
    elif file.syntax == ImplicitVRLittleEndian:
        yield from among_numbers(value, here, what)


def _pixel_bytes(content: memoryview, file: File, here: Here) -> Iterator[Part]:
    start, stop = file.pixels
    if stop > start and bytes(content[start : start + 4]) == b"\xfe\xff\x00\xe0":
        for at in _fragments(content, start, stop):
            if _COMMENTS.search(content[at : at + _HEAD]):
                yield from strings(content[at : at + _HEAD], here, "PixelData, byte")
        yield from strings(content[max(start, stop - _TAIL) : stop], here, "PixelData's end, byte")
    if here.looks:
        yield from among_numbers(content[start:stop], here, "PixelData, byte")
    if stop < len(content) and (not file.extents or file.extents[-1].start < stop):
        yield from strings(content[stop:], here, "behind the pixels, byte")
        yield from packed(content[stop:], here)


def _fragments(content: memoryview, at: int, stop: int) -> Iterator[int]:
    while at + 8 <= stop:
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


def _has_pixels(file: File) -> bool:
    """Return whether a file has pixels; what is deflated may have some."""
    return file.deflated or file.pixels[1] > file.pixels[0]


def _frames(spoken: tuple[Spoken, ...]) -> int:
    said = next((one.values[0] for one in spoken if one.keyword == "NumberOfFrames" and not one.parents), "1")
    return int(said) if said.isdecimal() else 1


def _seen(content: memoryview, file: File, here: Here) -> Iterator[Part]:
    if _has_pixels(file):
        try:
            for number, view in enumerate(views(content, here.budget.limits.pictures), 1):
                yield View(here.at(f"pixels, view {number}"), view)
        except UnreadableInstance:
            yield Fault(here.at("pixels"), "pixels cannot be decoded")
        if _frames(file.spoken) > here.budget.limits.pictures:
            yield Fault(here.at("pixels"), NOT_ALL_SEEN)
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
                    frames = np.unique(plane.reshape(-1, *plane.shape[-2:]), axis=0)
                    for frame in frames[: here.budget.limits.pictures]:
                        yield View(here.at(f"overlay {group:04X}"), (frame > 0).astype(np.uint8) * 255)
                    if len(frames) > here.budget.limits.pictures:
                        yield Fault(here.at(f"overlay {group:04X}"), NOT_ALL_SEEN)
    except UNREADABLE:
        yield Fault(here.at("overlay"), "overlay cannot be decoded")
