"""Text drawn over pictures, with the places where it stands: what the text detector learns from.

Deliberately more varied than real screens: any font found, 6 to 80 pixels, four directions, either
polarity, contrast down to eight grey levels, outlines, plates, JPEG damage, and beside the text
everything that only looks like it: rulers, traces, arrows, grids, coloured flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

CORE: Final = 0.25  # a line's core is its box less this share of the shorter side, on every side
_SLICE: Final = 128  # pixels of the longest side; such pictures, and those stored smaller than made, are magnified
_SCALED_DOWN: Final = 256
_HERSHEY: Final = (0, 1, 2, 3, 4, 5, 6, 7)
_SURNAMES: Final = [
    "SMITH",
    "MUELLER",
    "Garcia",
    "Okonkwo",
    "Nguyen",
    "Schmidt",
    "O'Brien",
    "van-den-Berg",
    "Kowalski",
    "JOHANSSON",
    "Rossi",
    "DUPONT",
    "Yamamoto",
    "Petrov",
    "Hansen",
    "FERNANDEZ",
    "Novak",
    "Andersson",
    "Little",
    "Fields",
    "Brown",
    "Wilson",
    "Zhang",
    "Kumar",
    "Ali",
    "Haddad",
]
_GIVEN: Final = [
    "Anna",
    "JOHN",
    "Maria",
    "PETER",
    "Fatima",
    "Lars",
    "Yuki",
    "Olga",
    "WILLIAM",
    "Ines",
    "Tom",
    "MARGARET",
    "Jose",
    "Ivan",
    "Emma",
    "Li",
    "Aisha",
]
_WORDS: Final = [
    "Patient",
    "Name",
    "ID:",
    "DOB",
    "Acc#",
    "Hospital",
    "Clinic",
    "GENERAL",
    "MEDICAL",
    "CENTER",
    "Radiology",
    "Dr.",
    "Tech:",
    "Sex:",
    "F",
    "M",
    "Female",
    "Age",
    "CHEST",
    "ABDOMEN",
    "KIDNEY",
    "LIVER",
    "Left",
    "RIGHT",
    "Long",
    "Trans",
    "Sag",
    "AX",
    "COR",
    "T1",
    "T2",
    "FLAIR",
    "FSE",
    "TR",
    "TE",
    "TI",
    "kVp",
    "mAs",
    "mm",
    "cm",
    "Hz",
    "dB",
    "MI",
    "TIs",
    "TIB",
    "Gain",
    "FR",
    "DR",
    "PRF",
    "WF",
    "Depth",
    "Zoom",
    "PWR",
    "Page",
    "Study",
    "Series",
    "Image",
    "Scan",
    "Ref.",
    "Fetus",
    "BPD",
    "HC",
    "AC",
    "FL",
    "EDV",
    "LVEF",
    "PORTABLE",
    "SUPINE",
    "ERECT",
    "lateral",
    "oblique",
    "Contrast",
    "mGy",
    "DLP",
    "CTDIvol",
    "Exposure",
    "Report",
    "Findings",
    "Impression",
    "normal",
    "Measure",
    "Dist",
    "Area",
    "Vol",
]
_MARKS: Final = [
    "L",
    "R",
    "A",
    "P",
    "H",
    "F",
    "I",
    "S",
    "LT",
    "RT",
    "PA",
    "AP",
    "LAO",
    "RAO",
    "LPO",
    "RPO",
    "LL",
    "SUP",
    "INF",
    "5cm",
    "10",
    "0",
    "50",
    "100",
    "cm",
    "mm",
    "W:",
    "C:",
    "+",
    "x",
]
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PUNCTUATION: Final = ".,:;-/()#%+*='&@!?<>[]_"
_OTHERS: Final = "ÄÖÜäöüßéèñçåøØÆčšžłőşĞİ"
# Flow without strength and at full strength, blue first: power Doppler, towards the probe, away from it.
_FLOWS: Final = (((0, 0, 110), (60, 220, 255)), ((10, 0, 120), (0, 200, 255)), ((120, 10, 0), (255, 240, 60)))
_SCRIPTS: Final = ("АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШ", "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦ", "山田太郎東京病院超音波検査心臓患者番号")


def words(rng: np.random.Generator) -> str:
    """Return one line as screens show it: a name, an id, a date, a measurement, a marker, nonsense."""
    pick = lambda items: str(items[rng.integers(len(items))])  # noqa: E731 - said eight times below
    kind = rng.integers(13)
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(1920, 2027)
    if kind in {0, 1}:
        text = pick((", ", "^", " ", ",")).join((pick(_SURNAMES), pick(_GIVEN)))
    elif kind in {2, 3}:
        text = pick(
            (
                f"{day:02}/{month:02}/{year}",
                f"{year}-{month:02}-{day:02}",
                f"{day:02}.{month:02}.{year}",
                f"{year}{month:02}{day:02}",
            )
        )
        if rng.random() < 0.4:
            text += f" {rng.integers(24):02}:{rng.integers(60):02}:{rng.integers(60):02}"
    elif kind == 4:
        text = pick(("", "ID: ", "MRN ", "#", "Acc: ")) + "".join(
            pick(_LETTERS[26 * 2 :]) for _ in range(rng.integers(3, 12))
        )
    elif kind == 5:
        text = pick(_MARKS)
    elif kind == 6:
        unit = pick(("cm", "mm", "Hz", "%", "dB", "ms", "kV", "MHz", "cm/s"))
        text = f"{pick(_WORDS)} {rng.uniform(0, 300):.{rng.integers(3)}f}{pick(('', ' ', ' '))}{unit}"
    elif kind == 7:
        text = f"{rng.uniform(0, 3000):.{rng.integers(3)}f}"
    elif kind == 8:
        text = "".join(pick(_LETTERS + _PUNCTUATION + _OTHERS) for _ in range(rng.integers(1, 16)))
    else:
        text = " ".join(pick(_WORDS) for _ in range(rng.integers(1, 6)))
    return text.upper() if rng.random() < 0.35 else text


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn line of text as coverage 0..255, cut to its ink, reading left to right."""

    ink: Pixels


def line(fonts: Sequence[Path], rng: np.random.Generator, height: float) -> Line | None:
    """Return a line about `height` pixels high, or None where the font has no such glyphs."""
    if rng.random() < 0.15:
        return _hershey(words(rng), rng, height)
    path = fonts[rng.integers(len(fonts))]
    text = words(rng)
    if rng.random() < 0.05 and any(name in path.name for name in ("Fallback", "unifont")):
        letters = _SCRIPTS[rng.integers(len(_SCRIPTS))]
        text = "".join(letters[rng.integers(len(letters))] for _ in range(rng.integers(2, 10)))
    try:
        font = ImageFont.truetype(str(path), max(5, round(height * 1.35)))
        left, top, right, bottom = font.getbbox(text)
    except OSError:
        return None
    width, tall = int(right - left) + 6, int(bottom - top) + 6
    if not (0 < width < 1500 and tall > 0):
        return None
    image = Image.new("L", (width, tall))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.4:
        draw.fontmode = "1"  # hard edges, as consoles draw them
    draw.text((3 - left, 3 - top), text, fill=255, font=font)
    return _cut(np.asarray(image))


def _hershey(text: str, rng: np.random.Generator, height: float) -> Line | None:
    face = int(_HERSHEY[rng.integers(len(_HERSHEY))])
    plain = text.encode("ascii", "ignore").decode()
    thickness = 1 if height < 14 else int(rng.integers(1, max(2, height // 9) + 1))
    scale = height / 21.0
    (width, tall), base = cv2.getTextSize(plain, face, scale, thickness)
    canvas = np.zeros((tall + base + 8, width + 12), np.uint8)
    cv2.putText(
        canvas, plain, (4, tall + 3), face, scale, 255, thickness, cv2.LINE_AA if rng.random() < 0.5 else cv2.LINE_8
    )
    return _cut(canvas)


def _cut(ink: Pixels) -> Line | None:
    rows, columns = np.flatnonzero(ink.max(axis=1) > 60), np.flatnonzero(ink.max(axis=0) > 60)
    if not rows.size or not columns.size:
        return None
    return Line(np.ascontiguousarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]))


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and its answer.

    Shape: `pixels` (row, column, RGB); `answer` (row, column, 3) at full size: line box, core, ignore.
    """

    pixels: Pixels
    answer: Pixels


def background(pictures: Sequence[tuple[Pixels, Pixels]], rng: np.random.Generator, size: int) -> tuple[Pixels, Pixels]:
    """Return a piece of a picture (RGB) and where real text stands in it (ignored in training)."""
    pixels, real = _background(pictures, rng, size)
    if rng.random() < 0.3:
        pixels = pixels.copy()
        _framed(pixels, rng)
    return pixels, real


def _background(
    pictures: Sequence[tuple[Pixels, Pixels]], rng: np.random.Generator, size: int
) -> tuple[Pixels, Pixels]:
    kind = rng.random()
    if kind < 0.06:
        return _texture(rng, size), np.zeros((size, size), np.uint8)
    if kind < 0.18:
        return _ultrasound(rng, size), np.zeros((size, size), np.uint8)
    if kind < 0.26:
        tone = rng.choice((0, 0, 255, 255, int(rng.integers(200, 256)), int(rng.integers(256))))
        return np.full((size, size, 3), tone, np.uint8), np.zeros((size, size), np.uint8)
    picture, real = pictures[rng.integers(len(pictures))]
    longest = max(picture.shape[:2])
    zoom = float(np.exp(rng.uniform(np.log(0.4), np.log(2.2))))
    zoom *= 3.0 if longest <= _SLICE else rng.uniform(1, 3) if longest <= _SCALED_DOWN else 1.0
    need = round(size / zoom)
    rows, columns = picture.shape[:2]
    top, left = (
        int(rng.integers(-need // 4, max(rows - need * 3 // 4, 1))),
        int(rng.integers(-need // 4, max(columns - need * 3 // 4, 1))),
    )
    top, left = (
        (max(0, min(top, rows - need)), max(0, min(left, columns - need))) if rng.random() < 0.7 else (top, left)
    )
    piece, hidden = np.zeros((need, need, 3), np.uint8), np.zeros((need, need), np.uint8)
    r0, r1, c0, c1 = max(top, 0), min(top + need, rows), max(left, 0), min(left + need, columns)
    if r1 > r0 and c1 > c0:
        piece[r0 - top : r1 - top, c0 - left : c1 - left] = picture[r0:r1, c0:c1]
        hidden[r0 - top : r1 - top, c0 - left : c1 - left] = real[r0:r1, c0:c1]
    how = int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST))) if zoom > 1 else cv2.INTER_AREA
    piece, hidden = (
        cv2.resize(piece, (size, size), interpolation=how),
        cv2.resize(hidden, (size, size), interpolation=cv2.INTER_NEAREST),
    )
    turn = int(rng.integers(4))
    piece, hidden = np.rot90(piece, turn), np.rot90(hidden, turn)
    if rng.random() < 0.5:
        piece, hidden = piece[:, ::-1], hidden[:, ::-1]
    out = piece.astype(np.float32)
    if rng.random() < 0.3:
        out = 255 * (out / 255) ** rng.uniform(0.5, 2)
    if rng.random() < 0.2:
        out = 255 - out
    if rng.random() < 0.4:
        out = out * rng.uniform(0.3, 1.5) + rng.uniform(-60, 60)
    return np.clip(out, 0, 255).astype(np.uint8), np.ascontiguousarray(hidden)


def _framed(pixels: Pixels, rng: np.random.Generator) -> None:
    """Leave a window of the picture on an even ground, as a console shows it, often with a bright edge."""
    size = pixels.shape[0]
    ground = 0.0 if rng.random() < 0.8 else rng.uniform(0, 255)
    top, left = (int(v) for v in rng.integers(-size // 2, size * 3 // 4, 2))
    high, wide = (int(v) for v in np.exp(rng.uniform(np.log(10), np.log(1.5 * size), 2)))
    inside = np.zeros((size, size), bool)
    if rng.random() < 0.3:  # a sector of a convex probe
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        reach = np.hypot(rows - top, columns - left - wide / 2)
        spread = np.abs(np.arctan2(columns - left - wide / 2, rows - top))
        inside |= (reach > high / 4) & (reach < high / 4 + size * rng.uniform(0.2, 1)) & (spread < rng.uniform(0.3, 1))
    else:
        inside[max(top, 0) : max(top + high, 0), max(left, 0) : max(left + wide, 0)] = True
    pixels[~inside] = ground
    if rng.random() < 0.4:
        edge = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        pixels[edge & (inside if rng.random() < 0.5 else ~inside)] = rng.uniform(120, 255)


def _texture(rng: np.random.Generator, size: int) -> Pixels:
    """Return noise filtered to a random grain, sometimes thresholded into coloured blobs as flow is shown."""
    grain = float(np.exp(rng.uniform(np.log(0.5), np.log(14))))
    noise = cv2.GaussianBlur(
        rng.normal(size=(size, size)).astype(np.float32), (0, 0), grain, sigmaY=grain * rng.uniform(0.4, 2.5)
    )
    noise = (noise - noise.mean()) / (noise.std() + 1e-6)
    out = np.repeat((rng.uniform(20, 200) + rng.uniform(5, 60) * noise)[..., None], 3, axis=2)
    if rng.random() < 0.5:
        blobs = noise > rng.uniform(0.3, 1.5)
        out[blobs] = np.asarray(rng.uniform(0, 255, 3)) + 30 * noise[blobs][:, None]
    return np.clip(out, 0, 255).astype(np.uint8)


def _ultrasound(rng: np.random.Generator, size: int) -> Pixels:
    """Return speckle under a soft shadow, often with flow in it as power Doppler shows it: dark red to yellow."""

    def grained(grain: float) -> npt.NDArray[np.float32]:
        noise = cv2.GaussianBlur(
            rng.normal(size=(size, size)).astype(np.float32), (0, 0), grain, sigmaY=grain * rng.uniform(0.4, 1.5)
        )
        return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)

    grain = float(rng.uniform(0.6, 2.5))
    speckle = np.hypot(grained(grain), grained(grain)) * rng.uniform(15, 60)
    shown = speckle * np.clip(0.6 + 0.6 * grained(float(rng.uniform(10, 40))), 0, 2)
    out = np.repeat(shown[..., None], 3, axis=2)
    if rng.random() < 0.6:
        flow = grained(float(np.exp(rng.uniform(np.log(1.5), np.log(16))))) - rng.uniform(0.2, 1.4)
        strength = np.clip(flow * rng.uniform(0.6, 2), 0, 1)[..., None]
        dark, bright = (np.asarray(tone, np.float32) for tone in _FLOWS[rng.integers(len(_FLOWS))])
        out = np.where(strength > 0, dark + (bright - dark) * strength + 6 * grained(1.0)[..., None], out)
    return np.clip(out, 0, 255).astype(np.uint8)


def _clutter(  # noqa: C901, PLR0912, PLR0915 - one branch for each thing drawn
    pixels: Pixels, rng: np.random.Generator
) -> None:
    """Draw what looks like text and is none."""
    size = pixels.shape[0]
    tone = tuple(int(v) for v in (np.repeat(rng.integers(256), 3) if rng.random() < 0.7 else rng.integers(0, 256, 3)))
    x, y, x2, y2 = (int(v) for v in rng.integers(0, size, 4))
    thick = int(rng.integers(1, 4))
    kind = rng.integers(13)
    if kind == 0:  # ruler
        step, tick = int(rng.integers(3, 24)), int(rng.integers(2, 12))
        upright = rng.random() < 0.6
        for index, at in enumerate(range(-step, size, step)):
            reach = tick * (2 if index % 5 == 0 else 1)
            ends = ((x, at), (x + reach, at)) if upright else ((at, y), (at, y + reach))
            cv2.line(pixels, *ends, tone, 1)
        if rng.random() < 0.5:
            cv2.line(pixels, (x, 0) if upright else (0, y), (x, size) if upright else (size, y), tone, 1)
    elif kind == 1:  # trace
        xs = np.arange(size)
        period = rng.uniform(15, 90)
        wave = rng.uniform(3, 30) * np.exp(-(((xs % period) - period / 2) ** 2) / rng.uniform(2, 40)) + rng.normal(
            0, rng.uniform(0, 2), size
        )
        cv2.polylines(
            pixels, [np.stack((xs, y - wave), 1).astype(np.int32)], isClosed=False, color=tone, thickness=thick
        )
    elif kind == 2:
        cv2.arrowedLine(pixels, (x, y), (x + int(rng.integers(-40, 40)), y + int(rng.integers(-40, 40))), tone, thick)
    elif kind == 3:
        cv2.rectangle(pixels, (x, y), (x2, y2), tone, thick)
    elif kind == 4:
        cv2.ellipse(
            pixels,
            (x, y),
            (int(rng.integers(2, 60)), int(rng.integers(2, 60))),
            0,
            0,
            int(rng.integers(90, 361)),
            tone,
            thick,
        )
    elif kind == 5:  # dashed line
        for at in range(0, size, int(rng.integers(4, 14))):
            cv2.line(pixels, (at, y), (at + 3, y), tone, thick) if rng.random() < 2 else None
    elif kind == 6:  # callipers
        for px, py in ((x, y), (x2, y2)):
            reach = int(rng.integers(2, 7))
            cv2.line(pixels, (px - reach, py), (px + reach, py), tone, 1)
            cv2.line(pixels, (px, py - reach), (px, py + reach), tone, 1)
    elif kind == 7:  # grey or colour bar
        ramp = np.linspace(0, 255, int(rng.integers(20, 120)))[:, None, None] * (np.asarray(tone) / 255)
        wide = int(rng.integers(4, 20))
        part = pixels[y : y + ramp.shape[0], x : x + wide]
        part[:] = np.broadcast_to(ramp[: part.shape[0]], part.shape).astype(np.uint8)
    elif kind == 8:  # specks
        for _ in range(int(rng.integers(3, 60))):
            cv2.circle(pixels, tuple(int(v) for v in rng.integers(0, size, 2)), int(rng.integers(1, 3)), tone, -1)
    elif kind == 9:  # ribs and other soft bands, side by side
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        along = np.cos(turn := rng.uniform(0, np.pi)) * rows + np.sin(turn) * columns
        bent = along + rng.uniform(0, 30) * np.sin((rows + columns) / rng.uniform(60, 200))
        bands = np.sin(bent / rng.uniform(1.2, 14)) * rng.uniform(5, 50)
        reach = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * rng.uniform(12, 90) ** 2))
        pixels[:] = np.clip(pixels + (bands * reach)[..., None], 0, 255).astype(np.uint8)
    elif kind == 10:  # the edge of a collimator's field, and what little shines through beyond it
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        turn = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.06)
        inside = np.cos(turn) * (rows - y) + np.sin(turn) * (columns - x)
        beyond = np.clip(inside / rng.uniform(0.5, 6) + 0.5, 0, 1)[..., None]
        through = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.0
        ground = 0.0 if rng.random() < 0.7 else 255.0
        dark = pixels * through + ground * (1 - through)
        pixels[:] = np.clip(pixels * (1 - beyond) + dark * beyond, 0, 255).astype(np.uint8)
    elif kind == 11:  # a step wedge
        step, high = int(rng.integers(3, 20)), int(rng.integers(6, 40))
        ramp = np.repeat(np.linspace(*rng.uniform(0, 255, 2), max(size // step, 2)), step)
        upright = rng.random() < 0.5
        part = pixels[:, x : x + high].swapaxes(0, 1) if upright else pixels[y : y + high]
        part[:, : ramp.size] = ramp[None, :size, None].astype(np.uint8)
    else:  # wires
        points = np.cumsum(rng.normal(0, 12, (8, 2)), axis=0) + np.asarray((x, y))
        cv2.polylines(pixels, [points.astype(np.int32)], isClosed=bool(rng.random() < 0.3), color=tone, thickness=thick)


def compose(
    pictures: Sequence[tuple[Pixels, Pixels]], lines: Sequence[Line], rng: np.random.Generator, size: int
) -> Sample:
    """Return one training sample, `size` pixels square."""
    pixels, real = background(pictures, rng, size)
    pixels = np.ascontiguousarray(pixels)
    answer = np.zeros((size, size, 3), np.uint8)
    answer[..., 2] = real
    for _ in range(int(rng.choice((0, 0, 1, 1, 2, 4)))):
        _clutter(pixels, rng)
    block: tuple[int, int] | None = None
    many = int(rng.choice((0, 0, 1, 2, 3, 5, 8)))
    for _ in range(many):
        chosen = lines[rng.integers(len(lines))]
        block = _stamp(pixels, answer, chosen, rng, block)
    if rng.random() < 0.15:
        _clutter(pixels, rng)
    out = pixels.astype(np.float32)
    if rng.random() < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 0.9))
    if rng.random() < 0.4:
        out += rng.normal(0, rng.uniform(0.5, 6), out.shape[:2])[..., None]
    pixels = np.clip(out, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, coded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 96))))
        pixels = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return Sample(pixels, answer)


def _stamp(
    pixels: Pixels, answer: Pixels, chosen: Line, rng: np.random.Generator, below: tuple[int, int] | None
) -> tuple[int, int]:
    """Draw a line into the picture and its answer; return where the next line of the block may start."""
    size = pixels.shape[0]
    turn = int(rng.choice(4, p=(0.5, 0.2, 0.1, 0.2)))
    ink = np.rot90(chosen.ink, turn)
    rows, columns = ink.shape
    spare = 0.3 * min(rows, columns)
    top = int(rng.integers(-round(spare), max(size - rows + round(spare), 1)))
    left = int(rng.integers(-min(columns // 2, 60), max(size - columns + min(columns // 2, 60), 1)))
    if below is not None and turn == 0 and rng.random() < 0.6:
        top, left = below
    r0, r1, c0, c1 = max(top, 0), min(top + rows, size), max(left, 0), min(left + columns, size)
    after = (top + rows + int(rng.integers(2, max(4, rows // 2 + 2))), left)
    if r1 - r0 < 3 or c1 - c0 < 3 or (answer[r0:r1, c0:c1, 0].any() and rng.random() < 0.95):
        return after
    cover = ink[r0 - top : r1 - top, c0 - left : c1 - left].astype(np.float32) / 255
    _paint(pixels, cover, (r0, r1, c0, c1), rng)
    if (r1 - r0) * (c1 - c0) < 0.5 * rows * min(columns, size) or min(r1 - r0, c1 - c0) < 0.6 * min(rows, columns):
        answer[r0:r1, c0:c1, 2] = 1
        return after
    answer[r0:r1, c0:c1, 0] = 1
    inset = CORE * min(rows, columns)
    answer[
        round(r0 + inset) : max(round(r1 - inset), round(r0 + inset) + 1),
        round(c0 + inset) : max(round(c1 - inset), round(c0 + inset) + 1),
        1,
    ] = 1
    return after


def _paint(
    pixels: Pixels, cover: npt.NDArray[np.float32], at: tuple[int, int, int, int], rng: np.random.Generator
) -> None:
    r0, r1, c0, c1 = at
    pad = int(rng.integers(1, 5))
    grown = pixels[max(r0 - pad, 0) : r1 + pad, max(c0 - pad, 0) : c1 + pad]
    style = rng.random()
    if style < 0.15:  # a plate behind the text
        grown[:] = rng.integers(0, 256) if rng.random() < 0.7 else rng.integers(0, 256, 3)
    under = pixels[r0:r1, c0:c1].astype(np.float32)
    if 0.15 <= style < 0.35:  # an outline or shadow in the opposite tone
        reach = np.clip(cv2.GaussianBlur(cv2.dilate(cover, np.ones((3, 3))), (0, 0), 0.6), 0, 1)[..., None]
        ground = 0.0 if rng.random() < 0.7 else 255.0
        under = under * (1 - reach) + ground * reach
        colour = np.full(3, 255.0 - ground) if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    else:
        colour = (
            np.repeat(rng.choice((255.0, 255.0, 0.0, rng.uniform(0, 255))), 3)
            if rng.random() < 0.75
            else rng.uniform(0, 255, 3)
        )
    mean, spread = under.reshape(-1, 3).mean(axis=0), float(under.std(axis=(0, 1)).mean())
    faint = rng.random() < 0.4
    least = (8.0 if faint else 30.0) + (0.8 if faint else 1.2) * spread
    gap = colour - mean
    reach_now = float(np.abs(gap).max())
    if faint:
        colour = mean + np.sign(gap + 1e-3) * rng.uniform(least, least + 25)
    elif reach_now < least:
        colour = mean + (least if mean.mean() < 128 else -least) * np.ones(3)
    colour = np.clip(colour, 0, 255)
    alpha = (cover * (1.0 if rng.random() < 0.8 else rng.uniform(0.6, 1.0)))[..., None]
    pixels[r0:r1, c0:c1] = np.clip(under * (1 - alpha) + colour * alpha, 0, 255).astype(np.uint8)
