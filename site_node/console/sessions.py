"""Who is signed in. Kept in memory: a console that starts anew has nobody signed in.

Source: NIST SP 800-63B section 4.2.3 (a session ends after inactivity, and after a working day in any case).
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from site_node.accounts import Account
    from site_node.consents import WithdrawalScope

IDLE: Final = timedelta(minutes=15)
LONGEST: Final = timedelta(hours=8)


@dataclass(frozen=True, slots=True)
class Shown:
    """A withdrawal of `patient` (pseudonym) whose preview was shown; the form that follows names the ticket."""

    patient: str
    scope: WithdrawalScope
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(16))


@dataclass(slots=True)
class Session:
    """A person at the console; `form_token` stands in each of its forms."""

    account: Account
    began_at: datetime
    seen_at: datetime
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    shown: Shown | None = None


class Sessions:
    """All who are signed in, by a digest of what their browsers hold."""

    def __init__(self) -> None:
        self._by_digest: dict[str, Session] = {}

    def open(self, account: Account, at: datetime) -> str:
        """Begin a session, and return what the browser holds from now on."""
        token = secrets.token_urlsafe(32)
        self._by_digest[_digest(token)] = Session(account, at, at)
        return token

    def get(self, token: str, at: datetime) -> Session | None:
        """Return the session, unless it was idle too long or began too long ago; it was used at `at`."""
        session = self._by_digest.get(_digest(token))
        if session is None:
            return None
        if at - session.seen_at >= IDLE or at - session.began_at >= LONGEST:
            self.close(token)
            return None
        session.seen_at = at
        return session

    def close(self, token: str) -> None:
        """End a session; nothing happens if there is none."""
        self._by_digest.pop(_digest(token), None)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
