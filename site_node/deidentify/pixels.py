"""Whether an image may be used at all, judged by what its header says of its pixels.

Pure rules that refuse when in doubt: text drawn into the image, faces, text hidden in compressed
data, and every kind of object whose cleaning this version does not know. Does not read the picture
itself and does not clean it: what is held waits for a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from pydicom import uid
from pydicom.uid import UID

from site_node.deidentify import codestream
from site_node.deidentify.codes import standard_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

BURNED_IN = "burned-in-annotation"
MAY_CARRY_TEXT = "may-carry-burned-in-text"
NOT_CLEANED = "not-an-image-this-version-cleans"
FACE = "recognisable-visual-features"
OVERLAY_IN_PIXELS = "overlay-in-pixel-data"
MODALITY_LUT = "modality-lut-not-supported"
SEGMENT_CODE = "segment-code-unknown"


@dataclass(frozen=True, slots=True)
class Clear:
    """Nothing speaks against using the image."""


@dataclass(frozen=True, slots=True)
class Held:
    """A person has to look at the image first; `reason` is safe to show."""

    reason: str


class Kind(Enum):
    """What a SOP class means for the pixels; a class without a kind is never accepted."""

    SECTION = auto()  # may show a face; text only in derived images
    PROJECTION = auto()  # text unless the file says there is none
    TEXT = auto()  # text whatever the file says
    SEGMENTATION = auto()  # labels, no picture


KINDS: dict[str, Kind] = {
    uid.CTImageStorage: Kind.SECTION,
    uid.EnhancedCTImageStorage: Kind.SECTION,
    uid.MRImageStorage: Kind.SECTION,
    uid.EnhancedMRImageStorage: Kind.SECTION,
    uid.PositronEmissionTomographyImageStorage: Kind.SECTION,
    uid.NuclearMedicineImageStorage: Kind.PROJECTION,
    uid.ComputedRadiographyImageStorage: Kind.PROJECTION,
    uid.DigitalXRayImageStorageForPresentation: Kind.PROJECTION,
    uid.DigitalXRayImageStorageForProcessing: Kind.PROJECTION,
    uid.DigitalMammographyXRayImageStorageForPresentation: Kind.PROJECTION,
    uid.DigitalMammographyXRayImageStorageForProcessing: Kind.PROJECTION,
    uid.XRayAngiographicImageStorage: Kind.TEXT,
    uid.XRayRadiofluoroscopicImageStorage: Kind.TEXT,
    uid.UltrasoundImageStorage: Kind.TEXT,
    uid.UltrasoundMultiFrameImageStorage: Kind.TEXT,
    uid.SecondaryCaptureImageStorage: Kind.TEXT,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage: Kind.TEXT,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage: Kind.TEXT,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage: Kind.TEXT,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage: Kind.TEXT,
    uid.VLEndoscopicImageStorage: Kind.TEXT,
    uid.VLMicroscopicImageStorage: Kind.TEXT,
    uid.VLPhotographicImageStorage: Kind.TEXT,
    uid.OphthalmicPhotography8BitImageStorage: Kind.TEXT,
    uid.OphthalmicPhotography16BitImageStorage: Kind.TEXT,
    uid.SegmentationStorage: Kind.SEGMENTATION,
}

# PS3.16 annex L. A section of any other part, or of none that is named, may show the face.
_PARTS_WITHOUT_FACE = """
    ABDOMEN ABDOMENPELVIS ADRENAL ANKLE ARM BLADDER BREAST CHEST CHESTABDOMEN CHESTABDPELVIS
    CLAVICLE COLON ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEART HIP HUMERUS KIDNEY KNEE
    LEG LIVER LSPINE LUNG PANCREAS PELVIS PROSTATE RIB SHOULDER SPLEEN SSPINE STERNUM TSPINE
    UTERUS WRIST
"""
_OVERLAYS = range(0x6000, 0x6100, 2)
_GREY_SCALE = frozenset({"MONOCHROME1", "MONOCHROME2"})


def screen(ds: Dataset) -> Clear | Held:
    """Return whether `ds` may be de-identified and used, or why a person must look first.

    Source: PS3.15 E.3.1 (burned-in text), E.3.2 (recognisable features), PS3.3 C.7.6.1.1.2.
    """
    kind = KINDS.get(str(ds.get("SOPClassUID", "")))
    if kind is None:
        return Held(NOT_CLEANED)
    return next((Held(reason) for reason in _objections(ds, kind)), Clear())


def _objections(ds: Dataset, kind: Kind) -> Iterator[str]:
    if ds.get("BurnedInAnnotation") not in (None, "", "NO"):
        yield BURNED_IN
    if kind is Kind.SEGMENTATION:
        if not all(map(_is_known_segment, ds.get("SegmentSequence") or ())):
            yield SEGMENT_CODE
    elif _may_carry_text(ds, kind):
        yield MAY_CARRY_TEXT
    if _has_overlay_in_pixels(ds):
        yield OVERLAY_IN_PIXELS
    if "ModalityLUTSequence" in ds:
        yield MODALITY_LUT
    if kind is Kind.SECTION and _may_show_face(ds):
        yield FACE
    if (hidden := _hidden_text(ds)) is not None:
        yield hidden


def _may_carry_text(ds: Dataset, kind: Kind) -> bool:
    """Return whether text may be drawn in; a captured or coloured image always may."""
    image_type = str(ds.get("ImageType", "")).upper()
    captured = "ConversionType" in ds or "SCREEN" in image_type
    coloured = ds.get("PhotometricInterpretation") not in _GREY_SCALE
    if kind is Kind.TEXT or captured or coloured:
        return True
    doubtful = kind is Kind.PROJECTION or "SECONDARY" in image_type
    return doubtful and ds.get("BurnedInAnnotation") != "NO"


def _may_show_face(ds: Dataset) -> bool:
    part = str(ds.get("BodyPartExamined", "") or "").strip().upper()
    return part not in _PARTS_WITHOUT_FACE.split() and ds.get("RecognizableVisualFeatures") != "NO"


def _has_overlay_in_pixels(ds: Dataset) -> bool:
    """Return whether a plane of graphics lies in unused bits of PixelData (PS3.5 8.1.2)."""
    groups = {tag.group for tag in list(ds.keys()) if tag.group in _OVERLAYS}
    return any((group, 0x0010) in ds and (group, 0x3000) not in ds for group in groups)


def _is_known_segment(segment: Dataset) -> bool:
    kinds = list(segment.get("SegmentedPropertyTypeCodeSequence") or [])
    return len(kinds) == 1 and standard_code(kinds[0]) is not None


def _hidden_text(ds: Dataset) -> str | None:
    transfer_syntax = UID(ds.file_meta.TransferSyntaxUID)
    if not transfer_syntax.is_compressed or "PixelData" not in ds:
        return None
    return codestream.finding(ds, transfer_syntax, int(ds.get("NumberOfFrames") or 1))
