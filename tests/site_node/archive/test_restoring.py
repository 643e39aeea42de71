"""Where a restore puts files: nowhere but in its place, and nothing that is not what was archived."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from site_node.archive.decoding import coded_digest
from site_node.archive.restoring import Place
from site_node.archive.splitting import split
from tests.site_node.archive.conftest import slice_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from site_node.archive.layout import Entry


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    (tmp_path / "one.dcm").write_bytes(slice_bytes(0, 0))
    return split(tmp_path / "one.dcm", "originals/a/one.dcm", tmp_path / "staging", coded_digest)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path / "back")
    place.begin(lambda: "f00d", "")
    return place


def test_a_file_goes_to_its_place_and_the_next_one_of_another_folder_too(
    entry: Entry, place: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "staging" / entry.study

    for path in ("originals/a/one.dcm", "originals/b/one.dcm", "originals/a/two.dcm"):
        assert place.put(folder, replace(entry, path=path))

        assert (place.target / path).read_bytes() == slice_bytes(0, 0)
        assert place.holds(replace(entry, path=path))


def test_no_file_is_put_outside_the_place(entry: Entry, place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert place.put(tmp_path / "staging" / entry.study, entry)
    (place.target / "originals" / "link").symlink_to(tmp_path / "elsewhere")
    before = set(tmp_path.rglob("*"))

    for path in (
        "originals/a/../../../out.dcm",
        "../out.dcm",
        f"{tmp_path}/out.dcm",
        "originals/link/out.dcm",
        "originals/link/deeper/out.dcm",
    ):
        assert not place.put(tmp_path / "staging" / entry.study, replace(entry, path=path))

    assert set(tmp_path.rglob("*")) == before


def test_what_is_not_as_it_was_archived_takes_no_place(entry: Entry, place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "staging" / entry.study
    part = folder / entry.parts[0].name
    coded = part.read_bytes()

    assert not place.put(folder, replace(entry, sha256="0" * 64))
    part.write_bytes(coded[:-7])
    assert not place.put(folder, entry)
    part.unlink()
    assert not place.put(folder, entry)

    assert not list((place.target).rglob("*.dcm"))
