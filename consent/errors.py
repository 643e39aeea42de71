"""Errors of the consent package.

ConsentError
├── UnreadableConsent   a resource is no Consent, or names no id or no patient
├── DataUseInvalid      a dataset's terms of use cannot be read
└── StatementInvalid    a signed statement is not what its site signed
    ├── ReceiptInvalid  the receipt of an update
    └── NoticeInvalid   the notice of a withdrawal
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


class StatementInvalid(ConsentError):
    """A signed statement was refused; `reason` is a fixed word for the ledger."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class ReceiptInvalid(StatementInvalid):
    """A consent receipt was refused."""


class NoticeInvalid(StatementInvalid):
    """A withdrawal notice was refused."""
