"""A study is shown to be in the tree or not to be, never both, and the root binds every verdict."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict, fields, replace
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from consent import (
    Decided,
    EligibilityTree,
    count_bucket,
    eligibility_tree,
    leaf_hash,
    nodes_of,
    padded_size,
    study_entry,
    study_key,
    tree_root,
    verify_excluded,
    verify_included,
)
from consent.receipt import Bucket, bucket_with_hysteresis

SECRET: Final = bytes(range(32))
VERDICTS: Final = "f" * 64
SAID: Final = Decided(("a" * 64,), "permit", "b" * 64, "2026-06-01T12:00:00+00:00", "c" * 64)
STUDIES: Final = tuple(f"2.25.{number}" for number in range(100, 140))
STRANGER: Final = "2.25.999"


def tree(studies: tuple[str, ...] = STUDIES, secret: bytes = SECRET, verdicts: str = VERDICTS) -> EligibilityTree:
    return eligibility_tree(secret, dict.fromkeys(studies, SAID), verdicts, padded_size(count_bucket(40).lowest))


PLANTED: Final = tree()
SIZE: Final = len(PLANTED.entries)


def test_the_root_is_that_of_the_entries_in_the_order_of_their_keys() -> None:
    leaves = [leaf_hash(entry) for entry in sorted(PLANTED.entries)]

    assert PLANTED.root == tree_root(SIZE, nodes_of(leaves))
    assert SIZE == 256


def test_an_entry_is_the_key_of_the_study_and_a_salted_digest_of_the_decision() -> None:
    def keyed(kind: str) -> bytes:
        return hmac.new(SECRET, f"{kind}\0{STRANGER}".encode(), hashlib.sha256).digest()

    digest = hashlib.sha256(keyed("salt") + rfc8785.dumps(asdict(SAID))).digest()
    assert study_entry(SECRET, STRANGER, SAID) == keyed("key") + digest


CHANGED: Final[dict[str, Any]] = {
    "consents": ("a" * 64, "a" * 64),
    "decision": "deny",
    "policy": "0" * 64,
    "evaluated_at": "2026-06-01T12:00:01+00:00",
    "data_manifest_sha256": "0" * 64,
}


@pytest.mark.parametrize("part", [field.name for field in fields(Decided)])
def test_an_entry_changes_with_every_part_of_the_decision(part: str) -> None:
    assert study_entry(SECRET, STRANGER, replace(SAID, **{part: CHANGED[part]})) != study_entry(SECRET, STRANGER, SAID)


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_that_was_used_is_shown_to_be_in_and_cannot_be_shown_to_be_out(study: str) -> None:
    found = PLANTED.include(study)

    assert found is not None
    assert verify_included(study_entry(SECRET, study, SAID), found, SIZE, PLANTED.root)
    assert PLANTED.exclude(study) == ()
    assert not verify_excluded(study_key(SECRET, study), (found,), SIZE, PLANTED.root)


@given(st.text(min_size=1).filter(lambda study: study not in STUDIES), st.binary(min_size=32, max_size=32))
def test_a_study_that_was_not_used_is_shown_to_be_out_and_cannot_be_shown_to_be_in(study: str, secret: bytes) -> None:
    study = study.encode("ascii", "replace").decode()
    planted = tree(STUDIES[:3], secret)

    assert planted.include(study) is None
    assert verify_excluded(study_key(secret, study), planted.exclude(study), SIZE, planted.root)


def test_absence_at_either_end_of_the_tree_is_shown_by_one_neighbour() -> None:
    first, last = min(PLANTED.entries), max(PLANTED.entries)
    below, above = bytes(32), bytes([255] * 32)
    found = {place: PLANTED._included(place) for place in (0, SIZE - 1)}  # noqa: SLF001 -- no study has such a key

    assert (found[0].entry, found[SIZE - 1].entry) == (first, last)
    assert verify_excluded(below, (found[0],), SIZE, PLANTED.root)
    assert verify_excluded(above, (found[SIZE - 1],), SIZE, PLANTED.root)
    assert not verify_excluded(above, (found[0],), SIZE, PLANTED.root)
    assert not verify_excluded(below, (found[SIZE - 1],), SIZE, PLANTED.root)
    assert not verify_excluded(first[:32], (found[0],), SIZE, PLANTED.root)


def test_neighbours_that_are_not_adjacent_or_not_in_the_tree_show_nothing() -> None:
    key = study_key(SECRET, STRANGER)
    left, right = PLANTED.exclude(STRANGER)
    further = PLANTED._included(right.index + 1)  # noqa: SLF001 -- a proof that hides what lies between

    assert verify_excluded(key, (left, right), SIZE, PLANTED.root)
    assert not verify_excluded(key, (left, further), SIZE, PLANTED.root)
    assert not verify_excluded(key, (right, left), SIZE, PLANTED.root)
    assert not verify_excluded(key, (left,), SIZE, PLANTED.root)
    assert not verify_excluded(key, (), SIZE, PLANTED.root)
    assert not verify_excluded(key, (left, replace(right, index=right.index + 1)), SIZE, PLANTED.root)
    assert not verify_excluded(key, (left, replace(right, entry=right.entry[:-1] + b"x")), SIZE, PLANTED.root)
    assert not verify_excluded(key, (left, right), SIZE, bytes(32))
    assert not verify_excluded(key, (left, right), SIZE + 256, PLANTED.root)


def test_an_inclusion_shows_its_own_entry_only() -> None:
    found = PLANTED.include(STUDIES[0])

    assert found is not None
    assert not verify_included(study_entry(SECRET, STUDIES[1], SAID), found, SIZE, PLANTED.root)
    other = study_entry(SECRET, STUDIES[0], replace(SAID, decision="deny"))
    assert not verify_included(other, replace(found, entry=other), SIZE, PLANTED.root)


def test_the_root_binds_the_verdicts_on_the_studies_left_out_and_the_secret() -> None:
    roots = {PLANTED.root, tree(verdicts="e" * 64).root, tree(secret=bytes(32)).root, tree(STUDIES[1:]).root}

    assert len(roots) == 4
    assert tree().root == PLANTED.root


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_every_count_of_a_range_fits_the_size_of_the_range(studies: int, before: int) -> None:
    bucket: Bucket = bucket_with_hysteresis(studies, count_bucket(before))

    assert studies < padded_size(bucket.lowest)
    assert padded_size(bucket.lowest) % 256 == 0


def test_a_tree_without_room_for_a_random_leaf_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="too small"):
        eligibility_tree(SECRET, dict.fromkeys(STUDIES, SAID), VERDICTS, len(STUDIES))
    with pytest.raises(ValueError, match="32 bytes"):
        eligibility_tree(b"", {}, VERDICTS, 256)
