"""Whether an update may be counted: every check on a site's receipt, each failure with its own reason.

Pure. The receipt must be signed by the member that answered, and bind exactly what was asked and what arrived. It is
a claim of the site; that the claim is true, no check here can show (see docs/threat-model.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consent import Bucket, ReceiptInvalid, open_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from consent import Receipt


@dataclass(frozen=True, slots=True)
class Expected:
    """What the receipt of one answer must say."""

    federation: str
    run: str
    round: int
    kind: str
    nonce: str
    site: str
    base_model: str
    task: str
    prev: str
    asked_at: datetime
    minimum_count: int
    clock_skew: timedelta


@dataclass(frozen=True, slots=True)
class Refused:
    """The update is not counted, for this reason."""

    reason: str


def verify(envelope: bytes, key: Ed25519PublicKey, expected: Expected, arrived: str, at: datetime) -> Receipt | Refused:
    """Return the receipt if every check holds; `arrived` is the digest of what was received at `at`."""
    try:
        receipt = open_receipt(envelope, key)
    except ReceiptInvalid as error:
        return Refused(f"receipt-{error.reason}")
    if receipt.update != arrived:
        return Refused("update-differs-from-receipt")
    for reason, holds in CHECKS.items():
        if not holds(receipt, expected, at):
            return Refused(reason)
    return receipt


def _in_order(receipt: Receipt, expected: Expected, at: datetime) -> bool:
    times = receipt.times
    moments = (
        expected.asked_at - expected.clock_skew,
        times.snapshot,
        times.trained,
        times.recheck,
        times.released,
        at + expected.clock_skew,
    )
    return list(moments) == sorted(moments)


def _same(field: str) -> Callable[[Receipt, Expected, datetime], bool]:
    return lambda receipt, expected, _at: getattr(receipt, field) == getattr(expected, field)


CHECKS: Mapping[str, Callable[[Receipt, Expected, datetime], bool]] = {
    "another-federation": _same("federation"),
    "another-run": _same("run"),
    "another-round": _same("round"),
    "another-kind": _same("kind"),
    "another-nonce": _same("nonce"),
    "another-site": _same("site"),
    "another-base-model": _same("base_model"),
    "another-task": _same("task"),
    "receipt-chain-broken": _same("prev"),
    "times-out-of-order": _in_order,
    "epoch-moved-at-release": lambda r, _e, _at: r.epoch.recheck == r.epoch.release,
    "grant-not-in-force": lambda r, _e, _at: all(grant.expires_at > r.times.released for grant in r.grants),
    "too-few-studies": lambda r, e, _at: Bucket(r.count_bucket, r.weight).lowest >= e.minimum_count,
}
