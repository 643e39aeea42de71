"""The corpus says what its key says; the scorer sees all of it in the originals, and nothing where nothing is."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from tests.planted.bases import BASES
from tests.planted.broken import MAY_BE_TAKEN, NAME, broken
from tests.planted.generate import generate
from tests.planted.key import FileKey, load
from tests.planted.places import NESTED, TECHNICAL, TOP
from tests.planted.score import score
from tests.planted.search import Bytes

if TYPE_CHECKING:
    from pathlib import Path

# A few of the kinds of file: the whole corpus is for measuring, not for every test run.
FEW = ("ct", "mr-big-endian", "mr-jpeg2000", "sr-basic", "pdf", "xa")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FileKey]]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, generate(folder, 3, FEW)


def test_every_attribute_named_is_one_of_the_dictionary() -> None:
    named = [keyword for keywords in TOP.values() for keyword in keywords] + list(TECHNICAL)
    named += [keyword for path, contents in NESTED for keyword in (*path, *contents)]
    assert [keyword for keyword in named if tag_for_keyword(keyword) is None] == []
    assert all(dictionary_VR(tag_for_keyword(keyword) or 0) == "SQ" for path, _ in NESTED for keyword in path)


def test_the_key_can_be_written_and_read(corpus: tuple[Path, list[FileKey]]) -> None:
    folder, key = corpus
    assert load(folder / "key.json") == key


def test_the_same_seed_writes_the_same(tmp_path: Path) -> None:
    generate(tmp_path / "one", 4, ("ko",))
    generate(tmp_path / "other", 4, ("ko",))
    for file in (tmp_path / "one" / "files").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / "files" / file.name).read_bytes()


def test_every_file_is_read_by_pydicom_and_its_pixels_decoded(corpus: tuple[Path, list[FileKey]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in (corpus[0] / "files").iterdir():
            ds = pydicom.dcmread(file)
            if "PixelData" in ds:
                assert ds.pixel_array.size


def test_identities_stand_in_more_than_185_kinds_of_place(corpus: tuple[Path, list[FileKey]]) -> None:
    assert len({planted.place for file in corpus[1] for planted in file.planted}) > 185


def test_all_that_was_planted_survives_in_the_originals(corpus: tuple[Path, list[FileKey]]) -> None:
    folder, key = corpus
    figures = score(folder / "files", folder / "files", key, validate=False)
    assert figures.planted == figures.survived
    assert sum(figures.planted.values()) > 0.98 * sum(len(file.planted) for file in key)
    assert figures.technical_kept == figures.technical > 0
    assert figures.harmless_kept == figures.harmless > 0
    assert figures.images_identical == figures.images > 0
    assert figures.intervals_kept == figures.dated > 0
    assert figures.burned_survived == figures.burned > 0


def test_nothing_is_found_in_files_where_nothing_was_planted(
    corpus: tuple[Path, list[FileKey]], tmp_path: Path
) -> None:
    bases = {base.name: base for base in BASES}
    hits = []
    for file in corpus[1]:
        ds = bases[file.base].make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds.save_as(tmp_path / file.name)
        searched = Bytes.of((tmp_path / file.name).read_bytes())
        said = {(token, planted.kind) for planted in file.planted for token in planted.bytes_of}
        hits += [token for token, kind in said if kind in ("basic", "device") and searched.say(token, kind)]
    assert hits == []


def test_the_scorer_sees_what_is_lost(corpus: tuple[Path, list[FileKey]], tmp_path: Path) -> None:
    folder, key = corpus
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(folder / "files" / "ct.dcm")
        del ds.PixelSpacing
        ds.PatientID, ds.PatientName = "P1", "P1"
        ds.StudyDate = "19990101"
        ds.PixelData = bytes(len(ds.PixelData))
        ds.save_as(tmp_path / "ct.dcm")
    figures = score(folder / "files", tmp_path, key, validate=False)
    assert figures.technical - figures.technical_kept == 1
    assert figures.images_changed
    assert figures.intervals_kept == 0
    assert set(figures.missing) == {f"{name}.dcm" for name in FEW if name != "ct"}
    assert figures.survived["basic"] < figures.planted["basic"]


def test_what_is_hidden_in_other_encodings_is_found() -> None:
    name = "Quixotevan"
    for hidden in (
        name.encode("utf-16-le"),
        name.encode().hex().encode(),
        np.frombuffer(name.encode(), "u2").byteswap().tobytes(),
        b"UXVpeG90ZXZhbg==",
    ):
        assert Bytes.of(b"\0" * 200 + hidden + b"\0" * 200).say(name, "basic"), hidden
    assert not Bytes.of(b"\0" * 200 + name[:-1].encode()).say(name, "basic")


def test_there_are_broken_files_of_many_kinds_and_each_names_somebody() -> None:
    files = broken(np.random.default_rng(1))
    assert len(files) >= 40
    assert set(files) > MAY_BE_TAKEN
    assert len(set(files.values())) == len(files)
    assert sum(NAME.split(b"^")[0] in content for content in files.values()) > 35


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_a_file_has_no_new_errors_against_itself(corpus: tuple[Path, list[FileKey]]) -> None:
    folder, key = corpus
    figures = score(folder / "files", folder / "files", [file for file in key if file.base == "pdf"])
    assert figures.new_errors == 0


def test_digits_within_a_random_uid_are_nobodys_number() -> None:
    uid = b"2.25.123456789012603606029876543210987654"
    assert not Bytes.of(uid).say("60360602", "basic")
    assert Bytes.of(uid + b" 60360602").say("60360602", "basic")
    assert Bytes.of(b"2016051360360602").say("60360602", "basic")
