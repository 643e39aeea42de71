"""Attribute types of information objects, against what PS3.3 says of well-known ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary  # published under this name alone
from pydicom.datadict import tag_for_keyword

from site_node.deidentify.iods import MACROS, iod, required

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
MG = "1.2.840.10008.5.1.4.1.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
PR = "1.2.840.10008.5.1.4.1.1.11.1"
ECG = "1.2.840.10008.5.1.4.1.1.9.1.1"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
DICOMDIR = "1.2.840.10008.1.3.10"


def path(keywords: str) -> tuple[int, ...]:
    tags = [tag_for_keyword(keyword) for keyword in keywords.split("/")]
    return tuple(tag for tag in tags if tag is not None)


@pytest.mark.parametrize(
    ("sop_class", "keywords", "expected"),
    [
        (CT, "PatientName", 2),
        (CT, "Modality", 1),
        (CT, "SOPInstanceUID", 1),
        (CT, "AccessionNumber", 2),
        (CT, "StudyDescription", None),
        (CT, "KVP", 2),
        (MG, "ViewCodeSequence/CodeMeaning", 1),
        (MG, "AcquisitionContextSequence", 2),
        (SEG, "SegmentSequence/SegmentLabel", 1),
        (SEG, "ContentCreatorName", 2),
        (SEG, "PerFrameFunctionalGroupsSequence/DerivationImageSequence/SourceImageSequence", 2),
        (ENHANCED_CT, "SharedFunctionalGroupsSequence/PixelMeasuresSequence/PixelSpacing", 1),
        (ENHANCED_CT, "PerFrameFunctionalGroupsSequence/FrameContentSequence/FrameAcquisitionDateTime", 1),
        (RTSTRUCT, "StructureSetROISequence/ROIName", 2),
        (RTSTRUCT, "StructureSetLabel", 1),
        (SR, "ContentSequence/ContentSequence/ContentSequence/RelationshipType", 1),
        (SR, "ContentSequence/ContentSequence/ConceptNameCodeSequence/CodeMeaning", 1),
        (PR, "GraphicAnnotationSequence/TextObjectSequence/UnformattedTextValue", 1),
        (ECG, "WaveformSequence/WaveformData", 1),
        (PDF, "DocumentTitle", 2),
        (DICOMDIR, "DirectoryRecordSequence/DirectoryRecordType", 1),
        (DICOMDIR, "DirectoryRecordSequence/PatientName", 2),
        ("1.2.3", "PatientID", 2),
    ],
)
def test_the_types_are_those_of_the_standard(sop_class: str, keywords: str, expected: int | None) -> None:
    assert required(sop_class, path(keywords)) == expected


def test_the_planes_of_every_overlay_group_have_the_same_types() -> None:
    assert [iod(CT).type(tag) for tag in (0x60000010, 0x60020010, 0x601E0010)] == [1, 1, 1]
    assert iod(CT).type(0x60020022) is None


def test_every_storage_class_that_is_not_retired_is_known() -> None:
    classes = {
        uid
        for uid, (name, kind, _, retired, _) in UID_dictionary.items()
        if kind == "SOP Class" and name.endswith(" Storage") and not retired and "DICOS" not in name
    }
    # Industrial objects have no patient, and this one is defined in no table of PS3.3.
    unlike = {uid for uid in classes if "Eddy Current" in UID_dictionary[uid][0]}

    assert not {uid for uid in classes - unlike if iod(uid) is iod("1.2.3")}


def test_items_of_a_sequence_nobody_knows_are_read_as_codes_or_references() -> None:
    assert iod(CT).item(0x00091010) is MACROS
    assert MACROS.type(0x00080100) == 1


@given(st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=8), st.sampled_from([CT, SEG, SR, "1.2.3"]))
def test_any_path_has_a_type_or_none(tags: list[int], sop_class: str) -> None:
    assert required(sop_class, tuple(tags)) in {1, 2, None}
