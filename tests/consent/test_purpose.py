"""Purposes of use against HL7's own table, and the rules between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.purpose import MLTRAINING, PURPOSE_WORDS, PURPOSES, conflicts, covers

TABLE: Final = Path(__file__).parents[2].parent / "shared/data/consent/terminology/purpose_of_use.json"
codes = st.sampled_from(sorted(PURPOSES))


def test_the_table_is_hl7s() -> None:
    if not TABLE.exists():
        pytest.skip(f"the HL7 table is not at {TABLE}")
    concepts = json.loads(TABLE.read_text())["concepts"]

    ours = {code: {other for other in PURPOSES if covers(other, code)} for code in PURPOSES}

    assert ours == {code: {code} | (set(concept["ancestors"]) & set(concepts)) for code, concept in concepts.items()}
    assert len(ours) == 62
    assert {code: concept["display"] for code, concept in concepts.items()} == PURPOSE_WORDS


def test_every_purpose_has_its_words() -> None:
    assert PURPOSE_WORDS.keys() == PURPOSES


@pytest.mark.parametrize(
    ("permitted", "requested", "expected"),
    [
        ("HRESCH", "BIORCH", True),
        ("HRESCH", "CLINTRCHPC", True),
        ("CLINTRCH", "HRESCH", False),
        ("CLINTRCH", "BIORCH", False),
        ("TREAT", "HRESCH", False),
        ("HRESCH", MLTRAINING, False),
        (MLTRAINING, "HRESCH", False),
        ("HOPERAT", MLTRAINING, True),
        ("?", "HRESCH", False),
        ("HRESCH", "?", False),
        ("?", "?", False),
    ],
)
def test_a_permission_covers_itself_and_what_is_below(permitted: str, requested: str, *, expected: bool) -> None:
    assert covers(permitted, requested) is expected


@pytest.mark.parametrize(
    ("denied", "requested", "expected"),
    [
        ("HRESCH", "BIORCH", True),
        ("BIORCH", "HRESCH", True),
        ("BIORCH", "CLINTRCH", False),
        ("TREAT", "HRESCH", False),
        (MLTRAINING, "HRESCH", False),
        ("?", "HRESCH", True),
        ("HRESCH", "?", True),
    ],
)
def test_a_refusal_conflicts_with_itself_and_what_is_above_or_below(
    denied: str, requested: str, *, expected: bool
) -> None:
    assert conflicts(denied, requested) is expected


@given(codes, codes, codes)
def test_covering_is_an_order(a: str, b: str, c: str) -> None:
    assert covers(a, a)
    assert not (covers(a, b) and covers(b, a)) or a == b
    assert covers(a, c) or not (covers(a, b) and covers(b, c))


@given(codes, codes)
def test_what_is_covered_also_conflicts(a: str, b: str) -> None:
    assert conflicts(a, b) or not covers(a, b)
    assert conflicts(a, b) == conflicts(b, a)
