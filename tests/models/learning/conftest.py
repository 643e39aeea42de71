"""Small examples in which the label follows from the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from models.learning.examples import Example


@pytest.fixture
def segments() -> list[Example]:
    rng = np.random.default_rng(3)
    images = rng.normal(size=(9, 1, 16, 16)).astype("float32")
    return [{"image": i, "label": (i > 0).astype("uint8") + (i > 1).astype("uint8")} for i in images]


@pytest.fixture
def classes() -> list[Example]:
    rng = np.random.default_rng(4)
    images = rng.normal(size=(4, 1, 32, 32)).astype("float32")
    return [{"image": image, "label": place % 2} for place, image in enumerate(images)]
