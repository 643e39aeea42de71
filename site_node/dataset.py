"""Training examples from the de-identified store.

Every file is checked against the digest in the catalogue before a byte of it is used. Does not
choose which patients are used (cohort) and does not transform images (models.learning).
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from pydicom import dcmread

from site_node.errors import UnreadableInstance
from site_node.labels import read_segmentation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from site_node.catalogue import Instance, LabelledImage, Series

# PS3.3 C.7.6.2.1.1: direction cosines are stored with few digits.
_COSINE_TOLERANCE = 1e-3
_SAME_PLACE_MM = 1e-3


class Example(TypedDict):
    """An image, (channel, *spatial) float32; its labels, (1, *spatial) uint8, or its class."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | int


def read_image_series(instances: Sequence[Instance], root: Path) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the volume of a series and its SOPInstanceUIDs in the order of the slices.

    Shape:  (slice, row, column); slices ascend along the normal of the first (LPS).
    Units:  those of the modality: RescaleSlope and RescaleIntercept are applied.
    Raises: UnreadableInstance if a file is not what the catalogue says, or the slices do not
        form one stack.
    Source: PS3.3 C.7.6.2.1.1 (position and orientation), C.11.1 (Modality LUT).
    """
    slices = [_read_image(instance, root) for instance in instances]
    if len(slices) > 1:
        slices = _in_order(slices)
    if len({(ds.Rows, ds.Columns) for ds in slices}) != 1:
        raise UnreadableInstance("Rows, Columns: differ within a series, or it is empty")
    volume = np.stack([_in_units(ds) for ds in slices])
    return volume, tuple(str(ds.SOPInstanceUID) for ds in slices)


def examples_from_series(
    series: Series, root: Path, codes: Mapping[tuple[str, str], int], spatial_dims: int
) -> list[Example]:
    """Return the labelled slices of a series (2-D), or its labelled volume alone (3-D).

    Raises: UnreadableInstance if image or segmentation cannot be used together.
    """
    if series.segmentation is None:
        raise UnreadableInstance("the series has no segmentation of its own")
    volume, sop_uids = read_image_series(series.instances, root)
    segmentation = BytesIO(read_verified(series.segmentation, root))
    labels = read_segmentation(segmentation, sop_uids, codes)
    if labels.shape != volume.shape:
        raise UnreadableInstance("Rows, Columns: image and segmentation differ")
    pairs = zip(volume, labels, strict=True) if spatial_dims == 2 else [(volume, labels)]  # 2-D  # noqa: PLR2004 -- 2-D
    return [Example(image=image[np.newaxis], label=label[np.newaxis]) for image, label in pairs]


def examples_from_images(images: Sequence[LabelledImage], root: Path) -> list[Example]:
    """Return one classification example for each image.

    Shape: (channel, row, column), one channel.
    """
    return [
        Example(image=_in_units(_read_image(image.instance, root))[np.newaxis], label=image.label) for image in images
    ]


def read_verified(instance: Instance, root: Path) -> bytes:
    """Return the bytes of a file, which are those that were de-identified.

    Raises: UnreadableInstance if the file is gone or altered.
    """
    try:
        content = (root / instance.path).read_bytes()
    except OSError as error:
        raise UnreadableInstance(f"{instance.path}: cannot be read") from error
    if hashlib.sha256(content).hexdigest() != instance.sha256:
        raise UnreadableInstance(f"{instance.path}: is not the file in the catalogue")
    return content


def _read_image(instance: Instance, root: Path) -> Dataset:
    ds = dcmread(BytesIO(read_verified(instance, root)))
    if int(ds.get("NumberOfFrames") or 1) != 1:
        raise UnreadableInstance("NumberOfFrames: multi-frame images are not read by this version")
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        raise UnreadableInstance("SamplesPerPixel: colour images are not read by this version")
    if "ModalityLUTSequence" in ds:
        raise UnreadableInstance("ModalityLUTSequence: tables of units are not read by this version")
    return ds


def _in_units(ds: Dataset) -> NDArray[np.float32]:
    """Return pixel values in the units of the modality."""
    pixels = ds.pixel_array.astype(np.float32)
    pixels *= np.float32(ds.get("RescaleSlope") or 1)
    pixels += np.float32(ds.get("RescaleIntercept") or 0)
    return pixels


def _in_order(slices: list[Dataset]) -> list[Dataset]:
    missing = [
        keyword
        for keyword in ("ImageOrientationPatient", "ImagePositionPatient")
        if not all(ds.get(keyword) for ds in slices)
    ]
    if missing:
        raise UnreadableInstance(f"{', '.join(missing)}: absent, so the slices have no order")
    orientation = np.array([ds.ImageOrientationPatient for ds in slices], np.float64)
    if np.ptp(orientation, axis=0).max() > _COSINE_TOLERANCE:
        raise UnreadableInstance("ImageOrientationPatient: differs within a series")
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    heights = np.array([ds.ImagePositionPatient for ds in slices], np.float64) @ normal
    order = np.argsort(heights, kind="stable")
    if np.diff(heights[order]).min() < _SAME_PLACE_MM:
        raise UnreadableInstance("ImagePositionPatient: two slices lie in the same place")
    return [slices[number] for number in order]
