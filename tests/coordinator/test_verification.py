"""Each check on a receipt refuses exactly what it is there for, with its own reason."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from consent import (
    EMPTY_ROOT,
    ENGINE,
    NO_PREVIOUS,
    POLICY,
    Epoch,
    GrantClaim,
    Receipt,
    Times,
    cosign,
    count_bucket,
    log_origin,
    sign_checkpoint,
    sign_receipt,
    witness_verifier,
)
from coordinator.verification import CHECKS, Evidence, Expected, Refused, expected_json, read_expected, verify
from tests.consent.receipts import eligibility, grown, log_claim, signed, state

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
    purposes=("CLINTRCH",),
    policies=(POLICY,),
    engines=(ENGINE,),
    log_size=state(3).size,
    log_root=state(3).root.hex(),
    witnesses=(),
    witness_quorum=0,
    release_window=timedelta(minutes=3),
)


def minute(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def times(snapshot: float = 0, trained: float = 1, recheck: float = 2, released: float = 3) -> Times:
    return Times(snapshot=minute(snapshot), trained=minute(trained), recheck=minute(recheck), released=minute(released))


def grant(until: datetime) -> GrantClaim:
    return GrantClaim(dataset="brain-mr", expires_at=until, duo="APPROVE")


def sized(studies: int) -> dict[str, Any]:
    bucket = count_bucket(studies)
    return {"count_bucket": bucket.label, "weight": bucket.weight, "eligibility": eligibility(bucket.lowest)}


CLAIM: Final[Mapping[str, Any]] = {
    **{field.name: getattr(EXPECTED, field.name) for field in fields(Expected)[:9]},
    "update": UPDATE,
    "consent_log": log_claim(KEY),
    "grants": (grant(NOON + timedelta(days=1)),),
    "times": times(),
    "epoch": Epoch(recheck=4, release=4),
    "software": "filmroom 0.1.0",
    "attestation": None,
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
    "policy-not-allowed": {"eligibility": eligibility(policy="0" * 64)},
    "engine-not-allowed": {"eligibility": eligibility(engine="0" * 64)},
    "another-purpose": {"eligibility": eligibility(purposes=("HRESCH",))},
    "another-recipient": {"eligibility": eligibility(recipients=("urn:filmroom:federation|south-sea",))},
    "consent-log-forked": {"consent_log": log_claim(KEY, since=grown(2, 4))},
    "consent-log-inconsistent": {"consent_log": log_claim(KEY, consistency=grown(4, 6))},
    "released-too-late": {"times": times(trained=0.5, recheck=0.5, released=4)},
    "padding-tells-a-count": {"eligibility": eligibility(padded_size=512)},
    "receipt-chain-broken": {"prev": "9" * 64},
    "times-out-of-order": {"times": times(trained=2.5)},
    "epoch-moved-at-release": {"epoch": Epoch(recheck=4, release=5)},
    "grant-not-in-force": {"grants": (grant(NOON + timedelta(days=1)), grant(minute(3)))},
    "too-few-studies": sized(15),
}


EXPECTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "too-few-witnesses": {"witness_quorum": 1},
}


def verified(at: datetime = ARRIVED, expected: Expected = EXPECTED, **changes: object) -> Receipt | Refused:
    answer = evidence(at, expected, **changes)
    return answer.receipt if isinstance(answer, Evidence) else answer


def evidence(at: datetime = ARRIVED, expected: Expected = EXPECTED, **changes: object) -> Evidence | Refused:
    return verify(sign_receipt(Receipt(**{**CLAIM, **changes}), KEY), KEY.public_key(), expected, UPDATE, at)


def test_a_receipt_that_says_what_was_asked_and_what_arrived_is_accepted() -> None:
    assert verified() == Receipt(**CLAIM)


def test_every_check_has_a_receipt_here_that_breaks_it() -> None:
    assert BREAKS.keys() | EXPECTS.keys() == CHECKS.keys()


@pytest.mark.parametrize("reason", CHECKS)
def test_a_receipt_that_breaks_one_check_is_refused_for_exactly_that_reason(reason: str) -> None:
    expected = replace(EXPECTED, **EXPECTS.get(reason, {}))
    honest = evidence()
    assert isinstance(honest, Evidence)
    broken = replace(honest, receipt=Receipt(**{**CLAIM, **BREAKS.get(reason, {})}))

    assert verified(expected=expected, **BREAKS.get(reason, {})) == Refused(reason)
    assert [name for name, holds in CHECKS.items() if not holds(broken, expected, ARRIVED)] == [reason]


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


# ------------------------------------------------------------------ the consent log


def test_the_state_of_the_log_that_was_accepted_is_the_one_at_the_second_check() -> None:
    answer = evidence()

    assert isinstance(answer, Evidence)
    assert (answer.snapshot, answer.recheck) == (state(4), state(5))


def test_the_first_receipt_of_a_site_shows_a_log_that_grew_from_nothing() -> None:
    nothing = replace(EXPECTED, log_size=0, log_root=EMPTY_ROOT.hex())

    assert verified(expected=nothing, consent_log=log_claim(KEY, since=())) == Receipt(
        **{**CLAIM, "consent_log": log_claim(KEY, since=())}
    )
    assert verified(expected=nothing) == Refused("consent-log-forked")


@pytest.mark.parametrize(
    "before",
    [
        {"log_root": state(3, other=b"another").root.hex()},
        {"log_size": state(4).size},
        {"log_size": state(6).size, "log_root": state(6).root.hex()},
        {"log_size": 0, "log_root": EMPTY_ROOT.hex()},
    ],
    ids=["rewritten", "of another size", "shrunk", "begun anew"],
)
def test_a_log_that_did_not_grow_from_the_one_seen_before_is_refused(before: Mapping[str, Any]) -> None:
    assert verified(expected=replace(EXPECTED, **before)) == Refused("consent-log-forked")


@pytest.mark.parametrize("which", ["snapshot", "recheck"])
@pytest.mark.parametrize(
    "note",
    [
        "no note",
        signed(state(4), Ed25519PrivateKey.generate()),
        signed(replace(state(4), origin=log_origin("north-sea", "west", KEY.public_key())), KEY),
        sign_checkpoint(
            replace(state(4), origin=log_origin("south-sea", "north", KEY.public_key())), state(4).origin, KEY
        ),
    ],
    ids=["no note", "another key's", "another site's", "another federation's"],
)
def test_a_state_of_the_log_that_the_member_did_not_sign_is_refused(which: str, note: str) -> None:
    log = log_claim(KEY).model_copy(update={which: note})

    assert verified(consent_log=log) == Refused("checkpoint-not-signed")


def test_a_log_that_shrank_between_the_two_checks_is_refused() -> None:
    assert verified(consent_log=log_claim(KEY, first=5, second=4)) == Refused("consent-log-inconsistent")


@pytest.mark.parametrize(
    ("seen", "quorum", "enough"),
    [
        ([0, 0], 2, True),
        ([0], 1, True),
        ([0], 2, False),
        ([-31, 0], 2, False),
        ([-30, 0], 2, True),
        ([300, 0], 2, False),
    ],
    ids=["both", "one of one", "one of two", "before the opening", "within the skew", "after the arrival"],
)
def test_cosignatures_count_for_each_witness_since_the_round_was_opened(
    seen: list[int], quorum: int, *, enough: bool
) -> None:
    names, keys = ("a.example", "b.example"), [Ed25519PrivateKey.generate() for _ in range(2)]
    expects = replace(
        EXPECTED,
        witnesses=tuple(witness_verifier(name, key.public_key()).text for name, key in zip(names, keys, strict=True)),
        witness_quorum=quorum,
    )
    log = log_claim(KEY)
    lines = [
        cosign(log.recheck, name, key, NOON + timedelta(seconds=at))
        for name, key, at in zip(names, keys, seen, strict=False)
    ]
    note = log.recheck + "".join(lines * 2)  # a witness that signs twice counts once

    answer = verified(expected=expects, consent_log=log.model_copy(update={"recheck": note}))

    assert isinstance(answer, Receipt) is enough
    assert enough or answer == Refused("too-few-witnesses")


def test_what_the_coordinator_lists_beside_its_own_is_allowed() -> None:
    listed = replace(EXPECTED, policies=(POLICY, "1" * 64), engines=(ENGINE, "2" * 64))

    assert isinstance(verified(expected=listed, eligibility=eligibility(policy="1" * 64, engine="2" * 64)), Receipt)


def test_what_was_expected_reads_back_as_it_was_kept() -> None:
    assert read_expected(expected_json(EXPECTED)) == EXPECTED


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
