"""Signed statements of a site or the coordinator: in-toto Statements v1 in DSSE envelopes, signed with Ed25519.

Statement and envelope are canonical JSON (RFC 8785), each in its one spelling, since digests of the
bytes name them elsewhere. Proves who claims what; it does not prove that the claim is true. What is
claimed is the business of `receipt`, `statistics` and `withdrawal`.

Source: in-toto attestation v1; DSSE v1.0.2; RFC 8785 (JCS).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # public names, listed without __all__
    CryptoSigner,
    SSlibKey,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from consent.errors import StatementInvalid

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
MAX_SAFE_INTEGER: Final = 2**53 - 1
"""The largest integer canonical JSON carries (RFC 8785 section 3.2.2.3)."""

Text = Annotated[str, Field(min_length=1, max_length=256)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]

_Json = Mapping[str, Any]


class Claim(BaseModel):
    """What is claimed, or a part of it: nothing is converted, and nothing unknown passed over."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_C = TypeVar("_C", bound=Claim)


@dataclass(frozen=True, slots=True)
class StatementForm(Generic[_C]):
    """How one kind of claim is written as a statement.

    `subjects` are the digests it is about, under the one name `subject`; `predicate` is what the
    statement says of them, and `fields` finds the claim's fields in a statement again.
    """

    predicate_type: str
    claim: type[_C]
    subject: str
    subjects: Callable[[_C], Sequence[str]]
    predicate: Callable[[_C], _Json]
    fields: Callable[[_Json], _Json]
    refused: type[StatementInvalid]

    def sign(self, claim: _C, key: Ed25519PrivateKey) -> bytes:
        """Return the signed envelope of `claim`."""
        envelope = Envelope(self._statement(claim), PAYLOAD_TYPE, {})
        envelope.sign(CryptoSigner(key))
        return rfc8785.dumps(envelope.to_dict())

    def open(self, data: bytes, key: Ed25519PublicKey, max_bytes: int) -> _C:
        """Return the claim in the envelope `data`, if the holder of `key` signed it.

        Raises: `refused` whose `reason` is `too-large`, `malformed`, `wrong-type`, `bad-signature` or
            `bad-statement`.
        """
        if len(data) > max_bytes:
            raise self.refused("too-large")
        envelope = self._envelope(data)
        if envelope.payload_type != PAYLOAD_TYPE:
            raise self.refused("wrong-type", "payloadType")
        try:
            envelope.verify([SSlibKey.from_crypto(key)], 1)
        except VerificationError as error:
            raise self.refused("bad-signature") from error
        return self._read(envelope.payload)

    def _envelope(self, data: bytes) -> Envelope:
        """Return the envelope; only its one canonical spelling counts."""
        try:
            document = _Envelope.model_validate_json(data).model_dump()
            envelope = Envelope.from_dict(document)
            canonical = rfc8785.dumps(envelope.to_dict())
        except ValueError as error:
            raise self.refused("malformed", "envelope") from error
        if canonical != data:
            raise self.refused("malformed", "envelope is not canonical")
        return envelope

    def _statement(self, claim: _C) -> bytes:
        return rfc8785.dumps(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": self.subject, "digest": {"sha256": digest}} for digest in self.subjects(claim)],
                "predicateType": self.predicate_type,
                "predicate": dict(self.predicate(claim)),
            }
        )

    def _read(self, payload: bytes) -> _C:
        """Read back what `_statement` writes, and nothing else."""
        try:
            statement = json.loads(payload)
            types = (statement["_type"], statement["predicateType"])
            fields = json.dumps(self.fields(statement))
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise self.refused("bad-statement", "not a statement") from error
        if types != (STATEMENT_TYPE, self.predicate_type):
            raise self.refused("wrong-type", "statement")
        try:
            claim = self.claim.model_validate_json(fields)
        except ValidationError as error:
            wrong = {".".join(map(str, fault["loc"])) for fault in error.errors()}
            raise self.refused("bad-statement", ", ".join(sorted(wrong))) from None
        # Unknown elements, doubled names and other spellings do not survive the way back.
        if self._statement(claim) != payload:
            raise self.refused("bad-statement", "not canonical")
        return claim


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name by which envelopes refer to `key`: a digest of the key itself."""
    return str(SSlibKey.from_crypto(key).keyid)


class _Signature(Claim):
    keyid: str
    sig: str


class _Envelope(Claim):
    payload: str
    payloadType: str  # noqa: N815 -- DSSE's name
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=1)]
