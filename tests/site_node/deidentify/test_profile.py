"""The tables of PS3.15 Annex E against other transcriptions, and what each option makes of them."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.sr.codedict import codes

from site_node.deidentify.codes import meaning
from site_node.deidentify.iods import iod
from site_node.deidentify.profile import (
    COLUMNS,
    COMPOUNDS,
    KEPT,
    OPAQUE,
    UNCOUNTED,
    Action,
    Dates,
    Kept,
    Option,
    Options,
    Profile,
    content_rows,
    rows,
    safe_private_table,
)

VECTOR = Path(__file__).parents[2] / "vectors" / "ps315_table_e1_1.csv"
TABLES = Path(__file__).parents[3] / "site_node" / "deidentify" / "tables"
NUMBERS = {"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "DS", "IS", "AT", "US or SS"}
VRS = {
    Kept.NUMBER: NUMBERS,
    Kept.TERM: {"CS", "LO"},
    Kept.TEXT: {"LO", "SH", "ST", "LT", "UT", "UC"},
    Kept.CODE: {"SH", "LO", "UC", "UR"},
    Kept.UID: {"UI"},
    Kept.SEQUENCE: {"SQ"},
    Kept.BULK: {"OB", "OW", "OF", "OD", "OL", "OV", "OB or OW", "US or OW", "US or SS or OW"},
}
BASIC = Options(
    clean_graphics=False,
    clean_structured_content=False,
    clean_descriptors=False,
    dates=Dates.REMOVE,
    retain_safe_private=False,
)
RETAINS = [field.name for field in fields(Options) if field.name.startswith("retain")]
TABLE = {row.tag: row for row in rows()}
SINGLE = [row for row in rows() if row.tag not in UNCOUNTED]

every_options = st.builds(
    Options,
    dates=st.sampled_from(Dates),
    **{field.name: st.booleans() for field in fields(Options) if field.name != "dates"},
)
types: st.SearchStrategy[int | None] = st.sampled_from([None, 1, 2])


def switched(options: Options, name: str, *, on: bool) -> Options:
    changes: dict[str, Any] = {name: on}
    return replace(options, **changes)


def tag(keyword: str) -> int:
    found = tag_for_keyword(keyword)
    assert found is not None
    return found


def first(row_tag: str) -> int:
    """Return the first tag a row stands for."""
    return int(row_tag.replace("x", "0"), 16)


def representation(row_tag: str) -> str:
    """Return the value representation, if the dictionary knows the attribute."""
    return dictionary_VR(first(row_tag)) if dictionary_has_tag(first(row_tag)) else ""


def transcription() -> dict[str, tuple[str, str]]:
    with VECTOR.open(newline="") as file:
        lines = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["tag"].upper(): (row["action"], row["modified_dates"]) for row in lines}


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("confidentiality.tsv", 657, "1013976ab8d9909e"),
        ("content_items.tsv", 214, "92c3df7203ef6047"),
        ("safe_private.tsv", 193, "e42880232996f2b1"),
    ],
)
def test_no_row_of_a_table_of_the_standard_is_touched_by_accident(name: str, count: int, digest: str) -> None:
    text = (TABLES / name).read_bytes()

    assert sum(not line.startswith(b"#") for line in text.splitlines()) - 1 == count
    assert hashlib.sha256(text).hexdigest()[:16] == digest


def test_the_tables_rows_agree_with_a_second_transcription() -> None:
    ours = {row.tag: (row.basic, row.options.get(Option.RETAIN_MODIFIED_DATES, "")) for row in SINGLE}
    second = transcription()

    # The second one leaves out what stands for several tags.
    assert {key for key in ours if "x" not in key} == second.keys()
    assert {key: ours[key] for key in second} == second


def test_the_basic_actions_agree_with_a_third_transcription() -> None:
    module = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
    third: Any = pytest.importorskip(module, reason="extra deidentification-check is not installed")
    names = {name: getattr(third, name) for name in dir(third) if name.endswith("_TAGS") and name != "ALL_TAGS"}
    actions = {
        "D_TAGS": "D",
        "Z_TAGS": "Z",
        "X_TAGS": "X",
        "U_TAGS": "U",
        "Z_D_TAGS": "Z/D",
        "X_Z_TAGS": "X/Z",
        "X_D_TAGS": "X/D",
        "X_Z_D_TAGS": "X/Z/D",
        "X_Z_U_STAR_TAGS": "X/Z/U*",
    }

    assert names.keys() >= actions.keys()
    for name, action in actions.items():
        for group, element, *_ in names[name]:
            row = TABLE.get(f"{group:04X}{element:04X}")
            assert row is None or row.basic == action


def test_every_row_resolves_under_the_basic_profile_to_its_own_action() -> None:
    actions = Profile.of(BASIC).actions

    assert {row.tag: actions[first(row.tag)] for row in SINGLE} == {row.tag: COMPOUNDS[row.basic] for row in SINGLE}


@pytest.mark.parametrize(
    ("code", "other", "type_1", "type_2"),
    [
        ("D", "D", "D", "D"),
        ("Z", "Z", "D", "Z"),
        ("X", "X", "D", "Z"),
        ("X/Z", "X", "D", "Z"),
        ("X/D", "X", "D", "Z"),
        ("X/Z/D", "X", "D", "Z"),
        ("Z/D", "Z", "D", "Z"),
        ("U", "U", "U", "U"),
        ("X/Z/U*", "X", "U", "U"),
        ("K", "K", "K", "K"),
        ("C", "C", "C", "C"),
    ],
)
def test_a_compound_action_takes_what_leaves_the_object_valid(code: str, other: str, type_1: str, type_2: str) -> None:
    assert [action.value for action in COMPOUNDS[code]] == [other, type_1, type_2]


def test_every_action_of_the_table_is_known() -> None:
    assert {row.basic for row in rows()} | {row.basic for row in content_rows()} <= COMPOUNDS.keys()
    assert {code for row in rows() for code in row.options.values()} == {"K", "C"}


@pytest.mark.parametrize("column", COLUMNS)
def test_an_option_decides_on_its_attributes_and_on_no_others(column: str) -> None:
    option = COLUMNS[column]
    profile = Profile.of(replace(BASIC, **switch(option)))

    for row in [row for row in SINGLE if row.tag not in OPAQUE]:
        # Dates follow the date options alone.
        is_date = Option.RETAIN_FULL_DATES in row.options and profile.options.dates is Dates.REMOVE
        expected = COMPOUNDS[row.basic if is_date else row.options.get(option, row.basic)]
        assert profile.actions[first(row.tag)] == expected


def switch(option: Option) -> dict[str, Any]:
    if option is Option.RETAIN_FULL_DATES:
        return {"dates": Dates.FULL}
    if option is Option.RETAIN_MODIFIED_DATES:
        return {"dates": Dates.MODIFIED}
    return {option.name.lower(): True}


def test_where_one_option_keeps_and_another_cleans_cleaning_wins() -> None:
    allergies = first("00102110")

    assert TABLE["00102110"].options == {
        Option.RETAIN_PATIENT_CHARACTERISTICS: "C",
        Option.CLEAN_DESCRIPTORS: "C",
    }
    assert Profile.of(Options(retain_patient_characteristics=True)).action(allergies) is Action.CLEAN
    assert all(
        Profile.of(Options(retain_device_identity=True, dates=Dates.FULL)).actions[first(row.tag)] == COMPOUNDS["C"]
        for row in SINGLE
        if Option.CLEAN_DESCRIPTORS in row.options and row.tag not in OPAQUE
    )


@settings(max_examples=30, deadline=None)  # a profile takes milliseconds to make
@given(every_options, st.sampled_from(RETAINS), types)
def test_turning_a_retain_option_off_never_keeps_more(options: Options, name: str, required: int | None) -> None:
    less = Profile.of(switched(options, name, on=False))
    more = Profile.of(switched(options, name, on=True))

    assert kept(less, required) <= kept(more, required)
    assert less.private.keys() <= more.private.keys()


@settings(max_examples=30, deadline=None)
@given(every_options, types)
def test_moved_dates_keep_no_more_than_full_ones_and_no_fewer_than_none(options: Options, required: int | None) -> None:
    none, moved, full = (Profile.of(replace(options, dates=dates)) for dates in Dates)

    assert kept(none, required) <= kept(moved, required) <= kept(full, required) | touched(full, required)
    assert untouched(none, required) <= untouched(moved, required) <= untouched(full, required)


def kept(profile: Profile, required: int | None) -> set[int]:
    return untouched(profile, required) | touched(profile, required)


def touched(profile: Profile, required: int | None) -> set[int]:
    return {each for each in profile.actions if profile.action(each, required) is Action.CLEAN}


def untouched(profile: Profile, required: int | None) -> set[int]:
    return {each for each in profile.actions if profile.action(each, required) is Action.KEEP}


@settings(max_examples=30, deadline=None)
@given(every_options)
def test_no_attribute_of_the_table_is_reached_by_the_list_of_what_may_stay(options: Options) -> None:
    listed = {first(row.tag) for row in SINGLE}

    assert not listed & KEPT.keys()
    assert Profile.of(options).actions.keys() <= KEPT.keys() | {
        each for each in Profile.of(options).actions if f"{each:08X}" in TABLE or each >> 24 == 0x60
    }


def test_what_is_in_no_table_is_dropped() -> None:
    profile = Profile.of(Options())
    unlisted = [0x00091001, 0x00080000, 0x50000010, 0x00081190, 0x00090120, 0x00020102, 0x60FE3000]

    assert [profile.action(each) for each in unlisted] == [None] * len(unlisted)


@pytest.mark.parametrize("how", Kept)
def test_what_may_stay_has_a_value_representation_that_can_be_checked(how: Kept) -> None:
    listed = [each for each, form in KEPT.items() if form is how and each >> 24 != 0x60]

    assert {keyword_for_tag(each) for each in listed if dictionary_VR(each) not in VRS[how]} == set()


def test_nobody_is_named_and_no_address_or_date_is_given_by_what_may_stay() -> None:
    forbidden = {"PN", "AE", "UR", "UN", "DA", "TM", "DT", "AS"}
    coded = {tag("URNCodeValue")}

    assert not {each for each in KEPT if each >> 24 != 0x60 and each not in coded and dictionary_VR(each) in forbidden}


@pytest.mark.parametrize(
    "keyword",
    [
        *("RetrieveURL", "PrivateInformation", "SourceApplicationEntityTitle", "PatientBirthDateInAlternativeCalendar"),
        *("UniversalEntityID", "LocalNamespaceEntityID", "GPSLatitude", "GPSLongitude", "DeviceID", "NTPSourceAddress"),
        *("CommentsOnTheScheduledProcedureStep", "DataElementsSigned", "OtherStudyNumbers", "HL7InstanceIdentifier"),
        *("DigitalSignaturesSequence", "IconImageSequence", "EncryptedContent", "IssuerOfAccessionNumberSequence"),
    ],
)
def test_known_carriers_of_identities_are_not_kept(keyword: str) -> None:
    action = Profile.of(Options()).action(tag(keyword))

    assert action in {None, Action.REMOVE}


@pytest.mark.parametrize(
    "keyword",
    [
        *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "Laterality", "BodyPartExamined", "KVP"),
        *(
            "Exposure",
            "EchoTime",
            "WindowCenter",
            "RescaleSlope",
            "SliceThickness",
            "PatientPosition",
            "Rows",
            "Modality",
        ),
        *(
            "ImageType",
            "SeriesNumber",
            "InstanceNumber",
            "FlipAngle",
            "ViewPosition",
            "NumberOfFrames",
            "PixelData",
            "PresentationLUTShape",
        ),
        *("RadionuclideTotalDose", "DoseGridScaling", "SequenceOfUltrasoundRegions", "ContourData", "LUTData"),
        *("SharedFunctionalGroupsSequence", "WaveformData", "SpectroscopyData", "AnatomicRegionSequence", "Units"),
    ],
)
def test_what_an_image_measures_stays_as_it_is(keyword: str) -> None:
    for required in (None, 1, 2):
        assert Profile.of(BASIC).action(tag(keyword), required) is Action.KEEP


@pytest.mark.parametrize(
    "keyword",
    ["ContentDescription", "DocumentTitle", "RTImageLabel", "Manufacturer", "SegmentLabel", "ConvolutionKernel"],
)
def test_text_outside_the_table_is_cleaned_as_a_descriptor_or_goes(keyword: str) -> None:
    assert Profile.of(Options()).action(tag(keyword)) is Action.CLEAN
    assert Profile.of(BASIC).action(tag(keyword)) is Action.REMOVE


def test_an_overlay_goes_or_stays_as_a_whole() -> None:
    plane = {each for each in KEPT if each >> 16 == 0x6002}

    assert plane
    assert not plane & Profile.of(BASIC).actions.keys()
    assert Profile.of(Options()).action(0x60023000) is Action.CLEAN


def test_the_uids_of_the_instance_are_remapped_unless_they_are_retained() -> None:
    uids = [
        tag(keyword) for keyword in ("SOPInstanceUID", "StudyInstanceUID", "ReferencedSOPInstanceUID", "SOPClassUID")
    ]

    assert [Profile.of(Options()).action(each, 1) for each in uids] == [Action.UID] * 4
    assert [Profile.of(Options(retain_uids=True)).action(each, 1) for each in uids] == [Action.KEEP] * 4


def test_a_segmentation_keeps_pointing_to_its_images() -> None:
    segmentation = iod("1.2.840.10008.5.1.4.1.1.66.4")
    derivation = segmentation.item(0x52009230).item(tag("DerivationImageSequence"))
    source = tag("SourceImageSequence")

    assert Profile.of(Options()).action(source, derivation.type(source)) is Action.UID


def test_opaque_bytes_of_the_table_never_stay() -> None:
    everything = Options(**{field.name: True for field in fields(Options) if field.name != "dates"}, dates=Dates.FULL)
    opaque = {row.tag for row in SINGLE if representation(row.tag) == "OB" and row.options}

    assert opaque == OPAQUE
    for options in (Options(), everything):
        assert not {
            each for each in OPAQUE if Profile.of(options).action(first(each), 1) in {Action.KEEP, Action.CLEAN}
        }


def test_content_items_follow_their_concept_name() -> None:
    profile = Profile.of(Options())

    assert profile.content_action("121022", "DCM") is Action.REMOVE  # Accession Number
    assert profile.content_action("110180", "DCM") is Action.UID  # Study Instance UID
    assert profile.content_action("109054", "DCM") is Action.CLEAN  # Patient State
    assert profile.content_action("121401", "DCM") is None  # Derivation


def test_a_concept_with_a_row_per_value_type_is_decided_by_it_or_by_the_strictest() -> None:
    profile = Profile.of(Options())
    report = ("371524004", "SCT")  # Clinical Report

    assert profile.content_action(*report, "TEXT") is Action.CLEAN
    assert profile.content_action(*report, "COMPOSITE") is Action.REMOVE
    assert profile.content_action(*report) is Action.REMOVE
    assert profile.content_action(*report, "CODE") is Action.REMOVE


def test_a_concept_named_by_its_legacy_snomed_code_is_the_same_concept() -> None:
    profile = Profile.of(Options())

    assert profile.content_action("G-D320", "SRT") is Action.CLEAN  # Stop DateTime
    assert profile.content_action("G-D320", "SRT") == profile.content_action("397898000", "SCT")


# Concepts whose meaning in the table is shorter than the fully specified name, or has been reworded since.
REWORDED = {
    *("112373", "113514", "121124", "160476009", "271921002", "371524004", "397898000", "398164008"),
    *("398201009", "398325003", "440252007"),
}


def test_the_codes_of_content_items_mean_what_the_dictionary_says() -> None:
    found = [(row.code, row.meaning, meaning(row.scheme, row.code, row.meaning)) for row in content_rows()]
    known = [each for each in found if each[2] is not None]

    assert len(known) >= 190
    assert {code for code, ours, theirs in known if ours != theirs} == REWORDED


def test_every_content_item_resolves_under_every_option() -> None:
    for options in (BASIC, Options(), Options(retain_uids=True, dates=Dates.FULL, retain_device_identity=True)):
        profile = Profile.of(options)
        assert all(profile.content_action(row.code, row.scheme) is not None for row in content_rows())


def test_safe_private_attributes_need_their_creator_and_the_option() -> None:
    profile = Profile.of(Options())

    assert profile.safe_private(0x0019, 0x0C, "SIEMENS MR HEADER") == "IS"
    assert profile.safe_private(0x7053, 0x00, "Philips PET Private Group") == "DS"
    assert profile.safe_private(0x0019, 0x0C, "SOMEBODY") is None
    assert (
        Profile.of(replace(Options(), retain_safe_private=False)).safe_private(0x0019, 0x0C, "SIEMENS MR HEADER")
        is None
    )


def test_nothing_opaque_is_a_safe_private_attribute() -> None:
    assert not {"OB", "OW", "UN", ""} & set(safe_private_table().values())


def test_the_declared_codes_are_those_of_the_standard() -> None:
    published = {(code.value, code.meaning) for code in codes.cid7050.concepts.values()}
    ours = set(Profile.of(Options()).method_codes(list(Option))) | {option.value for option in Option}

    assert ours <= published


def test_only_what_was_asked_and_done_is_declared() -> None:
    done = {Option.CLEAN_DESCRIPTORS, Option.RETAIN_UIDS, Option.RETAIN_MODIFIED_DATES}

    declared = Profile.of(Options()).method_codes(done)

    assert [code for code, _ in declared] == ["113100", "113105", "113107"]


def test_each_switch_is_one_option_and_each_date_policy_at_most_one() -> None:
    everything = Options(**{field.name: True for field in fields(Options) if field.name != "dates"}, dates=Dates.FULL)

    assert everything.chosen() == set(Option) - {Option.RETAIN_MODIFIED_DATES}
    assert BASIC.chosen() == {Option.CLEAN_PIXEL_DATA, Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES}


def test_a_profile_is_made_once_per_process() -> None:
    assert Profile.of(Options()) is Profile.of(Options())
