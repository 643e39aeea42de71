"""Pseudonyms: the same for the same input, useless without the key."""

from __future__ import annotations

import base64
import pickle

import pytest
from hypothesis import assume, given
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


@given(st.text(min_size=1))
def test_times_of_day_move_by_less_than_a_day_and_never_not_at_all(patient_id: str) -> None:
    assert 1 <= PSEUDONYMISER.seconds(patient_id) <= 86_399
    assert PSEUDONYMISER.seconds(f" {patient_id} ") == PSEUDONYMISER.seconds(patient_id)


@given(st.text(min_size=1), st.integers(1, 200))
def test_a_token_is_as_long_as_was_asked_and_of_its_domain(text: str, length: int) -> None:
    token = PSEUDONYMISER.token("station", text, length)

    assert len(token) == length
    assert token.isascii()
    assert token.isalnum()
    assert PSEUDONYMISER.token("station", text, length + 7).startswith(token)
    assert length < 8 or PSEUDONYMISER.token("physician", text, length) != token
    with pytest.raises(ValueError, match="at least one"):
        PSEUDONYMISER.token("station", text, 0)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.text(min_size=1))
def test_two_projects_have_nothing_in_common(one: bytes, other: bytes, identifier: str) -> None:
    assume(one != other)
    here, there = Pseudonymiser(one), Pseudonymiser(other)

    assert here.key_id != there.key_id
    assert here.patient(identifier) != there.patient(identifier)
    assert here.uid(f"1.2.999.{int.from_bytes(one[:4])}") != there.uid(f"1.2.999.{int.from_bytes(one[:4])}")
    assert here.subkey("identities") != there.subkey("identities")
    assert Pseudonymiser(one).patient(identifier) == here.patient(identifier)
    assert here.key_id not in {one.hex()[:16], here.subkey("").hex()[:16]}


def test_a_pseudonymiser_goes_to_another_process_and_tells_its_key_to_nobody() -> None:
    copied = pickle.loads(pickle.dumps(PSEUDONYMISER))  # noqa: S301 -- our own bytes

    assert copied.patient("4711") == PSEUDONYMISER.patient("4711")
    assert repr(KEY) not in repr(PSEUDONYMISER)
    assert KEY.hex() not in repr(PSEUDONYMISER)
