"""A picture with numbered boxes, as PNG: what a reviewer looks at.

Takes what a person would see of a frame and gives bytes; reads no file and knows no DICOM. The picture shows whatever
the original shows, a patient's name included, and stays in the hospital.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

# Okabe and Ito 2008: told apart by the colour-blind too.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
_LETTER_SHARE = 40  # of the longer side
_SMALLEST_LETTER = 11


def png(view: NDArray[np.uint8], boxes: Sequence[tuple[int, int, int, int]]) -> bytes:
    """Return the frame as PNG, each box drawn around and numbered from 1.

    Shape: `view` is (row, column) or (row, column, 3); boxes are (top, left, bottom, right), half-open.
    """
    picture = Image.fromarray(view).convert("RGB")
    pen = ImageDraw.Draw(picture)
    size = max(_SMALLEST_LETTER, max(picture.size) // _LETTER_SHARE)
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        colour = _COLOURS[(number - 1) % len(_COLOURS)]
        # One pixel outside, so that nothing in the box is hidden.
        pen.rectangle((left - 1, top - 1, right, bottom), outline=colour, width=1)
        above = top - size - 2
        pen.text((left, above if above >= 0 else bottom + 2), str(number), fill=colour, font_size=size)
    out = BytesIO()
    picture.save(out, "png")
    return out.getvalue()
