"""Small synthetic DICOM data sets, with an invented identity wherever one can stand."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY = bytes(range(32))
NAME = "QUIXOTEVANTONGEREN"
PATIENT_ID = "MRN-7730441"
STUDY_UID = "1.2.826.0.1.3680043.99.7730441.1"
SERIES_UID = f"{STUDY_UID}.2"
FRAME_UID = f"{STUDY_UID}.3"
ROWS, COLUMNS = 8, 6
GREY, WHITE = ("SCT", codes.SCT.GrayMatter.value), ("SCT", codes.SCT.WhiteMatter.value)


def sop_uid(number: int) -> str:
    """Return the original SOPInstanceUID of slice `number`."""
    return f"{SERIES_UID}.{number}"


def pixels(number: int = 0) -> NDArray[np.uint16]:
    """Return the stored values of slice `number`."""
    return np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS) + 100 * number


def mr_slice(number: int = 0, **attributes: object) -> Dataset:
    """Return an MR slice that is fit to be accepted; `attributes` replace its own."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = UID(sop_uid(number))
    values = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": sop_uid(number),
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": SERIES_UID,
        "FrameOfReferenceUID": FRAME_UID,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "PatientName": f"{NAME}^ANNA",
        "PatientID": PATIENT_ID,
        "PatientBirthDate": "19610417",
        "PatientSex": "F",
        "StudyDate": "20260312",
        "StudyTime": "101530",
        "StudyID": "S1",
        "AccessionNumber": "A-99",
        "ReferringPhysicianName": f"{NAME}^DR",
        "SeriesNumber": 3,
        "InstanceNumber": number + 1,
        "BodyPartExamined": "KNEE",
        "ImagePositionPatient": [0, 0, 2.5 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [2, 2],
        "SliceThickness": 2.5,
        "EchoTime": 90,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": ROWS,
        "Columns": COLUMNS,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": pixels(number).tobytes(),
    }
    for keyword, value in (values | attributes).items():
        setattr(ds, keyword, value)
    ds["PixelData"].VR = "OW"
    return ds


def mr_series(count: int = 3) -> list[Dataset]:
    """Return the slices of one series."""
    return [mr_slice(number) for number in range(count)]


def masks(count: int = 3) -> NDArray[np.bool_]:
    """Return grey and white matter, (slice, row, column, segment), never both in one voxel."""
    chosen = np.random.default_rng(3).integers(0, 3, (count, ROWS, COLUMNS))
    return np.stack([chosen == 1, chosen == 2], axis=-1)


def segmentation(images: list[Dataset], segments: NDArray[np.bool_]) -> Dataset:
    """Return a binary SEG of `images` with grey and white matter, and the identity in its texts."""
    described = (codes.SCT.GrayMatter, codes.SCT.WhiteMatter)
    ds: Dataset = hd.seg.Segmentation(
        source_images=images,
        pixel_array=segments,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"{NAME} {number}",
                segmented_property_category=codes.SCT.Tissue,
                segmented_property_type=code,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
            )
            for number, code in enumerate(described, 1)
        ],
        series_instance_uid=f"{STUDY_UID}.9",
        series_number=9,
        sop_instance_uid=f"{STUDY_UID}.9.1",
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=NAME,
        device_serial_number=NAME,
        content_creator_name=f"{NAME}^DR",
        content_description=f"for {NAME}",
    )
    return ds


def file_bytes(ds: Dataset, preamble: bytes = bytes(128)) -> bytes:
    """Return `ds` as a PS3.10 file."""
    out = BytesIO()
    ds.preamble = preamble
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()
