"""Which values of code strings stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_node.deidentify.terms import TECHNICAL, code_string_ok, technical_ok

IMAGE_TYPE = 0x00080008
SEQUENCE_NAME = 0x00180024


@pytest.mark.parametrize(
    "value",
    [
        *("ORIGINAL", "PRIMARY", "AXIAL", "MONOCHROME2", "HFS", "L", "FOR PRESENTATION", "ISO_10918_1", "CHEST", "YES"),
        *("CSA RESAMPLED", "CT_SOM5 SPI", "T2_STAR_MAP", "M_FFE", "B1000", "3D", "GATED TOMO", "DIS2D", "R\\A"[0], ""),
        *("Abdomen", "HELICAL MODE", "ISO_IR 192", "WHOLE BODY", "application/pdf", "2.5D", "T1_FLAIR", "CC"),
    ],
)
def test_terms_and_what_is_made_of_their_words_stay(value: str) -> None:
    assert code_string_ok(IMAGE_TYPE, value)


@pytest.mark.parametrize(
    "value",
    [
        *("SMITH", "SMITH_JOHN", "JOHNSON^A", "19620314", "MR12345", "12345", "ST MARYS", "MÜLLER", "DOE", "ANNA"),
        *("HEAD SMITH", "SW4849", "8486 HEAD", "1.2.840.10008", "ORIGINAL 198007", "O'NEILL", "李明", "A@B"),
    ],
)
def test_names_dates_and_numbers_do_not(value: str) -> None:
    assert not code_string_ok(IMAGE_TYPE, value)


def test_the_numbers_of_context_groups_and_templates_stay_where_they_belong() -> None:
    assert code_string_ok(0x0008010F, "12031")
    assert code_string_ok(0x0040DB00, "1500")
    assert not code_string_ok(0x0040DB00, "19620314")
    assert code_string_ok(0x00200020, "PF")
    assert not code_string_ok(0x00200020, "HALF")
    assert not code_string_ok(IMAGE_TYPE, "12031")


def test_a_filter_cut_off_at_16_characters_stays() -> None:
    assert technical_ok(0x00181160, "LARGE BOWTIE FIL")  # FilterType


@given(st.text(alphabet="0123456789-/. ", min_size=5))
def test_no_run_of_digits_long_enough_for_a_date_stays(text: str) -> None:
    if sum(character.isdigit() for character in text) > 4:
        assert not code_string_ok(IMAGE_TYPE, text)


@pytest.mark.parametrize(
    "value",
    [
        "*fl3d1",
        "*tfl3d1_ns",
        "T1TFE",
        "B30f",
        "2.0",
        "syngo MR E11",
        "C5-1",
        "1H",
        "IR-FSE",
        "CX50",
        "MR 750",
        "HEAD",
        "SN",
    ],
)
def test_what_engineers_name_stays_where_engineers_name_it(value: str) -> None:
    assert technical_ok(SEQUENCE_NAME, value)
    assert not technical_ok(0x00081030, value)  # StudyDescription


@pytest.mark.parametrize(
    "value",
    [
        "John Smith",
        "SMITH",
        "19620314",
        "14.03.1962",
        "1962-03-14",
        "14 03 62",
        "14.03.62",
        "BE7365",
        "MRN1234567",
        "Dr. Miller",
        "555-123-4567",
    ],
)
def test_names_dates_and_numbers_stay_nowhere(value: str) -> None:
    assert not any(technical_ok(tag, value) for tag in TECHNICAL)
