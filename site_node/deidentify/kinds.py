"""What a SOP class means for the pixels, judged by the header alone."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from pydicom import uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Kind(Enum):
    """What the pixels of a SOP class may show; a class without a kind may show anything."""

    SECTION = auto()  # a face; text only in derived images
    PROJECTION = auto()  # text unless the file says there is none
    LABELS = auto()  # numbers for each pixel, no picture


KINDS: dict[str, Kind] = {
    uid.CTImageStorage: Kind.SECTION,
    uid.EnhancedCTImageStorage: Kind.SECTION,
    uid.LegacyConvertedEnhancedCTImageStorage: Kind.SECTION,
    uid.MRImageStorage: Kind.SECTION,
    uid.EnhancedMRImageStorage: Kind.SECTION,
    uid.LegacyConvertedEnhancedMRImageStorage: Kind.SECTION,
    uid.PositronEmissionTomographyImageStorage: Kind.SECTION,
    uid.EnhancedPETImageStorage: Kind.SECTION,
    uid.LegacyConvertedEnhancedPETImageStorage: Kind.SECTION,
    uid.NuclearMedicineImageStorage: Kind.PROJECTION,
    uid.ComputedRadiographyImageStorage: Kind.PROJECTION,
    uid.DigitalXRayImageStorageForPresentation: Kind.PROJECTION,
    uid.DigitalXRayImageStorageForProcessing: Kind.PROJECTION,
    uid.DigitalMammographyXRayImageStorageForPresentation: Kind.PROJECTION,
    uid.DigitalMammographyXRayImageStorageForProcessing: Kind.PROJECTION,
    uid.SegmentationStorage: Kind.LABELS,
    "1.2.840.10008.5.1.4.1.1.66.7": Kind.LABELS,  # Label Map Segmentation Storage
    uid.ParametricMapStorage: Kind.LABELS,
}
_GREY_SCALE = frozenset({"MONOCHROME1", "MONOCHROME2"})


def kind(ds: Dataset) -> Kind | None:
    """Return what the pixels of `ds` may show, or None if they may show anything."""
    return KINDS.get(str(ds.get("SOPClassUID", "")))


def may_carry_text(ds: Dataset) -> bool:
    """Return whether text may be drawn in; a captured or coloured image always may.

    Source: PS3.15 E.3.1, PS3.3 C.7.6.1.1.5.
    """
    of = kind(ds)
    if of is Kind.LABELS:
        return False
    image_type = str(ds.get("ImageType", "")).upper()
    captured = "ConversionType" in ds or "SCREEN" in image_type
    coloured = ds.get("PhotometricInterpretation") not in _GREY_SCALE
    if of is None or captured or coloured:
        return True
    said = ds.get("BurnedInAnnotation") or ""
    doubtful = of is Kind.PROJECTION or "SECONDARY" in image_type
    return said not in ("", "NO") or (doubtful and said != "NO")
