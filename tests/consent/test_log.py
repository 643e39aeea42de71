"""A leaf binds every part of a record, and a publication's size tells no count."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import fields, replace
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from consent import Entry, batch_of, entry_leaf, leaf_hash, record_digest

SALT: Final = bytes(range(32))
ENTRY: Final = Entry("P1", "consent-1", 7, "active", "a" * 64, "2026-06-01T12:00:00+00:00")
CHANGED: Final[dict[str, Any]] = {
    "patient": "P2",
    "consent_id": "consent-2",
    "version": 8,
    "status": "inactive",
    "record_sha256": "b" * 64,
    "recorded_at": "2026-06-01T12:00:01+00:00",
}
TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(TEXTS, TEXTS, TEXTS, st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_a_leaf_is_the_hash_of_canonical_json(
    patient: str, consent: str, status: str, version: int, salt: bytes
) -> None:
    def keyed(kind: str, text: str) -> str:
        return hmac.new(salt, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()

    entry = replace(ENTRY, patient=patient, consent_id=consent, status=status, version=version)
    said: dict[str, Any] = {
        "salt": salt.hex(),
        "patient_hmac": keyed("patient", patient),
        "consent_hmac": keyed("consent", consent),
        "version": version,
        "status": status,
        "record_sha256": entry.record_sha256,
        "recorded_at": entry.recorded_at,
    }

    assert entry_leaf(salt, entry) == leaf_hash(rfc8785.dumps(said))


def test_every_part_of_a_record_has_a_change_here() -> None:
    assert set(CHANGED) == {field.name for field in fields(Entry)}


@pytest.mark.parametrize("part", CHANGED)
def test_a_leaf_changes_with_every_part_of_its_record(part: str) -> None:
    assert entry_leaf(SALT, replace(ENTRY, **{part: CHANGED[part]})) != entry_leaf(SALT, ENTRY)


def test_the_same_record_under_another_salt_is_another_leaf() -> None:
    assert entry_leaf(bytes(32), ENTRY) != entry_leaf(SALT, ENTRY)


@pytest.mark.parametrize("salt", [b"", bytes(31), bytes(33)])
def test_a_salt_of_another_length_is_refused(salt: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        entry_leaf(salt, ENTRY)


@given(st.tuples(TEXTS, TEXTS, st.none() | TEXTS), st.tuples(TEXTS, TEXTS, st.none() | TEXTS))
def test_records_that_say_different_things_have_different_digests(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None]
) -> None:
    assert (record_digest(*one) == record_digest(*other)) == (one == other)


@pytest.mark.parametrize(
    ("pending", "batch"), [(0, 64), (1, 64), (63, 64), (64, 64), (65, 128), (128, 128), (129, 256), (10**6, 2**20)]
)
def test_a_publication_holds_what_waits_in_64_leaves_or_that_doubled(pending: int, batch: int) -> None:
    assert batch_of(pending) == batch


def test_fewer_than_no_records_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="fewer"):
        batch_of(-1)
