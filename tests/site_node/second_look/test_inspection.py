"""What is put back into a clean output is found, wherever it stands; clean outputs pass."""

from __future__ import annotations

import base64
import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from site_node.second_look.inspection import Hit, inspect
from tests.site_node.second_look.files import (
    ADDRESS,
    BORN,
    GIVEN,
    INSTANCE,
    NAME,
    NUMBER,
    OPERATOR,
    SERIAL,
    SERIES,
    cleaned,
    original,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = written(original())
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def _private(ds: Dataset) -> None:
    ds.private_block(0x0071, "ACME", create=True).add_new(0x01, "LO", f"seen by {OPERATOR}")


def _private_unknown(ds: Dataset) -> None:
    ds.private_block(0x0071, "ACME", create=True).add_new(0x01, "UN", NAME.upper().encode())


def _at_depth(ds: Dataset) -> None:
    inner, outer = Dataset(), Dataset()
    inner.TextValue = f"{GIVEN} came again"
    outer.ContentSequence = [inner]
    ds.ContentSequence = [outer]


def _overlay(ds: Dataset) -> None:
    ds.add_new(0x60003000, "OW", NAME.encode().ljust(64))


def _swapped_overlay(ds: Dataset) -> None:
    ds.add_new(0x60003000, "OW", np.frombuffer(NAME.encode().ljust(64), "u2").byteswap().tobytes())


def _behind_pixels(ds: Dataset) -> None:
    ds.PixelData += f" {NUMBER} ".encode()


def _in_comment(ds: Dataset) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(stream, "JPEG", comment=f"for {NAME}".encode())
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelData = 7, encapsulate([stream.getvalue()])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True


def _document(ds: Dataset) -> None:
    ds.EncapsulatedDocument = (
        b"%PDF-1.4 stream\n" + zlib.compress(f"BT ({GIVEN} {NAME}) Tj ET".encode()) + b"\nendstream "
    )


def _title(ds: Dataset) -> None:
    ds.file_meta.SourceApplicationEntityTitle = NAME.upper()


def _padding(ds: Dataset) -> None:
    ds.add_new(0xFFFCFFFC, "OB", ADDRESS.encode() + b" ")


def _preamble(ds: Dataset) -> None:
    ds.preamble = NAME.encode().ljust(128, b"\0")


def _icon(ds: Dataset) -> None:
    icon = Dataset()
    icon.PixelData = NAME.encode().ljust(64)
    icon["PixelData"].VR = "OB"
    ds.IconImageSequence = Sequence([icon])


def _set(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, keyword, value)


PUT_BACK: dict[str, Callable[[Dataset], None]] = {
    "the name": _set("PatientName", f"{NAME}^{GIVEN}"),
    "the family name alone": _set("PatientComments", f"Mrs. {NAME}"),
    "the name in capitals": _set("StudyDescription", f"MR HEAD {NAME.upper()}"),
    "a given name": _set("SeriesDescription", f"{GIVEN} moved"),
    "the number": _set("PatientID", NUMBER),
    "digits of the number": _set("StudyComments", "chart 77304412"),
    "the birth date": _set("PatientBirthDate", BORN),
    "the birth date in a text": _set("ImageComments", "born 17.04.1961"),
    "the birth date, American": _set("ImageComments", "DOB 04/17/1961"),
    "the true study date": _set("StudyDate", "20200229"),
    "a UID": _set("SeriesInstanceUID", SERIES),
    "a UID in a text": _set("ImageComments", f"copy of {INSTANCE}"),
    "an operator": _set("OperatorsName", f"{OPERATOR}^Ann"),
    "an address": _set("InstitutionAddress", ADDRESS),
    "a serial number": _set("DeviceSerialNumber", SERIAL),
    "a code's meaning": _set("DerivationDescription", f"by {OPERATOR.lower()}"),
    "base64": _set("ImageComments", base64.b64encode(f"for {NAME} only".encode()).decode()),
    "hexadecimal": _set("ImageComments", f"xx {NAME.encode().hex()} xx"),
    "a mail address": _set("ImageComments", "write to someone@else.example"),
    "private text": _private,
    "private and unknown": _private_unknown,
    "two sequences deep": _at_depth,
    "an overlay": _overlay,
    "an overlay in the other order": _swapped_overlay,
    "behind the pixels": _behind_pixels,
    "a comment of a compressed frame": _in_comment,
    "a compressed stream of a document": _document,
    "group 2": _title,
    "trailing padding": _padding,
    "the preamble": _preamble,
    "an icon": _icon,
}


def test_a_clean_output_is_clean() -> None:
    assert inspect(SOURCE, written(cleaned())) == ()


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_clean_output_is_clean_in_every_encoding(syntax: UID) -> None:
    ds = cleaned()
    ds.file_meta.TransferSyntaxUID = syntax
    assert inspect(SOURCE, written(ds)) == ()


@pytest.mark.parametrize("place", PUT_BACK)
def test_what_is_put_back_is_found(place: str) -> None:
    ds = cleaned()
    PUT_BACK[place](ds)
    assert inspect(SOURCE, written(ds))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    "place", ["the name", "the number", "the birth date", "a UID", "two sequences deep", "private text", "an overlay"]
)
def test_what_is_put_back_is_found_in_every_encoding(place: str, syntax: UID) -> None:
    ds = cleaned()
    PUT_BACK[place](ds)
    ds.file_meta.TransferSyntaxUID = syntax
    assert inspect(SOURCE, written(ds))


def test_the_original_itself_is_full_of_hits() -> None:
    kinds = {hit.kind for hit in inspect(SOURCE, SOURCE)}
    assert {"name", "identifier", "date", "uid", "device", "place"} <= kinds


def test_a_hit_says_where_and_never_what() -> None:
    ds = cleaned(StudyDescription=f"MR HEAD {NAME}")
    hits = inspect(SOURCE, written(ds))
    assert Hit("StudyDescription", "name") in hits
    assert NAME.lower() not in str(hits).lower()


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Grünewaldt^Jürgen"),
        ("ISO_IR 144", "Люксембург^Роза"),
        ("ISO_IR 192", "Παπαδόπουλος^Νίκος"),
        (["", "ISO 2022 IR 87"], "Yamadaguchi^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Honggang^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wangxiao^Xiaodong=王^小东"),
    ],
)
def test_names_of_every_script_are_found_as_attributes_and_in_private_bytes(
    charset: str | list[str], name: str
) -> None:
    source = written(original(SpecificCharacterSet=charset, PatientName=name))
    for part in name.split("="):
        output = cleaned(SpecificCharacterSet=charset, PatientComments=part.replace("^", " "))
        assert inspect(source, written(output)), part
    as_bytes = cleaned()
    as_bytes.private_block(0x0071, "ACME", create=True).add_new(
        0x01, "UN", name.split("^", maxsplit=1)[0].encode("utf-16-le")
    )
    assert inspect(source, written(as_bytes))


def test_a_name_without_its_accents_is_found() -> None:
    source = written(original(PatientName="Grünewaldt^Jürgen"))
    for spelled in ("Grunewaldt", "GRUENEWALDT", "gruenewaldt"):
        assert inspect(source, written(cleaned(ImageComments=spelled))), spelled


@pytest.mark.parametrize("name", ["Head^Ann", "White^Mary", "Wilson^Kim", "Parkinson^Anna", "Young^Lin", "Long^Max"])
def test_a_name_that_is_a_word_of_radiology_does_not_stop_clean_outputs(name: str) -> None:
    says = "HEAD WHITE MATTER, Parkinson, Wilson disease, long TE, young"
    source = written(
        original(PatientName=name, StudyDescription=says, SeriesDescription=f"for {name.replace('^', ' ')}")
    )
    output = cleaned(StudyDescription=says, SeriesDescription="for")
    assert inspect(source, written(output)) == ()


@pytest.mark.parametrize("name", ["Head^Ann", "White^Mary", "Parkinson^Anna"])
def test_such_a_name_is_found_where_it_stood_for_the_person(name: str) -> None:
    family, given = name.split("^")
    source = written(original(PatientName=name, StudyDescription=f"MR of {given} {family}"))
    assert inspect(source, written(cleaned(StudyDescription=f"MR of {family}")))
    assert inspect(source, written(cleaned(StudyDescription=f"MR of {given} {family}")))


@pytest.mark.parametrize("value", ["1", "M", "CT", "NONE", "HEAD", "0", "UNKNOWN", "12"])
def test_values_that_anybody_has_do_not_stop_files(value: str) -> None:
    source = written(
        original(PatientID=value, AccessionNumber=value, StudyID=value, PatientName=value, StationName=value)
    )
    assert inspect(source, written(cleaned(StudyID="1", ImageComments="CT HEAD NONE 0 12 M 1"))) == ()


def test_what_an_output_declares_to_keep_is_no_hit() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
        "113106",
        "DCM",
        "Retain Longitudinal Temporal Information Full Dates",
    )
    output = cleaned(StudyDate="20200229", DeidentificationMethodCodeSequence=[code])
    assert inspect(SOURCE, written(output)) == ()


def test_a_moved_date_that_is_another_true_date_is_no_hit() -> None:
    source = written(original(SeriesDate="20200301", AcquisitionDate="20200302"))
    output = cleaned(StudyDate="20200228", SeriesDate="20200229", AcquisitionDate="20200301")
    assert inspect(source, written(output)) == ()


def test_bytes_behind_the_pixels_are_no_attribute_and_are_looked_at_in_an_output() -> None:
    source, output = written(original()) + b"        ", written(cleaned())
    assert inspect(source, output) == ()
    assert Hit("bytes of PixelData", "name") in inspect(source, output + b"  " + NAME.encode() + b"  ")


def test_a_file_that_cannot_be_followed_is_not_clean() -> None:
    whole = written(cleaned())
    assert inspect(SOURCE, whole[:-7]) == (Hit("output", "unreadable"),)
    assert inspect(b"", whole) == (Hit("original", "unreadable"),)
    assert inspect(SOURCE, b"\0" * 500) == (Hit("output", "unreadable"),)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 9000))
def test_no_bytes_make_it_fail(junk: bytes, at: int) -> None:
    whole = written(cleaned())
    inspect(SOURCE, whole[:at] + junk + whole[at:])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 64 * 64 * 2 - 40))
def test_a_name_is_found_at_any_place_of_the_pixels(at: int) -> None:
    pixels = bytearray(bytes(range(256)) * 32)
    pixels[at : at + len(NAME)] = NAME.encode()
    assert Hit("bytes of PixelData", "name") in inspect(SOURCE, written(cleaned(PixelData=bytes(pixels))))


@pytest.mark.parametrize("said", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_that_is_encoded_otherwise_than_it_says_is_read_as_it_is(said: UID) -> None:
    true = b"1.2.840.10008.1.2.1\0"
    lying = SOURCE.replace(true, said.encode().ljust(len(true), b"\0"), 1)

    assert lying != SOURCE
    assert inspect(lying, written(cleaned())) == ()
    assert inspect(lying, SOURCE)
