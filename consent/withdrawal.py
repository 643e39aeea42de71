"""The signed notice by which a site tells that updates it let go may no longer be used, and the signed answer to it.

Names receipts, and nothing of why: no patient, study, number or reason. The coordinator answers for
each receipt with a `Standing`. Which receipts are affected is found inside the hospital.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from consent.errors import AnswerInvalid, NoticeInvalid
from consent.statement import Claim, Count, Sha256, StatementForm, Text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NOTICE_TYPE: Final = "https://filmroom.org/withdrawal-notice/v1"
MAX_NOTICE_RECEIPTS: Final = 512
"""More affected receipts are told in several notices."""
MAX_NOTICE_BYTES: Final = 262_144
"""Twice the size of a notice with `MAX_NOTICE_RECEIPTS`."""
ANSWER_TYPE: Final = "https://filmroom.org/withdrawal-answer/v1"
Standing = Literal["retracted", "aggregated", "unknown"]
"""What the coordinator says of a receipt.

`retracted`: the update was not aggregated and will not be. `aggregated`: it is part of the model,
and versions from that round on are flagged. `unknown`: it never had that receipt.
"""


class AffectedReceipt(Claim):
    """One update that may no longer be used, by the SHA-256 of its receipt's envelope."""

    round: Count
    kind: Literal["train", "evaluate"]
    sha256: Sha256


class WithdrawalNotice(Claim):
    """What a site says of one run: from `at` on, the updates of these receipts may not be used."""

    federation: Text
    site: Text
    run: Text
    at: AwareDatetime
    receipts: Annotated[tuple[AffectedReceipt, ...], Field(min_length=1, max_length=MAX_NOTICE_RECEIPTS)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        """Refuse a notice that names a receipt twice or out of order: its one spelling is signed."""
        keys = [(receipt.round, receipt.kind, receipt.sha256) for receipt in self.receipts]
        if keys != sorted(set(keys)) or len({receipt.sha256 for receipt in self.receipts}) < len(keys):
            raise ValueError("receipts are not sorted, or one is named twice")
        return self


class AnsweredReceipt(Claim):
    """What became of one update, by the SHA-256 of its receipt's envelope."""

    sha256: Sha256
    standing: Standing


class WithdrawalAnswer(Claim):
    """What the coordinator says, at `at`, to the notice whose envelope has the SHA-256 `notice`."""

    federation: Text
    site: Text
    run: Text
    notice: Sha256
    at: AwareDatetime
    receipts: Annotated[tuple[AnsweredReceipt, ...], Field(min_length=1, max_length=MAX_NOTICE_RECEIPTS)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        """Refuse an answer that names a receipt twice or out of order: its one spelling is signed."""
        named = [receipt.sha256 for receipt in self.receipts]
        if named != sorted(set(named)):
            raise ValueError("receipts are not sorted, or one is named twice")
        return self


_FORM: Final = StatementForm(
    NOTICE_TYPE,
    WithdrawalNotice,
    subject="receipt",
    subjects=lambda notice: [receipt.sha256 for receipt in notice.receipts],
    predicate=lambda notice: notice.model_dump(mode="json"),
    fields=lambda statement: dict(statement["predicate"]),
    refused=NoticeInvalid,
)


def sign_notice(notice: WithdrawalNotice, key: Ed25519PrivateKey) -> bytes:
    """Return the signed envelope of `notice`; `key` is the site's receipt key."""
    return _FORM.sign(notice, key)


def open_notice(envelope: bytes, key: Ed25519PublicKey, max_bytes: int = MAX_NOTICE_BYTES) -> WithdrawalNotice:
    """Return the notice in `envelope`, if the holder of `key` signed it.

    Raises: NoticeInvalid, as `StatementForm.open` says.
    """
    return _FORM.open(envelope, key, max_bytes)


_ANSWER: Final = StatementForm(
    ANSWER_TYPE,
    WithdrawalAnswer,
    subject="receipt",
    subjects=lambda answer: [receipt.sha256 for receipt in answer.receipts],
    predicate=lambda answer: answer.model_dump(mode="json"),
    fields=lambda statement: dict(statement["predicate"]),
    refused=AnswerInvalid,
)


def sign_answer(answer: WithdrawalAnswer, key: Ed25519PrivateKey) -> bytes:
    """Return the signed envelope of `answer`; `key` is the one the coordinator signs statements with."""
    return _ANSWER.sign(answer, key)


def is_answer_to(answer: WithdrawalAnswer, envelope: bytes, notice: WithdrawalNotice) -> bool:
    """Return whether `answer` speaks of `notice`, which was told in `envelope`, and of each of its receipts."""
    told = (notice.federation, notice.site, notice.run, hashlib.sha256(envelope).hexdigest())
    named = {receipt.sha256 for receipt in notice.receipts}
    said = (answer.federation, answer.site, answer.run, answer.notice)
    return (*said, {receipt.sha256 for receipt in answer.receipts}) == (*told, named)


def open_answer(envelope: bytes, key: Ed25519PublicKey, max_bytes: int = MAX_NOTICE_BYTES) -> WithdrawalAnswer:
    """Return the answer in `envelope`, if the holder of `key` signed it.

    Raises: AnswerInvalid, as `StatementForm.open` says.
    """
    return _ANSWER.open(envelope, key, max_bytes)
