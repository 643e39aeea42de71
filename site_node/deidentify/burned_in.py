"""Finds and reads text that was drawn into a picture.

Two networks look, because each misses what the other sees: the detector of RapidOCR's package at the
size of a screen, and a small one of ours (`weights/text.onnx`, made by tools/text_detector) at the
picture's own size, where letters of eight pixels and faint ones are still there. Reading is RapidOCR's
recogniser; of that package the files are used alone. Deliberately knows nothing of what may stay: that
is `pixels`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort
from PIL import Image
from scipy import ndimage

from site_node.deidentify.picture import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Floats = npt.NDArray[np.float32]

DETECTOR: Final = Path(__file__).parent / "weights" / "text.onnx"
_PACKAGE: Final = "rapidocr"
_RECOGNISER: Final = "PP-OCRv6_rec_small.onnx"
_SCREEN_DETECTOR: Final = "PP-OCRv6_det_small.onnx"

# A line's core counts from here on, and the text around it grows as far as this.
_CORES: Final = (0.35, 0.6, 0.8)
_TALLEST: Final = 48  # cells; a core thicker than the network ever learnt is several: a higher threshold parts them
_BOX: Final = 0.35
_MOST: Final = 0.5
_PART: Final = 4  # cells; a thinner part of something thick is no line
_STRIDE: Final = 2
# How far the detector learnt to inset a core, as a share of the core's shorter side: 0.25 / (1 - 2 * 0.25).
_INSET: Final = 0.5
_MULTIPLE: Final = 16
# Pictures under the first number of pixels are looked at in double size; over the others in half and quarter.
_SMALL: Final = 300_000
_LARGE: Final = 700
_HUGE: Final = 1500
_TINY: Final = 256
_LEAST: Final = 12  # pixels; in a picture that is lower or narrower nothing can be read
_ANYTHING: Final = 0.35
_SOMETHING: Final = 0.5
_ALONE: Final = 0.75  # what our network alone sees is worth reading from here on
_ALONE_LINE: Final = 0.6
_SAME: Final = 0.3  # boxes that share this much of the smaller one, and are not much thicker, are one
_THICKER: Final = 2.2
_GROWS: Final = 1.6
_DEEP: Final = 0.5
# Where both see a line, the other network's box is the closer one, unless ours is thicker by the first factor; ours
# reaches beyond the last letter by about the second, as a share of the other's thickness.
_CLOSER: Final = 1.7
_BEYOND: Final = 0.6

# The screen's detector: how it was trained to see colours, and how its maps become boxes (Liao et al. 2020,
# "Real-time Scene Text Detection with Differentiable Binarization", with thresholds for faint text).
_SCREEN: Final = 640  # the longest side it is shown
_SCREEN_MULTIPLE: Final = 32
_SCREEN_MEAN: Final = np.array((123.675, 116.28, 103.53), np.float32)
_SCREEN_SPREAD: Final = np.array((58.395, 57.12, 57.375), np.float32)
_SCREEN_CORES: Final = (0.2, 0.5, 0.8)
_SCREEN_SURE: Final = 0.4
_SCREEN_INSET: Final = 0.55
_SCREEN_TALLEST: Final = 0.4  # share of the shorter side; what is thicker is a head, a hand, a whole picture
_SCREEN_TALL: Final = 40
_EVEN: Final = 6  # grey levels; a picture without more contrast shows nothing

_READ_HEIGHT: Final = 48
_READ_WIDEST: Final = 480
_LATIN_ENDS: Final = "\u0250"
_SURE: Final = 0.85  # a reading as sure as this ends the search for the direction
_SURE_OF_SEVERAL: Final = 0.75  # and of so many letters
_SEVERAL: Final = 5
_ONE_LETTER: Final = 2.0
_LETTERS_AT_ALL: Final = 0.35  # a line that stands on its head is read more surely than this
_TWO_WAYS: Final = 2  # directions that a line can have
_UPRIGHT: Final = 1.25  # higher than wide by this: the line may stand


@dataclass(frozen=True, slots=True)
class Spot:
    """A place that looks like a line of text, how surely (0..1), and whether both networks say so."""

    box: Box
    score: float
    agreed: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """What could be read at a place; `words` is empty where nothing could."""

    box: Box
    words: str
    confidence: float
    vertical: bool


class Reader:
    """The detector and the recogniser, loaded once; each call uses one thread."""

    def __init__(self) -> None:
        self._detector = _session(DETECTOR)
        self._screen_detector = _session(packaged(_SCREEN_DETECTOR))
        self._recogniser = _session(packaged(_RECOGNISER))
        letters = self._recogniser.get_modelmeta().custom_metadata_map["character"]
        self._letters = ("", *letters.split("\n"), " ")

    def find(self, view: Pixels) -> tuple[Box, ...]:
        """Return where lines of text may stand.

        Shape: `view` (row, column) or (row, column, 3), as a person sees it.
        """
        return tuple(spot.box for spot in self.spots(view))

    def spots(self, view: Pixels, *, thorough: bool = True) -> tuple[Spot, ...]:
        """Return the same with how surely; without `thorough` nothing is magnified or reduced for a second look."""
        rows, columns = view.shape[:2]
        if min(rows, columns) < _LEAST or int(view.max()) - int(view.min()) < _EVEN:
            return ()
        longest, small = max(rows, columns), rows * columns < _SMALL
        mine = self._mine(view, 2.0 if small and (thorough or longest <= _TINY) else 1.0)
        if thorough and longest >= _LARGE:
            mine += self._mine(view, 0.5)
        if thorough and longest >= _HUGE:
            mine += self._mine(view, 0.25)
        # The screen's detector takes three times as long: where ours sees nothing at all, it is not asked.
        if max((spot.score for spot in mine), default=0.0) < (_ANYTHING if thorough else _SOMETHING):
            return ()
        zoom = min(2.0 if thorough or longest <= _TINY else 1.0, _SCREEN / longest)
        screen = self._on_screen(view, zoom)
        # A spot of ours that the other network does not see at all must be surer.
        seconded = [one for one in mine if _is_sure(one) or any(_is_same(one.box, two.box) for two in screen)]
        return joined(seconded, screen)

    def read(self, view: Pixels, boxes: Iterable[Box]) -> tuple[Text, ...]:
        """Return the words at each box, tried in every direction its shape allows."""
        return tuple(self._text(view, box) for box in boxes)

    def _mine(self, view: Pixels, zoom: float) -> list[Spot]:
        rows, columns = view.shape[:2]
        image = view if zoom == 1 else _resized(view, max(1, round(rows * zoom)), max(1, round(columns * zoom)))
        high, wide = image.shape[:2]
        rim = ((0, -high % _MULTIPLE), (0, -wide % _MULTIPLE), (0, 0))
        picture = _planes(np.pad(_coloured(image), rim, mode="edge").astype(np.float32))
        (answer,) = self._detector.run(None, {"picture": picture})
        return [
            Spot(_scaled(edges, _STRIDE / zoom, _STRIDE / zoom, (rows, columns)), score)
            for edges, score in _lines(answer[0, 0], answer[0, 1])
        ]

    def _on_screen(self, view: Pixels, zoom: float) -> list[Spot]:
        rows, columns = view.shape[:2]
        high, wide = (
            max(_SCREEN_MULTIPLE, round(side * zoom / _SCREEN_MULTIPLE) * _SCREEN_MULTIPLE) for side in (rows, columns)
        )
        image = (_coloured(_resized(view, high, wide)).astype(np.float32) - _SCREEN_MEAN) / _SCREEN_SPREAD
        picture = _planes(image[..., ::-1])
        (answer,) = self._screen_detector.run(None, {self._screen_detector.get_inputs()[0].name: picture})
        down, across = rows / high, columns / wide
        found = []
        for (top, left, bottom, right), score in _parts(answer[0, 0], _SCREEN_CORES, _SCREEN_TALL, np.mean):
            shorter = min(bottom - top, right - left)
            thick = min((bottom - top) * down, (right - left) * across)
            if score < _SCREEN_SURE or thick > max(_SCREEN_TALLEST * min(rows, columns), _SCREEN_TALL):
                continue
            reach = _SCREEN_INSET * shorter + 1
            edges = (top - reach, left - reach, bottom + reach, right + reach)
            found.append(Spot(_scaled(edges, down, across, (rows, columns)), score))
        return found

    def _text(self, view: Pixels, box: Box) -> Text:
        crop = _crop(view, box)
        high, wide = box.bottom - box.top, box.right - box.left
        # The likeliest direction first; the others only while nothing is read.
        turns: tuple[int, ...] = (
            (1, 3) if high > _UPRIGHT * wide else (0, 2) if wide > _UPRIGHT * high else (0, 1, 3, 2)
        )
        if _UPRIGHT * wide < high < _ONE_LETTER * wide:
            turns = (0, 1, 3)  # an L stands like a short line does
        words, confidence, turn = "", 0.0, 0
        for tried in turns:
            said, sure = self._words(np.rot90(crop, tried))
            if sure < _LETTERS_AT_ALL and len(turns) == _TWO_WAYS:
                break  # upside down a line would still look like letters
            # A Latin letter on its side reads as a surely known character of another script.
            sure *= (1 + sum(letter < _LATIN_ENDS for letter in said)) / (1 + len(said))
            if sure > confidence:
                words, confidence, turn = said, sure, tried
            if confidence >= (_SURE if len(words) < _SEVERAL else _SURE_OF_SEVERAL):
                break
        if confidence < _SURE and max(high, wide) <= _UPRIGHT * min(high, wide):
            # A marker of lead that was put on face down is a letter seen in a mirror.
            said, sure = self._words(crop[:, ::-1])
            if sure >= _SURE and len(said) == 1 and said < _LATIN_ENDS:
                words, confidence, turn = said, sure, 0
        return Text(box, words, confidence, vertical=turn in {1, 3})

    def _words(self, crop: Pixels) -> tuple[str, float]:
        """Return what an upright line says, and how sure the least sure letters are."""
        wide = min(max(round(crop.shape[1] * _READ_HEIGHT / crop.shape[0]), _READ_HEIGHT // 2), _READ_WIDEST)
        line = _resized(np.ascontiguousarray(crop), _READ_HEIGHT, wide)
        ready = _planes(_coloured(line).astype(np.float32) / 127.5 - 1.0)
        (answer,) = self._recogniser.run(None, {self._recogniser.get_inputs()[0].name: ready})
        best = answer[0].argmax(axis=1)
        new = (best != 0) & np.r_[True, best[1:] != best[:-1]]
        if not new.any():
            return "", 0.0
        words = "".join(self._letters[index] for index in best[new]).strip()
        return words, float(answer[0].max(axis=1)[new].mean()) if words else 0.0


@cache
def reader() -> Reader:
    """Return this process's reader."""
    return Reader()


def packaged(name: str) -> Path:
    """Return a model's file in RapidOCR's package, whose code is not imported.

    Raises: ModuleNotFoundError if the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{_PACKAGE} is not installed")
    return Path(spec.submodule_search_locations[0], "models", name)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The pictures differ in size: a cache of buffers per size would grow with each new one.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _coloured(image: Pixels) -> Pixels:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)  # noqa: PLR2004 - grey


def _planes(image: Floats) -> Floats:
    """Return a picture as the networks take it.

    Shape: (row, column, colour) in, (1, colour, row, column) out.
    """
    return np.ascontiguousarray(image.transpose(2, 0, 1))[None]


def _resized(image: Pixels, rows: int, columns: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))


def _lines(inside: Floats, core: Floats) -> list[tuple[tuple[float, float, float, float], float]]:
    """Return the box (top, left, bottom, right, in cells) and score of each core, grown to its text."""
    parts = _parts(core, _CORES, _TALLEST, np.max)
    return [
        (_grown(inside, place), score)
        for place, score in parts
        if min(place[2] - place[0], place[3] - place[1]) <= _TALLEST
    ]


def _parts(
    likely: Floats, thresholds: tuple[float, ...], tallest: int, scored: Callable[..., Any]
) -> list[tuple[tuple[int, int, int, int], float]]:
    """Return the connected parts (top, left, bottom, right) above the first threshold, with their scores.

    A part thicker than `tallest` may be several: it is taken apart by the next threshold.
    """
    found = []
    for threshold in thresholds:
        marks, count = ndimage.label(likely > threshold)
        if not count:
            break
        thick = np.zeros(count + 1, bool)
        for index, (down, across) in enumerate(ndimage.find_objects(marks), 1):
            thick[index] = min(down.stop - down.start, across.stop - across.start) > tallest
            whole = threshold == thresholds[0] or min(down.stop - down.start, across.stop - across.start) >= _PART
            if whole and (not thick[index] or threshold == thresholds[-1]):
                score = scored(likely[down, across][marks[down, across] == index])
                found.append(((down.start, across.start, down.stop, across.stop), float(score)))
        if not thick.any():
            break
        likely = np.where(thick[marks], likely, 0)
    return found


def _grown(inside: Floats, core: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    """Return a core's box, as far as the text goes, but no farther than twice where its edge should be."""
    rows, columns = inside.shape
    top, left, bottom, right = core
    reach = _INSET * min(bottom - top, right - left) + 0.5
    far = int(2 * reach) + 2
    r0, r1 = max(top - far, 0), min(bottom + far, rows)
    c0, c1 = max(left - far, 0), min(right + far, columns)
    ink = inside[r0:r1, c0:c1] > _BOX
    high = np.flatnonzero(ink[:, left - c0 : right - c0].mean(axis=1) > _MOST)
    wide = np.flatnonzero(ink[top - r0 : bottom - r0].mean(axis=0) > _MOST)
    return (
        min(top - reach, r0 + _first(high, top - r0)),
        min(left - reach, c0 + _first(wide, left - c0)),
        max(bottom + reach, r0 + _last(high, bottom - 1 - r0) + 1),
        max(right + reach, c0 + _last(wide, right - 1 - c0) + 1),
    )


def _first(run: npt.NDArray[np.intp], start: int) -> int:
    """Return how far down from `start` the run of indices goes without a gap."""
    known = set(run.tolist())
    while start - 1 in known:
        start -= 1
    return start


def _last(run: npt.NDArray[np.intp], start: int) -> int:
    known = set(run.tolist())
    while start + 1 in known:
        start += 1
    return start


def _scaled(edges: tuple[float, float, float, float], down: float, across: float, shape: tuple[int, int]) -> Box:
    top, left, bottom, right = edges
    high, low = sorted((np.clip(int(top * down), 0, shape[0] - 1), np.clip(int(np.ceil(bottom * down)), 1, shape[0])))
    near, far = sorted(
        (np.clip(int(left * across), 0, shape[1] - 1), np.clip(int(np.ceil(right * across)), 1, shape[1]))
    )
    return Box(int(high), int(near), max(int(low), int(high) + 1), max(int(far), int(near) + 1))


def joined(mine: Iterable[Spot], others: Iterable[Spot] = ()) -> tuple[Spot, ...]:
    """Return the spots of two networks, those that share a place made one."""
    kept: list[tuple[Spot, list[Box], list[Box]]] = []
    marked: list[tuple[Spot, list[Box], list[Box]]] = [(spot, [spot.box], []) for spot in mine]
    marked += [(spot, [], [spot.box]) for spot in others]
    for spot, ours, screens in sorted(marked, key=lambda one: -_area(one[0].box)):
        here = spot
        while (index := next((i for i, one in enumerate(kept) if _is_same(here.box, one[0].box)), None)) is not None:
            other, also_ours, also_screens = kept.pop(index)
            here = Spot(_union(here.box, other.box), max(here.score, other.score), here.agreed or other.agreed)
            ours, screens = ours + also_ours, screens + also_screens  # noqa: PLW2901 - what the line is made of grows
        kept.append((here, ours, screens))
    spots = (
        Spot(_tight(ours, screens), spot.score, agreed=True) if ours and screens else spot
        for spot, ours, screens in kept
    )
    return tuple(sorted(spots, key=lambda spot: (spot.box.top, spot.box.left)))


def _tight(ours: Iterable[Box], screens: Iterable[Box]) -> Box:
    """Return the box of a line that both networks saw: the screen's is the closer, ours knows where the line ends."""
    mine, screen = reduce(_union, ours), reduce(_union, screens)
    thin = _thickness(screen)
    if _thickness(mine) > _CLOSER * thin:
        return _union(mine, screen)
    back = round(_BEYOND * thin)
    if screen.right - screen.left >= screen.bottom - screen.top:
        return Box(screen.top, min(screen.left, mine.left + back), screen.bottom, max(screen.right, mine.right - back))
    return Box(min(screen.top, mine.top + back), screen.left, max(screen.bottom, mine.bottom - back), screen.right)


def _is_sure(spot: Spot) -> bool:
    """Return whether what our network alone saw is worth reading: a blob must be surer than a line."""
    high, wide = spot.box.bottom - spot.box.top, spot.box.right - spot.box.left
    return spot.score >= (_ALONE_LINE if max(high, wide) >= _ONE_LETTER * min(high, wide) else _ALONE)


def _is_same(one: Box, two: Box) -> bool:
    """Return whether two boxes show one line; a line within something much thicker stays by itself."""
    thin, thick = sorted((_thickness(one), _thickness(two)))
    alike = thick <= _THICKER * thin + 2 and _share(one, two) > _SAME and _overlap(one, two) >= _DEEP
    # Lines that cross or chains of blobs would grow into one that covers everything.
    return alike and _thickness(_union(one, two)) <= _GROWS * thick + 4


def _overlap(one: Box, two: Box) -> float:
    """Return the smaller share of a side that they have in common; of lines that stand below each other, little."""
    down = min(one.bottom, two.bottom) - max(one.top, two.top)
    across = min(one.right, two.right) - max(one.left, two.left)
    return min(
        down / max(min(one.bottom - one.top, two.bottom - two.top), 1),
        across / max(min(one.right - one.left, two.right - two.left), 1),
    )


def _thickness(box: Box) -> int:
    return min(box.bottom - box.top, box.right - box.left)


def _area(box: Box) -> int:
    return max(box.bottom - box.top, 0) * max(box.right - box.left, 0)


def _union(one: Box, two: Box) -> Box:
    return Box(min(one.top, two.top), min(one.left, two.left), max(one.bottom, two.bottom), max(one.right, two.right))


def _share(one: Box, two: Box) -> float:
    common = Box(max(one.top, two.top), max(one.left, two.left), min(one.bottom, two.bottom), min(one.right, two.right))
    return _area(common) / max(min(_area(one), _area(two)), 1)


def _crop(view: Pixels, box: Box) -> Pixels:
    """Return the box with a rim, its tones spread over the whole range."""
    rim = max(2, round(0.12 * min(box.bottom - box.top, box.right - box.left)))
    part = view[max(box.top - rim, 0) : box.bottom + rim, max(box.left - rim, 0) : box.right + rim].astype(np.float32)
    low, high = part.min(), part.max()
    return np.asarray((part - low) * (255.0 / max(high - low, 1.0)), np.uint8)
