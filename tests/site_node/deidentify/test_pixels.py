"""Which images may be used without a person's look, and why the others may not."""

from __future__ import annotations

import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from site_node.deidentify.pixels import (
    BURNED_IN,
    FACE,
    KINDS,
    MAY_CARRY_TEXT,
    MODALITY_LUT,
    NOT_CLEANED,
    OVERLAY_IN_PIXELS,
    SEGMENT_CODE,
    Clear,
    Held,
    Kind,
    screen,
)
from tests.site_node.dicom_files import masks, mr_series, mr_slice, segmentation


def of_class(sop_class: str, **attributes: object) -> Dataset:
    return mr_slice(0, SOPClassUID=sop_class, **attributes)


def with_overlay_bits() -> Dataset:
    ds = mr_slice()
    ds.add_new(0x60000010, "US", 8)
    ds.add_new(0x60000102, "US", 12)
    return ds


CR = uid.ComputedRadiographyImageStorage


@pytest.mark.parametrize(
    "ds",
    [
        mr_slice(),
        mr_slice(BodyPartExamined="BRAIN", RecognizableVisualFeatures="NO"),
        mr_slice(ImageType=["DERIVED", "SECONDARY", "MPR"], BurnedInAnnotation="NO"),
        mr_slice(ImageType="ORIGINAL"),
        of_class(uid.CTImageStorage, BodyPartExamined="ABDOMEN"),
        of_class(CR, BurnedInAnnotation="NO"),
    ],
)
def test_an_image_that_nothing_speaks_against_is_clear(ds: Dataset) -> None:
    assert screen(ds) == Clear()


@pytest.mark.parametrize(
    ("ds", "reason"),
    [
        (mr_slice(BurnedInAnnotation="YES"), BURNED_IN),
        (mr_slice(BurnedInAnnotation="MAYBE"), BURNED_IN),
        (mr_slice(ImageType=["DERIVED", "SECONDARY", "MPR"]), MAY_CARRY_TEXT),
        (mr_slice(ImageType=["DERIVED", "PRIMARY", "SCREEN SAVE"]), MAY_CARRY_TEXT),
        (mr_slice(ConversionType="WSD", BurnedInAnnotation="NO"), MAY_CARRY_TEXT),
        (mr_slice(PhotometricInterpretation="RGB", BurnedInAnnotation="NO"), MAY_CARRY_TEXT),
        (mr_slice(PhotometricInterpretation="PALETTE COLOR"), MAY_CARRY_TEXT),
        (of_class(CR), MAY_CARRY_TEXT),
        (of_class(uid.UltrasoundImageStorage, BurnedInAnnotation="NO"), MAY_CARRY_TEXT),
        (of_class(uid.SecondaryCaptureImageStorage, BurnedInAnnotation="NO"), MAY_CARRY_TEXT),
        (of_class(uid.EncapsulatedPDFStorage), NOT_CLEANED),
        (of_class(uid.BasicTextSRStorage), NOT_CLEANED),
        (of_class(uid.RTPlanStorage), NOT_CLEANED),
        (of_class(uid.TwelveLeadECGWaveformStorage), NOT_CLEANED),
        (of_class("1.2.3.4"), NOT_CLEANED),
        (mr_slice(BodyPartExamined="HEAD"), FACE),
        (mr_slice(BodyPartExamined="HEAD", RecognizableVisualFeatures="YES"), FACE),
        (mr_slice(BodyPartExamined=""), FACE),
        (mr_slice(BodyPartExamined="NECK"), FACE),
        (mr_slice(BodyPartExamined="SOMETHING NEW"), FACE),
        (with_overlay_bits(), OVERLAY_IN_PIXELS),
        (mr_slice(ModalityLUTSequence=[Dataset()]), MODALITY_LUT),
    ],
)
def test_an_image_in_doubt_is_held_with_the_reason(ds: Dataset, reason: str) -> None:
    assert screen(ds) == Held(reason)


def test_a_segmentation_is_clear_and_one_with_an_invented_code_is_held() -> None:
    ds = segmentation(mr_series(), masks())
    assert screen(ds) == Clear()

    ds.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeValue = "WM"

    assert screen(ds) == Held(SEGMENT_CODE)


@pytest.mark.parametrize("sop_class", [sop_class for sop_class, kind in KINDS.items() if kind is Kind.TEXT])
def test_no_file_can_talk_its_way_out_of_a_class_that_carries_text(sop_class: str) -> None:
    ds = of_class(sop_class, BurnedInAnnotation="NO", RecognizableVisualFeatures="NO")

    assert screen(ds) == Held(MAY_CARRY_TEXT)
