"""What the images show, as people said it: segmentations (DICOM SEG) and class labels (CSV).

Reads; does not join labels with images (dataset.py) and keeps nothing.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
from pydicom import config, dcmread
from pydicom.uid import UID

from site_node.deidentify.codes import standard_code
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from site_node.deidentify.pseudonym import Pseudonymiser

# What reading raises where a required attribute is absent or frames and headers do not match.
_FAULTS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)

CSV_HEADER = ["SOPInstanceUID", "label"]


def read_segmentation(
    source: Path | BinaryIO,
    image_sop_uids: Sequence[str],
    codes: Mapping[tuple[str, str], int],
) -> NDArray[np.uint8]:
    """Return the label of every voxel of the images; 0 where no wanted segment lies.

    `codes` maps (coding scheme, code value) of a segment's property type to its label value.
    Shape:  (slice, row, column), the slices in the order of `image_sop_uids`.
    Raises: UnreadableInstance if a wanted segment is absent, if two overlap, if the segmentation
        is not binary, or if it belongs to other images.
    Source: PS3.3 C.8.20 (Segmentation); a frame left out is empty (C.8.20.3.1).
    """
    try:
        return _draw_frames(dcmread(source), image_sop_uids, codes)
    except _FAULTS as error:
        raise UnreadableInstance("segmentation: incomplete or cannot be decoded") from error


def _draw_frames(ds: Dataset, image_sop_uids: Sequence[str], codes: Mapping[tuple[str, str], int]) -> NDArray[np.uint8]:
    if ds.get("SegmentationType") != "BINARY":
        raise UnreadableInstance("SegmentationType: only BINARY segmentations are read")
    values = _segment_values(ds, codes)
    slices = {uid: number for number, uid in enumerate(image_sop_uids)}
    labels = np.zeros((len(slices), ds.Rows, ds.Columns), np.uint8)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    found = False
    for frame, (segment, image) in zip(frames, _frame_sources(ds), strict=True):
        if image not in slices:
            continue
        found = True
        if segment in values:
            _draw(labels[slices[image]], frame.astype(bool), values[segment])
    if not found:
        raise UnreadableInstance("SourceImageSequence: the segmentation is of other images")
    return labels


def read_class_labels(path: Path, pseudonymiser: Pseudonymiser) -> dict[str, int]:
    """Return class values by de-identified SOPInstanceUID, from a CSV with original UIDs.

    The first line is `SOPInstanceUID,label`; a label is a whole number from 0 on.
    Raises: UnreadableInstance naming the line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        if next(rows, None) != CSV_HEADER:
            raise UnreadableInstance(f"line 1: the header must be {','.join(CSV_HEADER)}")
        return _class_labels(rows, pseudonymiser)


def _class_labels(rows: Iterator[list[str]], pseudonymiser: Pseudonymiser) -> dict[str, int]:
    labels: dict[str, int] = {}
    try:
        for line, row in enumerate(rows, 2):
            uid, value = _class_label(row, line)
            pseudonym = pseudonymiser.uid(uid)
            if labels.setdefault(pseudonym, value) != value:
                raise UnreadableInstance(f"line {line}: a second label for the same image")
    except (csv.Error, UnicodeDecodeError):
        raise UnreadableInstance("the label file is not a CSV file in UTF-8") from None
    return labels


def _class_label(row: list[str], line: int) -> tuple[str, int]:
    if len(row) != len(CSV_HEADER):
        raise UnreadableInstance(f"line {line}: a line has {len(CSV_HEADER)} columns")
    uid, value = row
    if not (value.isascii() and value.isdecimal()):
        raise UnreadableInstance(f"line {line}: label is not a whole number from 0 on")
    if not UID(uid, config.IGNORE).is_valid:  # validated by pydicom it would be quoted
        raise UnreadableInstance(f"line {line}: SOPInstanceUID is not a UID")
    return uid, int(value)


def _segment_values(ds: Dataset, codes: Mapping[tuple[str, str], int]) -> dict[int, int]:
    """Return the label value of each wanted segment, by its number."""
    values: dict[int, int] = {}
    for segment in ds.SegmentSequence:
        code = standard_code(segment.SegmentedPropertyTypeCodeSequence[0])
        value = codes.get((code.scheme_designator, code.value)) if code else None
        if value is not None:
            values[int(segment.SegmentNumber)] = value
    wanted = (key for key, value in codes.items() if value not in values.values())
    missing = [f"{scheme} {value}" for scheme, value in wanted]
    if missing:
        raise UnreadableInstance(f"SegmentSequence: no segment with code {', '.join(missing)}")
    return values


def _frame_sources(ds: Dataset) -> Iterator[tuple[int, str | None]]:
    """Yield segment number and source image of each frame.

    Raises: UnreadableInstance if a frame names none or several source images.
    Source: PS3.3 C.8.20.2 (Segment Identification), C.7.6.16.2.6 (Derivation Image).
    """
    shared = ds.SharedFunctionalGroupsSequence[0]
    for groups in ds.PerFrameFunctionalGroupsSequence:
        segment = _group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber
        sources = _group(groups, shared, "DerivationImageSequence").get("SourceImageSequence") or []
        if len(sources) != 1:
            raise UnreadableInstance("SourceImageSequence: a frame must name one source image")
        yield int(segment), str(sources[0].ReferencedSOPInstanceUID)


def _group(groups: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """Return the one item of a functional group, of the frame or shared by all."""
    items = groups.get(keyword) or shared.get(keyword) or []
    if len(items) != 1:
        raise UnreadableInstance(f"{keyword}: absent")
    item: Dataset = items[0]
    return item


def _draw(labels: NDArray[np.uint8], mask: NDArray[np.bool_], value: int) -> None:
    if np.any(labels[mask]):
        raise UnreadableInstance("SegmentSequence: two wanted segments overlap")
    labels[mask] = value
