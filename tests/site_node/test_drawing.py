"""The reviewer's picture: boxes around, never over, what is to be judged."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from site_node.drawing import png


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 3)])
def test_boxes_are_drawn_around_what_they_hold(shape: tuple[int, ...]) -> None:
    view = np.random.default_rng(1).integers(0, 255, shape, np.uint8)

    with Image.open(BytesIO(png(view, [(20, 10, 40, 50), (0, 0, 5, 5), (50, 60, 60, 80)]))) as drawn:
        seen = np.asarray(drawn)

    colours = view if view.ndim == 3 else np.repeat(view[..., np.newaxis], 3, 2)
    assert seen.shape == (60, 80, 3)
    np.testing.assert_array_equal(seen[20:40, 10:50], colours[20:40, 10:50])
    assert (seen[19, 10:50] == (230, 159, 0)).all()
    assert (seen[40, 10:50] == (230, 159, 0)).all()


def test_a_picture_without_boxes_is_as_it_is() -> None:
    view = np.arange(48, dtype=np.uint8).reshape(6, 8)

    with Image.open(BytesIO(png(view, []))) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn)[..., 0], view)
