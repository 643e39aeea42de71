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

PREDICATE_TYPE: Final = "https://filmroom.org/consent-receipt/v2"
MAX_ENVELOPE_BYTES: Final = 32_768
"""Room for twenty grants, two notes of `MAX_NOTE` characters and two proofs of `MAX_PROOF` hashes."""
MAX_NOTE: Final = 4_096
"""A checkpoint with the cosignatures of twenty witnesses."""
MAX_PROOF: Final = 64
"""More hashes than the proof of a log of 2^32 leaves has."""
NO_PREVIOUS: Final = "0" * 64
"""`prev` of a site's first receipt."""

_Note = Annotated[str, Field(min_length=1, max_length=MAX_NOTE)]
_Proof = Annotated[tuple[Sha256, ...], Field(max_length=MAX_PROOF)]
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

    @property
    def slack(self) -> int:
        """How far outside the range a count may be, and the range still stand for it."""
        return max(1, self.lowest // 8)

    @property
    def fewest(self) -> int:
        """The smallest count the range stands for."""
        return max(1, self.lowest - self.slack)


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
    return previous if previous.fewest <= n <= 2 * previous.lowest - 1 + previous.slack else current


def _bucket_from(low: int) -> Bucket:
    return Bucket(f"{low}-{2 * low - 1}", low * 3 // 2)


# ------------------------------------------------------------------ the claim


class LogClaim(Claim):
    """The site's consent log, as signed notes, when the set was frozen and at the second check.

    `since` proves that the log grew from the checkpoint the coordinator named to `snapshot`,
    `consistency` that it grew from there to `recheck`, which carries the cosignatures.
    """

    snapshot: _Note
    recheck: _Note
    since: _Proof
    consistency: _Proof


class Eligibility(Claim):
    """Which studies were used, as the root of a tree, and how their consents were evaluated.

    `policy` and `engine` are digests of what `consent.engine` declares, `basis` is the kind of the
    dataset's legal basis.
    """

    root: Sha256
    padded_size: Count
    policy: Sha256
    engine: Sha256
    terminology: Text
    purposes: _Texts
    activity: _Texts
    recipients: _Texts
    basis: Literal["consent", "limited-data-set", "data-permit", "waiver"]


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
    """What a site claims about one update; `update` is the SHA-256 of the bytes it sent.

    `attestation` is where the word of a trusted execution environment will stand; there is none.
    """

    federation: Text
    run: Text
    round: Count
    kind: Literal["train", "evaluate", "initialise"]
    nonce: Text
    site: Text
    base_model: Sha256
    task: Sha256
    update: Sha256
    consent_log: LogClaim
    eligibility: Eligibility
    grants: Annotated[tuple[GrantClaim, ...], Field(min_length=1, max_length=64)]
    count_bucket: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,15}-[1-9][0-9]{0,15}$")]
    weight: Count
    times: Times
    epoch: Epoch
    software: Text
    attestation: None
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
