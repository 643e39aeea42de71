"""Each check on a receipt refuses exactly what it is there for, with its own reason."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from consent import NO_PREVIOUS, Eligibility, Epoch, GrantClaim, Receipt, Times, count_bucket, sign_receipt
from coordinator.verification import CHECKS, Expected, Refused, verify

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
SKEW: Final = timedelta(seconds=30)
ARRIVED: Final = NOON + timedelta(minutes=4)
UPDATE: Final = "c" * 64
EXPECTED: Final = Expected(
    federation="north-sea",
    run="run-1",
    round=7,
    kind="train",
    nonce="n-1",
    site="north",
    base_model="a" * 64,
    task="b" * 64,
    prev=NO_PREVIOUS,
    asked_at=NOON,
    minimum_count=16,
    clock_skew=SKEW,
)


def minute(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def times(snapshot: float = 0, trained: float = 1, recheck: float = 2, released: float = 3) -> Times:
    return Times(snapshot=minute(snapshot), trained=minute(trained), recheck=minute(recheck), released=minute(released))


def grant(until: datetime) -> GrantClaim:
    return GrantClaim(dataset="brain-mr", expires_at=until, duo="APPROVE")


def sized(studies: int) -> dict[str, Any]:
    bucket = count_bucket(studies)
    return {"count_bucket": bucket.label, "weight": bucket.weight}


CLAIM: Final[Mapping[str, Any]] = {
    **{field.name: getattr(EXPECTED, field.name) for field in fields(Expected)[:9]},
    "update": UPDATE,
    "eligibility": Eligibility(
        policy="d" * 64, purposes=("CLINTRCH",), activity=("MLTRAINING",), recipients=("Organization/hub",)
    ),
    "grants": (grant(NOON + timedelta(days=1)),),
    "times": times(),
    "epoch": Epoch(recheck=4, release=4),
    **sized(16),
}

BREAKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "another-federation": {"federation": "south-sea"},
    "another-run": {"run": "run-2"},
    "another-round": {"round": 8},
    "another-kind": {"kind": "evaluate"},
    "another-nonce": {"nonce": "n-2"},
    "another-site": {"site": "west"},
    "another-base-model": {"base_model": "9" * 64},
    "another-task": {"task": "9" * 64},
    "receipt-chain-broken": {"prev": "9" * 64},
    "times-out-of-order": {"times": times(trained=2.5)},
    "epoch-moved-at-release": {"epoch": Epoch(recheck=4, release=5)},
    "grant-not-in-force": {"grants": (grant(NOON + timedelta(days=1)), grant(minute(3)))},
    "too-few-studies": sized(15),
}


def verified(at: datetime = ARRIVED, expected: Expected = EXPECTED, **changes: object) -> Receipt | Refused:
    return verify(sign_receipt(Receipt(**{**CLAIM, **changes}), KEY), KEY.public_key(), expected, UPDATE, at)


def test_a_receipt_that_says_what_was_asked_and_what_arrived_is_accepted() -> None:
    assert verified() == Receipt(**CLAIM)


def test_every_check_has_a_receipt_here_that_breaks_it() -> None:
    assert BREAKS.keys() == CHECKS.keys()


@pytest.mark.parametrize("reason", CHECKS)
def test_a_receipt_that_breaks_one_check_is_refused_for_exactly_that_reason(reason: str) -> None:
    broken = Receipt(**{**CLAIM, **BREAKS[reason]})

    assert verified(**BREAKS[reason]) == Refused(reason)
    assert [name for name, holds in CHECKS.items() if not holds(broken, EXPECTED, ARRIVED)] == [reason]


@pytest.mark.parametrize(
    "wrong",
    [
        times(snapshot=-1),
        times(snapshot=1.5),
        times(trained=2.5),
        times(recheck=3.5),
        times(released=5),
        times(3, 2, 1, 0),
    ],
)
def test_moments_out_of_their_order_are_refused(wrong: Times) -> None:
    assert verified(times=wrong) == Refused("times-out-of-order")


@pytest.mark.parametrize("edge", [times(snapshot=-0.5), times(released=4.5), times(0, 0, 0, 0)])
def test_clocks_may_differ_by_the_allowed_skew(edge: Times) -> None:
    assert isinstance(verified(times=edge), Receipt)


def test_a_receipt_signed_with_another_key_is_refused() -> None:
    envelope = sign_receipt(Receipt(**CLAIM), Ed25519PrivateKey.generate())

    assert verify(envelope, KEY.public_key(), EXPECTED, UPDATE, ARRIVED) == Refused("receipt-bad-signature")


def test_a_receipt_that_cannot_be_read_is_refused() -> None:
    assert verify(b"{}", KEY.public_key(), EXPECTED, UPDATE, ARRIVED) == Refused("receipt-malformed")


def test_an_update_other_than_the_signed_one_is_refused() -> None:
    envelope = sign_receipt(Receipt(**CLAIM), KEY)

    answer = verify(envelope, KEY.public_key(), EXPECTED, "0" * 64, ARRIVED)

    assert answer == Refused("update-differs-from-receipt")


WORDS: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
DIGESTS: Final = st.integers(0, 2**256 - 1).map("{:064x}".format)
OTHERS: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "federation": WORDS,
    "run": WORDS,
    "round": st.integers(0, 2**53 - 1),
    "kind": st.sampled_from(["evaluate", "initialise"]),
    "nonce": WORDS,
    "site": WORDS,
    "base_model": DIGESTS,
    "task": DIGESTS,
    "prev": DIGESTS,
    "update": DIGESTS,
}


@given(st.data(), st.sampled_from(sorted(OTHERS)))
def test_a_receipt_with_any_one_bound_field_changed_is_refused(data: st.DataObject, field: str) -> None:
    changed = data.draw(OTHERS[field].filter(lambda value: value != CLAIM[field]))

    assert isinstance(verified(**{field: changed}), Refused)


@given(st.data())
def test_an_envelope_with_any_one_byte_changed_is_refused(data: st.DataObject) -> None:
    envelope = bytearray(sign_receipt(Receipt(**CLAIM), KEY))
    place = data.draw(st.integers(0, len(envelope) - 1))
    envelope[place] ^= data.draw(st.integers(1, 255))

    answer = verify(bytes(envelope), KEY.public_key(), EXPECTED, UPDATE, ARRIVED)

    assert isinstance(answer, Refused)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_whether_a_site_has_enough_studies_depends_on_the_lowest_count_of_its_range(studies: int, minimum: int) -> None:
    answer = verified(expected=replace(EXPECTED, minimum_count=minimum), **sized(studies))

    assert isinstance(answer, Receipt) == (count_bucket(studies).lowest >= minimum)
