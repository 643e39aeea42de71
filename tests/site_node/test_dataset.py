"""Training examples: right order, right units, and only from files that were de-identified."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from site_node.catalogue import Instance, LabelledImage, Series
from site_node.dataset import examples_from_images, examples_from_series, read_image_series
from site_node.errors import UnreadableInstance
from tests.site_node.dicom_files import (
    COLUMNS,
    GREY,
    ROWS,
    WHITE,
    file_bytes,
    masks,
    mr_series,
    mr_slice,
    pixels,
    segmentation,
    sop_uid,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

CODES = {GREY: 1, WHITE: 2}


def stored(root: Path, *data_sets: Dataset) -> tuple[Instance, ...]:
    instances = []
    for ds in data_sets:
        content, uid = file_bytes(ds), str(ds.SOPInstanceUID)
        (root / uid).write_bytes(content)
        instances.append(Instance(uid, hashlib.sha256(content).hexdigest(), uid))
    return tuple(instances)


def labelled_series(root: Path) -> Series:
    images = mr_series()
    (label,) = stored(root, segmentation(images, masks()))
    return Series("series", "study", "P1", None, stored(root, *reversed(images)), label)


def test_slices_are_sorted_along_their_normal_whatever_order_they_come_in(root: Path) -> None:
    instances = stored(root, *(mr_slice(number) for number in (2, 0, 1)))

    volume, uids = read_image_series(instances, root)

    assert uids == tuple(sop_uid(number) for number in range(3))
    assert volume.dtype == np.float32
    np.testing.assert_array_equal(volume, np.stack([pixels(number) for number in range(3)]))


def test_the_normal_decides_and_not_one_axis(root: Path) -> None:
    sagittal = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}  # its normal is -x
    instances = stored(
        root,
        *(mr_slice(n, ImagePositionPatient=[4 * n, 0, 0], **sagittal) for n in range(3)),
    )

    _, uids = read_image_series(instances, root)

    assert uids == tuple(sop_uid(number) for number in (2, 1, 0))


def test_values_are_in_the_units_of_the_modality(root: Path) -> None:
    instances = stored(root, mr_slice(RescaleSlope="2", RescaleIntercept="-1024"))

    volume, _ = read_image_series(instances, root)

    np.testing.assert_array_equal(volume[0], pixels() * 2.0 - 1024)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({"ImagePositionPatient": [0, 0, 0]}, "two slices lie in the same place"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "differs within a series"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient: absent"),
        ({"Rows": COLUMNS, "Columns": ROWS}, "Rows, Columns: differ"),
        ({"NumberOfFrames": 2, "PixelData": bytes(192)}, "multi-frame"),
    ],
)
def test_slices_that_form_no_stack_are_refused(root: Path, second: dict[str, object], why: str) -> None:
    instances = stored(root, mr_slice(0), mr_slice(1, **second))

    with pytest.raises(UnreadableInstance, match=why):
        read_image_series(instances, root)


def test_an_empty_series_is_refused(root: Path) -> None:
    with pytest.raises(UnreadableInstance, match="empty"):
        read_image_series((), root)


def test_a_file_that_was_altered_or_is_gone_is_not_used(root: Path) -> None:
    (instance,) = stored(root, mr_slice())
    path = root / instance.path

    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UnreadableInstance, match="not the file in the catalogue"):
        read_image_series([instance], root)

    path.unlink()
    with pytest.raises(UnreadableInstance, match="cannot be read"):
        read_image_series([instance], root)


def test_a_labelled_series_gives_a_two_dimensional_example_for_each_slice(root: Path) -> None:
    truth = masks()

    examples = examples_from_series(labelled_series(root), root, CODES, spatial_dims=2)

    assert len(examples) == 3
    for number, example in enumerate(examples):
        assert example["image"].shape == (1, ROWS, COLUMNS)
        np.testing.assert_array_equal(example["image"][0], pixels(number))
        np.testing.assert_array_equal(example["label"], [truth[number] @ [1, 2]])


def test_a_labelled_series_gives_one_three_dimensional_example(root: Path) -> None:
    (example,) = examples_from_series(labelled_series(root), root, CODES, spatial_dims=3)

    assert example["image"].shape == np.shape(example["label"]) == (1, 3, ROWS, COLUMNS)


def test_a_series_without_a_segmentation_gives_no_example(root: Path) -> None:
    series = Series("series", "study", "P1", None, stored(root, mr_slice()), None)

    with pytest.raises(UnreadableInstance, match="no segmentation"):
        examples_from_series(series, root, CODES, spatial_dims=2)


def test_an_image_with_a_class_gives_a_classification_example(root: Path) -> None:
    (instance,) = stored(root, mr_slice())

    (example,) = examples_from_images([LabelledImage(instance, "study", "P1", None, 1)], root)

    assert example["label"] == 1
    np.testing.assert_array_equal(example["image"], [pixels()])
