"""Errors of the consent package.

ConsentError
├── UnreadableConsent   a resource is no Consent, or names no id or no patient
├── DataUseInvalid      a dataset's terms of use cannot be read
├── ReceiptInvalid      a consent receipt is not what its site signed
└── CheckpointInvalid   a checkpoint, a key's text or a request to a witness is not what it must be
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


class ReceiptInvalid(ConsentError):
    """A consent receipt was refused; `reason` is a fixed word for the ledger."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class CheckpointInvalid(ConsentError):
    """A checkpoint was refused; `reason` is a fixed word for the ledger."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
