"""Who may use the console: names, roles, and passwords as Argon2id keeps them.

Five wrong passwords in a row lock an account for a while; a name that is not there takes as long to refuse as a wrong
password.

Source: RFC 9106 section 4, second recommended option; NIST SP 800-63B sections 5.1.1 and 5.2.2.
"""

from __future__ import annotations

import os
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from site_node import ledger
from site_node.errors import ConfigurationError
from site_node.store import account

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 1024
MAX_FAILURES: Final = 5
LOCKED_FOR: Final = timedelta(minutes=15)
_ITERATIONS, _LANES, _MEMORY_KIB = 3, 4, 64 * 1024


class Role(StrEnum):
    """What a person may do in the console."""

    CONSENT_MANAGER = "consent-manager"
    AUDITOR = "auditor"  # reads, and changes nothing


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may sign in, unless disabled."""

    name: str
    role: Role
    disabled: bool


def add(store: sa.Engine, name: str, role: Role, password: str, at: datetime) -> None:
    """Make an account, or give one that is there a new role and password.

    Raises: ConfigurationError if the name is empty, or the password too short or too long.
    """
    if not name.strip() or name != name.strip():
        raise ConfigurationError("an account has a name, without spaces around it")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigurationError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    values = {
        "role": role.value,
        "password": _kdf().derive_phc_encoded(password.encode()),
        "failures": 0,
        "locked_until": None,
        "disabled_at": None,
    }
    with store.begin() as db:
        changed = db.execute(sa.update(account).where(account.c.name == name).values(values))
        if changed.rowcount == 0:
            db.execute(sa.insert(account).values(name=name, **values))
        ledger.write(db, at, "site:account:added", account=name, role=role.value)


def disable(store: sa.Engine, name: str, at: datetime) -> None:
    """Let nobody sign in under a name any more, and end what is signed in.

    Raises: ConfigurationError if there is no such account.
    """
    with store.begin() as db:
        found = account.c.name == name
        changed = db.execute(sa.update(account).where(found).values(disabled_at=at.isoformat()))
        if changed.rowcount != 1:
            raise ConfigurationError(f"there is no account {name}")
        ledger.write(db, at, "site:account:disabled", account=name)


def known(db: sa.Connection) -> Sequence[Account]:
    """Return all accounts, by name."""
    rows = db.execute(sa.select(account).order_by(account.c.name))
    return [Account(row.name, Role(row.role), row.disabled_at is not None) for row in rows]


def active(db: sa.Connection, name: str) -> Account | None:
    """Return the account, if it is there and not disabled."""
    return next((one for one in known(db) if one.name == name and not one.disabled), None)


def sign_in(store: sa.Engine, name: str, password: str, at: datetime) -> Account | None:
    """Return the account if name and password are its own; None, and never why, if it may not sign in now."""
    with store.connect() as db:
        row = db.execute(sa.select(account).where(account.c.name == name)).first()
    is_right = _is_right(password, row.password if row else _NOBODYS)
    if row is None or row.disabled_at is not None or _is_locked(row.locked_until, at):
        return None
    with store.begin() as db:
        # Counted in the database: attempts that come together are each counted.
        found = account.c.name == name
        if is_right:
            db.execute(sa.update(account).where(found).values(failures=0, locked_until=None))
            ledger.write(db, at, "site:account:signed-in", account=name)
            return Account(name, Role(row.role), disabled=False)
        db.execute(sa.update(account).where(found).values(failures=account.c.failures + 1))
        if db.execute(sa.select(account.c.failures).where(found)).scalar_one() >= MAX_FAILURES:
            until = (at + LOCKED_FOR).isoformat()
            db.execute(sa.update(account).where(found).values(failures=0, locked_until=until))
            ledger.write(db, at, "site:account:locked", account=name)
    return None


def _is_right(password: str, kept: str) -> bool:
    try:
        Argon2id.verify_phc_encoded(password[: LONGEST_PASSWORD + 1].encode(), kept)
    except InvalidKey:
        return False
    return True


def _is_locked(until: str | None, at: datetime) -> bool:
    return until is not None and at < datetime.fromisoformat(until)


def _kdf() -> Argon2id:
    return Argon2id(salt=os.urandom(16), length=32, iterations=_ITERATIONS, lanes=_LANES, memory_cost=_MEMORY_KIB)


def _drawn(size: int) -> str:
    return b64encode(os.urandom(size)).decode().rstrip("=")


_COSTS: Final = f"m={_MEMORY_KIB},t={_ITERATIONS},p={_LANES}"
_NOBODYS: Final = f"$argon2id$v=19${_COSTS}${_drawn(16)}${_drawn(32)}"
"""Whoever is not there is asked as everybody is; what is drawn is no password's."""
