"""A receipt opens only as its site signed it; counts show as ranges that do not flicker."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from consent.errors import ReceiptInvalid
from consent.receipt import (
    NO_PREVIOUS,
    Bucket,
    Eligibility,
    Epoch,
    GrantClaim,
    Receipt,
    Times,
    bucket_with_hysteresis,
    count_bucket,
    generate_signing_key,
    open_receipt,
    receipt_digest,
    sign_receipt,
)
from consent.statement import PAYLOAD_TYPE, key_id

Json = dict[str, Any]

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)


def receipt(**changes: Any) -> Receipt:
    fields: Json = {
        "federation": "north-sea",
        "run": "r-1",
        "round": 7,
        "kind": "train",
        "nonce": "n-1",
        "site": "north",
        "base_model": "a" * 64,
        "task": "b" * 64,
        "update": "c" * 64,
        "eligibility": Eligibility(
            policy="d" * 64,
            purposes=("BIORCH",),
            activity=("MLTRAINING",),
            recipients=("Organization/hub",),
        ),
        "grants": (GrantClaim(dataset="chest", expires_at=NOON, duo="APPROVE"),),
        "count_bucket": "64-127",
        "weight": 96,
        "times": Times(snapshot=NOON, trained=NOON, recheck=NOON, released=NOON),
        "epoch": Epoch(recheck=812, release=812),
        "prev": NO_PREVIOUS,
    }
    return Receipt(**{**fields, **changes})


def reason(envelope: bytes, key: Ed25519PrivateKey = KEY) -> str:
    with pytest.raises(ReceiptInvalid) as caught:
        open_receipt(envelope, key.public_key())
    return caught.value.reason


def test_what_was_signed_is_what_opens() -> None:
    assert open_receipt(sign_receipt(receipt(), KEY), KEY.public_key()) == receipt()


def test_the_envelope_is_an_in_toto_statement_about_the_update() -> None:
    envelope = json.loads(sign_receipt(receipt(), KEY))
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)

    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert envelope["signatures"][0]["keyid"] == key_id(KEY.public_key())
    assert payload == rfc8785.dumps(statement)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "update", "digest": {"sha256": "c" * 64}}]
    assert statement["predicateType"] == "https://filmroom.org/consent-receipt/v1"
    assert "update" not in statement["predicate"]


def test_the_signature_is_over_the_dsse_encoding_of_payload_and_type() -> None:
    envelope = json.loads(sign_receipt(receipt(), KEY))
    payload = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(payload), payload)

    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)


def test_signing_is_deterministic_and_the_digest_tells_receipts_apart() -> None:
    first, second = sign_receipt(receipt(), KEY), sign_receipt(receipt(round=8), KEY)

    assert sign_receipt(receipt(), KEY) == first
    assert receipt_digest(first) != receipt_digest(second)
    assert receipt(prev=receipt_digest(first)).prev == receipt_digest(first)


def test_every_generated_key_is_another() -> None:
    assert key_id(generate_signing_key().public_key()) != key_id(generate_signing_key().public_key())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_anywhere_closes_the_receipt(data: st.DataObject) -> None:
    envelope = bytearray(sign_receipt(receipt(), KEY))
    place = data.draw(st.integers(0, len(envelope) - 1))
    envelope[place] ^= data.draw(st.integers(1, 255))

    assert reason(bytes(envelope)) in {"malformed", "wrong-type", "bad-signature"}


def _changed_in_envelope(**changes: object) -> bytes:
    envelope: Json = json.loads(sign_receipt(receipt(), KEY))
    return rfc8785.dumps(envelope | changes)


def _signature(**changes: object) -> list[Json]:
    signature = json.loads(sign_receipt(receipt(), KEY))["signatures"][0]
    return [{**signature, **changes}]


_PAYLOAD = base64.b64decode(json.loads(sign_receipt(receipt(), KEY))["payload"])
_STATEMENT: Json = json.loads(_PAYLOAD)


def _signed(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Any payload, rightly signed."""
    kind = payload_type.encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    return rfc8785.dumps(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [
                {
                    "keyid": key_id(KEY.public_key()),
                    "sig": base64.b64encode(KEY.sign(pae)).decode(),
                }
            ],
        }
    )


def _predicate(**changes: object) -> bytes:
    return _statement(predicate={**_STATEMENT["predicate"], **changes})


def _statement(**changes: object) -> bytes:
    return _signed(rfc8785.dumps(_STATEMENT | changes))


def test_the_forging_helper_signs_as_the_package_does() -> None:
    assert _signed(_PAYLOAD) == sign_receipt(receipt(), KEY)


FORGED: Final = {
    "empty": (b"", "malformed"),
    "no JSON": (b"receipt", "malformed"),
    "a list": (b"[]", "malformed"),
    "without payload": (b'{"payloadType":"x","signatures":[]}', "malformed"),
    "unsigned": (_changed_in_envelope(signatures=[]), "malformed"),
    "signed twice": (_changed_in_envelope(signatures=_signature() * 2), "malformed"),
    "a further element": (_changed_in_envelope(colour="red"), "malformed"),
    "a further element beside the signature": (
        _changed_in_envelope(signatures=_signature(colour="red")),
        "malformed",
    ),
    "payload not base64": (_changed_in_envelope(payload="%%%"), "malformed"),
    "spaces in the envelope": (
        json.dumps(json.loads(sign_receipt(receipt(), KEY))).encode(),
        "malformed",
    ),
    "too large": (b" " * 16_385, "too-large"),
    "another payload type": (_changed_in_envelope(payloadType="text/plain"), "wrong-type"),
    "another payload type, signed": (_signed(_PAYLOAD, "text/plain"), "wrong-type"),
    "another payload": (
        _changed_in_envelope(payload=base64.b64encode(b"{}").decode()),
        "bad-signature",
    ),
    "another key's name": (_changed_in_envelope(signatures=_signature(keyid="x")), "bad-signature"),
    "an empty signature": (_changed_in_envelope(signatures=_signature(sig="")), "bad-signature"),
    "signed: no JSON": (_signed(b"x"), "bad-statement"),
    "signed: no statement": (_signed(b"{}"), "bad-statement"),
    "signed: a list": (_signed(b"[]"), "bad-statement"),
    "signed: deep": (_signed(b"[" * 10_000), "bad-statement"),
    "signed: spaces": (_signed(json.dumps(_STATEMENT).encode()), "bad-statement"),
    "signed: a further element": (_statement(colour="red"), "bad-statement"),
    "signed: two subjects": (_statement(subject=_STATEMENT["subject"] * 2), "bad-statement"),
    "signed: no subject": (_statement(subject=[]), "bad-statement"),
    "signed: another subject": (
        _statement(subject=[{**_STATEMENT["subject"][0], "name": "x"}]),
        "bad-statement",
    ),
    "signed: another statement type": (_statement(_type="x"), "wrong-type"),
    "signed: another predicate type": (_statement(predicateType="x"), "wrong-type"),
    "signed: an unknown claim": (_predicate(patients=64), "bad-statement"),
    "signed: update claimed twice": (_predicate(update="c" * 64), "bad-statement"),
    "signed: a text for a number": (_predicate(round="7"), "bad-statement"),
    "signed: a fraction": (_predicate(weight=96.5), "bad-statement"),
    "signed: a negative round": (_predicate(round=-1), "bad-statement"),
    "signed: no digest": (_predicate(task="B" * 64), "bad-statement"),
    "signed: an unknown kind": (_predicate(kind="steal"), "bad-statement"),
    "signed: an exact count": (_predicate(count_bucket="70-70"), "bad-statement"),
    "signed: a telling weight": (_predicate(weight=70), "bad-statement"),
    "signed: no grant": (_predicate(grants=[]), "bad-statement"),
    "signed: a time without zone": (
        _predicate(times={**_STATEMENT["predicate"]["times"], "trained": "2026-06-01T12:00:00"}),
        "bad-statement",
    ),
    "signed: a time in another spelling": (
        _predicate(times={**_STATEMENT["predicate"]["times"], "trained": "2026-06-01T12:00:00+00:00"}),
        "bad-statement",
    ),
}


@pytest.mark.parametrize(("envelope", "expected"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_receipt_is_refused_for_its_reason(envelope: bytes, expected: str) -> None:
    assert reason(envelope) == expected


def test_a_claim_missing_from_a_signed_statement_is_refused() -> None:
    for name in _STATEMENT["predicate"]:
        rest = {k: v for k, v in _STATEMENT["predicate"].items() if k != name}

        assert reason(_statement(predicate=rest)) == "bad-statement"


def test_another_sites_key_does_not_open_it() -> None:
    assert reason(sign_receipt(receipt(), KEY), OTHER) == "bad-signature"


def test_a_receipt_of_another_sites_key_under_this_keys_name_does_not_open() -> None:
    foreign = json.loads(sign_receipt(receipt(), OTHER))
    foreign["signatures"][0]["keyid"] = key_id(KEY.public_key())

    assert reason(rfc8785.dumps(foreign)) == "bad-signature"


_moments = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 -- the fault under test
    datetime(2100, 1, 1),  # noqa: DTZ001 -- the fault under test
    timezones=st.integers(-720, 840).map(lambda m: timezone(timedelta(minutes=m))),
)


@settings(max_examples=100, deadline=None)
@given(
    _moments,
    st.integers(0, 2**53 - 1),
    st.text(min_size=1, max_size=40).filter(lambda t: t.isprintable()),
    st.integers(1, 10**6),
)
def test_signing_and_opening_is_the_identity(moment: datetime, number: int, text: str, count: int) -> None:
    bucket = count_bucket(count)
    claimed = receipt(
        round=number,
        nonce=text,
        count_bucket=bucket.label,
        weight=bucket.weight,
        times=Times(snapshot=moment, trained=moment, recheck=moment, released=moment),
    )

    assert open_receipt(sign_receipt(claimed, KEY), KEY.public_key()) == claimed


def test_a_receipt_that_would_not_be_accepted_cannot_be_made() -> None:
    with pytest.raises(ValidationError):
        receipt(weight=97)


def test_a_receipt_with_twenty_grants_stays_far_below_the_limit() -> None:
    grants = tuple(GrantClaim(dataset=f"dataset-{n}", expires_at=NOON, duo="APPROVE") for n in range(20))

    assert len(sign_receipt(receipt(grants=grants), KEY)) < 16_384 // 2


# ------------------------------------------------------------------ counts


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, Bucket("1-1", 1)),
        (2, Bucket("2-3", 3)),
        (16, Bucket("16-31", 24)),
        (31, Bucket("16-31", 24)),
        (32, Bucket("32-63", 48)),
        (64, Bucket("64-127", 96)),
    ],
)
def test_a_count_shows_as_its_range(n: int, expected: Bucket) -> None:
    assert count_bucket(n) == expected


@pytest.mark.parametrize("n", [0, -1])
def test_nobody_is_no_count(n: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        count_bucket(n)


@given(st.integers(1, 10**9))
def test_a_count_lies_in_its_range_and_the_weight_too(n: int) -> None:
    bucket = count_bucket(n)
    low, high = map(int, bucket.label.split("-"))

    assert low <= n <= high
    assert low <= bucket.weight <= high


@given(st.integers(2, 10**6), st.sampled_from([-1, 1]))
def test_one_patient_more_or_less_does_not_show(n: int, change: int) -> None:
    before = count_bucket(n)

    assert bucket_with_hysteresis(n + change, before) == before


@pytest.mark.parametrize(
    ("n", "previous", "label"),
    [
        (63, None, "32-63"),
        (60, "64-127", "64-127"),
        (56, "64-127", "64-127"),
        (55, "64-127", "32-63"),
        (135, "64-127", "64-127"),
        (136, "64-127", "128-255"),
        (20, "64-127", "16-31"),
    ],
)
def test_the_previous_range_holds_for_an_eighth_beyond_its_edges(n: int, previous: str | None, label: str) -> None:
    held = None if previous is None else count_bucket(int(previous.partition("-")[0]))

    assert bucket_with_hysteresis(n, held).label == label
