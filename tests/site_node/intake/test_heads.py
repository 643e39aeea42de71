"""Heads are judged with their series: cleared, defaced, or held together with a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pydicom import dcmread

from site_node.deidentify import faces
from site_node.deidentify.defacing import NO_HEAD
from site_node.intake.folder import ingest
from site_node.intake.heads import LATE
from site_node.store import disposition
from tests.site_node.dicom_files import file_bytes, mr_slice
from tests.site_node.hospital import intake_of

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
HEAD = {"BodyPartExamined": "HEAD"}


def take(inbox: Path, root: Path, store: sa.Engine) -> dict[str, int]:
    summary = ingest(inbox, intake_of(root, store), AT, processes=1)
    return {"accepted": summary.accepted, **summary.reasons}


def put(inbox: Path, numbers: range, **attributes: object) -> None:
    for number in numbers:
        (inbox / f"{number:02}").write_bytes(file_bytes(mr_slice(number, **(HEAD | attributes))))


def test_a_few_axial_sections_make_no_surface_and_nothing_is_claimed(inbox: Path, root: Path, store: sa.Engine) -> None:
    put(inbox, range(4))

    assert take(inbox, root, store) == {"accepted": 4}
    for path in (root / "deidentified").rglob("*.dcm"):
        assert "RecognizableVisualFeatures" not in dcmread(path)


def test_a_few_sagittal_sections_show_a_profile_and_are_held_together(
    inbox: Path, root: Path, store: sa.Engine
) -> None:
    for number in range(3):
        place = [2.5 * number, 0, 0]
        ds = mr_slice(number, **HEAD, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=place)
        (inbox / f"{number}").write_bytes(file_bytes(ds))

    assert take(inbox, root, store) == {"accepted": 0, faces.PROFILE: 3}
    with store.connect() as db:
        assert {*db.scalars(sa.select(disposition.c.reason))} == {faces.PROFILE}


def test_a_stack_in_which_no_head_is_found_is_held(inbox: Path, root: Path, store: sa.Engine) -> None:
    put(inbox, range(12))

    found = take(inbox, root, store)

    assert found["accepted"] == 0
    assert set(found) - {"accepted"} <= {NO_HEAD, "face-volume-too-small", "face-template-does-not-fit"}
    assert sum(found.values()) == 12


def test_a_section_that_comes_after_its_series_is_held(inbox: Path, root: Path, store: sa.Engine) -> None:
    put(inbox, range(4))
    take(inbox, root, store)
    put(inbox, range(4, 5))

    assert take(inbox, root, store) == {"accepted": 0, LATE: 1}


def test_who_says_that_nobody_can_be_recognised_is_believed(inbox: Path, root: Path, store: sa.Engine) -> None:
    put(inbox, range(12), RecognizableVisualFeatures="NO")

    assert take(inbox, root, store) == {"accepted": 12}
    for path in (root / "deidentified").rglob("*.dcm"):
        ds = dcmread(path)
        assert ds.RecognizableVisualFeatures == "NO"
        assert "113102" in {item.CodeValue for item in ds.DeidentificationMethodCodeSequence}
