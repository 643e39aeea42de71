"""Labels: read as they were drawn, and refused where they could mean something else."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from site_node.deidentify import stream
from site_node.deidentify.headers import deidentify
from site_node.deidentify.profile import Options, Profile
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import UnreadableInstance
from site_node.labels import read_class_labels, read_segmentation
from tests.site_node.dicom_files import (
    COLUMNS,
    GREY,
    KEY,
    ROWS,
    WHITE,
    file_bytes,
    masks,
    mr_series,
    segmentation,
    sop_uid,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

PSEUDONYMISER = Pseudonymiser(KEY)
CODES = {GREY: 1, WHITE: 2}
IMAGES = mr_series()
UIDS = [sop_uid(number) for number in range(3)]


def read(ds: Dataset, uids: Sequence[str] = UIDS, codes: Mapping[tuple[str, str], int] = CODES) -> NDArray[np.uint8]:
    return read_segmentation(BytesIO(file_bytes(ds)), uids, codes)


def expected(segments: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return segments[..., 0] * np.uint8(1) + segments[..., 1] * np.uint8(2)


def test_every_voxel_has_the_label_of_its_segment_in_the_order_of_the_images() -> None:
    truth = masks()
    order = [2, 0, 1]

    labels = read(segmentation(IMAGES, truth), [UIDS[number] for number in order])

    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected(truth)[order])


@given(st.binary(min_size=3 * ROWS * COLUMNS, max_size=3 * ROWS * COLUMNS))
@settings(deadline=None)
def test_what_was_drawn_is_what_is_read(drawing: bytes) -> None:
    chosen = np.frombuffer(drawing, np.uint8).reshape(3, ROWS, COLUMNS) % 3
    truth = np.stack([chosen == 1, chosen == 2], axis=-1)
    truth[0, 0, 0] = True, False  # highdicom refuses a segmentation without any voxel

    np.testing.assert_array_equal(read(segmentation(IMAGES, truth)), expected(truth))


def test_a_slice_without_any_segment_is_background() -> None:
    truth = masks()
    truth[1] = False

    labels = read(segmentation(IMAGES, truth))

    assert not labels[1].any()
    np.testing.assert_array_equal(labels[2], expected(truth)[2])


def test_a_deidentified_segmentation_reads_the_same() -> None:
    truth = masks()
    uids = [PSEUDONYMISER.uid(uid) for uid in UIDS]

    source = stream.read(file_bytes(segmentation(IMAGES, truth)))
    clean = b"".join(stream.write(deidentify(source, Profile.of(Options()), PSEUDONYMISER).part10))
    labels = read_segmentation(BytesIO(clean), uids, CODES)

    np.testing.assert_array_equal(labels, expected(truth))


def test_a_wanted_segment_that_is_absent_is_named() -> None:
    with pytest.raises(UnreadableInstance, match="no segment with code SCT 10200004"):
        read(segmentation(IMAGES, masks()), codes={("SCT", "10200004"): 1})


def test_an_unwanted_segment_is_left_out() -> None:
    truth = masks()

    labels = read(segmentation(IMAGES, truth), codes={WHITE: 7})

    np.testing.assert_array_equal(labels, truth[..., 1] * np.uint8(7))


def test_segments_that_overlap_are_refused() -> None:
    truth = masks()
    truth[0, 0, 0] = True

    with pytest.raises(UnreadableInstance, match="overlap"):
        read(segmentation(IMAGES, truth))


def test_a_segmentation_of_other_images_is_refused() -> None:
    with pytest.raises(UnreadableInstance, match="of other images"):
        read(segmentation(IMAGES, masks()), ["1.2.3"])


def test_a_fractional_segmentation_is_refused() -> None:
    ds = segmentation(IMAGES, masks())
    ds.SegmentationType = "FRACTIONAL"

    with pytest.raises(UnreadableInstance, match="only BINARY"):
        read(ds)


@pytest.mark.parametrize("keyword", ["SegmentSequence", "PerFrameFunctionalGroupsSequence", "PixelData", "Rows"])
def test_a_segmentation_that_lacks_a_part_is_unreadable(keyword: str) -> None:
    ds = segmentation(IMAGES, masks())
    delattr(ds, keyword)

    with pytest.raises(UnreadableInstance):
        read(ds)


def label_file(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_class_labels_come_out_under_pseudonyms(tmp_path: Path) -> None:
    path = label_file(tmp_path, "SOPInstanceUID,label\n1.2.3,0\n1.2.4,12\n")

    assert read_class_labels(path, PSEUDONYMISER) == {
        PSEUDONYMISER.uid("1.2.3"): 0,
        PSEUDONYMISER.uid("1.2.4"): 12,
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1"),
        ("uid,label\n", "line 1"),
        ("SOPInstanceUID,label\n1.2.3\n", "line 2"),
        ("SOPInstanceUID,label\n1.2.3,1,2\n", "line 2"),
        ("SOPInstanceUID,label\n1.2.3,-1\n", "label is not a whole number"),
        ("SOPInstanceUID,label\n1.2.3,1.0\n", "label is not a whole number"),
        ("SOPInstanceUID,label\n1.2.3,\u0663\n", "label is not a whole number"),
        ("SOPInstanceUID,label\n1.2.3,0\nSMITH^ANNA,1\n", "line 3: SOPInstanceUID"),
        ("SOPInstanceUID,label\n1.2.3,0\n1.2.3,1\n", "line 3: a second label"),
        ('SOPInstanceUID,label\n"1.2.3"x,0\n', "not a CSV file"),
    ],
)
def test_a_label_file_that_is_not_strict_is_refused_by_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UnreadableInstance, match=why) as refusal:
        read_class_labels(label_file(tmp_path, text), PSEUDONYMISER)

    assert "SMITH" not in str(refusal.value)
