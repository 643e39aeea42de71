"""Files of many kinds to plant identities in: pydicom's own test files, and small ones built here.

A base has no identity of its own that counts: `generate` gives it a patient. Nothing here is drawn from a hospital.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SOP = "1.2.840.10008.5.1.4.1.1."
# Classes of objects built here: UID suffix.
XA, RF, MG, DX, NM, PT = "12.1", "12.2", "1.2", "1.1", "20", "128"
VL_PHOTO, OPHTHALMIC, OCT, WSI = "77.1.4", "77.1.5.1", "77.1.5.4", "77.1.6"
RT_IMAGE, RAW, SPECTROSCOPY, KO, PR = "481.1", "66", "4.2", "88.59", "11.1"
PDF, CDA, DOSE_SR, CR, SC, ENDOSCOPY = "104.1", "104.2", "88.67", "1", "7", "77.1.1"


@dataclass(frozen=True, slots=True)
class Base:
    """A kind of file: its name, how it is made, the number of its patient, what it may be flooded with."""

    name: str
    make: Callable[[], Dataset]
    flood: str = ""


def _load(name: str) -> Dataset:
    path = get_testdata_file(name)
    if not isinstance(path, str | Path):
        raise FileNotFoundError(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path, force=True)
        ds.decode()
    ds.preamble = None
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return ds


def _from(name: str, syntax: str = "") -> Callable[[], Dataset]:
    def make() -> Dataset:
        ds = _load(name)
        return to_syntax(ds, syntax) if syntax else ds

    return make


def to_syntax(ds: Dataset, syntax: str) -> Dataset:
    """Return `ds` in another syntax; pixels of whole bytes are swapped where the order of bytes changes."""
    uid = pydicom.uid.UID(syntax)
    if uid.is_encapsulated:
        ds.compress(uid, generate_instance_uid=False)
        return ds
    old = ds.file_meta.TransferSyntaxUID
    ds.decode()
    _touch(ds)
    if ExplicitVRBigEndian in (old, syntax):
        for element in ds.iterall():
            if element.VR == "OW" and isinstance(element.value, bytes):
                element.value = np.frombuffer(element.value, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = uid
    # An implementation reads a data set again only in the encoding it says.
    fresh = Dataset()
    fresh.update({tag: ds[tag] for tag in ds.keys()})  # noqa: SIM118 -- a Dataset iterates over elements
    fresh.file_meta = ds.file_meta
    return fresh


def _touch(ds: Dataset) -> None:
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                _touch(item)


def _meta(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)


def object_of(suffix: str, modality: str, **attributes: object) -> Dataset:
    """Return a small data set of a class: patient, study, series and equipment."""
    ds = Dataset()
    _meta(ds)
    ds.SOPClassUID = SOP + suffix
    values = {
        "SpecificCharacterSet": "ISO_IR 100",
        "StudyDate": "20200101",
        "StudyTime": "101112",
        "PatientSex": "F",
        "Modality": modality,
        "Manufacturer": "ACME",
        "ManufacturerModelName": "Model 5",
        "SoftwareVersions": "VB10A",
        "SeriesNumber": 2,
        "InstanceNumber": 1,
        "StudyID": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "ContentDate": "20200101",
        "ContentTime": "101113",
    }
    for keyword, value in (values | attributes).items():
        setattr(ds, keyword, value)
    return ds


def noise(*shape: int, dtype: str = "uint16", high: int = 4095, seed: int = 5) -> NDArray[np.generic]:
    """Return smooth structure and noise that no text is seen in."""
    rng = np.random.default_rng(seed)
    rows, columns = shape[1], shape[2]
    wave = np.add.outer(np.sin(np.arange(rows) / 17), np.cos(np.arange(columns) / 23)) / 4 + 0.5
    shaped = wave[None, ..., None] if len(shape) == 4 else wave[None]
    values = (shaped + rng.normal(0, 0.02, shape)).clip(0, 1) * high
    return values.astype(dtype)


def picture(suffix: str, modality: str, pixels: NDArray[np.generic], **attributes: object) -> Dataset:
    """Return an image of `pixels` (frame, row, column[, sample])."""
    bits = pixels.dtype.itemsize * 8
    colour = pixels.ndim == 4
    ds = object_of(suffix, modality)
    values = {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "Rows": pixels.shape[1],
        "Columns": pixels.shape[2],
        "BitsAllocated": bits,
        "BitsStored": bits if bits == 8 else 12,
        "HighBit": (bits if bits == 8 else 12) - 1,
        "PixelRepresentation": 0,
    }
    if colour:
        values["PlanarConfiguration"] = 0
    if pixels.shape[0] > 1:
        values["NumberOfFrames"] = pixels.shape[0]
    for keyword, value in (values | attributes).items():
        setattr(ds, keyword, value)
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _xa() -> Dataset:
    return picture(
        XA,
        "XA",
        noise(4, 96, 96, dtype="uint8", high=255),
        KVP=80,
        XRayTubeCurrent=320,
        ExposureTime=10,
        PositionerPrimaryAngle=-30.2,
        PositionerSecondaryAngle=20.1,
        FrameTime=66,
        FrameIncrementPointer=0x00181063,
        PixelIntensityRelationship="LOG",
        ImagerPixelSpacing=[0.2, 0.2],
        RadiationSetting="GR",
    )


def _mg() -> Dataset:
    return picture(
        MG,
        "MG",
        noise(1, 120, 96),
        ImageLaterality="L",
        ViewPosition="MLO",
        BodyPartExamined="BREAST",
        KVP=28,
        ExposureInuAs=90000,
        CompressionForce=80,
        BodyPartThickness=55,
        ImagerPixelSpacing=[0.07, 0.07],
        PresentationIntentType="FOR PRESENTATION",
        PhotometricInterpretation="MONOCHROME1",
        BurnedInAnnotation="NO",
        ViewCodeSequence=[_code("399368009", "SCT", "medio-lateral oblique")],
        AnatomicRegionSequence=[_code("76752008", "SCT", "Breast")],
    )


def _dx() -> Dataset:
    return picture(
        DX,
        "DX",
        noise(1, 128, 128),
        ImageLaterality="U",
        ViewPosition="PA",
        BodyPartExamined="CHEST",
        KVP=120,
        Exposure=2,
        ImagerPixelSpacing=[0.14, 0.14],
        PresentationIntentType="FOR PRESENTATION",
        PatientOrientation=["L", "F"],
        WindowCenter=2048,
        WindowWidth=4096,
        WindowCenterWidthExplanation="NORMAL",
        LossyImageCompression="00",
    )


def _cr() -> Dataset:
    return picture(
        CR, "CR", noise(1, 128, 128), BodyPartExamined="HAND", ViewPosition="AP", KVP=55, PatientOrientation=["L", "F"]
    )


def _nm() -> Dataset:
    phase = Dataset()
    phase.ActualFrameDuration, phase.NumberOfFramesInPhase = 1000, 4
    return picture(
        NM,
        "NM",
        noise(4, 64, 64),
        FrameIncrementPointer=0x00540010,
        EnergyWindowVector=[1, 1, 1, 1],
        NumberOfEnergyWindows=1,
        CountsAccumulated=123456,
        PixelSpacing=[4.8, 4.8],
        PhaseInformationSequence=[phase],
    )


def _pt() -> Dataset:
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife, drug.RadiopharmaceuticalStartTime = (
        370000000,
        6586.2,
        "093000",
    )
    drug.Radiopharmaceutical = "Fluorodeoxyglucose"
    drug.RadionuclideCodeSequence = [_code("77004003", "SCT", "^18^Fluorine")]
    return picture(
        PT,
        "PT",
        noise(1, 64, 64),
        Units="BQML",
        CountsSource="EMISSION",
        DecayCorrection="START",
        RescaleSlope=1.5,
        RescaleIntercept=0,
        PixelSpacing=[4, 4],
        SliceThickness=3,
        ImagePositionPatient=[0, 0, 12],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        RadiopharmaceuticalInformationSequence=[drug],
    )


def _photo() -> Dataset:
    pixels = noise(1, 120, 160, 3, dtype="uint8", high=255)
    ds = picture(
        VL_PHOTO,
        "XC",
        pixels,
        PhotometricInterpretation="YBR_FULL_422",
        LossyImageCompression="01",
        LossyImageCompressionMethod="ISO_10918_1",
        LossyImageCompressionRatio=8,
    )
    stream = io.BytesIO()
    Image.fromarray(pixels[0].astype("uint8")).save(stream, "JPEG", quality=90, subsampling=1)
    ds.PixelData = encapsulate([stream.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return ds


def _ophthalmic() -> Dataset:
    return picture(
        OPHTHALMIC,
        "OP",
        noise(1, 96, 96, 3, dtype="uint8", high=255),
        ImageLaterality="R",
        PupilDilated="YES",
        EmmetropicMagnification=None,
        IntraOcularPressure=14,
        PatientEyeMovementCommanded="NO",
    )


def _oct() -> Dataset:
    plane = Dataset()
    plane.PixelMeasuresSequence = [Dataset()]
    plane.PixelMeasuresSequence[0].PixelSpacing, plane.PixelMeasuresSequence[0].SliceThickness = [0.004, 0.011], 0.25
    anatomy = Dataset()
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "L", [_code("81745001", "SCT", "Eye")]
    plane.FrameAnatomySequence = [anatomy]
    frames = []
    for index in range(3):
        frame, content = Dataset(), Dataset()
        content.FrameAcquisitionDateTime, content.FrameReferenceDateTime = "20200101101112.5", "20200101101112.5"
        content.FrameAcquisitionDuration, content.DimensionIndexValues = 20.0, [1, index + 1]
        frame.FrameContentSequence = [content]
        frames.append(frame)
    return picture(
        OCT,
        "OPT",
        noise(3, 64, 96, dtype="uint8", high=255),
        SharedFunctionalGroupsSequence=[plane],
        PerFrameFunctionalGroupsSequence=frames,
    )


def _wsi() -> Dataset:
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "S-1", "1.2.3.4.5"
    specimen.SpecimenPreparationSequence = []
    optical = Dataset()
    optical.OpticalPathIdentifier, optical.IlluminationTypeCodeSequence = (
        "1",
        [_code("111744", "DCM", "Brightfield illumination")],
    )
    return picture(
        WSI,
        "SM",
        noise(4, 64, 64, 3, dtype="uint8", high=255),
        ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        TotalPixelMatrixColumns=128,
        TotalPixelMatrixRows=128,
        SpecimenDescriptionSequence=[specimen],
        ContainerIdentifier="C-1",
        OpticalPathSequence=[optical],
        SpecimenLabelInImage="NO",
        FocusMethod="AUTO",
        ExtendedDepthOfField="NO",
    )


def _rt_image() -> Dataset:
    return picture(
        RT_IMAGE,
        "RTIMAGE",
        noise(1, 96, 96),
        RTImageLabel="portal",
        RTImagePlane="NORMAL",
        GantryAngle=90,
        RadiationMachineSAD=1000,
        RTImageSID=1500,
        ImagePlanePixelSpacing=[0.4, 0.4],
        PrimaryDosimeterUnit="MU",
    )


def _raw() -> Dataset:
    return object_of(RAW, "OT", CreatorVersionUID="1.2.3.4.5.6")


def _spectroscopy() -> Dataset:
    ds = object_of(
        SPECTROSCOPY,
        "MR",
        ImageType=["ORIGINAL", "PRIMARY", "SPECTROSCOPY", "NONE"],
        Rows=1,
        Columns=1,
        NumberOfFrames=1,
        DataPointRows=1,
        DataPointColumns=64,
        MagneticFieldStrength=3,
        ResonantNucleus="1H",
        SpectralWidth=2000.0,
        TransmitterFrequency=123.2,
        DataRepresentation="COMPLEX",
    )
    ds.SpectroscopyData = np.linspace(0, 1, 128, dtype="<f4").tobytes()
    return ds


def _text_content(value: str, code: Dataset) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence, item.TextValue = (
        "CONTAINS",
        "TEXT",
        [code],
        value,
    )
    return item


def _ko() -> Dataset:
    ds = object_of(
        KO,
        "KO",
        ValueType="CONTAINER",
        ConceptNameCodeSequence=[_code("113000", "DCM", "Of Interest")],
        ContinuityOfContent="SEPARATE",
        ReferencedPerformedProcedureStepSequence=[],
    )
    ds.ContentSequence = [_text_content("see here", _code("113012", "DCM", "Key Object Description"))]
    image = Dataset()
    image.RelationshipType, image.ValueType = "CONTAINS", "IMAGE"
    image.ReferencedSOPSequence = [Dataset()]
    ds.ContentSequence.append(image)
    return ds


def _dose() -> Dataset:
    ds = object_of(
        DOSE_SR,
        "SR",
        ValueType="CONTAINER",
        ContinuityOfContent="SEPARATE",
        CompletionFlag="COMPLETE",
        VerificationFlag="UNVERIFIED",
        ConceptNameCodeSequence=[_code("113701", "DCM", "X-Ray Radiation Dose Report")],
        ReferencedPerformedProcedureStepSequence=[],
    )
    number, measured = Dataset(), Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = 12.5, [_code("mGy.cm", "UCUM", "mGy.cm")]
    number.RelationshipType, number.ValueType, number.MeasuredValueSequence = "CONTAINS", "NUM", [measured]
    number.ConceptNameCodeSequence = [_code("113838", "DCM", "DLP")]
    uid = Dataset()
    uid.RelationshipType, uid.ValueType, uid.UID = "CONTAINS", "UIDREF", "1.2.3.4.5.6.7"
    uid.ConceptNameCodeSequence = [_code("113769", "DCM", "Irradiation Event UID")]
    ds.ContentSequence = [number, uid, _text_content("none", _code("121106", "DCM", "Comment"))]
    return ds


def _pr() -> Dataset:
    text = Dataset()
    text.UnformattedTextValue, text.AnchorPoint, text.AnchorPointAnnotationUnits, text.AnchorPointVisibility = (
        "note",
        [10, 10],
        "PIXEL",
        "Y",
    )
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder, layer.GraphicLayerDescription = "LAYER1", 1, "notes"
    graphic = Dataset()
    graphic.GraphicLayer, graphic.TextObjectSequence, graphic.ReferencedImageSequence = "LAYER1", [text], [Dataset()]
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [128, 128]
    area.PresentationSizeMode, area.PresentationPixelAspectRatio = "SCALE TO FIT", [1, 1]
    return object_of(
        PR,
        "PR",
        ContentLabel="LABEL",
        ContentDescription="",
        ContentCreatorName="",
        PresentationCreationDate="20200101",
        PresentationCreationTime="101010",
        GraphicAnnotationSequence=[graphic],
        GraphicLayerSequence=[layer],
        DisplayedAreaSelectionSequence=[area],
        PresentationLUTShape="IDENTITY",
    )


def _pdf() -> Dataset:
    return object_of(
        PDF,
        "DOC",
        ConversionType="WSD",
        DocumentTitle="",
        MIMETypeOfEncapsulatedDocument="application/pdf",
        BurnedInAnnotation="YES",
        ConceptNameCodeSequence=[],
        EncapsulatedDocument=b"%PDF-1.4\n%%EOF\n",
    )


def _cda() -> Dataset:
    return object_of(
        CDA,
        "DOC",
        ConversionType="WSD",
        DocumentTitle="",
        MIMETypeOfEncapsulatedDocument="text/XML",
        BurnedInAnnotation="YES",
        ConceptNameCodeSequence=[],
        HL7InstanceIdentifier="1.2.3.4^7",
        EncapsulatedDocument=b"<ClinicalDocument/>  ",
    )


def _seg() -> Dataset:
    return _load("liver_1frame.dcm")


def _dicomdir() -> Dataset:
    return _load("dicomdirtests/DICOMDIR")


def _sc_screen() -> Dataset:
    return picture(
        SC,
        "OT",
        noise(1, 160, 200, 3, dtype="uint8", high=255),
        ConversionType="WSD",
        SecondaryCaptureDeviceManufacturer="ACME",
    )


BASES = (
    Base("ct", _from("CT_small.dcm")),
    Base("ct-implicit", _from("CT_small.dcm", ImplicitVRLittleEndian)),
    Base("ct-deflated", _from("CT_small.dcm", DeflatedExplicitVRLittleEndian)),
    Base("ct-rle", _from("CT_small.dcm", RLELossless)),
    Base("ct-unknown-vr", _from("explicit_VR-UN.dcm")),
    Base("mr", _from("MR_small.dcm")),
    Base("mr-big-endian", _from("MR_small_bigendian.dcm")),
    Base("mr-jpeg2000", _from("MR_small_jp2klossless.dcm")),
    Base("mr-jpegls", _from("MR_small_jpeg_ls_lossless.dcm")),
    Base("mr-overlay", _from("examples_overlay.dcm")),
    Base("mr-enhanced", _from("emri_small.dcm")),
    Base("mr-enhanced-big-endian", _from("emri_small_big_endian.dcm")),
    Base("mr-enhanced-jpegls", _from("emri_small_jpeg_ls_lossless.dcm")),
    Base("ct-enhanced", _from("eCT_Supplemental.dcm")),
    Base("us-palette", _from("examples_palette.dcm")),
    Base("us-rgb", _from("examples_rgb_color.dcm")),
    Base("us-multi-rle", _from("OBXXXX1A_rle_2frame.dcm")),
    Base("us-multi-jpeg", _from("examples_ybr_color.dcm")),
    Base("us-jpeg2000", _from("examples_jpeg2k.dcm")),
    Base("sc-rgb-jpeg", _from("SC_rgb_jpeg_dcmtk.dcm")),
    Base("sc-rgb-rle", _from("SC_rgb_rle_16bit_2frame.dcm")),
    Base("sc-jpegls", lambda: to_syntax(_sc_screen(), JPEGLSLossless)),
    Base("sc-screen", _sc_screen),
    Base("xa", _xa),
    Base("mg", _mg),
    Base("cr", _cr),
    Base("dx", _dx),
    Base("nm", _nm),
    Base("pt", _pt),
    Base("photo", _photo),
    Base("ophthalmic", _ophthalmic),
    Base("oct", _oct),
    Base("wsi", _wsi),
    Base("rt-image", _rt_image),
    Base("rt-plan", _from("rtplan.dcm")),
    Base("rt-struct", _from("rtstruct.dcm")),
    Base("rt-dose", _from("rtdose.dcm")),
    Base("sr-basic", _from("reportsi.dcm")),
    Base("sr-comprehensive", _from("test-SR.dcm")),
    Base("sr-dose", _dose),
    Base("ko", _ko),
    Base("pr", _pr),
    Base("seg", _seg),
    Base("ecg", _from("waveform_ecg.dcm")),
    Base("pdf", _pdf),
    Base("cda", _cda),
    Base("raw", _raw),
    Base("spectroscopy", _spectroscopy),
    Base("dicomdir", _dicomdir),
    Base("flood-strangers", _from("MR_small.dcm"), "stranger"),
    Base("flood-patient", _from("CT_small.dcm"), "patient"),
    Base("flood-enhanced", _from("emri_small.dcm"), "stranger"),
    Base("flood-report", _from("reportsi.dcm"), "patient"),
)
