"""What S3 Object Lock says of an object: values, without a network.

Source: Amazon S3 user guide, "Locking objects with Object Lock".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

COMPLIANCE = "COMPLIANCE"
GOVERNANCE = "GOVERNANCE"


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock of one version; without one, `mode` is empty and `until` None."""

    mode: str
    until: datetime | None
    hold: bool

    def holds_until(self, moment: datetime) -> bool:
        """Return whether nobody can delete the version before `moment`, as the endpoint tells it."""
        return self.mode == COMPLIANCE and self.until is not None and self.until >= moment


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, or a delete marker.

    `at` is when the endpoint took it, `etag` its word for the bytes, `owner` whom it names; a read without a version
    gets the latest.
    """

    name: str
    version_id: str
    at: datetime
    size: int
    is_marker: bool
    is_latest: bool = False
    etag: str = ""
    owner: str = ""
