"""A virtual patient as a scanner and a reading room write it: an MR series and its DICOM SEG.

Identities stand wherever real files have them: in plain attributes, in descriptions, in nested and
private elements, in the preamble, the file meta information and the trailing padding. Nothing here
removes anything.
Source: PS3.3 sections C.7, C.8.3 (MR) and C.8.20 (segmentation); PS3.10 section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from demo.anatomy import GREY_MATTER, SPACING_MM, WHITE_MATTER
from demo.identities import original_uid

if TYPE_CHECKING:
    from pathlib import Path

    from demo.anatomy import Brain
    from demo.hospitals import Hospital, Protocol
    from demo.identities import FakePatient

SEGMENTS: Final = (
    (GREY_MATTER, "Grey matter", codes.SCT.GrayMatter),
    (WHITE_MATTER, "White matter", codes.SCT.WhiteMatter),
)
_PRIVATE_GROUP: Final = 0x0029


@dataclass(frozen=True, slots=True)
class Scan:
    """Who was scanned, where, how, and what was seen."""

    patient: FakePatient
    hospital: Hospital
    protocol: Protocol
    brain: Brain


def image_series(scan: Scan) -> list[Dataset]:
    """Give the MR instances of one patient, from feet to head.

    Units:  positions and spacing in mm, LPS.
    """
    return [_image(scan, place) for place in range(len(scan.brain.image))]


def segmentation(scan: Scan, images: list[Dataset]) -> Dataset:
    """Give the DICOM SEG with grey and white matter as segments, bound to `images`."""
    patient = scan.patient
    masks = np.stack([scan.brain.labels == value for value, _, _ in SEGMENTS], axis=-1)
    ds = hd.seg.Segmentation(
        source_images=images,
        pixel_array=masks,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(value, label, code) for value, label, code in SEGMENTS],
        series_instance_uid=original_uid(patient.patient_id, "segmentation series"),
        series_number=900,
        sop_instance_uid=original_uid(patient.patient_id, "segmentation"),
        instance_number=1,
        manufacturer="Reading Room Software",
        manufacturer_model_name="Outliner",
        software_versions="4.2",
        device_serial_number="RR-0042",
        content_label="TISSUES",
        content_description=f"Outlined for {patient.name}",
        content_creator_name=patient.performing,
    )
    _make_repeatable(ds, patient)
    return _identify(ds, scan)


def write(ds: Dataset, path: Path) -> None:
    """Write one instance as a PS3.10 file; nothing is checked away, nothing is added."""
    ds.save_as(path, enforce_file_format=True)


def _segment(value: int, label: str, code: hd.sr.CodedConcept) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=value,
        segment_label=label,
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=code,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def _make_repeatable(ds: Dataset, patient: FakePatient) -> None:
    """Replace what highdicom takes from the clock and from chance."""
    ds.ContentDate, ds.ContentTime = f"{patient.study_at:%Y%m%d}", f"{patient.study_at:%H%M%S}"
    ds.InstanceCreationDate, ds.InstanceCreationTime = ds.ContentDate, ds.ContentTime
    dimensions = original_uid(patient.patient_id, "dimensions")
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    for item in ds.ContributingEquipmentSequence:
        item.ContributionDateTime = ds.ContentDate + ds.ContentTime


def _image(scan: Scan, place: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = scan.hospital.character_set
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = scan.patient.SOPInstanceUIDs[place]
    ds.InstanceNumber = str(place + 1)
    _describe_patient_and_study(ds, scan.patient)
    _describe_series(ds, scan)
    _describe_plane(ds, scan.brain, place)
    _describe_pixels(ds, scan.brain.image[place])
    return _identify(ds, scan)


def _describe_patient_and_study(ds: Dataset, patient: FakePatient) -> None:
    ds.PatientName = patient.name
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = f"{patient.born:%Y%m%d}"
    ds.PatientSex = patient.sex
    ds.StudyInstanceUID = patient.StudyInstanceUID
    ds.StudyID = "1"
    ds.StudyDate, ds.StudyTime = f"{patient.study_at:%Y%m%d}", f"{patient.study_at:%H%M%S}"
    ds.AccessionNumber = patient.accession
    ds.ReferringPhysicianName = patient.referring


def _describe_series(ds: Dataset, scan: Scan) -> None:
    ds.Modality = "MR"
    ds.SeriesInstanceUID = scan.patient.SeriesInstanceUID
    ds.FrameOfReferenceUID = scan.patient.FrameOfReferenceUID
    ds.SeriesNumber = "3"
    ds.SeriesDate, ds.SeriesTime = ds.StudyDate, ds.StudyTime
    ds.AcquisitionDate, ds.AcquisitionTime = ds.StudyDate, ds.StudyTime
    ds.ContentDate, ds.ContentTime = ds.StudyDate, ds.StudyTime
    ds.BodyPartExamined = "BRAIN"
    ds.PatientPosition = "HFS"
    ds.ProtocolName = scan.protocol.name
    ds.Manufacturer = scan.hospital.scanner
    ds.ManufacturerModelName = "Invented MR"
    ds.MagneticFieldStrength = scan.hospital.field_tesla
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "SK", ""
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime, ds.EchoTime = scan.protocol.repetition_ms, scan.protocol.echo_ms
    ds.EchoTrainLength = "1"


def _describe_plane(ds: Dataset, brain: Brain, place: int) -> None:
    x, y, z = brain.origin_mm
    between_slices, between_rows, between_columns = SPACING_MM
    ds.PositionReferenceIndicator = ""
    ds.ImagePositionPatient = [x, y, z + place * between_slices]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [between_rows, between_columns]
    ds.SliceThickness = ds.SpacingBetweenSlices = between_slices


def _describe_pixels(ds: Dataset, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    ds.BurnedInAnnotation = "NO"
    ds.RecognizableVisualFeatures = "NO"  # the average brain is skull-stripped: there is no face
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.astype("<u2").tobytes()


def _identify(ds: Dataset, scan: Scan) -> Dataset:
    """Add the identities that scanners, archives and typists leave beside the patient module."""
    patient, hospital = scan.patient, scan.hospital
    family, given = patient.name.split("^")[:2]
    ds.PatientAddress = patient.address
    ds.PatientTelephoneNumbers = patient.phone
    ds.OtherPatientNames = f"{family}^{given}"
    ds.OtherPatientIDsSequence = [_other_id(patient)]
    ds.PatientComments = f"{patient.name} lives at {patient.address}"
    ds.InstitutionName = hospital.title
    ds.InstitutionAddress = hospital.town
    ds.PerformingPhysicianName = patient.performing
    ds.OperatorsName = patient.operator
    ds.StudyDescription = f"Brain {family}"
    ds.SeriesDescription = f"{scan.protocol.name} {patient.patient_id}"
    ds.RequestAttributesSequence = [_request(patient)]
    _add_private(ds, patient)
    ds.DataSetTrailingPadding = f"end of {patient.name}  ".encode()
    ds.preamble = f"II*\0 {patient.patient_id} {family}".encode().ljust(128, b"\0")[:128]
    ds.file_meta.SourceApplicationEntityTitle = hospital.prefix + "_MR1"
    ds.file_meta.PrivateInformationCreatorUID = UID(original_uid("scanner maker"))
    ds.file_meta.PrivateInformation = _even(f"{patient.name} {patient.accession}".encode())
    return ds


def _other_id(patient: FakePatient) -> Dataset:
    item = Dataset()
    item.PatientID = patient.other_id
    item.TypeOfPatientID = "TEXT"
    item.IssuerOfPatientID = "National register"
    return item


def _request(patient: FakePatient) -> Dataset:
    item = Dataset()
    item.AccessionNumber = patient.accession
    item.ScheduledProcedureStepDescription = f"Brain of {patient.name.split('^')[0]}"
    item.RequestedProcedureID = "RP1"
    item.RequestingPhysician = patient.referring
    return item


def _add_private(ds: Dataset, patient: FakePatient) -> None:
    nested = Dataset()
    nested.PatientName = patient.name
    nested.PatientBirthDate = f"{patient.born:%Y%m%d}"
    block = ds.private_block(_PRIVATE_GROUP, "INVENTED SCANNER HEADER", create=True)
    block.add_new(0x01, "LO", patient.patient_id)
    block.add_new(0x02, "PN", patient.name)
    block.add_new(0x03, "UN", _even(f"{patient.name}|{patient.phone}".encode("utf-16-le")))
    block.add_new(0x04, "SQ", Sequence([nested]))


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)
