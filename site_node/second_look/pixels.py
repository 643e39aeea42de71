"""Words seen in pixels by a reader that the first pass does not use: the tesseract program.

Reads a few frames as a person would see them, what never changes between frames, and every page of a document. Does
not find faces.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from dataclasses import dataclass
from functools import cache
from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO, RawIOBase
from typing import TYPE_CHECKING, cast

import numpy as np
import pydicom
import pypdfium2
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import EncapsulatedPDFStorage

from site_node.errors import ConfigurationError, UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from _typeshed import WriteableBuffer
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from site_node.second_look.said import Said

# What pydicom raises for what it cannot decode.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
PROGRAM = "tesseract"
_PAGE_DPI = 200  # a text of 6 points is 17 pixels high
_TIMEOUT_S = 120
_MAX_FRAMES = 6
_MIN_SIDE, _MAX_SIDE = 1000, 4000  # pixels; small images are enlarged, as tesseract wants 30 pixels a line
_MIN_CONFIDENCE = 30
_MIN_WORD, _TOLERANT, _VERY_TOLERANT = 4, 5, 9
_MIN_NUMBER = 5
# Letters that stand for digits in what a reader returns.
_DIGITS = str.maketrans("oOQDlIi|zZsSbBgq", "0000111122558899"[:16])
_DATE = re.compile(r"(?<!\d)(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d{2}|(?:19|20)\d{2}[./-]\d{1,2}[./-]\d{1,2})(?!\d)")


@dataclass(frozen=True, slots=True)
class Word:
    """A word that was read, with the reader's confidence in percent."""

    text: str
    confidence: float


class Reader:
    """Reads words by the tesseract program.

    Raises: ConfigurationError if there is none: a second look at pixels that looks at nothing is worse than none.
    """

    def __init__(self) -> None:
        found = shutil.which(PROGRAM)
        if found is None:
            raise ConfigurationError(
                f"second look: the program {PROGRAM} is not installed; install it, or switch reading of pixels off"
            )
        self._program = found

    def read(self, image: NDArray[np.uint8]) -> list[Word]:
        """Return the words seen in an image of (row, column) or (row, column, 3)."""
        file = BytesIO()
        Image.fromarray(_scaled(image)).save(file, "PNG", compress_level=1)
        arguments = [self._program, "stdin", "stdout", "--psm", "11", "-l", "eng", "tsv"]
        try:
            done = subprocess.run(  # noqa: S603 -- a fixed program, no shell; the image goes in by its standard input
                arguments,
                input=file.getvalue(),
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
                env={"OMP_THREAD_LIMIT": "1", "PATH": ""},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnreadableInstance("the second look's reader did not answer") from error
        if done.returncode != 0:
            raise UnreadableInstance("the second look's reader failed")
        return list(_parsed(done.stdout.decode("utf-8", "replace")))


@cache
def reader() -> Reader:
    """Return the reader of this process."""
    return Reader()


def _scaled(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    longest = max(image.shape[:2])
    factor = _MIN_SIDE / longest if longest < _MIN_SIDE else min(1.0, _MAX_SIDE / longest)
    if factor == 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _parsed(table: str) -> Iterator[Word]:
    for line in table.splitlines()[1:]:
        cells = line.split("\t")
        if len(cells) > 11 and cells[11].strip():  # noqa: PLR2004 -- tesseract's TSV has 12 columns
            confidence = float(cells[10])
            if confidence >= _MIN_CONFIDENCE:
                yield Word(cells[11].strip(), confidence)


class Window(RawIOBase):
    """A buffer as a file that is never copied whole."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer, self._at = buffer, 0

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def tell(self) -> int:
        """Return the place that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Go to a place."""
        start = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: len(self._buffer)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, into: WriteableBuffer) -> int:
        """Copy the next bytes."""
        out = memoryview(into).cast("B")
        part = self._buffer[self._at : self._at + len(out)]
        out[: len(part)] = part
        self._at += len(part)
        return len(part)


def views(buffer: memoryview, most: int = _MAX_FRAMES) -> Iterator[NDArray[np.uint8]]:
    """Yield what a person sees: `most` frames, and for a cine what is bright or dark in all of it; the pages of a PDF.

    Raises: UnreadableInstance if the frames cannot be decoded or the pages rendered.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            file = Window(buffer)
            ds = pydicom.dcmread(file, force=True, stop_before_pixels=True)
            if ds.get("SOPClassUID") == EncapsulatedPDFStorage:
                yield from _pages(ds.EncapsulatedDocument)
            if "Rows" not in ds:
                return
            file.seek(0)
            frames = int(ds.get("NumberOfFrames") or 1)
            step = max(1, -(-frames // most))
            lowest: NDArray[np.uint8] | None = None
            for frame in iter_pixels(cast("BinaryIO", file), raw=False, indices=list(range(0, frames, step))):
                seen = _seen(frame, ds)
                lowest = seen if lowest is None else np.minimum(lowest, seen)
                yield seen
            if frames > 1 and lowest is not None:
                yield lowest
        except UNREADABLE as error:
            raise UnreadableInstance("the second look cannot decode the pixels") from error


def _pages(document: bytes) -> Iterator[NDArray[np.uint8]]:
    with pypdfium2.PdfDocument(document) as opened:
        for page in opened:
            yield np.asarray(page.render(scale=_PAGE_DPI / 72, grayscale=True).to_pil())


def _seen(frame: NDArray[np.generic], ds: Dataset) -> NDArray[np.uint8]:
    if ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        frame = apply_color_lut(frame, ds)
    values = frame.astype(np.float32)
    low, high = np.percentile(values, (0.5, 99.8))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = ((values - low) / max(high - low, 1e-6)).clip(0, 1) * 255
    if ds.get("PhotometricInterpretation") == "MONOCHROME1":
        scaled = 255 - scaled
    seen: NDArray[np.uint8] = scaled.astype(np.uint8)
    return seen


def identifying(read: list[Word], said: Said) -> set[str]:
    """Return the kinds of what words in pixels say of a person."""
    kinds = set()
    names = [
        name
        for name, kind in said.alone.items()
        if kind == "name" and name.isascii() and name.isalpha() and len(name) >= _MIN_WORD
    ]
    numbers = [number for number in said.alone if sum(map(str.isdigit, number)) >= _MIN_NUMBER]
    for word in read:
        letters = re.sub(r"[^a-z]", "", word.text.lower())
        if len(letters) >= _MIN_WORD and any(_alike(letters, name) for name in names):
            kinds.add("name")
        digits = re.sub(r"\D", "", word.text.translate(_DIGITS))
        if len(digits) >= _MIN_NUMBER and any(_alike(digits, re.sub(r"\D", "", number)) for number in numbers):
            kinds.add("identifier")
        if _DATE.search(word.text) or digits in said.days:
            kinds.add("date")
    return kinds


def _alike(read: str, said: str) -> bool:
    """Return whether `read` is `said` with at most one misread character, or two in a long word."""
    if len(said) < _TOLERANT:
        return read == said
    if said in read:
        return True
    most = 2 if len(said) >= _VERY_TOLERANT else 1
    return abs(len(read) - len(said)) <= most and _distance(read, said, most) <= most


def _distance(one: str, other: str, most: int) -> int:
    """Return the edit distance, or anything larger than `most` once it is larger."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != against))
        if min(row) > most:
            return most + 1
    return row[-1]
