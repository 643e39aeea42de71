"""A withdrawal notice opens only as its site signed it, and names receipts and nothing else."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # public, listed without __all__

from consent import (
    MAX_NOTICE_BYTES,
    MAX_NOTICE_RECEIPTS,
    AffectedReceipt,
    WithdrawalNotice,
    open_notice,
    sign_notice,
    sign_receipt,
)
from consent.errors import NoticeInvalid
from consent.statement import PAYLOAD_TYPE
from tests.consent.test_receipt import receipt

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)


def affected(number: int, kind: str = "train", digit: str = "a") -> AffectedReceipt:
    return AffectedReceipt.model_validate({"round": number, "kind": kind, "sha256": digit * 64})


def notice(*receipts: AffectedReceipt) -> WithdrawalNotice:
    named = receipts or (affected(1), affected(2, digit="b"))
    return WithdrawalNotice(federation="north-sea", site="north", run="r-1", at=NOON, receipts=named)


def reason(envelope: bytes, key: Ed25519PrivateKey = KEY) -> str:
    with pytest.raises(NoticeInvalid) as caught:
        open_notice(envelope, key.public_key())
    return caught.value.reason


def _payload() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(json.loads(sign_notice(notice(), KEY))["payload"]))
    return document


def _signed(statement: dict[str, Any], *, canonical: bool = True) -> bytes:
    envelope = Envelope(rfc8785.dumps(statement) if canonical else json.dumps(statement).encode(), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(KEY))
    return rfc8785.dumps(envelope.to_dict())


def test_what_was_signed_is_what_opens() -> None:
    assert open_notice(sign_notice(notice(), KEY), KEY.public_key()) == notice()


def test_a_notice_says_which_receipts_and_nothing_else() -> None:
    assert _payload() == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "receipt", "digest": {"sha256": "a" * 64}},
            {"name": "receipt", "digest": {"sha256": "b" * 64}},
        ],
        "predicateType": "https://filmroom.org/withdrawal-notice/v1",
        "predicate": {
            "federation": "north-sea",
            "site": "north",
            "run": "r-1",
            "at": "2026-06-01T12:00:00Z",
            "receipts": [
                {"round": 1, "kind": "train", "sha256": "a" * 64},
                {"round": 2, "kind": "train", "sha256": "b" * 64},
            ],
        },
    }


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_byte_anywhere_closes_the_notice(data: st.DataObject) -> None:
    envelope = bytearray(sign_notice(notice(), KEY))
    envelope[data.draw(st.integers(0, len(envelope) - 1))] ^= data.draw(st.integers(1, 255))

    assert reason(bytes(envelope)) in {"malformed", "wrong-type", "bad-signature"}


def test_another_sites_key_does_not_open_it() -> None:
    assert reason(sign_notice(notice(), OTHER)) == "bad-signature"


def test_a_receipt_is_no_notice_though_the_same_key_signed_it() -> None:
    assert reason(sign_receipt(receipt(), KEY)) in {"wrong-type", "bad-statement"}


def test_a_notice_too_large_is_not_even_parsed() -> None:
    assert reason(b" " * (MAX_NOTICE_BYTES + 1)) == "too-large"


def test_the_largest_notice_fits() -> None:
    largest = tuple(affected(n).model_copy(update={"sha256": f"{n:064x}"}) for n in range(MAX_NOTICE_RECEIPTS))

    assert len(sign_notice(notice(*largest), KEY)) < MAX_NOTICE_BYTES


@pytest.mark.parametrize(
    "receipts",
    [
        (),
        (affected(2, digit="b"), affected(1)),
        (affected(1, "train"), affected(1, "evaluate", "b")),
        (affected(1), affected(1)),
        (affected(1), affected(2)),
        tuple(affected(n).model_copy(update={"sha256": f"{n:064x}"}) for n in range(MAX_NOTICE_RECEIPTS + 1)),
    ],
    ids=["none", "rounds", "kinds", "twice", "one digest twice", "too many"],
)
def test_receipts_are_named_once_in_order_and_at_least_one(receipts: tuple[AffectedReceipt, ...]) -> None:
    with pytest.raises(ValidationError):
        WithdrawalNotice(federation="north-sea", site="north", run="r-1", at=NOON, receipts=receipts)


@pytest.mark.parametrize(
    "changes",
    [
        {"patients": 1},
        {"reason": "withdrawn"},
        {"receipts": []},
        {"at": "2026-06-01T12:00:00"},
        {"site": ""},
    ],
    ids=["a count", "a reason", "no receipt", "no time zone", "no site"],
)
def test_a_rightly_signed_notice_that_says_more_or_less_is_refused(changes: dict[str, object]) -> None:
    statement = _payload()
    statement["predicate"] |= changes

    assert reason(_signed(statement)) == "bad-statement"


def test_subjects_other_than_the_receipts_are_refused() -> None:
    assert reason(_signed({**_payload(), "subject": []})) == "bad-statement"


def test_another_spelling_of_the_same_notice_is_refused() -> None:
    assert reason(_signed(_payload(), canonical=False)) == "bad-statement"


def test_another_predicate_type_is_refused() -> None:
    assert reason(_signed({**_payload(), "predicateType": "https://filmroom.org/consent-receipt/v1"})) == "wrong-type"
