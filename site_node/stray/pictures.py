"""Photographs and scans: EXIF, XMP, IPTC and other comments, and what a person would see."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from site_node.second_look.pixels import Window
from site_node.stray.markup import xml
from site_node.stray.pieces import DAMAGED, NOT_ALL_SEEN, TOO_LARGE, Fault, LeftOut, Piece, View
from site_node.stray.texts import ELSE_LATIN, appended, mixed, strings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.stray.pieces import Here, Part

_MAX_PIXELS = 60_000_000
_MAX_SIDE = 2200
_MAX_SHRINK = 4  # times; letters of a larger picture are too small to be read
_DEEP = frozenset(("I;16", "I;16B", "I;16L", "I", "F"))  # more than 8 bits for each pixel
_EDGE = 1 << 14  # bytes at each end that are looked at as those of fields
_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_WIDE_TAGS = range(0x9C9B, 0x9CA0)  # XPTitle to XPSubject: UTF-16
_COMMENTS = ("comment", "Comment", "Description")
_XML = ("xmp", "XML:com.adobe.xmp")
_FAULTS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    Image.DecompressionBombError,
    MemoryError,
)


def picture(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield what a picture says and shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(cast("BinaryIO", Window(content))) as opened:
                yield from _told(opened, here)
                if here.looks:
                    yield from _seen(opened, here)
                else:
                    yield LeftOut("pictures")
        except (UnidentifiedImageError, *_FAULTS):
            yield Fault(here.trail, DAMAGED)
    yield from strings(content[:_EDGE], here)
    end = max(_EDGE, len(content) - _EDGE)
    yield from mixed(content[_EDGE:end], here, "byte of the middle")
    yield from strings(content[end:], here, "byte of the end")
    yield from appended(content, here)


def _told(opened: Image.Image, here: Here) -> Iterator[Part]:
    exif = opened.getexif()
    for ifd in (dict(exif), *(exif.get_ifd(which) for which in _IFDS)):
        for tag, value in ifd.items():
            yield from _value(tag, value, here, "EXIF")
    if exif.get_ifd(ExifTags.IFD.GPSInfo).get(ExifTags.GPS.GPSLatitude):
        yield Piece(here.at("EXIF GPS"), "latitude and longitude", "GPS address")
    fields: dict[Any, Any] = dict(opened.info)
    if isinstance(opened, PngImagePlugin.PngImageFile):
        fields |= opened.text
    for name, value in fields.items():
        raw = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else b""
        if name in _XML and raw:
            yield from xml(memoryview(raw), here)
        elif isinstance(value, str) or name in _COMMENTS:
            yield Piece(here.at(f"field {name}"), raw.decode("utf-8", ELSE_LATIN), str(name))
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        yield from _tiff(opened, here)


def _tiff(opened: TiffImagePlugin.TiffImageFile, here: Here) -> Iterator[Piece]:
    for frame in range(opened.n_frames):
        opened.seek(frame)
        for tag, value in opened.tag_v2.items():
            yield from _value(tag, value, here, f"image {frame + 1}, field")
    opened.seek(0)


def _value(tag: int, value: Any, here: Here, what: str) -> Iterator[Piece]:  # noqa: ANN401 -- whatever a tag holds
    name = ExifTags.TAGS.get(tag, f"{tag:#06x}")
    if isinstance(value, bytes):
        raw = value.replace(b"\0", b"") if tag not in _WIDE_TAGS else value
        text = raw.decode("utf-16-le" if tag in _WIDE_TAGS else "utf-8", ELSE_LATIN)
        if sum(map(str.isprintable, text)) < 0.8 * len(text):
            return
    elif isinstance(value, str):
        text = value
    else:
        return
    for line in text.replace("|", "\n").strip("\0 ").split("\n"):
        if line.strip():
            yield Piece(here.at(f"{what} {name}"), line.strip("\0 "), name)


def _seen(opened: Image.Image, here: Here) -> Iterator[Part]:
    frames = getattr(opened, "n_frames", 1)
    for frame in range(min(frames, here.budget.limits.pictures)):
        opened.seek(frame)
        place = here.at("pixels" if frame == 0 else f"pixels of image {frame + 1}")
        if opened.width * opened.height > _MAX_PIXELS or max(opened.size) > _MAX_SHRINK * _MAX_SIDE:
            yield Fault(place, TOO_LARGE)
            continue
        image = _of_bytes(opened)
        image.thumbnail((_MAX_SIDE, _MAX_SIDE))
        yield View(place, np.asarray(image))
    if frames > here.budget.limits.pictures:
        yield Fault(here.at("pixels"), NOT_ALL_SEEN)


def _of_bytes(opened: Image.Image) -> Image.Image:
    """Return the picture with 8 bits for each value, and no value of a deep one cut off."""
    if opened.mode not in _DEEP:
        return opened.convert("L" if opened.mode in ("1", "L") else "RGB")
    values = np.asarray(opened, dtype=np.float32)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return Image.fromarray(np.nan_to_num((values - low) / max(high - low, 1e-6) * 255).astype(np.uint8))
