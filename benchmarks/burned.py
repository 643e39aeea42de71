"""Pictures with text burned in, as DICOM files of many kinds; and what a tool left of the text.

A character survives if more than a share of its contrast is left, whatever a reader makes of it; Tesseract then reads
every place once more, as a second opinion. Backgrounds are pydicom's test images, where they show no text.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import warnings
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from scipy import ndimage

from tests.planted.bases import CR, DX, MG, NM, SC, XA, picture
from tests.planted.burned import IDENTITY, SURVIVES, fonts, plant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from tests.planted.burned import Drawn, Pixels

US, US_MULTI, MR = "6.1", "3.1", "4"
# Those of Debian's fonts that are installed; Pillow's own comes always.
FONTS: Final = tuple(
    Path("/usr/share/fonts/truetype") / family
    for family in ("dejavu", "freefont", "hack", "lato", "liberation", "open-sans", "roboto", "tuffy")
)
# Test images, and the part of each that shows no text: rows and columns.
BACKGROUNDS: Final = (
    ("RG1_UNCR.dcm", (0, 1955), (0, 1841)),
    ("RG3_UNCR.dcm", (0, 1300), (0, 1100)),
    ("MR2_UNCR.dcm", (0, 1024), (0, 1024)),
    ("693_UNCR.dcm", (0, 512), (0, 512)),
    ("MR-SIEMENS-DICOM-WithOverlays.dcm", (0, 484), (0, 484)),
    ("JPEG2000_UNC.dcm", (0, 1024), (0, 256)),
    ("US1_UNCR.dcm", (150, 270), (85, 565)),
    ("JPGLosslessP14SV1_1s_1f_8b.dcm", (160, 480), (330, 680)),
    ("examples_ybr_color.dcm", (20, 190), (60, 240)),
)
# SOP class, modality, how many frames, the syntax, and how a grey value is stored.
KINDS: Final = (
    (US, "US", 1, "", "RGB"),
    (US_MULTI, "US", 3, "", "RGB"),
    (SC, "OT", 1, "", "MONOCHROME2"),
    (CR, "CR", 1, "", "MONOCHROME1"),
    (DX, "DX", 1, JPEG2000Lossless, "MONOCHROME2"),
    (XA, "XA", 3, "", "MONOCHROME2"),
    (MG, "MG", 1, JPEGLSLossless, "MONOCHROME1"),
    (US, "US", 1, RLELossless, "RGB"),
    (SC, "OT", 1, JPEGBaseline8Bit, "MONOCHROME2"),
    (MR, "MR", 1, "", "12 bits"),
    (NM, "NM", 1, "", "12 bits"),
    (SC, "OT", 1, JPEG2000Lossless, "RGB"),
)
_CANVAS: Final = (480, 640)  # rows and columns of a console's screen
_LONGEST: Final = 1024
_READ: Final = 0.6  # share of the characters that Tesseract has to get right


@dataclass(frozen=True, slots=True)
class Page:
    """One file and the strings in it; without any it is clean. `exact` says whether its syntax keeps every value."""

    name: str
    drawn: tuple[Drawn, ...]
    exact: bool


@dataclass(slots=True)
class Left:
    """What one tool left of the strings, in the files that it wrote."""

    outputs: int = 0
    identities: int = 0
    hidden: int = 0
    held: int = 0
    characters: int = 0
    characters_left: int = 0
    read_before: int = 0
    read_after: int = 0
    harmless: int = 0
    harmless_kept: int = 0
    clean: int = 0
    clean_touched: int = 0
    clean_held: int = 0
    exact: int = 0
    changed_outside: int = 0
    survivors: list[str] = field(default_factory=list)  # the file, the direction, height and contrast of each


def write(folder: Path, seed: int, planted: int, clean: int) -> list[Page]:
    """Write so many files with text and without, and return what was drawn; the same seed writes the same."""
    rng, faces = np.random.default_rng(seed), fonts(FONTS)
    folder.mkdir(parents=True)
    pages = []
    for number in range(planted + clean):
        view = _background(number, rng)
        drawn: tuple[Drawn, ...] = ()
        suffix, modality, frames, syntax, stored = KINDS[(number // 2) % len(KINDS)]
        if stored == "RGB" and view.ndim == 2:  # noqa: PLR2004 -- grey
            view = np.repeat(view[..., None], 3, axis=2)
        if stored != "RGB" and view.ndim > 2:  # noqa: PLR2004 -- colour
            view = view.mean(axis=2).astype(np.uint8)
        if number < planted:
            view, drawn = plant(view, rng, faces, identities=4, harmless=2)
        name = f"{'planted' if drawn else 'clean'}-{number:03}.dcm"
        _file(view, suffix, modality, frames, syntax, stored, number).save_as(folder / name, enforce_file_format=True)
        pages.append(Page(name, drawn, syntax != JPEGBaseline8Bit))
    return pages


def left(originals: Path, outputs: Mapping[str, Path], pages: list[Page], held: frozenset[str], *, read: bool) -> Left:
    """Return what is left in `outputs`, by the names of the originals; `read` asks Tesseract too."""
    found = Left()
    for page in pages:
        found.identities += sum(one.kind == IDENTITY for one in page.drawn)
        if page.name in held:
            found.held += sum(one.kind == IDENTITY for one in page.drawn)
            found.clean_held += not page.drawn
        found.clean += not page.drawn
        if page.name not in outputs:
            continue
        found.outputs += 1
        before, after = _frames(originals / page.name), _frames(outputs[page.name])
        if after is None or before is None or before.shape != after.shape:
            found.changed_outside += 1
            continue
        if not page.drawn:
            found.clean_touched += not np.array_equal(before, after)
        for one in page.drawn:
            _string(found, page, one, before, after, read=read)
    return found


def _string(found: Left, page: Page, one: Drawn, before: NDArray[Any], after: NDArray[Any], *, read: bool) -> None:
    alive = max(survivors(one, was, now) for was, now in zip(before, after, strict=True))
    if one.kind != IDENTITY:
        found.harmless += 1
        found.harmless_kept += alive >= (1 - SURVIVES) * one.characters
        return
    found.characters += one.characters
    found.characters_left += alive
    found.hidden += alive == 0
    if alive:
        found.survivors.append(
            f"{page.name} {one.place} {one.height} px, contrast {one.contrast:.0f}, {alive} characters"
        )
    if read and reader() is not None:
        was, now = (_is_read(one, frames[0]) for frames in (before, after))
        found.read_before += was
        found.read_after += now


def survivors(one: Drawn, before: NDArray[Any], after: NDArray[Any]) -> int:
    """Return how many characters keep more than a share of their contrast to what is around them.

    Shape: frames of (row, column) or (row, column, sample).
    """
    top, left_, bottom, right = one.box
    was, now = (frame[top:bottom, left_:right].reshape(bottom - top, right - left_, -1) for frame in (before, after))
    ground = one.letters == 0
    alive = 0
    for index in range(1, int(one.letters.max()) + 1):
        ink = one.letters == index
        around = ndimage.binary_dilation(ink, iterations=3) & ground
        if ink.any() and around.any():
            kept, had = (np.abs(part[ink].mean(axis=0) - part[around].mean(axis=0)).max() for part in (now, was))
            alive += bool(had > 0 and kept > SURVIVES * had)
    return alive


@cache
def reader() -> str | None:
    """Return where Tesseract is, if it is installed."""
    return shutil.which("tesseract")


def _is_read(one: Drawn, frame: NDArray[Any]) -> bool:
    """Return whether Tesseract can read the string where it stands."""
    top, left_, bottom, right = one.box
    rim = 6
    part = frame[max(top - rim, 0) : bottom + rim, max(left_ - rim, 0) : right + rim].astype(np.float32)
    part = part if part.ndim == 2 else part.max(axis=2)  # noqa: PLR2004 -- grey
    turned = np.rot90(part, -("upright", "left", "down", "right").index(one.place))
    low, high = float(turned.min()), float(turned.max())
    grey = ((turned - low) / max(high - low, 1.0) * 255).astype(np.uint8)
    grey = 255 - grey if np.median(grey) < 128 else grey  # noqa: PLR2004 -- dark letters on white, as on paper
    scale = max(1, round(40 / max(one.height, 1)))
    image = Image.fromarray(grey).resize((grey.shape[1] * scale, grey.shape[0] * scale), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG")
    done = subprocess.run(
        [reader() or "tesseract", "-", "-", "--psm", "7"],
        input=file.getvalue(),
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
    )
    said = "".join(filter(str.isalnum, done.stdout.decode(errors="replace").lower()))
    words = "".join(filter(str.isalnum, one.words.lower()))
    return SequenceMatcher(None, words, said, autojunk=False).ratio() >= _READ


def _frames(path: Path) -> NDArray[Any] | None:
    """Return the frames of a file as numbers, or None where they cannot be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(path, force=True)
            values = ds.pixel_array.astype(np.float32)
        except (ValueError, RuntimeError, AttributeError, NotImplementedError, KeyError):
            return None
    return values if int(ds.get("NumberOfFrames") or 1) > 1 else values[None]


def _background(number: int, rng: np.random.Generator) -> Pixels:
    """Return a picture without text: a body filling it, or on the dark screen of a console."""
    name, rows, columns = BACKGROUNDS[number % len(BACKGROUNDS)]
    part = _views(name)[slice(*rows), slice(*columns)]
    step = -(-max(part.shape[:2]) // _LONGEST)
    part = part[::step, ::step]
    if rng.random() < 0.5:  # noqa: PLR2004 -- every other one from the other side
        part = part[:, ::-1]
    if part.shape[0] >= _CANVAS[0] * 0.75:
        return np.ascontiguousarray(part)
    screen = np.zeros((*_CANVAS, *part.shape[2:]), np.uint8)
    top, left_ = ((room - size) // 2 for room, size in zip(_CANVAS, part.shape[:2], strict=True))
    screen[top : top + part.shape[0], left_ : left_ + part.shape[1]] = part
    return screen


@cache
def _views(name: str) -> Pixels:
    """Return a test image's first frame as a person sees it."""
    path = get_testdata_file(name)
    if not isinstance(path, str):
        raise FileNotFoundError(name)
    ds = pydicom.dcmread(path)
    values = ds.pixel_array
    values = values[0] if int(ds.get("NumberOfFrames") or 1) > 1 else values
    if values.ndim > 2:  # noqa: PLR2004 -- colour
        return np.asarray(values, np.uint8)
    low, high = np.percentile(values, (0.5, 99.5))
    grey = np.clip((values - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
    shown: Pixels = 255 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey
    return shown


def _file(view: Pixels, suffix: str, modality: str, frames: int, syntax: str, stored: str, number: int) -> Dataset:
    """Return the view as an image of a class, stored in a way."""
    values: NDArray[Any] = 255 - view if stored == "MONOCHROME1" else view
    if stored == "12 bits":
        values = view.astype(np.uint16) * 16
    ds = picture(
        suffix, modality, np.stack([values] * frames), BodyPartExamined="ABDOMEN", PatientName="Beispiel^Berta"
    )
    if stored == "MONOCHROME1":
        ds.PhotometricInterpretation = stored
    ds.PatientID, ds.StudyInstanceUID = f"MRN-{number:05}", f"1.2.826.0.1.3680043.10.1.{number}"
    ds.SeriesInstanceUID, ds.SOPInstanceUID = f"{ds.StudyInstanceUID}.1", f"{ds.StudyInstanceUID}.1.1"
    ds.ConversionType = "WSD"
    if syntax == JPEGBaseline8Bit:
        file = io.BytesIO()
        Image.fromarray(view).save(file, "JPEG", quality=92)
        ds.PixelData = encapsulate([file.getvalue()])
        ds["PixelData"].VR, ds.LossyImageCompression = "OB", "01"
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    elif syntax:
        ds.compress(syntax, generate_instance_uid=False)
    return ds
