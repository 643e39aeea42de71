"""What a text says of persons, and what only looks as if it did."""

from __future__ import annotations

import random
import re
from datetime import date

import pytest

from site_node.stray.detection import Detector, masked
from site_node.stray.dictionary import Dictionary, Patient, Table, entries
from site_node.stray.digests import Keyer
from site_node.stray.finding import Confidence, Kind, Sort
from site_node.stray.labels import announces
from site_node.stray.numbers import SHAPES, shaped
from site_node.stray.texts import _wide

KEYER = Keyer(bytes(range(32)))
PATIENT = Patient("MRN-77304412", ("Quixotevan^Dorothea",), date(1961, 4, 17))
KNOWN = Dictionary(KEYER, Table.of((entry.digest, entry.person) for entry in entries(PATIENT, KEYER)))
NOBODY = Dictionary(KEYER, Table.of(()))
ALL = Detector(KNOWN)
BY_SHAPE = Detector(NOBODY)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Dorothea Quixotevan was here", {Kind.NAME}),
        ("QUIXOTEVAN, DOROTHEA", {Kind.NAME}),
        ("quixotevan_dorothea", {Kind.NAME}),
        ("chart 77304412", {Kind.IDENTIFIER}),
        ("0077304412", {Kind.IDENTIFIER}),
        ("quixotevan^dorothea 17.04.1961", {Kind.NAME, Kind.BIRTH_DATE}),
        ("dorothea quixotevan, April 17, 1961", {Kind.NAME, Kind.BIRTH_DATE}),
    ],
)
def test_a_known_patient_is_found_in_every_writing(text: str, kinds: set[Kind]) -> None:
    found = ALL.find(text.replace("_", " "), sort=Sort.BYTES)

    assert {match.kind for match in found} == kinds
    assert {match.rule for match in found} == {"known-patient"}
    assert all(match.person for match in found)


def test_the_birth_date_of_a_known_patient_says_nothing_alone() -> None:
    assert ALL.find("made on 17.04.1961", sort=Sort.BYTES) == ()


@pytest.mark.parametrize(
    ("label", "value", "kind"),
    [
        ("PatientName", "Barnaby^Fields", Kind.NAME),
        ("last_name", "Huber", Kind.NAME),
        ("Nachname", "Müller", Kind.NAME),
        ("PatientID", "8812345", Kind.IDENTIFIER),
        ("mrn", "A-77 123", Kind.IDENTIFIER),
        ("Geburtsdatum", "17.4.1961", Kind.BIRTH_DATE),
        ("patientBirthDate", "19610417", Kind.BIRTH_DATE),
        ("Phone", "089 1234567", Kind.CONTACT),
        ("home address", "12 Larkspur Lane, Nethertown", Kind.ADDRESS),
        ("ReferringPhysicianName", "Brandywine^Ann", Kind.STAFF),
        ("InstitutionName", "Nethertown General Hospital", Kind.PLACE),
    ],
)
def test_a_value_is_what_its_label_announces(label: str, value: str, kind: Kind) -> None:
    (match,) = BY_SHAPE.find(value, label)

    assert (match.kind, match.confidence) == (kind, Confidence.CERTAIN)


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("PatientName", "PABCDEFGHIJKLMNOPQRST"),  # our own pseudonym
        ("PatientName", "ANONYMOUS"),
        ("PatientName", "sub-0017"),
        ("PatientName", "WATER PHANTOM"),
        ("PatientID", "1.2.826.0.1.3680043.8.498.1"),
        ("PatientID", ""),
        ("dob", "19000101"),
        ("dob", "unknown"),
        ("file name", "Anna.csv"),
        ("DeviceSerialNumber", "SN88123456"),
        ("SoftwareVersions", "syngo MR E11 2019.04.17"),
        ("font family", "Helvetica"),
        ("PatientSex", "F"),
        ("memory address", "0x7fff0012"),
    ],
)
def test_a_pseudonym_and_what_belongs_to_a_thing_are_nobodys(label: str, value: str) -> None:
    assert BY_SHAPE.find(value, label) == ()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("NHS 943 476 5919 seen", "label-in-text"),
        ("943 476 5919", "nhs-number"),
        ("AHV 756.9217.0769.85", "ahv-number"),
        ("CF RSSMRA85T10A562S", "codice-fiscale"),
        ("131052-308T", "hetu"),
        ("811218-9876", "personnummer"),
        ("44051401359", "pesel"),
        ("529.982.247-25", "cpf"),
        ("DE89 3704 0044 0532 0130 00", "iban"),
        ("1EG4-TE5-MK73", "mbi"),
        ("255081416802538", "nir"),
        ("078-05-1120", "ssn"),
        ("A123456780", "kvnr"),
        ("12345678Z", "dni"),
        ("+49 89 4400 1234", "telephone"),
        ("anna.huber@klinikum.example", "mail-address"),
        ("Patient: Huber, Anna", "label-in-text"),
        ("DOB 17/04/1961", "label-in-text"),
        ("Mrs. Huber came", "title-and-name"),
        ("for Marguerite Huber today", "given-name-and-surname"),
    ],
)
def test_numbers_names_and_labels_in_a_text_are_found(text: str, rule: str) -> None:
    assert rule in {match.rule for match in BY_SHAPE.find(text)}


@pytest.mark.parametrize(
    "text",
    [
        "943 476 5918",
        "756.9217.0769.86",
        "131052-308U",
        "DE89 3704 0044 0532 0130 01",
        "529.982.247-26",
        "part no. 123-45-6789",
        "1.2.840.10008.5.1.4.1.1.7",
        "Charcot-Marie-Tooth disease and a Hill-Sachs lesion",
        "Parkinson disease, Hodgkin lymphoma, white matter",
        "Karl Storz endoscope, Carl Zeiss microscope",
        "SIEMENS MAGNETOM Prisma syngo MR E11",
        "MR HEAD W/O CONTRAST",
        "Copyright (c) 2004 Kevin Atkinson",
        "support@vendor.example",
        "released 17 April 2019, version 2019.04.17",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_what_looks_alike_is_let_be(text: str) -> None:
    assert ALL.find(text) == ()


def test_a_masked_text_holds_nothing_of_what_was_found() -> None:
    text = "for Dorothea Quixotevan, born 17.4.1961"

    assert masked(text, ALL.find(text)) == "for ▒▒▒, born ▒▒▒"


def test_a_dictionary_holds_no_value_and_answers_under_its_own_key_alone() -> None:
    made = list(entries(PATIENT, KEYER))
    other = Dictionary(Keyer(bytes(32)), Table.of((entry.digest, entry.person) for entry in made))

    assert all(isinstance(part, int) for entry in made for part in entry)
    assert KNOWN.pair("dorothea", "quixotevan")
    assert not other.pair("dorothea", "quixotevan")


def test_a_label_of_a_physician_is_no_patients() -> None:
    assert announces("PerformingPhysicianName") is Kind.STAFF
    assert announces("patient's name") is Kind.NAME
    assert announces("series_description") is None


PARTS = (
    *("943 476 5919", "078-05-1120", "A123456780", "756.1234.5678.97", "7569217076985", "1 85 05 78 006 084 91"),
    *("RSSMRA85T10A562S", "131052-308T", "811218-9876", "44051401359", "529.982.247-25", "12345678Z", "1EG4-TE5-MK73"),
    *("DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "+49 89 1234567", "(555) 123-4567", "x", "12", "no "),
    *(".", "-", "+", "(", " ", ",", "A"),
)


def test_one_pass_over_a_text_finds_what_each_shape_finds_by_itself() -> None:
    rng = random.Random(7)  # noqa: S311 -- a test
    found = []
    for _ in range(2000):
        text = "".join(rng.choice(PARTS) + rng.choice(("", " ", ", ")) for _ in range(rng.randint(1, 6)))
        alone = [(s.rule, m.span()) for s in SHAPES for m in s.pattern.finditer(text) if s.holds(m[0])]

        assert [(shape.rule, match.span()) for shape, match in shaped(text)] == alone
        found += alone

    assert {rule for rule, _ in found} >= {shape.rule for shape in SHAPES}


def test_letters_of_two_bytes_are_those_that_an_expression_finds() -> None:
    rng = random.Random(7)  # noqa: S311 -- a test
    runs = re.compile(rb"(?:[\x20-\x7e]\x00){6,}")
    parts = (b"A\0", b"A\0", b"b\0", b"\0", b"A", b"\x80\0", b"A\0B\0C\0D\0E\0F\0")
    windows = [b"".join(rng.choices(parts, k=rng.randint(0, 40))) for _ in range(2000)]
    expected = [[(run.start(), run[0].decode("utf-16-le")) for run in runs.finditer(window)] for window in windows]

    assert [list(_wide(window)) for window in windows] == expected
    assert sum(map(len, expected)) > 1000


@pytest.mark.parametrize("before", ["", "\u0130\u0130 ", "\u1e9e\ufb01 "])
def test_a_label_in_a_text_is_read_as_it_is_written_and_its_value_where_it_stands(before: str) -> None:
    text = f"{before}PatientName: Huber"
    found = [text[one.start : one.end] for one in BY_SHAPE.find(text) if one.rule == "label-in-text"]

    assert found == ["Huber"]


@pytest.mark.parametrize(
    "street", ["Hauptstra\u00dfe 5", "12 RUE Victor Hugo, 3", "wohnhaft Am Bach, 12", "5 High Rd."]
)
def test_a_street_is_found_however_its_word_is_written(street: str) -> None:
    assert "street-and-number" in {one.rule for one in BY_SHAPE.find(street)}
