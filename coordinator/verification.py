"""Whether an update may be counted: every check on a site's receipt, each failure with its own reason.

Pure. The receipt must be signed by the member that answered, and bind exactly what was asked and what arrived; the
consent log it shows must be the one seen before, grown. It is a claim of the site; that the claim is true, no check
here can show (see docs/threat-model.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta  # noqa: TC003 -- pydantic reads the fields of Expected
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from consent import (
    COSIGNATURE,
    Bucket,
    Checkpoint,
    CheckpointInvalid,
    ReceiptInvalid,
    cosigners,
    federation_recipient,
    log_origin,
    log_verifier,
    open_checkpoint,
    open_receipt,
    padded_size,
    parse_verifier,
    verify_consistency,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from consent import Receipt


@dataclass(frozen=True, slots=True)
class Expected:
    """What the receipt of one answer must say; kept with it, so that every check can be made again.

    `log_size` and `log_root` are of the last state of the site's consent log that was accepted, `witnesses` the
    verifier keys whose cosignatures count (C2SP signed-note).
    """

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
    purposes: tuple[str, ...]
    policies: tuple[str, ...]
    engines: tuple[str, ...]
    log_size: int
    log_root: str
    witnesses: tuple[str, ...]
    witness_quorum: int
    release_window: timedelta


@dataclass(frozen=True, slots=True)
class Refused:
    """The update is not counted, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A receipt, and the two states of the consent log it shows, all signed by the member."""

    receipt: Receipt
    snapshot: Checkpoint
    recheck: Checkpoint


def verify(
    envelope: bytes, key: Ed25519PublicKey, expected: Expected, arrived: str, at: datetime
) -> Evidence | Refused:
    """Return the receipt and its log if every check holds; `arrived` is the digest of what was received at `at`."""
    try:
        receipt = open_receipt(envelope, key)
    except ReceiptInvalid as error:
        return Refused(f"receipt-{error.reason}")
    if receipt.update != arrived:
        return Refused("update-differs-from-receipt")
    origin = log_origin(expected.federation, expected.site, key)
    try:
        log = [_opened(note, origin, key) for note in (receipt.consent_log.snapshot, receipt.consent_log.recheck)]
    except CheckpointInvalid:
        return Refused("checkpoint-not-signed")
    evidence = Evidence(receipt, *log)
    for reason, holds in CHECKS.items():
        if not holds(evidence, expected, at):
            return Refused(reason)
    return evidence


def _opened(note: str, origin: str, key: Ed25519PublicKey) -> Checkpoint:
    """Return the state of the log in a note that is of this log and signed by it."""
    checkpoint = open_checkpoint(note, log_verifier(origin, key))
    if checkpoint.origin != origin:
        raise CheckpointInvalid("another-origin")
    return checkpoint


_EXPECTED: TypeAdapter[Expected] = TypeAdapter(Expected)


def expected_json(expected: Expected) -> str:
    """Return what was expected as it is kept."""
    return _EXPECTED.dump_json(expected).decode()


def read_expected(text: str) -> Expected:
    """Read it back.

    Raises: ValueError if it is not what `expected_json` writes.
    """
    return _EXPECTED.validate_json(text)


def _in_order(evidence: Evidence, expected: Expected, at: datetime) -> bool:
    times = evidence.receipt.times
    moments = (
        expected.asked_at - expected.clock_skew,
        times.snapshot,
        times.trained,
        times.recheck,
        times.released,
        at + expected.clock_skew,
    )
    return list(moments) == sorted(moments)


def _grew_since(evidence: Evidence, expected: Expected, _at: datetime) -> bool:
    before = replace(evidence.snapshot, size=expected.log_size, root=bytes.fromhex(expected.log_root))
    return _grew(before, evidence.snapshot, evidence.receipt.consent_log.since)


def _grew(before: Checkpoint, now: Checkpoint, proof: tuple[str, ...]) -> bool:
    return verify_consistency(before.size, now.size, before.root, now.root, [bytes.fromhex(one) for one in proof])


def _is_witnessed(evidence: Evidence, expected: Expected, at: datetime) -> bool:
    """Whether enough witnesses signed the second state of the log, after the round was opened."""
    earliest, latest = expected.asked_at - expected.clock_skew, at + expected.clock_skew
    witnesses = [parse_verifier(text, COSIGNATURE) for text in expected.witnesses]
    seen = cosigners(evidence.receipt.consent_log.recheck, witnesses)
    return sum(earliest <= moment <= latest for moment in seen.values()) >= expected.witness_quorum


def _same(field: str) -> Callable[[Evidence, Expected, datetime], bool]:
    return lambda evidence, expected, _at: getattr(evidence.receipt, field) == getattr(expected, field)


CHECKS: Mapping[str, Callable[[Evidence, Expected, datetime], bool]] = {
    "another-federation": _same("federation"),
    "another-run": _same("run"),
    "another-round": _same("round"),
    "another-kind": _same("kind"),
    "another-nonce": _same("nonce"),
    "another-site": _same("site"),
    "another-base-model": _same("base_model"),
    "another-task": _same("task"),
    "policy-not-allowed": lambda v, e, _at: v.receipt.eligibility.policy in e.policies,
    "engine-not-allowed": lambda v, e, _at: v.receipt.eligibility.engine in e.engines,
    "another-purpose": lambda v, e, _at: set(v.receipt.eligibility.purposes) == set(e.purposes),
    "another-recipient": lambda v, e, _at: federation_recipient(e.federation) in v.receipt.eligibility.recipients,
    "consent-log-forked": _grew_since,
    "consent-log-inconsistent": lambda v, _e, _at: _grew(v.snapshot, v.recheck, v.receipt.consent_log.consistency),
    "too-few-witnesses": _is_witnessed,
    "times-out-of-order": _in_order,
    "released-too-late": lambda v, e, _at: v.receipt.times.released - v.receipt.times.recheck <= e.release_window,
    "epoch-moved-at-release": lambda v, _e, _at: v.receipt.epoch.recheck == v.receipt.epoch.release,
    "grant-not-in-force": lambda v, _e, _at: all(
        grant.expires_at > v.receipt.times.released for grant in v.receipt.grants
    ),
    "receipt-chain-broken": _same("prev"),
    "too-few-studies": lambda v, e, _at: _lowest(v.receipt) >= e.minimum_count,
    "padding-tells-a-count": lambda v, _e, _at: v.receipt.eligibility.padded_size == padded_size(_lowest(v.receipt)),
}


def _lowest(receipt: Receipt) -> int:
    return Bucket(receipt.count_bucket, receipt.weight).lowest
