"""Who stands behind a pseudonym: sealed at intake, opened only by two people together.

Identities are sealed with AES-256-GCM under a key made from the identity key and the pseudonym key, so that neither
opens them alone and the destruction of a project's key closes its identities for good, in every copy of the database.
They can be looked up by pseudonym and by nothing else. What is kept is the least that finds the patient in the
hospital's own systems: PatientID and UIDs, no name. The ledger says who asked, who approved and who saw, never what.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from consent import Deny, same_person
from site_node import keys, ledger, project_keys
from site_node.deidentify.pseudonym import Known
from site_node.errors import ConfigurationError
from site_node.store import identity, reidentification

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from site_node.deidentify.pseudonym import Pseudonymiser

PATIENT = "patient"
VALID_FOR = timedelta(days=7)
_NONCE_BYTES = 12  # NIST SP 800-38D section 8.2.2; random, and far fewer than 2**32 rows under one key
_IN_ONE_QUERY = 500


class Vault:
    """Seals and opens the identities behind the pseudonyms of one key."""

    __slots__ = ("_cipher", "key_id")

    def __init__(self, identity_key: bytes, pseudonymiser: Pseudonymiser) -> None:
        self.key_id = pseudonymiser.key_id
        both = identity_key + pseudonymiser.subkey("identities")
        info = f"filmroom/identities/{self.key_id}".encode()
        self._cipher = AESGCM(HKDF(hashes.SHA256(), keys.KEY_BYTES, None, info).derive(both))

    def seal(self, known: Known) -> bytes:
        """Return nonce and ciphertext; they open for this kind and pseudonym alone."""
        nonce = os.urandom(_NONCE_BYTES)
        plain = known.original.encode("utf-8", "surrogateescape")
        return nonce + self._cipher.encrypt(nonce, plain, self._bound(known.kind, known.pseudonym))

    def open(self, kind: str, pseudonym: str, sealed: bytes) -> str:
        """Return the original.

        Raises: ConfigurationError if it was sealed under other keys, or is not what was sealed.
        """
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            plain = self._cipher.decrypt(nonce, ciphertext, self._bound(kind, pseudonym))
        except InvalidTag as error:
            raise ConfigurationError("identity: sealed under another key, or altered") from error
        return plain.decode("utf-8", "surrogateescape")

    def _bound(self, kind: str, pseudonym: str) -> bytes:
        return f"{self.key_id}\0{kind}\0{pseudonym}".encode()


@dataclass(frozen=True, slots=True)
class Vaults:
    """The vaults of the site's own key and of its projects' keys."""

    root: Path
    identity_key: bytes = field(repr=False)
    site: Pseudonymiser

    def of(self, db: sa.Connection, key_id: str) -> Vault | None:
        """Return the vault of a key; None if that key is destroyed."""
        if key_id == self.site.key_id:
            return Vault(self.identity_key, self.site)
        made = project_keys.by_id(db, self.root, key_id)
        return Vault(self.identity_key, made) if made else None


def open_identity_key(store: sa.Engine, reference: str, root: Path) -> bytes:
    """Return the identity key; a site that keeps no identities yet is given one, where it lies in a file.

    Raises: ConfigurationError if the key is missing though identities are sealed under it, or is not kept as a secret.
    """
    path = root / reference.removeprefix("file:")
    if keys.is_file(reference) and not path.exists():
        with store.connect() as db:
            needed = db.execute(sa.select(identity.c.key_id).limit(1)).first() is not None
        if not needed:
            keys.make_file(path, os.urandom(keys.KEY_BYTES))
    return keys.load(reference, root, keys.IDENTITIES)


def remember(db: sa.Connection, vault: Vault, originals: Iterable[Known]) -> int:
    """Keep the originals of pseudonyms not kept yet, sealed, in the transaction of `db`; return how many were new."""
    found = {known.pseudonym: known for known in originals}
    columns = identity.c
    pseudonyms = list(found)
    for start in range(0, len(pseudonyms), _IN_ONE_QUERY):
        some = pseudonyms[start : start + _IN_ONE_QUERY]
        query = sa.select(columns.pseudonym).where(columns.key_id == vault.key_id, columns.pseudonym.in_(some))
        for pseudonym in db.scalars(query):
            del found[pseudonym]
    if found:
        db.execute(
            sa.insert(identity),
            [
                {"key_id": vault.key_id, "pseudonym": new.pseudonym, "kind": new.kind, "sealed": vault.seal(new)}
                for new in found.values()
            ],
        )
    return len(found)


class State(StrEnum):
    """Where a request stands."""

    ASKED = "asked"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    SHOWN = "shown"


class Event(StrEnum):
    """What a person may want of a request."""

    APPROVE = "approve"
    DENY = "deny"
    SHOW = "show"


# Every legal step; the rest is refused.
TRANSITIONS = {
    (State.ASKED, Event.APPROVE): State.APPROVED,
    (State.ASKED, Event.DENY): State.DENIED,
    (State.APPROVED, Event.DENY): State.DENIED,
    (State.APPROVED, Event.SHOW): State.SHOWN,
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request to learn one identity, or all that one key stands for (no pseudonym)."""

    number: int
    pseudonym: str | None
    key_id: str
    reason: str
    requested_by: str
    requested_at: str
    expires_at: str
    approved_by: str | None
    denied_by: str | None
    shown_at: str | None

    def state(self, at: datetime) -> State:
        """Return where the request stands at a moment."""
        if self.shown_at:
            return State.SHOWN
        if self.denied_by:
            return State.DENIED
        if datetime.fromisoformat(self.expires_at) <= at:
            return State.EXPIRED
        return State.APPROVED if self.approved_by else State.ASKED


def request(
    store: sa.Engine,
    vaults: Vaults,
    pseudonym: str,
    reason: str,
    by: str,
    at: datetime,
    valid_for: timedelta = VALID_FOR,
) -> int | Deny:
    """Ask who stands behind a pseudonym; return the number that another person approves.

    The reason is read by others and must not name the patient.
    """
    with store.begin() as db:
        row = db.execute(sa.select(identity).where(identity.c.pseudonym == pseudonym)).first()
        if row is None:
            return _refuse(db, at, by, None, "no identity is kept for that pseudonym")
        vault = vaults.of(db, row.key_id)
        if vault is None:
            return _refuse(db, at, by, None, "the key of that pseudonym is destroyed")
        if _names(reason, vault.open(row.kind, pseudonym, row.sealed)):
            return _refuse(db, at, by, None, "the reason names the patient")
        return _ask(db, pseudonym, row.key_id, reason, by, at, valid_for)


def request_map(
    store: sa.Engine, key_id: str, reason: str, by: str, at: datetime, valid_for: timedelta = VALID_FOR
) -> int | Deny:
    """Ask for everything one key stands for; return the number that another person approves."""
    with store.begin() as db:
        if db.execute(sa.select(identity.c.key_id).where(identity.c.key_id == key_id).limit(1)).first() is None:
            return _refuse(db, at, by, None, "no identity is kept under that key")
        return _ask(db, None, key_id, reason, by, at, valid_for)


def approve(store: sa.Engine, number: int, by: str, at: datetime) -> Request | Deny:
    """Approve a request; not by who made it, and not after its end."""
    with store.begin() as db:
        asked = _may(db, number, Event.APPROVE, at, by)
        if isinstance(asked, Deny):
            return asked
        if same_person(asked.requested_by, by):
            return _refuse(db, at, by, number, "who asks cannot approve: another person must")
        _step(db, asked, "site:reidentification:approved", by, at, approved_by=by, approved_at=at.isoformat())
        return replace(asked, approved_by=by)


def deny(store: sa.Engine, number: int, by: str, at: datetime) -> Request | Deny:
    """Deny a request for good, or take an approval back before it was used."""
    with store.begin() as db:
        asked = _may(db, number, Event.DENY, at, by)
        if isinstance(asked, Deny):
            return asked
        _step(db, asked, "site:reidentification:denied", by, at, denied_by=by, denied_at=at.isoformat())
        return replace(asked, denied_by=by)


def show(store: sa.Engine, vaults: Vaults, number: int, by: str, at: datetime) -> Known | Deny:
    """Return who stands behind the pseudonym of an approved request; once, and to who asked.

    It is on the record as shown before it is shown: after a crash between the two it must be asked for again.
    """
    with store.begin() as db:
        asked = _may_see(db, number, by, at)
        if isinstance(asked, Deny):
            return asked
        if asked.pseudonym is None:
            return _refuse(db, at, by, number, "this request is for a map")
        query = sa.select(identity).where(identity.c.key_id == asked.key_id, identity.c.pseudonym == asked.pseudonym)
        row, vault = db.execute(query).first(), vaults.of(db, asked.key_id)
        if row is None or vault is None:
            return _refuse(db, at, by, number, "the key of that pseudonym is destroyed")
        known = Known(row.kind, row.pseudonym, vault.open(row.kind, row.pseudonym, row.sealed))
        _step(db, asked, "site:reidentification:shown", by, at, shown_at=at.isoformat())
    return known


def show_map(store: sa.Engine, vaults: Vaults, number: int, by: str, at: datetime) -> list[Known] | Deny:
    """Return everything the key of an approved request stands for; once, and to who asked."""
    with store.begin() as db:
        asked = _may_see(db, number, by, at)
        if isinstance(asked, Deny):
            return asked
        if asked.pseudonym is not None:
            return _refuse(db, at, by, number, "this request is for one pseudonym")
        vault = vaults.of(db, asked.key_id)
        if vault is None:
            return _refuse(db, at, by, number, "that key is destroyed")
        known = list(_everything(db, vault))
        _step(db, asked, "site:reidentification:mapped", by, at, shown_at=at.isoformat())
    return known


def requests(db: sa.Connection) -> list[Request]:
    """Return every request, oldest first."""
    columns = reidentification.c
    query = sa.select(*_columns()).order_by(columns.number)
    return [Request(**row) for row in db.execute(query).mappings()]


def _names(text: str, original: str) -> bool:
    """Return whether `text` has the original as a word of its own, in any case."""
    return (
        bool(original.strip())
        and re.search(rf"(?<!\w){re.escape(original.strip())}(?!\w)", text, re.IGNORECASE) is not None
    )


def _everything(db: sa.Connection, vault: Vault) -> Iterator[Known]:
    columns = identity.c
    query = sa.select(identity).where(columns.key_id == vault.key_id).order_by(columns.kind, columns.pseudonym)
    for row in db.execute(query):
        yield Known(row.kind, row.pseudonym, vault.open(row.kind, row.pseudonym, row.sealed))


def _request(db: sa.Connection, number: int) -> Request | None:
    row = db.execute(sa.select(*_columns()).where(reidentification.c.number == number)).mappings().first()
    return Request(**row) if row else None


def _columns() -> list[sa.Column[str]]:
    return [reidentification.c[name] for name in Request.__slots__]


def _ask(
    db: sa.Connection, pseudonym: str | None, key_id: str, reason: str, by: str, at: datetime, valid_for: timedelta
) -> int | Deny:
    if not reason.strip() or not by.strip():
        return _refuse(db, at, by, None, "a request has a reason and says who asks")
    values = {
        "pseudonym": pseudonym,
        "key_id": key_id,
        "reason": reason,
        "requested_by": by,
        "requested_at": at.isoformat(),
        "expires_at": (at + valid_for).isoformat(),
    }
    added = db.execute(sa.insert(reidentification).values(values).returning(reidentification.c.number))
    number = int(added.scalar_one())
    what = {"pseudonym": pseudonym} if pseudonym else {"map": key_id}
    ledger.write(db, at, "site:reidentification:requested", number=number, **what, reason=reason, by=by)
    return number


def _may(db: sa.Connection, number: int, event: Event, at: datetime, by: str) -> Request | Deny:
    if not by.strip():
        return _refuse(db, at, by, number, "the record says who does it")
    asked = _request(db, number)
    if asked is None:
        return _refuse(db, at, by, number, "there is no such request")
    state = asked.state(at)
    if (state, event) not in TRANSITIONS:
        return _refuse(db, at, by, number, f"the request is {state}")
    return asked


def _may_see(db: sa.Connection, number: int, by: str, at: datetime) -> Request | Deny:
    asked = _may(db, number, Event.SHOW, at, by)
    if isinstance(asked, Request) and not same_person(asked.requested_by, by):
        return _refuse(db, at, by, number, "it is shown to who asked, and to nobody else")
    return asked


def _step(db: sa.Connection, asked: Request, entry: str, by: str, at: datetime, **values: str) -> None:
    db.execute(sa.update(reidentification).where(reidentification.c.number == asked.number).values(values))
    ledger.write(db, at, entry, number=asked.number, by=by)


def _refuse(db: sa.Connection, at: datetime, by: str, number: int | None, reason: str) -> Deny:
    """Put a refusal on the record and return it."""
    which = {} if number is None else {"number": number}
    ledger.write(db, at, "site:reidentification:refused", **which, reason=reason, by=by)
    return Deny(reason)
