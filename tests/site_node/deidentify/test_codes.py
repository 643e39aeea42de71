"""Coded concepts: which codes stay, and with which meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from site_node.deidentify.codes import canonical, code_ok, meaning, scheme_ok, standard_code, version_ok


def item(scheme: str, value: str, text: str = "whatever") -> Dataset:
    ds = Dataset()
    ds.CodingSchemeDesignator = scheme
    ds.CodeValue = value
    ds.CodeMeaning = text
    return ds


def test_a_meaning_is_the_dictionarys_whatever_the_file_says() -> None:
    assert meaning("SCT", "12738006", "Brain of John Smith") == "Brain"
    assert meaning("DCM", "121071") == "Finding"


def test_a_wording_the_dictionary_has_stays_as_it_is_written() -> None:
    assert meaning("DCM", "121071", "FINDING") == "FINDING"


def test_legacy_snomed_codes_mean_what_their_successors_mean() -> None:
    assert canonical("SRT", "T-A0100") == ("SCT", "12738006")
    assert canonical("SNM3", "T-A0100") == ("SCT", "12738006")
    assert meaning("SRT", "T-A0100") == "Brain"


def test_an_unknown_concept_has_no_meaning() -> None:
    assert meaning("99LOCAL", "X1", "John Smith") is None
    assert meaning("SCT", "1", "John Smith") is None


@pytest.mark.parametrize(
    ("scheme", "value"),
    [
        *(
            ("SCT", "12738006"),
            ("SCT", "22298006"),
            ("LN", "24627-2"),
            ("I10", "I21.9"),
            ("UCUM", "mm"),
            ("UCUM", "g/ml"),
            ("UCUM", "mm2/s"),
            ("UCUM", "ml/min/m2"),
            ("UCUM", "/cm"),
        ),
        *(
            ("DCM", "130999"),
            ("RADLEX", "RID1301"),
            ("C4", "71260"),
            ("ISO3166_1", "DE"),
            ("99PMP", "HEAD"),
            ("SCPECG", "5.6.3-9-1"),
        ),
    ],
)
def test_codes_of_the_form_of_their_scheme_stay(scheme: str, value: str) -> None:
    assert code_ok(scheme, value)


@pytest.mark.parametrize(
    ("scheme", "value"),
    [
        *(
            ("SCT", "SMITH"),
            ("SCT", "123456789"),
            ("DCM", "974660"),
            ("SCT", "19720406"),
            ("LN", "12345-7"),
            ("DCM", "SMITH"),
            ("UCUM", "Amanda"),
            ("UCUM", "1974-10-12"),
            ("UCUM", "LA515184"),
        ),
        *(("99LOCAL", "SMITH"), ("99LOCAL", "19620314"), ("L", "MRN-4711-12"), ("I10", "JOHN"), ("FMA", "John")),
    ],
)
def test_what_only_pretends_to_be_a_code_does_not(scheme: str, value: str) -> None:
    assert not code_ok(scheme, value)


@given(st.integers(10**8, 10**9 - 1))
def test_of_ten_numbers_that_differ_in_the_check_digit_one_is_a_snomed_code(number: int) -> None:
    stem = number // 1000 * 1000

    assert sum(code_ok("SCT", str(stem + digit)) for digit in range(10)) == 1


def test_designators_are_known_or_made_of_known_words() -> None:
    assert scheme_ok("SCT")
    assert scheme_ok("99SMS_RAD")
    assert not scheme_ok("99MAYOCLINIC")
    assert not scheme_ok("SMITH")
    assert not scheme_ok("99968")


def test_a_code_of_a_segmentation_comes_out_as_the_concept() -> None:
    code = standard_code(item("SRT", "T-A0100"))

    assert code is not None
    assert (code.value, code.scheme_designator, code.meaning) == ("12738006", "SCT", "Brain")
    assert standard_code(item("99LOCAL", "1")) is None


@pytest.mark.parametrize("version", ["01", "1.1", "2.16", "2.5.1", "V3", "SNM3", "20160314", "2016", "2026d", "2019AB"])
def test_a_version_of_a_coding_scheme_is_one(version: str) -> None:
    assert version_ok(version)


@pytest.mark.parametrize(
    "version",
    [
        *("", "Smith", "MBEKI_SIOBHAN", "SN938271", "853-39-1545", "29048693", "02.04.85", "19680808", "20161314"),
        *("4711", "K7", "1951-07-05", "05.07.1951", "5JUL1951", "A12", "v", "2.16\n", "99HOSP"),
    ],
)
def test_a_name_a_number_or_a_birth_date_is_no_version(version: str) -> None:
    assert not version_ok(version)
