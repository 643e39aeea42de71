"""Pseudonyms: the same for the same input, useless without the key."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, MRImageStorage

from site_node.deidentify.pseudonym import Pseudonymiser
from tests.site_node.dicom_files import KEY

PSEUDONYMISER = Pseudonymiser(KEY)
OTHER_SITE = Pseudonymiser(bytes(32))
uids = st.from_regex(r"1\.2\.[1-9][0-9]{0,20}(\.[1-9][0-9]{0,8}){0,3}", fullmatch=True)


@given(uids)
def test_a_remapped_uid_is_a_valid_uid_and_not_the_original(original: str) -> None:
    pseudonym = UID(PSEUDONYMISER.uid(original))

    assert pseudonym.is_valid
    assert pseudonym.startswith("2.25.")
    assert pseudonym == PSEUDONYMISER.uid(original)


@given(st.text(min_size=1))
def test_another_key_gives_another_pseudonym(patient_id: str) -> None:
    assert PSEUDONYMISER.patient(patient_id) != OTHER_SITE.patient(patient_id)


@given(st.text())
def test_dates_move_back_by_one_to_ten_years(patient_id: str) -> None:
    assert 365 <= PSEUDONYMISER.days(patient_id) <= 3650


@given(st.text(alphabet="ABC123", min_size=1), st.text(alphabet=" ", max_size=3))
def test_padding_does_not_make_another_patient(patient_id: str, padding: str) -> None:
    assert PSEUDONYMISER.patient(patient_id) == PSEUDONYMISER.patient(patient_id + padding)


def test_a_patient_pseudonym_is_a_letter_and_twenty_base32_characters() -> None:
    pseudonym = PSEUDONYMISER.patient("1")

    assert pseudonym[0] == "P"
    assert len(pseudonym) == 21
    assert set(pseudonym) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def test_registered_uids_stay_and_unregistered_ones_below_the_same_root_do_not() -> None:
    assert PSEUDONYMISER.uid(MRImageStorage) == MRImageStorage
    assert PSEUDONYMISER.uid("1.2.840.10008.7730441").startswith("2.25.")


def test_a_patient_and_a_uid_of_the_same_text_share_nothing() -> None:
    number = int(PSEUDONYMISER.uid("1.2.3").removeprefix("2.25."))
    letters = PSEUDONYMISER.patient("1.2.3").removeprefix("P")

    assert number.to_bytes(16)[:6] != base64.b32decode(letters[:16])[:6]


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Pseudonymiser(bytes(length))
