"""A staged file is the original to the byte, or it does not count."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import ImplicitVRLittleEndian

from benchmarks.attacks import BENIGN
from site_node.archive.decoding import Decoder, coded_digest
from site_node.archive.layout import Entry, rebuild, study_folder
from site_node.archive.lists import read_lists, write_lists
from site_node.archive.splitting import split
from site_node.errors import ArchiveError
from tests.site_node.archive.conftest import slice_bytes
from tests.site_node.dicom_files import file_bytes, mr_slice

if TYPE_CHECKING:
    from pydicom import Dataset

REAL = ("CT_small.dcm", "SC_rgb.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "liver_1frame.dcm", "rtplan.dcm")
MORE_REAL = ("image_dfl.dcm", "no_meta.dcm", "SC_rgb_rle_2frame.dcm", "MR_small_padded.dcm", "MR_truncated.dcm")


def staged(path: Path, staging: Path) -> Entry:
    return split(path, f"originals/{path.name}", staging, coded_digest)


def content(entry: Entry, staging: Path) -> bytes:
    return b"".join(rebuild(entry, staging / entry.study))


@pytest.mark.parametrize("name", [*REAL, *MORE_REAL])
def test_a_real_file_comes_back_to_the_byte(name: str, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file(name)))

    entry = staged(path, tmp_path)

    assert content(entry, tmp_path) == path.read_bytes()
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from([8, 16, 32]),
    signed=st.booleans(),
    samples=st.sampled_from([1, 3]),
    planes=st.booleans(),
    frames=st.integers(1, 3),
    tail=st.sampled_from([b"", b"\0", b"behind"]),
    seed=st.integers(0, 9),
)
def test_whatever_lies_in_a_file_comes_back(
    tmp_path: Path, *, bits: int, signed: bool, samples: int, planes: bool, frames: int, tail: bytes, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, frames * 33 * 32 * samples * bits // 8, dtype=np.uint8).tobytes()
    ds = mr_slice(Rows=33, Columns=32, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, NumberOfFrames=frames)
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.PixelData = samples, int(signed), values
    if samples > 1:
        ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", int(planes)
    path = tmp_path / "file.dcm"
    path.write_bytes(file_bytes(ds) + tail)

    entry = staged(path, tmp_path / "staging")

    assert content(entry, tmp_path / "staging") == path.read_bytes()
    assert entry.grid is not None
    assert len(entry.parts) == frames + bool(tail or len(values) % 2)


def test_an_edited_header_needs_no_new_part(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(slice_bytes(0, 0))
    before = staged(path, tmp_path)
    path.write_bytes(slice_bytes(0, 0, PatientName="QUITE^ANOTHER^AND^LONGER"))
    times = [p.stat().st_mtime_ns for p in (tmp_path / before.study / "px").iterdir()]

    after = staged(path, tmp_path)

    assert after.parts == before.parts
    assert after.pixels == before.pixels
    assert after.sha256 != before.sha256
    assert [p.stat().st_mtime_ns for p in (tmp_path / before.study / "px").iterdir()] == times


@pytest.mark.parametrize("change", BENIGN.items(), ids=lambda change: change[0])
def test_the_digest_of_pixels_is_that_of_every_lossless_form(change: tuple[str, object], tmp_path: Path) -> None:
    path = tmp_path / "files" / "a.dcm"
    path.parent.mkdir()
    path.write_bytes(slice_bytes(0, 0))
    before = staged(path, tmp_path)

    BENIGN[change[0]](path)
    (now,) = (found for found in path.parent.rglob("*") if found.is_file())

    assert staged(now, tmp_path).pixels == before.pixels


def test_bits_above_those_stored_are_no_part_of_an_image(tmp_path: Path) -> None:
    plain, dirty = (mr_slice(Rows=33, Columns=32, BitsStored=12, HighBit=11) for _ in range(2))
    values = np.arange(33 * 32, dtype="<u2")
    plain.PixelData, dirty.PixelData = values.tobytes(), (values | 0x8000).tobytes()

    assert digest(plain, tmp_path) == digest(dirty, tmp_path)


def test_small_and_coded_pixels_are_digested_as_native_ones_are(tmp_path: Path) -> None:
    ds = mr_slice(Rows=33, Columns=32, PixelData=np.arange(33 * 32, dtype="<u2").tobytes())
    path = tmp_path / "a.dcm"
    path.write_bytes(file_bytes(ds))
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    assert digest(ds, tmp_path) == coded_digest(path)


def digest(ds: Dataset, folder: Path) -> str:
    path = folder / "digested.dcm"
    path.write_bytes(file_bytes(ds))
    return staged(path, folder).pixels


def test_a_damaged_part_is_made_again_and_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(slice_bytes(0, 0))
    entry = staged(path, tmp_path)
    part = tmp_path / entry.study / entry.parts[0].name
    coded = bytearray(part.read_bytes())
    coded[len(coded) // 2] ^= 1
    part.write_bytes(coded)

    assert staged(path, tmp_path) == entry
    assert content(entry, tmp_path) == path.read_bytes()


def test_a_missing_part_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(slice_bytes(0, 0))
    entry = staged(path, tmp_path)
    (tmp_path / entry.study / entry.parts[0].name).unlink()

    with pytest.raises(ArchiveError, match="the part is missing"):
        content(entry, tmp_path)


def test_the_lists_of_a_study_say_all_that_is_known_of_its_files(tmp_path: Path) -> None:
    entries = []
    for number in range(2):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(slice_bytes(0, number))
        entries.append(staged(path, tmp_path))

    write_lists(tmp_path / entries[0].study, entries)

    assert read_lists(tmp_path / entries[0].study) == entries


def test_no_path_of_the_staging_folder_names_a_patient_or_a_study(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(slice_bytes(0, 0))

    entry = staged(path, tmp_path / "staging")

    names = " ".join(str(found) for found in (tmp_path / "staging").rglob("*"))
    assert entry.StudyInstanceUID
    assert entry.StudyInstanceUID not in names
    assert study_folder(entry.StudyInstanceUID) in names


def test_a_reader_that_dies_or_hangs_makes_a_file_unreadable_and_no_more(tmp_path: Path) -> None:
    pipe = tmp_path / "a.dcm"
    pipe.write_bytes(b"\0" * 128 + b"DICM" + bytes(100))

    with Decoder(limit_s=20) as decoder:
        assert decoder(pipe) == ""
        assert decoder(Path(str(get_testdata_file("JPEG2000.dcm")))) != ""


def test_pixels_of_floating_point_are_judged_too(tmp_path: Path) -> None:
    ds = mr_slice(Rows=33, Columns=32, BitsAllocated=32)
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, keyword)
    ds.FloatPixelData = np.arange(33 * 32, dtype="<f4").tobytes()
    before = digest(ds, tmp_path)
    ds.FloatPixelData = np.arange(1, 33 * 32 + 1, dtype="<f4").tobytes()

    assert before
    assert digest(ds, tmp_path) not in {"", before}


def test_pixels_behind_a_header_of_megabytes_are_judged_too(tmp_path: Path) -> None:
    short, long = slice_bytes(0, 0), slice_bytes(0, 0, ICCProfile=bytes(9 << 20))
    digests = set()
    for number, content_ in enumerate((short, long)):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(content_)
        digests.add(staged(path, tmp_path).pixels)

    assert len(digests) == 1
    assert "" not in digests


def test_a_file_that_is_cut_off_while_it_is_read_is_told_and_ends_nobody(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    shutil.copy(str(get_testdata_file("JPEG2000.dcm")), path)

    def cut_off(_path: Path) -> str:
        os.truncate(path, 500)  # less than a second attempt needs
        for part in tmp_path.rglob("*.raw"):
            part.write_bytes(b"damaged")
        return "a digest"

    with pytest.raises(ArchiveError, match="changed while it was read"):
        split(path, "originals/a.dcm", tmp_path / "staging", cut_off)
