"""De-identified headers: nothing planted survives, and what images need does."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from site_node.deidentify import stream
from site_node.deidentify.cleaner import raw
from site_node.deidentify.headers import Cleaned, declare, deidentify, original_date
from site_node.deidentify.profile import Dates, Option, Options, Profile
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.deidentify.stream import Element, Part10
from site_node.errors import UnreadableInstance
from tests.site_node.dicom_files import (
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
PROFILE = Profile.of(Options())
NEEDLE = b"ZQXNEEDLEVANTONGEREN"
TEXT_VRS = frozenset(("OB", "OW", "UN")) | stream.TEXT_VRS
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def cleaned(ds: Dataset, profile: Profile = PROFILE) -> Cleaned:
    return deidentify(stream.read(file_bytes(ds)), profile, PSEUDONYMISER)


def written(part10: Part10) -> bytes:
    return b"".join(stream.write(part10))


def clean(ds: Dataset, profile: Profile = PROFILE) -> Dataset:
    return dcmread(BytesIO(written(cleaned(ds, profile).part10)))


def item(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def test_a_name_in_any_attribute_of_the_dictionary_is_gone_at_any_depth() -> None:
    source = stream.read(file_bytes(mr_slice()))
    flood = {
        tag: Element(tag, vr, NEEDLE)
        for tag, entry in DicomDictionary.items()
        for vr in (entry[0].split(" or ")[0],)
        if 8 <= tag >> 16 < 0x7FE0 and vr in TEXT_VRS and tag not in source.elements
    }
    nested = {
        tag: Element(tag, "SQ", [dict(flood)])
        for tag, entry in DicomDictionary.items()
        if entry[0] == "SQ" and tag >> 16 in (0x0008, 0x0040, 0x3006)
    }
    elements = dict(sorted((source.elements | flood | nested).items()))

    out = written(deidentify(Part10(source.meta, source.transfer_syntax, elements), PROFILE, PSEUDONYMISER).part10)

    assert NEEDLE not in out
    assert dcmread(BytesIO(out)).EchoTime == 90


def test_what_no_table_lists_is_gone() -> None:
    source = stream.read(file_bytes(mr_slice(), preamble=NEEDLE.ljust(128, b"\0")))
    unlisted = (
        (0x00080000, "UL", b"\x01\0\0\0"),
        (0x0008F005, "UN", NEEDLE),
        (0x00090010, "LO", NEEDLE),
        (0x00091001, "LO", NEEDLE),
        (0x50003000, "OB", NEEDLE),
        (0x60000022, "LO", NEEDLE),
        (0x60003000, "OW", NEEDLE),
        (0xFFFCFFFC, "OB", NEEDLE),
    )
    elements = source.elements | {tag: Element(tag, vr, value) for tag, vr, value in unlisted}
    meta = source.meta | {0x00020016: Element(0x00020016, "AE", NEEDLE), 0x00020102: Element(0x00020102, "OB", NEEDLE)}
    flooded = Part10(meta, source.transfer_syntax, dict(sorted(elements.items())), source.preamble)

    result = deidentify(flooded, PROFILE, PSEUDONYMISER)

    assert NEEDLE not in written(result.part10)
    assert not {tag for tag, _, _ in unlisted} & result.part10.elements.keys()
    assert result.notes == {"graphics-removed"}


def test_pixels_and_technical_values_stay() -> None:
    source = mr_slice(ScanningSequence="SE", FlipAngle="90.0", PixelData=bytes(40_000))

    result = cleaned(source)

    ds = dcmread(BytesIO(written(result.part10)))
    assert isinstance(result.part10.elements[stream.PIXEL_DATA].value, memoryview)
    assert ds.PixelData == source.PixelData
    for keyword in ("Rows", "PixelSpacing", "ImagePositionPatient", "EchoTime", "ImageType", "BodyPartExamined"):
        assert ds[keyword].value == source[keyword].value
    assert result.part10.elements[0x00181314].value == b"90.0"


def test_the_same_input_gives_the_same_bytes() -> None:
    assert written(cleaned(mr_slice()).part10) == written(cleaned(mr_slice()).part10)


def test_identity_is_replaced_consistently_and_the_removal_is_declared() -> None:
    one, two = clean(mr_slice(0)), clean(mr_slice(1))

    assert one.PatientID == two.PatientID == str(one.PatientName) == PSEUDONYMISER.patient(PATIENT_ID)
    assert one.StudyInstanceUID == two.StudyInstanceUID == PSEUDONYMISER.uid(STUDY_UID)
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    assert one.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert one.PatientIdentityRemoved == "YES"
    assert one.LongitudinalTemporalInformationModified == "MODIFIED"
    done = [method.CodeValue for method in one.DeidentificationMethodCodeSequence]
    assert done == ["113100", "113103", "113104", "113105", "113107", "113111"]


def test_what_happened_to_pixels_is_declared_by_whoever_did_it() -> None:
    part10 = declare(cleaned(mr_slice()).part10, done=[Option.CLEAN_PIXEL_DATA], burned_in=False, recognizable=True)

    ds = dcmread(BytesIO(written(part10)))
    assert "113101" in [method.CodeValue for method in ds.DeidentificationMethodCodeSequence]
    assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures) == ("NO", "YES")


def test_dates_and_times_move_together() -> None:
    source = mr_slice(StudyDate="20240229", SeriesDate="20240301", AcquisitionDateTime="20240302101530.5+0100")

    ds = clean(source)

    days = timedelta(PSEUDONYMISER.days(PATIENT_ID))
    assert date.fromisoformat(ds.StudyDate) == date(2024, 2, 29) - days
    assert date.fromisoformat(ds.SeriesDate) == date(2024, 3, 1) - days
    assert ds.AcquisitionDateTime[:8] == f"{date(2024, 3, 2) - days:%Y%m%d}"
    moved = int(ds.StudyTime[-2:]) + 0.5 - PSEUDONYMISER.micros(PATIENT_ID) / 1e6
    assert ds.AcquisitionDateTime[8:12] == ds.StudyTime[:4]
    assert float(ds.AcquisitionDateTime[12:]) == pytest.approx(moved, abs=0.1)  # as many digits as there were
    assert ds.PatientBirthDate == ""


@pytest.mark.parametrize(
    ("dates", "said", "kept"), [(Dates.FULL, "UNMODIFIED", "20260312"), (Dates.REMOVE, "REMOVED", "")]
)
def test_dates_stay_or_go_by_option(dates: Dates, said: str, kept: str) -> None:
    ds = clean(mr_slice(), Profile.of(Options(dates=dates)))

    assert ds.LongitudinalTemporalInformationModified == said
    assert ds.StudyDate == kept


def test_an_age_over_89_is_90() -> None:
    profile = Profile.of(Options(retain_patient_characteristics=True))

    assert clean(mr_slice(PatientAge="094Y"), profile).PatientAge == "090Y"
    assert clean(mr_slice(PatientAge="052Y"), profile).PatientAge == "052Y"
    assert "PatientAge" not in clean(mr_slice(PatientAge="052Y"))


def test_the_true_date_is_known_inside_the_hospital() -> None:
    assert original_date(stream.read(file_bytes(mr_slice()))) == "2026-03-12"


def test_a_patient_without_an_id_is_one_by_name_and_birth_date() -> None:
    one, two = clean(mr_slice(PatientID="")), clean(mr_slice(1, PatientID=""))
    other = clean(mr_slice(PatientID="", PatientBirthDate="19610418"))

    assert one.PatientID == two.PatientID != other.PatientID
    assert clean(mr_slice(PatientID="", PatientName="")).PatientID == PSEUDONYMISER.patient(STUDY_UID)


def test_an_instance_without_a_uid_is_refused_by_the_attributes_name() -> None:
    source = stream.read(file_bytes(mr_slice()))
    elements = {tag: element for tag, element in source.elements.items() if tag != 0x00080018}
    meta = {tag: element for tag, element in source.meta.items() if tag != 0x00020003}

    with pytest.raises(UnreadableInstance, match=r"^SOPInstanceUID: absent or not a UID$"):
        deidentify(Part10(meta, source.transfer_syntax, elements), PROFILE, PSEUDONYMISER)


def test_descriptions_keep_the_words_that_identify_nobody() -> None:
    ds = clean(mr_slice(StudyDescription=f"MR knee for {NAME}", SeriesDescription="T2 FLAIR axial"))

    assert ds.StudyDescription.startswith("MR knee")
    assert NAME not in ds.StudyDescription
    assert ds.SeriesDescription == "T2 FLAIR axial"


def test_a_uid_inside_text_is_the_remapped_one() -> None:
    ds = clean(mr_slice(ImageComments=f"compare {STUDY_UID}"))

    assert PSEUDONYMISER.uid(STUDY_UID) in ds.ImageComments


def test_text_of_another_repertoire_comes_out_as_utf_8() -> None:
    source = mr_slice(SeriesDescription="Schädel axial", PatientName="Müller^Jörg")
    source.SpecificCharacterSet = "ISO_IR 100"

    ds = clean(source)

    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert "Müller".encode() not in written(cleaned(source).part10)


def test_a_number_is_kept_and_a_name_or_an_id_in_its_place_is_not() -> None:
    source = stream.read(file_bytes(mr_slice(PatientID="773044199")))
    abused = {
        0x00180050: Element(0x00180050, "DS", b"JOHN DOE"),
        0x00180080: Element(0x00180080, "DS", b"773044199 "),
        0x00280030: Element(0x00280030, "DS", b"1.5\\2e3 "),
    }
    elements = dict(sorted((source.elements | abused).items()))

    kept = deidentify(Part10(source.meta, source.transfer_syntax, elements), PROFILE, PSEUDONYMISER).part10.elements

    assert not kept.get(0x00180050, abused[0x00180050]._replace(value=b"")).value
    assert b"773044199" not in raw(kept.get(0x00180080, abused[0x00280030]))
    assert kept[0x00280030].value == b"1.5\\2e3 "


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00281052, "US", NEEDLE + b" "),  # of another VR than the dictionary's
        (0x00280030, "DS", b"1\\2\\3"),  # PixelSpacing has two values
        (0x00200013, "IS", b"49\\30\\1234567"),
        (0x00280106, "US", NEEDLE[:6]),
        (0x00280009, "AT", NEEDLE),
        (0x00189087, "FD", NEEDLE[:16]),
        (0x00189087, "FD", b"^ANNA   "),
        (0x00081163, "FD", NEEDLE + b"    "),  # as many values as one likes
    ],
)
def test_what_is_no_number_of_its_attribute_goes(tag: int, vr: str, value: bytes) -> None:
    source = stream.read(file_bytes(mr_slice(PatientName="QUIXOTE^ANNA")))
    elements = dict(sorted((source.elements | {tag: Element(tag, vr, value)}).items()))

    out = written(deidentify(Part10(source.meta, source.transfer_syntax, elements), PROFILE, PSEUDONYMISER).part10)

    assert value not in out


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00189087, "FD", b"@@@@@@Y@"),  # a number whose bytes can all be printed
        (0x00281101, "US", b"\0\1\0\0\x10\0"),
        (0x00200032, "DS", b"-1.5\\2\\3e1 "),
        (0x00280009, "AT", b"\x18\0\x63\x10"),
        (0x00280009, "AT", b"\x18\0\x63\x10\x18\0\x65\x10"),
    ],
)
def test_numbers_stay_as_they_are(tag: int, vr: str, value: bytes) -> None:
    source = stream.read(file_bytes(mr_slice()))
    elements = dict(sorted((source.elements | {tag: Element(tag, vr, value)}).items()))

    kept = deidentify(Part10(source.meta, source.transfer_syntax, elements), PROFILE, PSEUDONYMISER).part10

    assert raw(kept.elements[tag]) == value


def test_a_code_keeps_its_value_and_loses_what_was_typed_into_its_meaning() -> None:
    region = code("12738006", "SCT", f"Brain of {NAME}")
    invented = code(NAME[:16], "99LOCAL", NAME)

    ds = clean(mr_slice(AnatomicRegionSequence=[region], ProcedureCodeSequence=[invented]))

    (known,), (unknown,) = ds.AnatomicRegionSequence, ds.ProcedureCodeSequence
    assert (known.CodeValue, known.CodingSchemeDesignator) == ("12738006", "SCT")
    assert "Brain" in known.CodeMeaning
    assert NAME not in str(ds)
    assert unknown.CodeValue != NAME[:16]
    assert unknown.CodingSchemeDesignator == "99FILMROOM"


def test_an_unknown_term_of_an_image_type_becomes_other() -> None:
    ds = clean(mr_slice(ImageType=["ORIGINAL", "PRIMARY", NAME[:16]]))

    assert ds.ImageType == ["ORIGINAL", "PRIMARY", "OTHER"]


def test_safe_private_attributes_stay_with_their_creator() -> None:
    source = mr_slice()
    source.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", "1000")
    source.private_block(0x0021, NAME, create=True).add_new(0x0C, "LO", NAME)

    ds = clean(source)

    assert ds.private_block(0x0019, "SIEMENS MR HEADER")[0x0C].value == 1000
    assert not [element for element in ds if element.tag.group == 0x0021]
    none = clean(source, Profile.of(Options(retain_safe_private=False)))
    assert not [element for element in none if element.tag.is_private]


def test_a_segmentation_still_points_at_its_images() -> None:
    ds = clean(segmentation(mr_series(), masks()))

    (series,) = ds.ReferencedSeriesSequence
    referenced = {str(image.ReferencedSOPInstanceUID) for image in series.ReferencedInstanceSequence}
    assert referenced == {PSEUDONYMISER.uid(sop_uid(number)) for number in range(3)}
    assert series.SeriesInstanceUID == PSEUDONYMISER.uid(SERIES_UID)
    assert NAME not in str(ds)


def test_uids_and_devices_stay_where_the_options_retain_them() -> None:
    profile = Profile.of(Options(retain_uids=True, retain_device_identity=True))

    ds = clean(mr_slice(DeviceSerialNumber="SN4711"), profile)

    assert ds.StudyInstanceUID == STUDY_UID
    assert ds.DeviceSerialNumber == "SN4711"


def test_a_document_is_left_out_and_an_icon_is_gone() -> None:
    source = mr_slice(EncapsulatedDocument=NEEDLE, IconImageSequence=[item(PixelData=NEEDLE)])
    source.IconImageSequence[0]["PixelData"].VR = "OB"

    result = cleaned(source)

    assert result.notes == {"document-left-out", "icon-removed"}
    assert NEEDLE not in written(result.part10)


def test_a_content_tree_keeps_its_findings_and_loses_its_persons() -> None:
    observer = item(
        RelationshipType="HAS OBS CONTEXT",
        ValueType="PNAME",
        ConceptNameCodeSequence=[code("121008", "DCM", "Person Observer Name")],
        PersonName=f"{NAME}^DR",
    )
    finding = item(
        RelationshipType="CONTAINS",
        ValueType="TEXT",
        ConceptNameCodeSequence=[code("121071", "DCM", "Finding")],
        TextValue=f"No fracture of the left knee. Discussed with {NAME}.",
    )

    ds = clean(mr_slice(ContentSequence=[observer, finding]))

    first, second = ds.ContentSequence
    assert (first.ValueType, str(first.PersonName)) == ("PNAME", "REMOVED")
    assert "fracture" in second.TextValue
    assert NAME not in str(ds)


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-implicit"])
def test_the_records_of_a_dicomdir_still_point_at_each_other(name: str) -> None:
    source = stream.read(next(FILES.rglob(name)).read_bytes())

    out = written(deidentify(source, PROFILE, PSEUDONYMISER).part10)

    result = stream.read(out)
    assert links(result) == links(source)
    assert b"Doe" not in out
    assert len(patients(result)) == len(patients(source)) == 2


def links(part10: Part10) -> list[tuple[int | None, ...]]:
    number = {place: index for index, place in enumerate(part10.records)}
    tags = (0x00041400, 0x00041420)
    return [tuple(number.get(int.from_bytes(raw(record[tag]), "little")) for tag in tags) for record in records(part10)]


def patients(part10: Part10) -> set[str]:
    return {stream.text(record, 0x00100020) for record in records(part10)} - {""}


def records(part10: Part10) -> list[stream.DataSet]:
    value = part10.elements[0x00041220].value
    assert isinstance(value, list)
    return value


VALIDATED = ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "test-SR.dcm", "eCT_Supplemental.dcm", "reportsi.dcm"]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize("name", VALIDATED)
def test_a_validator_finds_no_new_error(name: str, tmp_path: Path) -> None:
    source = next((path for path in FILES.rglob(name)), None)
    if source is None:
        pytest.skip(f"{name} is not at hand")
    output = tmp_path / "output.dcm"
    output.write_bytes(written(deidentify(stream.read(source.read_bytes()), PROFILE, PSEUDONYMISER).part10))

    assert errors(output) <= errors(source)


def errors(path: Path) -> set[str]:
    """Return what dciodvfy finds wrong, without the values that it quotes."""
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, check=False)  # noqa: S607 -- where Debian puts it
    lines = run.stderr.decode("latin_1").splitlines()
    return {line.split("SOPInstanceUID")[0] for line in lines if line.startswith("Error") and "- (0x" not in line}


SMALL = file_bytes(segmentation(mr_series(), masks()))


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_done_to_a_file_it_is_cleaned_or_refused(data: st.DataObject) -> None:
    broken = bytearray(SMALL)
    for place in data.draw(st.lists(st.integers(132, len(SMALL) - 1), min_size=1, max_size=8)):
        broken[place] = data.draw(st.integers(0, 255))

    with suppress(UnreadableInstance):
        out = written(deidentify(stream.read(bytes(broken)), PROFILE, PSEUDONYMISER).part10)
        assert stream.read(out)


def test_the_version_of_a_scheme_stays_unless_it_is_none_or_the_patients() -> None:
    versions = ("2.16", "20160314", "Smith", "SN938271", "20100203")
    items = [
        item(CodeValue="T-D1", CodingSchemeDesignator="SRT", CodeMeaning="Chest", CodingSchemeVersion=version)
        for version in versions
    ]

    ds = clean(mr_slice(StudyDate="20100203", ProcedureCodeSequence=items))

    assert [i.get("CodingSchemeVersion") for i in ds.ProcedureCodeSequence] == ["2.16", "20160314", None, None, None]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        *(("TriggerTime", "19510705"), ("TriggerTime", "19510705.00"), ("TriggerTime", "1.9510705e7")),
        *(("TriggerTime", "+083726155"), ("TriggerTime", "8.3726155E+7"), ("EchoTime", "-83726155")),
        *(("DiffusionBValue", 83726155.0), ("InStackPositionNumber", 83726155), ("InStackPositionNumber", 19510705)),
    ],
)
def test_the_patients_numbers_and_days_are_no_measurement(keyword: str, value: str | float) -> None:
    kept = {"RepetitionTime": "83726156", "TemporalPositionIndex": 83726156, "DiffusionBValue": 1000.0}
    source = mr_slice(PatientID="83726155", PatientBirthDate="19510705")
    for name, number in (kept | {keyword: value}).items():
        setattr(source, name, number)

    ds = clean(source)

    assert ds.get(keyword) in (None, 0)
    assert all(ds[other].value == kept[other] for other in kept if other != keyword)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("patient_id", ["A12", "B/77"])
def test_a_short_number_of_the_patients_is_no_term(patient_id: str) -> None:
    ds = clean(mr_slice(PatientID=patient_id, ScanOptions=[patient_id, "FS", "A13"], ImageType=["ORIGINAL", "PRIMARY"]))

    assert ds.ScanOptions == ["FS", "A13"]
    assert ds.ImageType == ["ORIGINAL", "PRIMARY"]


def test_the_name_of_a_station_stays_nowhere() -> None:
    source = mr_slice(StationName="MR2", SeriesDescription="chest MR2 T2", SoftwareVersions="V1 MR2", Modality="MR")

    ds = clean(source)

    assert (ds.SeriesDescription, ds.SoftwareVersions, ds.Modality) == ("chest T2", "V1", "MR")
