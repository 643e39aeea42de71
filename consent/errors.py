"""Errors of the consent package.

ConsentError
├── UnreadableConsent   a resource is no Consent, or names no id or no patient
├── DataUseInvalid      a dataset's terms of use cannot be read
├── CheckpointInvalid   a checkpoint, a key's text or a request to a witness is not what it must be
└── StatementInvalid    a signed statement is not what its signer signed
    ├── ReceiptInvalid     the receipt of an update
    ├── NoticeInvalid      the notice of a withdrawal
    ├── AnswerInvalid      the coordinator's answer to one
    │   └── SignerInvalid  the certificate of the key that signed it
    └── StatisticsInvalid  consent statistics
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConsentError(Exception):
    """Root of this package's errors."""


class UnreadableConsent(ConsentError):
    """A resource from which no consent record can be made; the message holds no patient value.

    `names` are the elements that could be read all the same, to tell which resource it is.
    """

    def __init__(self, reason: str, names: Mapping[str, object] | None = None) -> None:
        super().__init__(reason)
        self.names = names


class DataUseInvalid(ConsentError):
    """A dataset's terms of use are not in the expected form."""


class _Refused(ConsentError):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class CheckpointInvalid(_Refused):
    """A checkpoint was refused; `reason` is a fixed word for the ledger."""


class StatementInvalid(_Refused):
    """A signed statement was refused; `reason` is a fixed word for the ledger."""


class ReceiptInvalid(StatementInvalid):
    """A consent receipt was refused."""


class StatisticsInvalid(StatementInvalid):
    """A statement of consent statistics was refused."""


class NoticeInvalid(StatementInvalid):
    """A withdrawal notice was refused."""


class AnswerInvalid(StatementInvalid):
    """An answer to a withdrawal notice was refused."""


class SignerInvalid(AnswerInvalid):
    """The authority does not vouch for the key that signed."""
