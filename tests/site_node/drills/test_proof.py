"""What comes out of a PACS is proved against what was archived: one other pixel or value is told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom.data
import pytest
from pydicom import dcmread

from site_node.archive.decoding import coded_digest
from site_node.archive.splitting import split
from site_node.drills import dimse
from site_node.drills.pacs import Credential, Pacs
from site_node.drills.proof import Verdict, header_of, judge
from site_node.errors import ArchiveError, ConfigurationError
from tests.site_node.archive.conftest import slice_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.archive.layout import Entry

needs_pacs = pytest.mark.skipif(not Path("/usr/sbin/Orthanc").exists(), reason="needs orthanc")
STUDY = "1.2.826.0.1.3680043.99.1"


def archived(path: Path, staging: Path) -> Entry:
    return split(path, f"originals/{path.name}", staging, coded_digest)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return an image in a file."""
    path = tmp_path / "image.dcm"
    path.write_bytes(slice_bytes(1, 0))
    return path


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    """Yield a fresh PACS."""
    with Pacs(tmp_path / "pacs", Credential.make(tmp_path / "key"), "DRILL") as started:
        yield started


def through(pacs: Pacs, path: Path, folder: Path, study: str = STUDY) -> Path | None:
    form = dimse.form_of(path)
    assert form is not None
    if dimse.store(pacs.peer, [path], [form], lambda: None)[path] != dimse.SUCCESS:
        return None
    (received,) = dimse.get_study(pacs.peer, study, [form], folder)
    return received


def test_the_same_is_proved_and_one_other_pixel_or_value_is_not(image: Path, tmp_path: Path) -> None:
    entry = archived(image, tmp_path / "staging")
    content = image.read_bytes()
    other_pixel, other_value = (tmp_path / name for name in ("pixel.dcm", "value.dcm"))
    other_pixel.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    other_value.write_bytes(content.replace(b"MRN-1", b"MRN-2"))

    assert judge(entry, image, coded_digest) is Verdict.PROVED
    assert judge(entry, other_pixel, coded_digest) is Verdict.OTHER_PIXELS
    assert judge(entry, other_value, coded_digest) is Verdict.OTHER_HEADER


def test_a_header_in_another_spelling_is_the_same_and_a_missing_element_is_not(tmp_path: Path) -> None:
    path = Path(str(pydicom.data.get_testdata_file("rtplan.dcm")))
    other, shorter = tmp_path / "other.dcm", tmp_path / "shorter.dcm"
    ds = dcmread(path)
    for item in (item for element in ds if element.VR == "SQ" for item in element.value):
        item.is_undefined_length_sequence_item = True
    for element in (element for element in ds if element.VR == "SQ"):
        element.is_undefined_length = True
    ds.save_as(other)
    del ds.BeamSequence[0].BeamName
    ds.save_as(shorter)

    assert header_of(other) == header_of(path)
    assert other.read_bytes() != path.read_bytes()
    assert header_of(shorter) != header_of(path)


def test_what_is_no_header_cannot_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "none.dcm"
    path.write_bytes(b"nothing")

    with pytest.raises(ArchiveError):
        header_of(path)


@pytest.mark.slow
@needs_pacs
def test_a_pacs_that_changes_what_it_keeps_is_found_out(pacs: Pacs, image: Path, tmp_path: Path) -> None:
    entry = archived(image, tmp_path / "staging")
    received = through(pacs, image, tmp_path / "first")
    (kept,) = (path for path in (tmp_path / "pacs" / "data").rglob("*") if path.is_file() and path.name.count("-") == 4)
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    form = dimse.form_of(image)
    assert form is not None
    (changed,) = dimse.get_study(pacs.peer, STUDY, [form], tmp_path / "second")

    assert received is not None
    assert judge(entry, received, coded_digest) is Verdict.PROVED
    assert judge(entry, changed, coded_digest) is Verdict.OTHER_PIXELS


@pytest.mark.slow
@needs_pacs
def test_nobody_without_the_key_of_the_drill_gets_an_association(pacs: Pacs, tmp_path: Path) -> None:
    other = Credential.make(tmp_path / "other")

    assert dimse.echoes(pacs.peer)
    assert not dimse.echoes(dimse.Peer("DRILL", pacs.peer.port, other.context()))


@pytest.mark.slow
@needs_pacs
def test_real_files_of_many_kinds_come_out_of_a_pacs_as_they_went_in(pacs: Pacs, tmp_path: Path) -> None:
    outcomes: dict[str, Verdict | None] = {}
    for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm",
                 "SC_rgb_rle.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "test-SR.dcm",
                 "emri_small_jpeg_ls_lossless.dcm", "color3d_jpeg_baseline.dcm", "SC_rgb_jpeg_dcmtk.dcm"):  # fmt: skip
        path = Path(str(pydicom.data.get_testdata_file(name)))
        entry = archived(path, tmp_path / "staging")
        received = through(pacs, path, tmp_path / name, entry.StudyInstanceUID)
        outcomes[name] = judge(entry, received, coded_digest) if received else None

    assert {name: verdict for name, verdict in outcomes.items() if verdict is not Verdict.PROVED} == {}


def test_a_site_without_a_pacs_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("Orthanc", path="/usr/sbin"):
        monkeypatch.setattr("site_node.drills.pacs._SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="apt-get install --no-install-recommends orthanc"):
        Pacs(tmp_path / "pacs", Credential.make(tmp_path / "key"), "DRILL").start()
