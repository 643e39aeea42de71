"""What to do with text that was drawn into a picture: what is blanked, what stays, what a person must see first.

Changes no pixel: blanking.py does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from scipy import ndimage

from site_node.deidentify.burned_in import Spot
from site_node.deidentify.kinds import Kind, kind, may_carry_text
from site_node.deidentify.picture import Box
from site_node.deidentify.text import harmless

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from site_node.deidentify.burned_in import Text
    from site_node.deidentify.identities import Identities
    from site_node.deidentify.picture import Picture

# Text in the picture.
#
# Layer 1, known regions: where a device is known to write the patient is blanked unseen; what lies outside of
# an ultrasound's image regions is the screen's own, where text is expected. Layer 2, detection: a network marks
# every place that looks like a line of text. Layer 3, recognition: only what reads as harmless stays.

BURNED_IN_DOUBTFUL = "burned-in-text-doubtful"

# How sure the detectors (spot) and the recogniser (words) are, 0..1. Measured on planted pictures: see the docs.
_WORD: Final = 0.55  # three letters read as surely as this were really there
_LETTER: Final = 0.88  # one or two letters
_LETTER_AGREED: Final = 0.6  # one or two letters where both networks see a line
_TRUSTED: Final = 0.78  # words this sure may stay, if they are harmless
_LINE: Final = 0.75  # a spot this sure is text although nothing can be read, if it has a line's shape
_ON_SCREEN: Final = 0.45  # the same outside of an ultrasound's image regions
_LONG: Final = 1.6  # a line without a readable letter is longer than high by this
_THICK: Final = 0.08  # share of the picture's longer side that no unreadable line is as thick as
_THICK_LEAST: Final = 24
_FAINT: Final = 20  # pixels; what nobody reads and one network alone sees is text only if thinner
_SURE_UNREAD: Final = 0.88  # and what is thicker only if seen as surely as this,
_SURE_ALONE: Final = 0.965  # and what one alone sees as this
_CERTAIN: Final = 0.97
_VERY_LONG: Final = 3.0
_WORDS_AGREED: Final = 0.4  # five letters and more where both networks see a line
_LITTLE: Final = 0.03  # share of the picture that is rather blanked than shown to a person
_SEVERAL: Final = 5  # letters, read as surely as this, were there however thick the spot that one network sees
_SQUARE: Final = (
    1.4  # what is less long than this is one letter at most; nobody is known by a letter that is unreadable
)
_BLOB: Final = 0.7
# A letter takes at most this share of a line's height, and its ends so much; boxes are a little higher than letters.
_WIDEST_LETTER: Final = 0.75
_ENDS: Final = 1.0
_NUMBERED: Final = re.compile(r"[^\W\d_]{2,}\d{3,}")  # MRN285: a word that runs into a number is an identifier's
_SENTENCE: Final = 7.0
_ROOM: Final = 0.25  # a letter takes at least this share of a line's height
# Blanked around a line that one network saw, as a share of its height, so that no edge of a letter stays; and pixels
# around any.
_RIM: Final = 0.12
_RIM_AGREED: Final = 0.06
_RIM_LEAST: Final = 1
_LENGTHEN: Final = 0.4  # added to either end of a line that one network saw, as a share of its height
_LENGTHEN_AGREED: Final = 0.3
# How far strokes are followed beyond a line's end: in strips of a share of its height, so many at most, while there are
# steps between neighbouring pixels as strong as this share of those inside, without the rim above and below.
_STRIP: Final = 0.4
_STRIPS: Final = 3
_AS_STRONG: Final = 0.65
_INNER: Final = 0.15
_BRIDGED: Final = 8.0  # times a line's height between two pieces of it
# Parts of one line: about as thick, beside each other by most of their height, closer than this share of it.
_AS_THICK: Final = 1.6
_BESIDE: Final = 0.6
_CLOSE: Final = 0.9

_PAPER: Final = 255
_BLOCK: Final = 16
_STILL: Final = 10  # grey levels a pixel may change between frames without being looked at again
_COVERED: Final = 0.8


class Sight(Protocol):
    """Finds and reads text: a `burned_in.Reader`."""

    def spots(self, view: NDArray[np.uint8], *, thorough: bool = True) -> tuple[Spot, ...]:
        """Return where lines of text may stand, and how surely."""
        ...

    def read(self, view: NDArray[np.uint8], boxes: Iterable[Box]) -> tuple[Text, ...]:
        """Return the words at each box."""
        ...


class Declared(Protocol):
    """A run of text that a page itself declares; half-open, in pixels of the view."""

    @property
    def box(self) -> Box:
        """Where it stands."""
        ...

    @property
    def text(self) -> str:
        """What it says."""
        ...


class Why(Enum):
    """Why a place is blanked; values are safe to show."""

    KNOWN_REGION = "known-region"
    IDENTITY = "reads-as-identity"
    TEXT = "reads-as-text"
    UNREADABLE = "text-not-readable"


class Sort(Enum):
    """What sort of harmless text was kept; values are safe to show."""

    MARKER = "marker"
    MEASURE = "measure"
    TECHNIQUE = "technique"


@dataclass(frozen=True, slots=True)
class Blank:
    """A place to blank on every frame."""

    box: Box
    why: Why


@dataclass(frozen=True, slots=True)
class Kept:
    """A place whose text stays."""

    box: Box
    sort: Sort


@dataclass(frozen=True, slots=True)
class Assessment:
    """What to do with the text in a picture. With `doubtful` places a person decides first."""

    blanks: tuple[Blank, ...]
    kept: tuple[Kept, ...]
    doubtful: tuple[Box, ...]

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The places to blank."""
        return tuple(blank.box for blank in self.blanks)


def assess(ds: Dataset, picture: Picture, identities: Identities, reader: Sight) -> Assessment:
    """Return what text the picture carries and what to do with it, all frames together.

    A later frame is looked at where it differs from the one before; a place found on any frame is blanked on all.
    Raises: UnreadableInstance if a frame cannot be decoded.
    Source: PS3.15 E.3.1 (Clean Pixel Data), PS3.3 C.8.5.5 (US Region Calibration).
    """
    judge = _Judge(identities, reader, _image_regions(ds), (picture.rows, picture.columns))
    for box in known_regions(ds, picture.rows, picture.columns):
        judge.blank(box, Why.KNOWN_REGION)
    thorough = _may_carry_graphics(ds)
    before: NDArray[np.uint8] | None = None
    for index in range(picture.frames):
        view = picture.view(index)
        if before is None:
            judge.look(view, reader.spots(view, thorough=thorough))
        else:
            change = _change(before, view)
            for box in _changed(change):
                part = view[box.top : box.bottom, box.left : box.right]
                spots = reader.spots(np.ascontiguousarray(part), thorough=False)
                moved = [Spot(_moved(spot.box, box.top, box.left), spot.score, spot.agreed) for spot in spots]
                # What stands as it stood on the frame before was judged there.
                judge.look(view, [spot for spot in moved if _most(change, spot.box) > _STILL])
        before = view
    return judge.assessment(picture.rows, picture.columns)


def blank_page(
    view: NDArray[np.uint8], words: Iterable[Declared], identities: Identities, reader: Sight
) -> NDArray[np.uint8]:
    """Return a page of a document without the words that are not harmless, be they declared by it or seen on it.

    Shape: `view` is (row, column, 3).
    """
    page = view.copy()
    for word in words:
        if not harmless(word.text, identities):
            page[word.box.top : word.box.bottom, word.box.left : word.box.right] = _PAPER
    rows, columns = page.shape[:2]
    judge = _Judge(identities, reader, (), (rows, columns))
    judge.look(page, reader.spots(page))
    found = judge.assessment(rows, columns)
    for box in (*found.boxes, *found.doubtful):
        page[box.top : box.bottom, box.left : box.right] = _PAPER
    return page


def known_regions(ds: Dataset, rows: int, columns: int) -> tuple[Box, ...]:
    """Return where the device that made `ds` is known to write the patient into pictures of this size."""
    device = tuple(str(ds.get(name, "") or "").strip().lower() for name in ("Manufacturer", "ManufacturerModelName"))
    return _masks().get((str(ds.get("Modality", "")), *device, str(rows), str(columns)), ())


def known_sizes() -> Iterator[tuple[tuple[int, int], tuple[Box, ...]]]:
    """Return every known picture size (rows, columns) with its boxes."""
    for key, boxes in _masks().items():
        yield (int(key[-2]), int(key[-1])), boxes


@cache
def _masks() -> dict[tuple[str, ...], tuple[Box, ...]]:
    text = (resources.files("site_node.deidentify") / "tables" / "masks.tsv").read_text("utf-8")
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            *key, boxes = line.split("\t")
            found[tuple(key)] = tuple(Box(*map(int, box.split(","))) for box in boxes.split())
    return found


class _Judge:
    """Decides place by place, and remembers."""

    def __init__(self, identities: Identities, reader: Sight, regions: tuple[Box, ...], shape: tuple[int, int]) -> None:
        self._identities, self._reader, self._regions = identities, reader, regions
        self._thick = max(_THICK * max(shape), _THICK_LEAST)
        self._area = shape[0] * shape[1]
        self._alone: set[Box] = set()
        self._blanks: list[Blank] = []
        self._kept: list[Kept] = []
        self._doubtful: list[Box] = []

    def blank(self, box: Box, why: Why) -> None:
        self._blanks.append(Blank(box, why))

    def look(self, view: NDArray[np.uint8], spots: Iterable[Spot]) -> None:
        """Judge each spot of a frame that is not already blanked."""
        before = len(self._blanks)
        for spot in spots:
            if any(_covers(blank.box, spot.box) for blank in self._blanks):
                continue
            thin, long = sorted((spot.box.bottom - spot.box.top, spot.box.right - spot.box.left))
            if spot.agreed and long >= _SENTENCE * thin and thin <= self._thick:
                # No marker is as long, so nobody needs to read it.
                self.blank(spot.box, Why.TEXT)
                continue
            (text,) = self._reader.read(view, (spot.box,))
            self._judge(spot, text)
        for index in range(before, len(self._blanks)):
            old = self._blanks[index]
            whole = _to_its_ends(view, old.box)
            self._blanks[index] = Blank(whole, old.why)
            if old.box in self._alone:
                self._alone.add(whole)

    def _judge(self, spot: Spot, text: Text) -> None:
        if not spot.agreed:
            self._alone.add(spot.box)
        unsure = not spot.agreed and spot.score < _LINE and text.confidence < _TRUSTED
        words = text.words if self._is_read(spot, text) and not unsure else ""
        if words and self._identities.resembles(words):
            self.blank(spot.box, Why.IDENTITY)
        elif words and text.confidence >= _TRUSTED and _is_whole(spot.box, words) and self._is_harmless(words):
            self._kept.append(Kept(spot.box, _sort(words)))
        elif words:
            self.blank(spot.box, Why.TEXT)
        elif spot.score >= (_LINE if self._in_image(spot.box) else _ON_SCREEN):
            self._judge_unreadable(spot)

    def _judge_unreadable(self, spot: Spot) -> None:
        thin, long = sorted((spot.box.bottom - spot.box.top, spot.box.right - spot.box.left))
        on_screen = not self._in_image(spot.box)
        if not on_screen:
            if not spot.agreed and thin > _FAINT:
                # The network is certain of a line that nobody can read: rare, and nothing to decide by machine.
                if spot.score >= _CERTAIN and long >= _VERY_LONG * thin:
                    self._doubtful.append(spot.box)
                return
            if (not spot.agreed or thin > _FAINT) and spot.score < (_SURE_UNREAD if spot.agreed else _SURE_ALONE):
                return
        is_line = thin <= self._thick and (
            long >= _LONG * thin or (spot.agreed and (on_screen or long >= _SQUARE * thin))
        )
        is_little = spot.agreed and (on_screen or (long >= _SQUARE * thin and thin * long <= _LITTLE * self._area))
        if is_line or is_little:
            self.blank(spot.box, Why.UNREADABLE)
        elif spot.agreed and long >= _SQUARE * thin:
            self._doubtful.append(spot.box)

    def _is_read(self, spot: Spot, text: Text) -> bool:
        """Return whether the words were really there: a recogniser reads a letter into any blob."""
        letters = sum(map(str.isalnum, text.words))
        thin, long = sorted((spot.box.bottom - spot.box.top, spot.box.right - spot.box.left))
        if not letters or long < _ROOM * letters * thin:
            return False
        if thin > self._thick and not spot.agreed:
            return letters >= _SEVERAL and text.confidence >= _BLOB
        if letters > 2:  # noqa: PLR2004 - one or two letters are a marker
            return text.confidence >= (_WORDS_AGREED if spot.agreed and letters >= _SEVERAL else _WORD)
        return text.confidence >= (_LETTER_AGREED if spot.agreed else _LETTER)

    def _is_harmless(self, words: str) -> bool:
        return _NUMBERED.search(words) is None and harmless(words, self._identities)

    def _in_image(self, box: Box) -> bool:
        return not self._regions or any(_area(_common(region, box)) > 0 for region in self._regions)

    def assessment(self, rows: int, columns: int) -> Assessment:
        texts = {blank.box for blank in self._blanks if blank.why is not Why.KNOWN_REGION}
        # What reads as harmless beside something that goes may be a part of it: the MRN of MRN 123.
        kept = list(dict.fromkeys(self._kept))
        while (part := next((one for one in kept if any(_in_line(one.box, box) for box in texts)), None)) is not None:
            kept.remove(part)
            texts.add(part.box)
            self.blank(part.box, Why.TEXT)
        # What was harmless on one frame may be overwritten by a name on another.
        kept = [one for one in kept if not any(_covers(blank.box, one.box) for blank in self._blanks)]
        blanks = [Blank(_padded(blank.box, rows, columns, *self._margins(blank)), blank.why) for blank in self._blanks]
        blanks += [Blank(box, Why.TEXT) for box in _bridges([box for box in texts if box in self._alone], texts)]
        return Assessment(tuple(dict.fromkeys(blanks)), tuple(kept), tuple(dict.fromkeys(self._doubtful)))

    def _margins(self, blank: Blank) -> tuple[float, float]:
        """Return the rim and what a line is lengthened by; what two networks saw is surer."""
        if blank.why is Why.KNOWN_REGION:
            return _RIM, 0.0
        return (_RIM, _LENGTHEN) if blank.box in self._alone else (_RIM_AGREED, _LENGTHEN_AGREED)


def _is_whole(box: Box, words: str) -> bool:
    """Return whether the words fill their box; what was read of a part says nothing about the rest."""
    thin, long = sorted((box.bottom - box.top, box.right - box.left))
    return long <= (_WIDEST_LETTER * len(words) + _ENDS) * thin


def _to_its_ends(view: NDArray[np.uint8], box: Box) -> Box:
    """Return the box of a line, longer where strokes like its own go on beyond its ends."""
    high, wide = box.bottom - box.top, box.right - box.left
    if high > wide:
        turned = _to_its_ends(view.swapaxes(0, 1), Box(box.left, box.top, box.right, box.bottom))
        return Box(turned.left, turned.top, turned.right, turned.bottom)
    step, rim = max(round(_STRIP * high), 2), round(_INNER * high)
    left, right = max(box.left - _STRIPS * step - 1, 0), min(box.right + _STRIPS * step + 1, view.shape[1])
    line = view[box.top + rim : box.bottom - rim, left:right].astype(np.int16)
    strokes = np.abs(np.diff(line, axis=1)).reshape(line.shape[0], right - left - 1, -1).max(axis=(0, 2))
    inside = strokes[box.left - left : box.right - left]
    if wide < _LONG * high or not inside.size:
        return box
    enough = _AS_STRONG * float(np.percentile(inside, 75))
    first, last = box.left - left, box.right - left - 1
    while first > 0 and last - first < strokes.size and strokes[max(first - step, 0) : first].max() > enough:
        first = max(first - step, 0)
    while last < strokes.size and strokes[last : last + step].max(initial=0) > enough:
        last = min(last + step, strokes.size)
    return Box(box.top, min(left + first, box.left), box.bottom, max(left + last, box.right))


def _bridges(pieces: Iterable[Box], texts: Iterable[Box]) -> Iterator[Box]:
    """Return what lies between a piece of a line that one network saw and the other pieces of that line."""
    others = list(texts)
    for piece in pieces:
        for other in others:
            if other != piece and _in_line(piece, other, far=_BRIDGED):
                yield Box(
                    min(piece.top, other.top),
                    min(piece.left, other.left),
                    max(piece.bottom, other.bottom),
                    max(piece.right, other.right),
                )


def _in_line(one: Box, two: Box, far: float = 0) -> bool:
    """Return whether two boxes are parts of one line: as thick, one after the other, and close."""
    thin, thick = sorted(min(box.bottom - box.top, box.right - box.left) for box in (one, two))
    beside = min(one.bottom, two.bottom) - max(one.top, two.top), min(one.right, two.right) - max(one.left, two.left)
    longer = max((one, two), key=lambda box: max(box.bottom - box.top, box.right - box.left))
    flat = longer.right - longer.left >= longer.bottom - longer.top
    across, along = beside if flat else beside[::-1]
    # A line that stands is no part of one that lies, though it begins where the other ends.
    spread = (
        max(one.bottom, two.bottom) - min(one.top, two.top)
        if flat
        else max(one.right, two.right) - min(one.left, two.left)
    )
    return (
        spread <= _AS_THICK * thick + 2 * _RIM_LEAST
        and thick <= _AS_THICK * thin
        and across >= _BESIDE * thin
        and along >= -max(_CLOSE, far) * thick
    )


def _sort(words: str) -> Sort:
    if len(words) <= 2:  # noqa: PLR2004 - L, R, LT, AP
        return Sort.MARKER
    return Sort.MEASURE if any(map(str.isdigit, words)) else Sort.TECHNIQUE


def _may_carry_graphics(ds: Dataset) -> bool:
    """Return whether the picture deserves every magnification; a plain slice is looked at once, at its own size."""
    return kind(ds) is not Kind.SECTION or may_carry_text(ds)


def _image_regions(ds: Dataset) -> tuple[Box, ...]:
    """Return the parts of an ultrasound's screen that show the body (PS3.3 C.8.5.5.1.1: both corners included)."""
    found = []
    for region in ds.get("SequenceOfUltrasoundRegions") or ():
        names = ("RegionLocationMinY0", "RegionLocationMinX0", "RegionLocationMaxY1", "RegionLocationMaxX1")
        edges = [region.get(name) for name in names]
        if all(isinstance(edge, int) for edge in edges):
            found.append(Box(edges[0], edges[1], edges[2] + 1, edges[3] + 1))
    return tuple(found)


def _change(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return by how many grey levels each pixel differs between two frames.

    Shape: (row, column).
    """
    change = np.maximum(before, now) - np.minimum(before, now)
    return change.max(axis=2) if change.ndim == 3 else change  # noqa: PLR2004 - colour


def _most(change: NDArray[np.uint8], box: Box) -> int:
    return int(change[box.top : box.bottom, box.left : box.right].max(initial=0))


def _changed(change: NDArray[np.uint8]) -> Iterator[Box]:
    """Return the parts of a frame that differ from the one before, with a margin for whole letters."""
    rows, columns = change.shape
    more = -rows % _BLOCK, -columns % _BLOCK
    blocks = np.pad(change, ((0, more[0]), (0, more[1]))).reshape(
        (rows + more[0]) // _BLOCK, _BLOCK, (columns + more[1]) // _BLOCK, _BLOCK
    )
    moved = ndimage.binary_dilation(blocks.max(axis=(1, 3)) > _STILL, np.ones((3, 5), bool), iterations=2)
    marks, _ = ndimage.label(moved, np.ones((3, 3), bool))
    for down, across in ndimage.find_objects(marks):
        yield Box(
            down.start * _BLOCK,
            across.start * _BLOCK,
            min(down.stop * _BLOCK, rows),
            min(across.stop * _BLOCK, columns),
        )


def _moved(box: Box, down: int, across: int) -> Box:
    return Box(box.top + down, box.left + across, box.bottom + down, box.right + across)


def _padded(box: Box, rows: int, columns: int, rim_share: float, lengthen: float) -> Box:
    """Return the box with a rim; a line is lengthened, since its first or last letter is the one that is missed."""
    high, wide = box.bottom - box.top, box.right - box.left
    rim = _RIM_LEAST + round(rim_share * min(high, wide))
    more = round(lengthen * min(high, wide))
    down = rim + (more if high > _LONG * wide else 0)
    across = rim + (more if wide > _LONG * high else 0)
    return Box(
        max(box.top - down, 0),
        max(box.left - across, 0),
        min(box.bottom + down, rows),
        min(box.right + across, columns),
    )


def _area(box: Box) -> int:
    return max(box.bottom - box.top, 0) * max(box.right - box.left, 0)


def _common(one: Box, two: Box) -> Box:
    return Box(max(one.top, two.top), max(one.left, two.left), min(one.bottom, two.bottom), min(one.right, two.right))


def _covers(hidden: Box, box: Box) -> bool:
    return _area(_common(hidden, box)) >= _COVERED * _area(box)
