"""Ranges hide one patient more or less, and a statement is taken from who signed it, in its one spelling."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined] # public name, listed without __all__

from consent import (
    FEWER,
    ConsentStatistics,
    RangeCounts,
    StatisticsInvalid,
    bucket_with_hysteresis,
    count_bucket,
    count_range,
    generate_signing_key,
    open_statistics,
    range_bounds,
    sign_receipt,
    sign_statistics,
)
from consent.statement import PAYLOAD_TYPE
from tests.consent.test_receipt import KEY, receipt

if TYPE_CHECKING:
    from collections.abc import Callable

counts = st.integers(0, 5000)
STUDIES: Final = RangeCounts(permit="64-127", deny=FEWER, no_consent="20-31", review=FEWER)
MADE: Final = ConsentStatistics(
    federation="demo",
    site="north",
    task="c" * 64,
    dataset="brain-mr",
    modality="MR",
    as_of=date(2026, 6, 1),
    studies=STUDIES,
)


@pytest.mark.parametrize(
    ("n", "label"),
    [
        (0, FEWER),
        (1, FEWER),
        (19, FEWER),
        (20, "20-31"),
        (31, "20-31"),
        (32, "32-63"),
        (63, "32-63"),
        (64, "64-127"),
        (1_000_000, "524288-1048575"),
    ],
)
def test_a_count_becomes_a_range_and_below_the_floor_nothing_is_told_apart(n: int, label: str) -> None:
    assert count_range(n) == label
    low, high = range_bounds(label)
    assert low <= n <= high


@pytest.mark.parametrize(
    ("n", "previous", "label"),
    [
        (21, FEWER, FEWER),  # an eighth of the floor, rounded down: 2
        (22, FEWER, "20-31"),
        (18, "20-31", "20-31"),
        (17, "20-31", FEWER),
        (33, "20-31", "20-31"),
        (34, "20-31", "32-63"),
        (28, "32-63", "32-63"),
        (27, "32-63", "20-31"),
        (67, "32-63", "32-63"),
        (68, "32-63", "64-127"),
        (0, "64-127", FEWER),
    ],
)
def test_a_count_next_to_the_range_told_last_stays_in_it(n: int, previous: str, label: str) -> None:
    assert count_range(n, previous) == label


@given(counts)
def test_one_study_more_or_less_than_when_a_range_was_entered_does_not_show(n: int) -> None:
    told = count_range(n)

    assert count_range(n + 1, told) == told
    assert count_range(max(0, n - 1), told) == told


@given(counts.map(lambda n: n + 32), counts.map(lambda n: n + 32))
def test_above_the_floor_ranges_are_those_of_receipts(n: int, before: int) -> None:
    assert count_range(n) == count_bucket(n).label
    assert count_range(n, count_bucket(before).label) == bucket_with_hysteresis(n, count_bucket(before)).label


@pytest.mark.parametrize("n", [-1, 2**40])
def test_what_is_no_number_of_studies_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="number of studies"):
        count_range(n)


@pytest.mark.parametrize(
    "label",
    ["", "7", "0-19", "16-31", "20-30", "21-31", "32-64", "032-63", "32-63 ", "٣٢-63", "fewer than 5", "9" * 40],
)
def test_only_the_ranges_of_this_table_are_ranges(label: str) -> None:
    with pytest.raises(ValueError, match="not a range"):
        range_bounds(label)
    with pytest.raises(ValidationError):
        RangeCounts(**STUDIES.model_dump() | {"permit": label})


def test_a_statement_comes_back_as_it_was_signed() -> None:
    envelope = sign_statistics(MADE, KEY)

    assert open_statistics(envelope, KEY.public_key()) == MADE
    statement = json.loads(b64decode(json.loads(envelope)["payload"]))
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "task", "digest": {"sha256": "c" * 64}}],
        "predicateType": "https://filmroom.org/consent-statistics/v1",
        "predicate": {
            "federation": "demo",
            "site": "north",
            "dataset": "brain-mr",
            "modality": "MR",
            "as_of": "2026-06-01",
            "studies": {"permit": "64-127", "deny": FEWER, "no_consent": "20-31", "review": FEWER},
        },
    }


def signed(payload: bytes) -> bytes:
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(KEY))
    return rfc8785.dumps(envelope.to_dict())


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a statement that says something else, signed as it should be."""
    statement = json.loads(b64decode(json.loads(sign_statistics(MADE, KEY))["payload"]))
    change(statement)
    return signed(rfc8785.dumps(statement))


WRONG: Final[dict[str, tuple[bytes, str]]] = {
    "another key": (sign_statistics(MADE, generate_signing_key()), "bad-signature"),
    "a receipt": (sign_receipt(receipt(), KEY), "wrong-type"),
    "large": (b" " * 8193, "too-large"),
    "nothing": (b"", "malformed"),
    "spaced": (sign_statistics(MADE, KEY) + b"\n", "malformed"),
    "an exact count": (changed(lambda s: s["predicate"]["studies"].update(permit="70")), "bad-statement"),
    "one more": (changed(lambda s: s["predicate"].update(patients=3)), "bad-statement"),
    "one less": (changed(lambda s: s["predicate"]["studies"].pop("deny")), "bad-statement"),
    "two subjects": (changed(lambda s: s["subject"].append(s["subject"][0])), "bad-statement"),
    "a moment": (changed(lambda s: s["predicate"].update(as_of="2026-06-01T12:00:00")), "bad-statement"),
    "no object": (signed(b"[]"), "bad-statement"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_statement_of_the_signer_is_refused_by_a_fixed_word(name: str) -> None:
    envelope, reason = WRONG[name]

    with pytest.raises(StatisticsInvalid) as refused:
        open_statistics(envelope, KEY.public_key())

    assert refused.value.reason == reason


def test_a_changed_statement_is_not_the_signers() -> None:
    envelope = json.loads(sign_statistics(MADE, KEY))
    payload = b64decode(envelope["payload"]).replace(b"64-127", b"32-63")
    altered = rfc8785.dumps(envelope | {"payload": b64encode(payload).decode()})

    with pytest.raises(StatisticsInvalid, match="bad-signature"):
        open_statistics(altered, KEY.public_key())
