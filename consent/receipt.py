"""The signed statement a site makes about each update: under which permissions it was computed.

An in-toto Statement v1 in a DSSE envelope, both in canonical JSON (RFC 8785), signed with Ed25519.
Proves who claims what about which bytes; it does not prove that the claim is true. Holds no
patient, study or exact number. Whether the claim suffices is decided by the coordinator's
verification.

Source: in-toto attestation v1; DSSE v1.0.2; RFC 8785 (JCS).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # public names, listed without __all__
    CryptoSigner,
    SSlibKey,
)

from consent.errors import ReceiptInvalid

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://filmroom.org/consent-receipt/v2"
SUBJECT: Final = "update"
MAX_ENVELOPE_BYTES: Final = 32_768
"""Room for twenty grants, two notes of `MAX_NOTE` characters and two proofs of `MAX_PROOF` hashes."""
MAX_NOTE: Final = 4_096
"""A checkpoint with the cosignatures of twenty witnesses."""
MAX_PROOF: Final = 64
"""More hashes than the proof of a log of 2^32 leaves has."""
NO_PREVIOUS: Final = "0" * 64
"""`prev` of a site's first receipt."""
MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer canonical JSON carries (RFC 8785 section 3.2.2.3)."""

_Text = Annotated[str, Field(min_length=1, max_length=256)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
_Note = Annotated[str, Field(min_length=1, max_length=MAX_NOTE)]
_Proof = Annotated[tuple[_Sha256, ...], Field(max_length=MAX_PROOF)]
_Texts = Annotated[tuple[_Text, ...], Field(min_length=1, max_length=64)]


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


class _Claim(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LogClaim(_Claim):
    """The site's consent log, as signed notes, when the set was frozen and at the second check.

    `since` proves that the log grew from the checkpoint the coordinator named to `snapshot`,
    `consistency` that it grew from there to `recheck`, which carries the cosignatures.
    """

    snapshot: _Note
    recheck: _Note
    since: _Proof
    consistency: _Proof


class Eligibility(_Claim):
    """Which studies were used, as the root of a tree, and how their consents were evaluated.

    `policy` and `engine` are digests of what `consent.engine` declares, `basis` is the kind of the
    dataset's legal basis.
    """

    root: _Sha256
    padded_size: _Count
    policy: _Sha256
    engine: _Sha256
    terminology: _Text
    purposes: _Texts
    activity: _Texts
    recipients: _Texts
    basis: Literal["consent", "limited-data-set", "data-permit", "waiver"]


class GrantClaim(_Claim):
    """One dataset used, until when its grant holds, and how its terms of use were met."""

    dataset: _Text
    expires_at: AwareDatetime
    duo: Literal["APPROVE", "MANUAL"]


class Times(_Claim):
    """When the set was frozen, the training ended, consent was checked again, the update let go."""

    snapshot: AwareDatetime
    trained: AwareDatetime
    recheck: AwareDatetime
    released: AwareDatetime


class Epoch(_Claim):
    """The state of the consent records, counted, at the second check and at release."""

    recheck: _Count
    release: _Count


class Receipt(_Claim):
    """What a site claims about one update; `update` is the SHA-256 of the bytes it sent.

    `attestation` is where the word of a trusted execution environment will stand; there is none.
    """

    federation: _Text
    run: _Text
    round: _Count
    kind: Literal["train", "evaluate", "initialise"]
    nonce: _Text
    site: _Text
    base_model: _Sha256
    task: _Sha256
    update: _Sha256
    consent_log: LogClaim
    eligibility: Eligibility
    grants: Annotated[tuple[GrantClaim, ...], Field(min_length=1, max_length=64)]
    count_bucket: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,15}-[1-9][0-9]{0,15}$")]
    weight: _Count
    times: Times
    epoch: Epoch
    software: _Text
    attestation: None
    prev: _Sha256

    @model_validator(mode="after")
    def _weight_of_bucket(self) -> Self:
        """Refuse a range that is none, and a weight that tells more than its range."""
        claimed = Bucket(self.count_bucket, self.weight)
        if claimed != count_bucket(claimed.lowest):
            raise ValueError("weight and count_bucket do not belong together")
        return self


# ------------------------------------------------------------------ the signature


class _Signature(_Claim):
    keyid: str
    sig: str


class _Envelope(_Claim):
    payload: str
    payloadType: str  # noqa: N815 -- DSSE's name
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=1)]


def generate_signing_key() -> Ed25519PrivateKey:
    """Return a new key from the operating system's generator."""
    return Ed25519PrivateKey.generate()


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name by which envelopes refer to `key`: a digest of the key itself."""
    return str(SSlibKey.from_crypto(key).keyid)


def sign_receipt(receipt: Receipt, key: Ed25519PrivateKey) -> bytes:
    """Return the signed envelope of `receipt`."""
    envelope = Envelope(_statement(receipt), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return rfc8785.dumps(envelope.to_dict())


def open_receipt(envelope: bytes, key: Ed25519PublicKey, max_bytes: int = MAX_ENVELOPE_BYTES) -> Receipt:
    """Return the receipt in `envelope`, if the holder of `key` signed it.

    Raises: ReceiptInvalid whose `reason` is `too-large`, `malformed`, `wrong-type`, `bad-signature`
    or
        `bad-statement`.
    """
    if len(envelope) > max_bytes:
        raise ReceiptInvalid("too-large")
    opened = _open_envelope(envelope)
    if opened.payload_type != PAYLOAD_TYPE:
        raise ReceiptInvalid("wrong-type", "payloadType")
    try:
        opened.verify([SSlibKey.from_crypto(key)], 1)
    except VerificationError as error:
        raise ReceiptInvalid("bad-signature") from error
    return _read_statement(opened.payload)


def receipt_digest(envelope: bytes) -> str:
    """Return the SHA-256 by which the site's next receipt names this one in `prev`."""
    return hashlib.sha256(envelope).hexdigest()


def _open_envelope(data: bytes) -> Envelope:
    """Return the envelope; only its one canonical spelling counts, since digests are chained."""
    try:
        document = _Envelope.model_validate_json(data).model_dump()
        envelope = Envelope.from_dict(document)
        canonical = rfc8785.dumps(envelope.to_dict())
    except ValueError as error:
        raise ReceiptInvalid("malformed", "envelope") from error
    if canonical != data:
        raise ReceiptInvalid("malformed", "envelope is not canonical")
    return envelope


def _statement(receipt: Receipt) -> bytes:
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": SUBJECT, "digest": {"sha256": receipt.update}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": receipt.model_dump(mode="json", exclude={"update"}),
        }
    )


def _read_statement(payload: bytes) -> Receipt:
    """Read back what `_statement` writes, and nothing else."""
    try:
        statement = json.loads(payload)
        types = (statement["_type"], statement["predicateType"])
        update = statement["subject"][0]["digest"]["sha256"]
        claim = json.dumps({**statement["predicate"], "update": update})
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ReceiptInvalid("bad-statement", "not a statement") from error
    if types != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ReceiptInvalid("wrong-type", "statement")
    try:
        receipt = Receipt.model_validate_json(claim)
    except ValidationError as error:
        fields = {".".join(map(str, fault["loc"])) for fault in error.errors()}
        raise ReceiptInvalid("bad-statement", ", ".join(sorted(fields))) from None
    # Unknown elements, doubled names and other spellings do not survive the way back.
    if _statement(receipt) != payload:
        raise ReceiptInvalid("bad-statement", "not canonical")
    return receipt
