"""Drawn text is found and read in any direction; the shape of a picture never matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from site_node.deidentify.burned_in import Reader, Spot, joined, reader
from site_node.deidentify.identities import Identities
from site_node.deidentify.picture import Box, picture
from site_node.deidentify.pixels import assess
from tests.planted.burned import IDENTITY, plant
from tests.site_node.deidentify.test_text_in_pixels import screenshot

WORDS = "Moriarty, Leonora"


def drawn(words: str, size: int, ink: int, ground: int) -> np.ndarray:
    """Return a picture, 256 pixels square, with words in its middle."""
    image = Image.new("L", (256, 256), ground)
    ImageDraw.Draw(image).text((30, 110), words, fill=ink, font=ImageFont.load_default(size))
    return np.asarray(image)


def covered(boxes: tuple[Box, ...], changed: np.ndarray) -> float:
    """Return the share of the changed pixels that lie in the boxes."""
    hidden = np.zeros(changed.shape, bool)
    for box in boxes:
        hidden[box.top : box.bottom, box.left : box.right] = True
    return float(hidden[changed].mean())


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize(("ink", "ground"), [(255, 0), (0, 255), (150, 90)])
def test_a_line_is_found_in_every_direction_and_tone(turn: int, ink: int, ground: int) -> None:
    view = np.rot90(drawn(WORDS, 16, ink, ground), turn)

    boxes = reader().find(view)

    assert covered(boxes, view != ground) > 0.95


@pytest.mark.parametrize("size", [9, 24, 60])
def test_small_and_large_letters_are_found(size: int) -> None:
    view = drawn("NAME", size, 255, 0)

    assert covered(reader().find(view), view != 0) > 0.9


@pytest.mark.parametrize("turn", [0, 1, 3])
def test_what_was_drawn_is_read(turn: int) -> None:
    view = np.rot90(drawn(WORDS, 20, 255, 0), turn)

    texts = reader().read(view, reader().find(view))

    assert WORDS.replace(" ", "") in "".join(text.words for text in texts).replace(" ", "")
    assert all(text.vertical == (turn in {1, 3}) for text in texts)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_an_even_picture_has_no_text(tone: int) -> None:
    assert reader().find(np.full((200, 300, 3), tone, np.uint8)) == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.booleans(), st.integers(0, 2**32 - 1))
def test_boxes_lie_in_the_picture_whatever_its_shape(rows: int, columns: int, coloured: bool, seed: int) -> None:  # noqa: FBT001 - drawn by hypothesis
    shape = (rows, columns, 3) if coloured else (rows, columns)
    view = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

    for box in reader().find(view):
        assert 0 <= box.top < box.bottom <= rows
        assert 0 <= box.left < box.right <= columns


def test_in_a_picture_lower_than_letters_nothing_is_looked_for() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (8, 300), np.uint8)

    assert reader().spots(noise) == ()


def test_a_process_has_one_reader() -> None:
    assert isinstance(reader(), Reader)
    assert reader() is reader()


def test_boxes_that_share_a_place_become_one() -> None:
    spots = joined([Spot(Box(0, 0, 10, 40), 0.5), Spot(Box(1, 5, 11, 50), 0.9), Spot(Box(80, 80, 90, 90), 0.4)])

    assert spots == (Spot(Box(0, 0, 11, 50), 0.9), Spot(Box(80, 80, 90, 90), 0.4))


def test_a_line_that_both_networks_saw_is_as_narrow_as_the_closer_box_and_as_long_as_ours() -> None:
    ours, screen = Spot(Box(100, 60, 130, 300), 0.8), Spot(Box(104, 100, 124, 282), 0.9)

    assert joined((ours,), (screen,)) == (Spot(Box(104, 72, 124, 288), 0.9, agreed=True),)


def test_planted_identities_are_hidden_and_most_harmless_words_stay() -> None:
    rng = np.random.default_rng(20)
    rows, columns = np.mgrid[:320, :320]
    anatomy = np.clip(90 + 60 * np.cos(rows / 40) * np.sin(columns / 55) + rng.normal(0, 3, (320, 320)), 0, 255)
    identities = hidden_identities = harmless = kept_harmless = 0
    for _ in range(4):
        view, drawn_strings = plant(anatomy.astype(np.uint8), rng, heights=(9, 22), harmless=2)
        ds = screenshot(Rows=320, Columns=320)
        assessment = assess(ds, picture(ds, memoryview(view.tobytes())), Identities.of(), reader())
        hidden = np.zeros(view.shape, bool)
        for box in assessment.boxes:
            hidden[box.top : box.bottom, box.left : box.right] = True
        for string in drawn_strings:
            left = string.survivors(hidden)
            if string.kind == IDENTITY:
                identities, hidden_identities = identities + 1, hidden_identities + (left == 0)
            else:
                harmless, kept_harmless = harmless + 1, kept_harmless + (left == string.characters)

    assert identities >= 10
    assert hidden_identities == identities
    assert kept_harmless >= 0.6 * harmless


def test_lines_below_each_other_stay_apart() -> None:
    lines = [Spot(Box(10 + 15 * n, 5, 32 + 15 * n, 90), 0.9) for n in range(4)]

    assert joined(lines) == tuple(lines)
