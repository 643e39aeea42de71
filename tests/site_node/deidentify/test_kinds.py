"""Which images may carry burned-in text, by their header alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom import uid

from site_node.deidentify.kinds import may_carry_text
from tests.site_node.dicom_files import masks, mr_series, mr_slice, segmentation

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def of_class(sop_class: str, **attributes: object) -> Dataset:
    return mr_slice(0, SOPClassUID=sop_class, **attributes)


CR = uid.ComputedRadiographyImageStorage


@pytest.mark.parametrize(
    "ds",
    [
        mr_slice(),
        mr_slice(ImageType=["DERIVED", "SECONDARY", "MPR"], BurnedInAnnotation="NO"),
        mr_slice(ImageType="ORIGINAL"),
        of_class(uid.CTImageStorage),
        of_class(CR, BurnedInAnnotation="NO"),
        segmentation(mr_series(), masks()),
    ],
)
def test_a_section_or_labels_carry_none_unless_the_header_lets_one_think_so(ds: Dataset) -> None:
    assert not may_carry_text(ds)


@pytest.mark.parametrize(
    "ds",
    [
        mr_slice(BurnedInAnnotation="YES"),
        mr_slice(BurnedInAnnotation="MAYBE"),
        mr_slice(ImageType=["DERIVED", "SECONDARY", "MPR"]),
        mr_slice(ImageType=["DERIVED", "PRIMARY", "SCREEN SAVE"]),
        mr_slice(ConversionType="WSD", BurnedInAnnotation="NO"),
        mr_slice(PhotometricInterpretation="RGB", BurnedInAnnotation="NO"),
        mr_slice(PhotometricInterpretation="PALETTE COLOR"),
        of_class(CR),
    ],
)
def test_what_is_captured_coloured_or_doubtful_may_carry_text(ds: Dataset) -> None:
    assert may_carry_text(ds)


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.UltrasoundImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.XRayAngiographicImageStorage,
        uid.VLPhotographicImageStorage,
        uid.RTImageStorage,
        "1.2.3.4",
    ],
)
def test_no_file_can_talk_its_way_out_of_a_class_that_carries_text(sop_class: str) -> None:
    assert may_carry_text(of_class(sop_class, BurnedInAnnotation="NO"))
