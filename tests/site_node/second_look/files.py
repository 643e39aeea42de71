"""An original that says who its patient is, the output that should be made of it, and both as bytes."""

from __future__ import annotations

import io
import warnings

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

STUDY, SERIES, INSTANCE = (f"1.2.826.0.1.3680043.99.7730441.{end}" for end in (1, 2, 3))
NAME, GIVEN, NUMBER, BORN = "Quixotevan", "Dorothea", "MRN-77304412", "19610417"
OPERATOR, ADDRESS, SERIAL = "Brandywine", "12 Larkspurlane, Nethertown", "SN88123456"


def original(**attributes: object) -> Dataset:
    """Return an image as a scanner writes it; `attributes` replace its own."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = MRImageStorage, UID(INSTANCE)
    values: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": INSTANCE,
        "StudyDate": "20200229",
        "StudyTime": "101112",
        "Modality": "MR",
        "Manufacturer": "ACME",
        "InstitutionName": "Nethertown General Hospital",
        "InstitutionAddress": ADDRESS,
        "StudyDescription": "MR HEAD for Dorothea Quixotevan",
        "OperatorsName": f"{OPERATOR}^Ann",
        "PatientName": f"{NAME}^{GIVEN}",
        "PatientID": NUMBER,
        "PatientBirthDate": BORN,
        "DeviceSerialNumber": SERIAL,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "BodyPartExamined": "HEAD",
        "Rows": 64,
        "Columns": 64,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": bytes(range(256)) * 32,
    }
    for keyword, value in (values | attributes).items():
        setattr(ds, keyword, value)
    ds["PixelData"].VR = "OW"
    return ds


def cleaned(**attributes: object) -> Dataset:
    """Return what should be made of the original."""
    own: dict[str, object] = {
        "SOPInstanceUID": "2.25.301",
        "StudyInstanceUID": "2.25.302",
        "SeriesInstanceUID": "2.25.303",
        "StudyDate": "20170101",
        "PatientBirthDate": "",
        "PatientName": "PABCDEFGH",
        "PatientID": "PABCDEFGH",
        "StudyDescription": "MR HEAD for",
    }
    ds = original(**own | attributes)
    for keyword in ("InstitutionName", "InstitutionAddress", "OperatorsName", "DeviceSerialNumber"):
        if keyword not in attributes:
            delattr(ds, keyword)
    ds.file_meta.MediaStorageSOPInstanceUID = UID("2.25.301")
    return ds


def written(ds: Dataset) -> bytes:
    """Return a data set as a file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(file, enforce_file_format=True)
    return file.getvalue()
