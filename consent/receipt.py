"""The signed statement a site makes about each update: under which permissions it was computed.

Proves who claims what about which bytes; it does not prove that the claim is true. Holds no
patient, study or exact number. Whether the claim suffices is decided by the coordinator's
verification. How it is signed is written in `statement`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AwareDatetime, Field, model_validator

from consent.errors import ReceiptInvalid
from consent.statement import Claim, Count, Sha256, StatementForm, Text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PREDICATE_TYPE: Final = "https://filmroom.org/consent-receipt/v1"
MAX_ENVELOPE_BYTES: Final = 16_384
"""Several times the size of a receipt with twenty grants."""
NO_PREVIOUS: Final = "0" * 64
"""`prev` of a site's first receipt."""

_Texts = Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)]


# ------------------------------------------------------------------ counts


@dataclass(frozen=True, slots=True)
class Bucket:
    """A power-of-two range of counts, and the weight that stands for every count in it."""

    label: str
    weight: int

    @property
    def lowest(self) -> int:
        """The smallest count of the range."""
        return int(self.label.partition("-")[0])


def count_bucket(n: int) -> Bucket:
    """Return the range `n` lies in: 16 to 31 is `16-31` with weight 24.

    Raises: ValueError if `n` is not positive.
    """
    if n < 1:
        raise ValueError("a count has to be positive")
    return _bucket_from(1 << (n.bit_length() - 1))


def bucket_with_hysteresis(n: int, previous: Bucket | None) -> Bucket:
    """Return the range of `n`, or the previous one while `n` is at most an eighth of it outside.

    One patient more or less than the last time the range was entered does not show. A slow drift
    shows once, late.

    Raises: ValueError if `n` is not positive.
    """
    current = count_bucket(n)
    if previous is None:
        return current
    low = previous.lowest
    slack = max(1, low // 8)
    return previous if low - slack <= n <= 2 * low - 1 + slack else current


def _bucket_from(low: int) -> Bucket:
    return Bucket(f"{low}-{2 * low - 1}", low * 3 // 2)


# ------------------------------------------------------------------ the claim


class Eligibility(Claim):
    """By which policy and for which request the consents were evaluated."""

    policy: Sha256
    purposes: _Texts
    activity: _Texts
    recipients: _Texts


class GrantClaim(Claim):
    """One dataset used, until when its grant holds, and how its terms of use were met."""

    dataset: Text
    expires_at: AwareDatetime
    duo: Literal["APPROVE", "MANUAL"]


class Times(Claim):
    """When the set was frozen, the training ended, consent was checked again, the update let go."""

    snapshot: AwareDatetime
    trained: AwareDatetime
    recheck: AwareDatetime
    released: AwareDatetime


class Epoch(Claim):
    """The state of the consent records, counted, at the second check and at release."""

    recheck: Count
    release: Count


class Receipt(Claim):
    """What a site claims about one update; `update` is the SHA-256 of the bytes it sent."""

    federation: Text
    run: Text
    round: Count
    kind: Literal["train", "evaluate", "initialise"]
    nonce: Text
    site: Text
    base_model: Sha256
    task: Sha256
    update: Sha256
    eligibility: Eligibility
    grants: Annotated[tuple[GrantClaim, ...], Field(min_length=1, max_length=64)]
    count_bucket: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,15}-[1-9][0-9]{0,15}$")]
    weight: Count
    times: Times
    epoch: Epoch
    prev: Sha256

    @model_validator(mode="after")
    def _weight_of_bucket(self) -> Self:
        """Refuse a range that is none, and a weight that tells more than its range."""
        claimed = Bucket(self.count_bucket, self.weight)
        if claimed != count_bucket(claimed.lowest):
            raise ValueError("weight and count_bucket do not belong together")
        return self


# ------------------------------------------------------------------ the signature


_FORM: Final = StatementForm(
    PREDICATE_TYPE,
    Receipt,
    subject="update",
    subjects=lambda receipt: [receipt.update],
    predicate=lambda receipt: receipt.model_dump(mode="json", exclude={"update"}),
    fields=lambda statement: {**statement["predicate"], "update": statement["subject"][0]["digest"]["sha256"]},
    refused=ReceiptInvalid,
)


def generate_signing_key() -> Ed25519PrivateKey:
    """Return a new key from the operating system's generator."""
    return Ed25519PrivateKey.generate()


def sign_receipt(receipt: Receipt, key: Ed25519PrivateKey) -> bytes:
    """Return the signed envelope of `receipt`."""
    return _FORM.sign(receipt, key)


def open_receipt(envelope: bytes, key: Ed25519PublicKey, max_bytes: int = MAX_ENVELOPE_BYTES) -> Receipt:
    """Return the receipt in `envelope`, if the holder of `key` signed it.

    Raises: ReceiptInvalid, as `StatementForm.open` says.
    """
    return _FORM.open(envelope, key, max_bytes)


def receipt_digest(envelope: bytes) -> str:
    """Return the SHA-256 by which the site's next receipt names this one in `prev`."""
    return hashlib.sha256(envelope).hexdigest()
