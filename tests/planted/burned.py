"""Text burned into pictures at known places, and what of it is left after cleaning.

Fake identities and harmless screen text are drawn as consoles, film printers and secretaries do: any
direction, tone, size, plate and outline. Every character's ink is remembered, so survival is counted
without reading. Made apart from what the detector learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

SURVIVES: Final = 0.35  # share of a character's ink above which it can still be read
IDENTITY: Final = "identity"
HARMLESS: Final = "harmless"
PLACES: Final = ("upright", "upright", "upright", "upright", "left", "down", "right")
_SURNAMES: Final = [
    "Achterberg",
    "Baumgartner",
    "Castellanos",
    "Dietrichson",
    "Eszterhazy",
    "Fitzgibbon",
    "Grzybowski",
    "Hallorann",
    "Ibarruri",
    "Jorgensen",
    "Kilbride",
    "Lindqvist",
    "Moriarty",
    "Nakagawa",
    "Oyelaran",
    "Pellegrini",
    "Quintero",
    "Rasmussen",
    "Szymanski",
    "Thibault",
    "Vandermeer",
    "Whitlock",
]
_GIVEN: Final = [
    "Beatrix",
    "Conrad",
    "Dolores",
    "Ernest",
    "Friederike",
    "Gareth",
    "Henrietta",
    "Ignatius",
    "Josefina",
    "Konrad",
    "Leonora",
    "Mortimer",
]
_HARMLESS: Final = [
    "\n    L",
    "R",
    "LT",
    "A",
    "P",
    "H",
    "F",
    "5 cm",
    "10 cm",
    "1 mm",
    "T2 FSE",
    "T1 SE TR 500",
    "SUPINE",
    "PORTABLE",
    "AP",
    "PA",
    "120 kVp",
    "35 mA",
    "Sag",
    "AXIAL",
    "TE 90",
    "FLAIR",
    "\n    LATERAL",
    "Zoom 120%",
    "Gain 50",
    "MI 1.1",
    "2.5 MHz",
    "5 mm\n",
]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One string in the picture.

    Shape: `letters` covers the box (top, left, bottom, right; half-open); 0 no ink, n the n-th character's ink.
    """

    words: str
    kind: str
    top: int
    left: int
    letters: npt.NDArray[np.int16]
    place: str
    contrast: float
    height: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The rectangle of the ink: top, left, bottom, right."""
        rows, columns = self.letters.shape
        return self.top, self.left, self.top + rows, self.left + columns

    def survivors(self, hidden: npt.NDArray[np.bool_]) -> int:
        """Return how many characters can still be read where `hidden` (row, column) was blanked."""
        top, left, bottom, right = self.box
        covered = hidden[top:bottom, left:right]
        left_over = 0
        for index in range(1, int(self.letters.max()) + 1):
            ink = self.letters == index
            left_over += bool(ink.any() and 1 - covered[ink].mean() > SURVIVES)
        return left_over

    @property
    def characters(self) -> int:
        """How many characters have ink."""
        return len(np.unique(self.letters)) - 1


def identity(rng: np.random.Generator) -> str:
    """Return something that says who a patient is: a name, number, date or place."""
    surname, given = (str(names[rng.integers(len(names))]) for names in (_SURNAMES, _GIVEN))
    year, month, day = rng.integers(1931, 2019), rng.integers(1, 13), rng.integers(1, 29)
    number = int(rng.integers(10**5, 10**9))
    forms = (
        f"{surname}, {given}", f"{surname.upper()}^{given.upper()}", f"{given} {surname}", surname.upper(),
        f"ID: {number}", f"MRN{number}", f"{number}", f"DOB {day:02}/{month:02}/{year}", f"{year}-{month:02}-{day:02}",
        f"{day:02}.{month:02}.{year} {rng.integers(24):02}:{rng.integers(60):02}", f"Acc# A{number}",
        f"{surname} Memorial Hospital", f"Dr. {surname}", f"Ref: {given[0]}. {surname}", f"{surname.upper()} CLINIC",
    )  # fmt: skip
    return forms[rng.integers(len(forms))]


def fonts(folders: Sequence[Path] = ()) -> tuple[Path | None, ...]:
    """Return the font files under the folders; None stands for Pillow's own font, which is always there."""
    found = [path for folder in folders for path in sorted(folder.rglob("*.[to]tf"))]
    return (None, *found)


def plant(
    picture: Pixels,
    rng: np.random.Generator,
    faces: Sequence[Path | None] = (None,),
    identities: int = 3,
    harmless: int = 1,
    heights: tuple[int, int] = (8, 40),
) -> tuple[Pixels, tuple[Drawn, ...]]:
    """Return the picture with strings drawn in, and the strings. What finds no room is not drawn.

    Shape: `picture` (row, column) or (row, column, 3), 0..255; the answer has the same.
    """
    out = picture.copy()
    taken = np.zeros(picture.shape[:2], bool)
    drawn: list[Drawn] = []
    kinds = [IDENTITY] * identities + [HARMLESS] * harmless
    for kind in kinds:
        for _ in range(20):
            words = identity(rng) if kind == IDENTITY else _HARMLESS[int(rng.integers(len(_HARMLESS)))].strip()
            height = round(float(np.exp(rng.uniform(*np.log(heights)))))
            made = _letters(words, faces[int(rng.integers(len(faces)))], height, hard=rng.random() < 0.35)
            if made is None:
                continue
            place = PLACES[rng.integers(len(PLACES))]
            turn = ("upright", "left", "down", "right").index(place)
            cover, letters = np.rot90(made[0], turn), np.rot90(made[1], turn)
            rows, columns = cover.shape
            room = picture.shape[0] - rows - 4, picture.shape[1] - columns - 4
            if min(room) <= 0:
                continue
            top, left = int(rng.integers(2, room[0] + 2)), int(rng.integers(2, room[1] + 2))
            pad = 5 + height // 3
            near = np.s_[max(top - pad, 0) : top + rows + pad, max(left - pad, 0) : left + columns + pad]
            if taken[near].any():
                continue
            taken[near] = True
            contrast = _paint(out, cover, top, left, rng)
            drawn.append(Drawn(words, kind, top, left, letters.astype(np.int16), place, contrast, height))
            break
    return out, tuple(drawn)


def _letters(
    words: str, face: Path | None, height: int, *, hard: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]] | None:
    """Return coverage 0..1 and the number of the character under each pixel of ink, cut to the ink."""
    size = max(6, round(height * 1.3))
    font = ImageFont.load_default(size) if face is None else ImageFont.truetype(str(face), size)
    wide, tall = round(font.getlength(words)) + 2 * size, 3 * size
    cover = np.zeros((tall, wide), np.float32)
    owner = np.zeros((tall, wide), np.int16)
    index = 0
    for at, letter in enumerate(words):
        if letter == " ":
            continue
        image = Image.new("L", (wide, tall))
        pen = ImageDraw.Draw(image)
        pen.fontmode = "1" if hard else "L"
        pen.text((size + font.getlength(words[:at]), size // 2), letter, fill=255, font=font)
        glyph = np.asarray(image, np.float32) / 255
        if glyph.max() < 0.5:
            return None
        index += 1
        owner[(glyph > 0.5) & (glyph > cover)] = index
        cover = np.maximum(cover, glyph)
    rows, columns = np.flatnonzero((cover > 0.3).any(axis=1)), np.flatnonzero((cover > 0.3).any(axis=0))
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return cover[cut], owner[cut]


def _paint(out: Pixels, cover: npt.NDArray[np.float32], top: int, left: int, rng: np.random.Generator) -> float:
    """Draw the coverage in a tone that can be seen; return the contrast in grey levels."""
    rows, columns = cover.shape
    coloured = out.ndim == 3
    pad = int(rng.integers(2, 5))
    style = rng.choice(("plain", "plain", "plain", "faint", "plate", "outline"))
    around = out[max(top - pad, 0) : top + rows + pad, max(left - pad, 0) : left + columns + pad]
    if style == "plate":
        around[...] = rng.choice((0, 40, 255))
    here = out[top : top + rows, left : left + columns]
    ground = here.astype(np.float32)
    mean, spread = float(ground.mean()), float(ground.std())
    tone = 255.0 if mean < 128 else 0.0
    if style == "plain" and rng.random() < 0.3:
        tone = float(np.clip(mean + (1 if mean < 128 else -1) * rng.uniform(60, 140), 0, 255))
    if style == "faint":
        tone = float(np.clip(mean + (1 if mean < 128 else -1) * (rng.uniform(10, 28) + 2 * spread), 0, 255))
    if style == "outline":
        ring = np.zeros((rows + 2, columns + 2), np.float32)
        for down in range(3):
            for right in range(3):
                part = ring[down : down + rows, right : right + columns]
                np.maximum(part, cover, out=part)
        ring = ring[1:-1, 1:-1]
        ring = ring[..., None] if coloured else ring
        ground = ground * (1 - ring) + (255 - tone) * ring
    colour: float | npt.NDArray[np.float32] = tone
    if coloured and style == "plain" and tone > 128 and rng.random() < 0.3:
        colour = np.asarray(((255, 255, 0), (0, 255, 0), (0, 255, 255), (255, 160, 0))[rng.integers(4)], np.float32)
    share = cover[..., None] if coloured else cover
    here[...] = np.clip(np.rint(ground * (1 - share) + colour * share), 0, 255).astype(np.uint8)
    return abs(tone - mean)
