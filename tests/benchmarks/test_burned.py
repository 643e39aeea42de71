"""What counts as left of burned-in text."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest

from benchmarks.burned import KINDS, Page, left, survivors, write
from tests.planted.burned import IDENTITY, plant

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.planted.burned import Drawn


@pytest.fixture(scope="module")
def drawn() -> tuple[NDArray[np.float32], NDArray[np.float32], Drawn]:
    """Return an even picture, the same with an identity drawn in, and what was drawn."""
    even = np.full((200, 400), 90, np.uint8)
    picture, (one,) = plant(even, np.random.default_rng(3), identities=1, harmless=0)
    return even.astype(np.float32), picture.astype(np.float32), one


def test_untouched_text_survives_and_blanked_text_does_not(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], Drawn],
) -> None:
    even, picture, one = drawn

    assert survivors(one, picture, picture) == one.characters
    assert survivors(one, picture, even) == 0
    assert survivors(one, picture, np.zeros_like(picture)) == 0


@pytest.mark.parametrize(("share", "survives"), [(0.9, True), (0.5, True), (0.2, False), (0.0, False)])
def test_faded_text_survives_by_how_much_of_its_contrast_is_left(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], Drawn], share: float, *, survives: bool
) -> None:
    even, picture, one = drawn

    faded = even + share * (picture - even)

    assert survivors(one, picture, faded) == (one.characters if survives else 0)


def test_the_letters_that_are_blanked_are_gone_and_the_others_stay(
    drawn: tuple[NDArray[np.float32], NDArray[np.float32], Drawn],
) -> None:
    _, picture, one = drawn
    halved = picture.copy()
    top, left_, bottom, right = one.box
    if one.place in ("upright", "down"):
        halved[top:bottom, left_ : (left_ + right) // 2] = 0
    else:
        halved[top : (top + bottom) // 2, left_:right] = 0

    assert 0 < survivors(one, picture, halved) < one.characters


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Page]]:
    """Return a folder of pictures, half of them with text."""
    folder = tmp_path_factory.mktemp("burned") / "files"
    return folder, write(folder, 2, 6, 6)


def test_a_tool_that_copies_hides_nothing_and_touches_nothing(pages: tuple[Path, list[Page]], tmp_path: Path) -> None:
    folder, written = pages
    shutil.copytree(folder, tmp_path / "out")

    found = left(
        folder, {page.name: tmp_path / "out" / page.name for page in written}, written, frozenset(), read=False
    )

    assert found.hidden == found.clean_touched == 0
    assert found.characters_left == found.characters > 0
    assert found.harmless_kept == found.harmless


def test_a_tool_that_blanks_everything_hides_all_and_keeps_nothing(
    pages: tuple[Path, list[Page]], tmp_path: Path
) -> None:
    folder, written = pages
    for page in written:
        ds = pydicom.dcmread(folder / page.name)
        if ds.file_meta.TransferSyntaxUID.is_compressed:
            ds.decompress()
        ds.PixelData = bytes(len(ds.PixelData))
        ds.save_as(tmp_path / page.name)

    found = left(folder, {page.name: tmp_path / page.name for page in written}, written, frozenset(), read=False)

    assert found.hidden == found.identities
    assert found.characters_left == found.harmless_kept == 0
    assert found.clean_touched == found.clean


def test_what_is_held_is_not_counted_as_hidden(pages: tuple[Path, list[Page]]) -> None:
    folder, written = pages

    found = left(folder, {}, written, frozenset(page.name for page in written), read=False)

    assert found.hidden == 0
    assert found.held == found.identities == sum(one.kind == IDENTITY for page in written for one in page.drawn)
    assert found.clean_held == found.clean == 6


def test_the_same_seed_writes_the_same_files(pages: tuple[Path, list[Page]], tmp_path: Path) -> None:
    folder, _ = pages

    write(tmp_path / "again", 2, 6, 6)

    for path in folder.iterdir():
        first, second = (pydicom.dcmread(one) for one in (path, tmp_path / "again" / path.name))
        assert first.PixelData == second.PixelData


def test_text_is_burned_into_pictures_of_every_kind() -> None:
    assert len({kind[1] for kind in KINDS}) >= 8
    assert {kind[4] for kind in KINDS} == {"RGB", "MONOCHROME1", "MONOCHROME2", "12 bits"}
