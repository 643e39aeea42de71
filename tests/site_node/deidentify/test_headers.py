"""De-identified headers: nothing planted survives, and what images need does."""

from __future__ import annotations

from copy import deepcopy
from datetime import date, timedelta
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from site_node.deidentify.headers import deidentify, original_date
from site_node.deidentify.profile import ALWAYS_EMPTY, RULES, Action
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import UnreadableInstance
from site_node.intake.part10 import quiet
from tests.site_node.dicom_files import (
    FRAME_UID,
    KEY,
    NAME,
    PATIENT_ID,
    SERIES_UID,
    STUDY_UID,
    file_bytes,
    masks,
    mr_series,
    mr_slice,
    segmentation,
    sop_uid,
)

PSEUDONYMISER = Pseudonymiser(KEY)
NEEDLE = "ZQXNEEDLE"
NEEDLE_UID = "1.2.3.98765432101"
TEXT_VRS = {"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "DA", "DT", "TM"}
TEXT_VRS |= {"DS", "IS"}
UNLISTED = [
    (0x00090010, "LO"),  # private, its creator and its content
    (0x00091001, "LO"),
    (0x00091002, "UN"),
    (0x0008F005, "UN"),  # no attribute of the standard
    (0x50003000, "OB"),
    (0x60003000, "OB"),
    (0x60000022, "LO"),
    (0xFFFCFFFC, "OB"),
]
# What an output has that no source gives it.
ADDED = {
    *(set(ALWAYS_EMPTY) - {"StudyDate", "SeriesNumber", "Manufacturer"}),
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
}
BYTES_VRS = {"OB", "UN", "OW", "OB or OW"}


def clean_bytes(ds: Dataset) -> bytes:
    return file_bytes(deidentify(ds, PSEUDONYMISER))


def planted(tag: int) -> DataElement | None:
    """Return an element that carries a needle, for every VR that can carry one."""
    vr = dictionary_VR(tag)
    if vr in TEXT_VRS:
        return DataElement(tag, vr, NEEDLE, already_converted=True)
    if vr == "UI":
        return DataElement(tag, vr, NEEDLE_UID)
    if vr in BYTES_VRS:
        return DataElement(tag, vr[:2], NEEDLE.encode() + b"\0")
    return None


def everywhere() -> Dataset:
    """Return a data set with a needle in every attribute of the data dictionary."""
    ds = Dataset()
    for tag in DicomDictionary:
        element = planted(tag) if 8 <= tag >> 16 < 0x7FE0 else None
        if element is not None:
            ds[tag] = element
    return ds


def test_a_name_in_any_attribute_of_the_dictionary_is_gone() -> None:
    with quiet():
        source = mr_slice()
        source.update(everywhere())

        out = clean_bytes(source)

    assert NEEDLE.encode() not in out
    assert NEEDLE_UID.encode() not in out


@pytest.mark.parametrize(
    "tag",
    sorted(tag for tag, rule in RULES.items() if rule.action in {Action.SEQUENCE, Action.CODE}),
    ids=keyword_for_tag,
)
def test_a_name_inside_any_kept_sequence_is_gone(tag: int) -> None:
    with quiet():
        inner, source = everywhere(), mr_slice()
        nested = Dataset()
        nested[tag] = DataElement(tag, "SQ", [everywhere()])
        inner[tag] = DataElement(tag, "SQ", [nested])
        source[tag] = DataElement(tag, "SQ", [inner])

        out = clean_bytes(source)

    assert NEEDLE.encode() not in out
    assert NEEDLE_UID.encode() not in out


@given(st.sampled_from(sorted(RULES)), st.text(alphabet="XYZ^- ", min_size=8, max_size=12))
@settings(max_examples=200)
def test_no_text_typed_into_a_listed_attribute_survives(tag: int, text: str) -> None:
    source = mr_slice()
    with quiet():
        source[tag] = DataElement(tag, "LO", f"Q{text}Q", already_converted=True)
        try:
            out = clean_bytes(source)
        except UnreadableInstance as refusal:
            out = str(refusal).encode()

    assert f"Q{text}Q".encode() not in out


def test_private_unknown_overlay_curve_and_group_length_elements_are_gone() -> None:
    source = mr_slice()
    for tag, vr in UNLISTED:
        source[tag] = DataElement(tag, vr, NAME if vr == "LO" else NAME.encode())
    source[0x00100000] = DataElement(0x00100000, "UL", 7)

    clean = deidentify(source, PSEUDONYMISER)

    assert {element.keyword for element in clean if element.tag not in RULES} == ADDED
    assert NAME.encode() not in clean_bytes(source)


def test_file_meta_information_and_preamble_are_our_own() -> None:
    source = mr_slice()
    source.file_meta.SourceApplicationEntityTitle = NAME[:16]
    source.file_meta.SendingApplicationEntityTitle = NAME[:16]
    source.file_meta.ImplementationVersionName = NAME[:16]
    source.file_meta.PrivateInformationCreatorUID = UID(NEEDLE_UID)
    source.file_meta.PrivateInformation = NAME.encode()
    original = dcmread(BytesIO(file_bytes(source, NAME.encode().ljust(128))))

    out = file_bytes(deidentify(original, PSEUDONYMISER))

    assert NAME[:16].encode() not in out
    assert NEEDLE_UID.encode() not in out
    assert out[:128] == bytes(128)


def test_what_an_image_needs_stays_bit_by_bit() -> None:
    source = mr_slice(RescaleSlope="1.50", RescaleIntercept="-1024", FlipAngle=15)

    clean = dcmread(BytesIO(clean_bytes(source)))

    assert clean.PixelData == source.PixelData
    for keyword in ("Rows", "PixelSpacing", "ImagePositionPatient", "EchoTime", "FlipAngle"):
        assert clean[keyword].value == source[keyword].value
    assert clean["RescaleSlope"].value.original_string == "1.50"
    assert clean.ImageType == ["ORIGINAL", "PRIMARY", "M"]
    assert clean.BodyPartExamined == "KNEE"


def test_the_source_is_not_changed_and_the_result_is_always_the_same() -> None:
    source = mr_slice()
    before = deepcopy(source)

    first, second = clean_bytes(source), clean_bytes(source)

    assert source == before
    assert first == second


def test_identity_is_replaced_consistently_and_the_removal_is_declared() -> None:
    one, two = (deidentify(mr_slice(number), PSEUDONYMISER) for number in (0, 1))

    assert one.PatientID == one.PatientName == two.PatientID == PSEUDONYMISER.patient(PATIENT_ID)
    assert one.StudyInstanceUID == two.StudyInstanceUID == PSEUDONYMISER.uid(STUDY_UID)
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    assert one.PatientIdentityRemoved == "YES"
    assert one.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in one.DeidentificationMethodCodeSequence] == [
        "113100",
        "113107",
    ]


def test_a_date_moves_back_keeps_its_distance_and_loses_its_time() -> None:
    source = mr_slice(StudyDate="20260312", SeriesDate="20260320", AcquisitionDateTime="20260401101530.5+0100")

    clean = deidentify(source, PSEUDONYMISER)

    study, series, acquisition = (
        date.fromisoformat(str(clean[keyword].value)) for keyword in ("StudyDate", "SeriesDate", "AcquisitionDateTime")
    )
    assert study == date(2026, 3, 12) - timedelta(days=PSEUDONYMISER.days(PATIENT_ID))
    assert (series - study).days == 8
    assert (acquisition - study).days == 20
    assert clean.StudyTime is None


@pytest.mark.parametrize("value", ["", "2026", "00010101", "99999999", "20261301"])
def test_a_date_that_is_none_is_emptied(value: str) -> None:
    with quiet():
        source = mr_slice(StudyDate=value)

        assert not deidentify(source, PSEUDONYMISER).StudyDate
        assert original_date(source) is None


def test_the_true_date_is_known_inside_the_hospital() -> None:
    assert original_date(mr_slice()) == "2026-03-12"


@pytest.mark.parametrize("patient_id", ["", "   ", None])
def test_an_instance_of_no_patient_is_refused_by_the_attributes_name(
    patient_id: str | None,
) -> None:
    with pytest.raises(UnreadableInstance, match=r"^PatientID: absent or empty$"):
        deidentify(mr_slice(PatientID=patient_id), PSEUDONYMISER)


def test_a_code_keeps_its_value_and_gets_the_dictionarys_meaning() -> None:
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator = "T-A0100", "SRT"
    region.CodeMeaning = f"Brain of {NAME}"
    invented = Dataset()
    invented.CodeValue, invented.CodingSchemeDesignator = NAME[:16], "99LOCAL"
    invented.CodeMeaning = NAME
    source = mr_slice(AnatomicRegionSequence=[region, invented])

    (item,) = deidentify(source, PSEUDONYMISER).AnatomicRegionSequence

    assert (item.CodeValue, item.CodingSchemeDesignator) == ("12738006", "SCT")
    assert item.CodeMeaning == "Brain"


def test_an_unknown_term_goes_or_becomes_other() -> None:
    source = mr_slice(ImageType=["ORIGINAL", "PRIMARY", NAME[:16]], ScanOptions=["FS", NAME[:16]])

    clean = deidentify(source, PSEUDONYMISER)

    assert clean.ImageType == ["ORIGINAL", "PRIMARY", "OTHER"]
    assert clean.ScanOptions == "FS"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_number_of_either_sign_survives_in_every_encoding(syntax: UID) -> None:
    source = mr_slice(PixelRepresentation=1, PixelPaddingValue=-2000)
    source.file_meta.TransferSyntaxUID = syntax
    original = dcmread(BytesIO(file_bytes(source)))

    clean = dcmread(BytesIO(file_bytes(deidentify(original, PSEUDONYMISER))))

    assert clean.PixelPaddingValue == -2000
    assert clean.file_meta.TransferSyntaxUID == syntax


def test_a_segmentation_still_points_at_its_images_and_says_what_it_shows() -> None:
    images = mr_series()
    clean = deidentify(segmentation(images, masks()), PSEUDONYMISER)

    out = file_bytes(clean)
    referenced = {
        str(item.ReferencedSOPInstanceUID) for item in clean.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {PSEUDONYMISER.uid(sop_uid(number)) for number in range(3)}
    assert clean.ReferencedSeriesSequence[0].SeriesInstanceUID == PSEUDONYMISER.uid(SERIES_UID)
    assert clean.FrameOfReferenceUID == PSEUDONYMISER.uid(FRAME_UID)
    assert [item.SegmentLabel for item in clean.SegmentSequence] == ["Gray Matter", "White Matter"]
    assert NAME.encode() not in out
    assert STUDY_UID.encode() not in out
