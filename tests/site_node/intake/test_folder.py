"""A folder taken in: one outcome for each file, nothing lost, nothing leaked, a kill harmless."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID, VLPhotographicImageStorage

from site_node.catalogue import series_with_labels
from site_node.deidentify.blanking import UNUSED_BITS
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.deidentify.stream import NOT_DICOM
from site_node.deidentify.visible_light import HEAD
from site_node.errors import ConfigurationError
from site_node.intake.folder import DUPLICATE, IngestSummary, ingest
from site_node.intake.heads import LATE
from site_node.intake.judging import TOO_LARGE
from site_node.review import find
from site_node.store import disposition, instance, open_store
from tests.site_node.dicom_files import (
    COLUMNS,
    FRAME_UID,
    KEY,
    NAME,
    PATIENT_ID,
    ROWS,
    STUDY_UID,
    file_bytes,
    masks,
    mr_series,
    mr_slice,
    segmentation,
    sop_uid,
)
from tests.site_node.hospital import intake_of

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
PSEUDONYMISER = Pseudonymiser(KEY)
KILLED_RUN = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.intake import folder
from site_node.store import open_store
from tests.site_node.hospital import intake_of

inbox, root, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def progress(done, total):
    if done == last:
        os.kill(os.getpid(), signal.SIGKILL)

intake = intake_of(root, open_store(root / "site.db"), Pseudonymiser(bytes(range(32))))
folder.ingest(inbox, intake, datetime(2026, 11, 24, 12, tzinfo=UTC), progress=progress, processes=1)
"""


def take_in(inbox: Path, root: Path, store: sa.Engine, processes: int = 1) -> IngestSummary:
    return ingest(inbox, intake_of(root, store, PSEUDONYMISER), AT, processes=processes)


def put(inbox: Path, **files: bytes) -> None:
    for name, content in files.items():
        (inbox / name).write_bytes(content)


def mixed(inbox: Path) -> None:
    """Put one file of every outcome into `inbox`."""
    good = file_bytes(mr_slice(0))
    put(
        inbox,
        a_good=good,
        b_good=file_bytes(mr_slice(1)),
        c_again=good,
        d_face=file_bytes(mr_slice(2, BodyPartExamined="HEAD")),
        e_screen=file_bytes(mr_slice(3, SOPClassUID=VLPhotographicImageStorage, BodyPartExamined="FACE")),
        f_text=b"not an image, but " + NAME.encode(),
        g_empty=b"",
        h_cut=good[:-20],
        i_other=file_bytes(mr_slice(1, EchoTime=91)),
        j_nobody=file_bytes(mr_slice(4, PatientID="")),
    )


def state(root: Path, store: sa.Engine) -> tuple[object, ...]:
    """Return everything the site keeps: files with their bytes, and rows."""
    files = {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith("site.db")
    }
    with store.connect() as db:
        rows = [sorted(map(tuple, db.execute(sa.select(table)).all()), key=str) for table in (disposition, instance)]
    return files, rows


def test_every_file_has_one_outcome_and_a_reason(inbox: Path, root: Path, store: sa.Engine) -> None:
    mixed(inbox)

    summary = take_in(inbox, root, store)

    assert summary == IngestSummary(
        accepted=3,
        held=2,
        quarantined=4,
        already_known=1,
        not_read=0,
        reasons={
            NOT_DICOM: 2,
            LATE: 1,
            HEAD: 1,
            DUPLICATE: 1,
            "truncated at (7FE0,0010)": 1,
        },
    )
    assert summary.files == 10


def test_what_is_kept_is_the_original_unless_it_was_accepted(inbox: Path, root: Path, store: sa.Engine) -> None:
    mixed(inbox)

    take_in(inbox, root, store)

    with store.connect() as db:
        rows = db.execute(sa.select(disposition)).all()
    originals = {path.read_bytes() for path in inbox.iterdir()}
    for row in rows:
        kept = (root / row.kept_as).read_bytes()
        assert (kept in originals) == (row.outcome != "accepted")
    assert len(rows) == 9


def test_a_second_run_changes_nothing(inbox: Path, root: Path, store: sa.Engine) -> None:
    mixed(inbox)
    take_in(inbox, root, store)
    before = state(root, store)

    summary = take_in(inbox, root, store)

    assert summary.already_known == summary.files == 10
    assert state(root, store) == before


@pytest.mark.parametrize("last", [1, 40, 66, 70])
def test_a_run_killed_at_any_file_ends_like_one_that_was_not(
    inbox: Path, root: Path, store: sa.Engine, tmp_path: Path, last: int
) -> None:
    mixed(inbox)
    put(inbox, **{f"z{number:02}": file_bytes(mr_slice(number)) for number in range(10, 70)})
    whole = tmp_path / "whole"
    whole.mkdir()
    whole_store = open_store(whole / "site.db")
    take_in(inbox, whole, whole_store)

    killed = subprocess.run([sys.executable, "-c", KILLED_RUN, str(inbox), str(root), str(last)], check=False)
    take_in(inbox, root, store)

    assert killed.returncode == -9
    assert state(root, store) == state(whole, whole_store)
    whole_store.dispose()


def test_no_identity_is_in_names_rows_reasons_or_output(
    inbox: Path,
    root: Path,
    store: sa.Engine,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = file_bytes(mr_slice(1)).replace(b"KNEE", NAME[:4].encode())
    put(inbox, **{f"{NAME}_1": file_bytes(mr_slice(0)), f"{NAME}_2": bad})
    put(inbox, **{f"{NAME}_3": file_bytes(mr_slice(2)).replace(b"DS\x02\x0090", b"DS\x02\x00QX")})
    # pydicom quotes a UID that is none, in a warning and in its log.
    no_uid = NAME.ljust(len(FRAME_UID), "X").encode()
    put(inbox, **{f"{NAME}_4": file_bytes(mr_slice(3)).replace(FRAME_UID.encode(), no_uid)})
    put(inbox, seg=file_bytes(segmentation(mr_series(), masks())))

    summary = take_in(inbox, root, store)

    out, err = capfd.readouterr()
    accepted = [path.read_bytes() for path in (root / "deidentified").rglob("*.dcm")]
    database = (root / "site.db").read_bytes() + (root / "site.db-wal").read_bytes()
    spoken = [*accepted, database, (out + err + caplog.text).encode(), str(summary).encode()]
    spoken += [str(path.relative_to(root)).encode() for path in root.rglob("*")]
    assert len(accepted) >= 2
    for needle in (NAME, PATIENT_ID, STUDY_UID, "19610417"):
        assert not any(needle.encode() in text for text in spoken)


def test_an_identity_outside_the_data_set_is_gone_too(inbox: Path, root: Path, store: sa.Engine) -> None:
    ds = mr_slice()
    ds.file_meta.SourceApplicationEntityTitle = NAME[:16]
    ds.file_meta.PrivateInformationCreatorUID = UID("1.2.3")
    ds.file_meta.PrivateInformation = NAME.encode()
    ds.add_new(0xFFFCFFFC, "OB", NAME.encode())
    put(inbox, a=file_bytes(ds, preamble=NAME.encode().ljust(128)))

    summary = take_in(inbox, root, store)

    (kept,) = (root / "deidentified").rglob("*.dcm")
    assert summary.accepted == 1
    assert NAME[:16].encode() not in kept.read_bytes()


def test_a_segmentation_is_read_by_another_library_and_found_with_its_series(
    inbox: Path, root: Path, store: sa.Engine
) -> None:
    images, truth = mr_series(), masks()
    files = {f"i{number}": file_bytes(ds) for number, ds in enumerate(images)}
    put(inbox, **files, label=file_bytes(segmentation(images, truth)))

    take_in(inbox, root, store)

    with store.connect() as db:
        (series,) = series_with_labels(db, "MR")
    assert series.segmentation is not None
    read = hd.seg.segread(root / series.segmentation.path)
    uids = [PSEUDONYMISER.uid(sop_uid(number)) for number in range(3)]
    np.testing.assert_array_equal(read.get_pixels_by_source_instance(uids), truth)
    assert [item.SOPInstanceUID for item in series.instances] == sorted(uids)


def test_the_catalogue_knows_pseudonyms_and_the_true_date(inbox: Path, root: Path, store: sa.Engine) -> None:
    put(inbox, a=file_bytes(mr_slice()))

    take_in(inbox, root, store)

    with store.connect() as db:
        (series,) = series_with_labels(db, "MR")
    assert series.patient == PSEUDONYMISER.patient(PATIENT_ID)
    assert series.StudyInstanceUID == PSEUDONYMISER.uid(STUDY_UID)
    assert series.study_date == "2026-03-12"
    stored = dcmread(root / series.instances[0].path)
    assert stored.PatientID == series.patient


def test_a_directory_is_deidentified_and_a_file_beyond_the_limit_quarantined(
    inbox: Path, root: Path, store: sa.Engine
) -> None:
    index = Path(str(get_testdata_file("DICOMDIR")))
    size = index.stat().st_size
    put(inbox, index=index.read_bytes(), large=bytes(size + 1))

    summary = ingest(inbox, intake_of(root, store, PSEUDONYMISER, max_bytes=size), AT, processes=1)

    (kept,) = (root / "deidentified" / "index").iterdir()
    assert (summary.accepted, summary.reasons) == (1, {TOO_LARGE: 1})
    assert b"Doe^" in index.read_bytes()
    assert b"Doe^" not in kept.read_bytes()
    assert bytes(size + 1) in {path.read_bytes() for path in (root / "quarantine").iterdir()}


@pytest.mark.parametrize("depth", [20, 3000])
def test_a_sequence_nested_deeply_stops_nothing(inbox: Path, root: Path, store: sa.Engine, depth: int) -> None:
    open_item = bytes.fromhex("08004011 5351 0000 ffffffff feff00e0 ffffffff")
    close_item = bytes.fromhex("feff0de0 00000000 feffdde0 00000000")
    content = file_bytes(mr_slice())
    modality = content.index(b"\x08\x00\x60\x00CS")
    nested = content[:modality] + open_item * depth + close_item * depth + content[modality:]
    put(inbox, deep=nested, good=file_bytes(mr_slice(1)))

    summary = take_in(inbox, root, store)

    assert summary.files == 2
    assert summary.accepted >= 1


def test_what_the_system_will_not_open_is_counted_and_tried_again(inbox: Path, root: Path, store: sa.Engine) -> None:
    (inbox / "a").symlink_to("/proc/self/mem")  # a regular file whose first byte cannot be read

    first = take_in(inbox, root, store)
    (inbox / "a").unlink()
    put(inbox, a=file_bytes(mr_slice()))
    second = take_in(inbox, root, store)

    assert (first.not_read, first.files) == (1, 1)
    assert second.accepted == 1


def test_kept_files_are_for_the_owner_alone(inbox: Path, root: Path, store: sa.Engine) -> None:
    mixed(inbox)

    take_in(inbox, root, store)

    kept = [path for path in root.rglob("*/**/*") if path.is_file()]
    assert kept
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}


def test_the_site_folder_is_not_taken_in(root: Path, store: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="inside the folder"):
        take_in(root.parent, root, store)


def test_progress_hears_of_every_file(inbox: Path, root: Path, store: sa.Engine) -> None:
    mixed(inbox)
    heard: list[tuple[int, int]] = []

    intake = intake_of(root, store, PSEUDONYMISER)
    ingest(inbox, intake, AT, progress=lambda *step: heard.append(step), processes=1)

    assert heard == [(number, 10) for number in range(1, 11)]


@pytest.mark.timeout(900)  # some hundred pictures are read for text
@pytest.mark.parametrize(
    "package",
    ["pynetdicom.tests", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pydicom.data", "data_store"))],
)
def test_every_real_file_of_a_package_has_one_outcome(package: str, root: Path, store: sa.Engine) -> None:
    spec = find_spec(package.partition(".")[0]) and find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    source = Path(spec.submodule_search_locations[0])

    summary = take_in(source, root, store, processes=2)

    assert summary.files == sum(path.is_file() for path in source.rglob("*"))
    assert summary.accepted > 0
    assert summary.not_read == 0
    for path in (root / "deidentified").glob("2.25.*/**/*.dcm"):  # a directory is no instance
        assert dcmread(path).PatientIdentityRemoved == "YES"


def test_what_was_done_to_a_file_besides_is_on_record(inbox: Path, root: Path, store: sa.Engine) -> None:
    put(inbox, a=file_bytes(mr_slice(0, BitsStored=12, HighBit=11, PixelData=b"\xff\xff" * ROWS * COLUMNS)))

    take_in(inbox, root, store)

    with store.connect() as db:
        (source,) = db.scalars(sa.select(disposition.c.source_sha256))
        assert find(db, source).notes == (UNUSED_BITS,)
