"""The keys that members sign receipts with: which is in force, and how one gives way to the next.

A key that was in force stays on record for good, so that what it signed can be verified; it is never taken again.
Whoever ends a key and whoever asks for it hold the member's row, and read the clock then: a receipt that counts came
before the moment that ended its key.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import sqlalchemy as sa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from consent import is_succession, key_id
from coordinator.errors import ConfigurationError, PeerError
from coordinator.store import member, retired_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from consent import Succession

RETIRED: Final = "key-retired"
REVOKED: Final = "key-revoked"
NOT_SIGNED: Final = "key-not-signed"
KNOWN: Final = "key-known"
REFUSALS: Final = frozenset({RETIRED, REVOKED, NOT_SIGNED, KNOWN})


class Term(NamedTuple):
    """A receipt key (PEM), and from when until when it was in force; `until` is None for one that is."""

    pem: bytes
    since: datetime
    until: datetime | None

    def holds(self, at: datetime) -> bool:
        """Return whether the key was in force at that moment."""
        return self.since <= at and (self.until is None or at <= self.until)


def read_key(pem: bytes) -> Ed25519PublicKey:
    """Return the public key in a PEM text.

    Raises: ValueError if it is no Ed25519 key.
    """
    try:
        key = load_pem_public_key(pem)
    except UnsupportedAlgorithm as error:
        raise ValueError("not a receipt key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not a receipt key")  # noqa: TRY004 -- the text is wrong, not its type
    return key


def take_over(
    store: sa.Engine, federation: str, certificate_sha256: str, asked: Succession, clock: Callable[[], datetime]
) -> None:
    """Make the new key that of the member with this certificate; asked again for the same key, change nothing.

    Raises: PeerError with `key-revoked`, `key-not-signed` or `key-known` (it is or was in force somewhere).
    """
    with store.begin() as db:
        this = (member.c.certificate_sha256 == certificate_sha256) & member.c.revoked_at.is_(None)
        hold(db, this)
        at = clock()
        row = db.execute(sa.select(member).where(this)).first()
        if row is None:
            raise PeerError("not a member")
        if row.key_revoked_at is not None:
            raise PeerError(REVOKED)
        old, before = read_key(row.receipt_key), _last_retired(db, row.node_id)
        if key_id(old) == key_id(asked.key) and before is not None:
            if not is_succession(asked, federation, row.site, before):
                raise PeerError(NOT_SIGNED)
            return
        if not is_succession(asked, federation, row.site, old):
            raise PeerError(NOT_SIGNED)
        if key_id(asked.key) in _known(db):
            raise PeerError(KNOWN)
        since = row.key_since or row.joined_at
        retired = {"key_id": key_id(old), "node_id": row.node_id, "public_key": row.receipt_key}
        db.execute(sa.insert(retired_key).values(**retired, since=since, until=at.isoformat()))
        pem = asked.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        changed = sa.update(member).where(member.c.node_id == row.node_id)
        db.execute(changed.values(receipt_key=pem, key_since=at.isoformat()))


def hold(db: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Let no other transaction end a key of these members, or ask for it, until this one has ended."""
    db.execute(sa.update(member).where(which).values(site=member.c.site))


def revoke(store: sa.Engine, site: str, clock: Callable[[], datetime]) -> None:
    """Count no receipt by the key of this member any more; it may be invited again, and joins with new keys.

    Raises: ConfigurationError if it is no member, or its key is revoked.
    """
    in_force = (member.c.site == site) & member.c.revoked_at.is_(None) & member.c.key_revoked_at.is_(None)
    with store.begin() as db:
        hold(db, in_force)
        changed = db.execute(sa.update(member).where(in_force).values(key_revoked_at=clock().isoformat()))
        if changed.rowcount != 1:
            raise ConfigurationError(f"{site} is not a member with a receipt key in force")


def why_not(store: sa.Engine, node_id: int, envelope: bytes) -> str:
    """Return why the key that a node's receipt names counts no more; empty if it does, or was never the node's."""
    this, columns = member.c.node_id == str(node_id), retired_key.c
    with store.connect() as db:  # nothing is written
        hold(db, this)
        row = db.execute(sa.select(member).where(this)).first()
        retired = db.execute(sa.select(columns.key_id).where(columns.node_id == str(node_id))).scalars().all()
    ended = row is not None and _ended(row) is not None
    if row is not None and ended and key_id(read_key(row.receipt_key)).encode() in envelope:
        return REVOKED
    return RETIRED if any(name.encode() in envelope for name in retired) else ""


def all_keys(store: sa.Engine) -> dict[str, list[Term]]:
    """Return the receipt keys that each site ever had, oldest first."""
    keys: dict[str, list[Term]] = {}
    with store.connect() as db:
        for row in db.execute(sa.select(member).order_by(member.c.joined_at)):
            since = datetime.fromisoformat(row.key_since or row.joined_at)
            keys.setdefault(row.site, []).extend(
                [*_retired(db, row.node_id), Term(row.receipt_key, since, _ended(row))]
            )
    return keys


def _ended(row: sa.Row[tuple[object, ...]]) -> datetime | None:
    """Return when the last key of a membership ended: by itself or with the membership; None if it did not."""
    ends = [datetime.fromisoformat(str(at)) for at in (row.revoked_at, row.key_revoked_at) if at is not None]
    return min(ends, default=None)


def _retired(db: sa.Connection, node_id: str) -> list[Term]:
    query = sa.select(retired_key).where(retired_key.c.node_id == node_id).order_by(retired_key.c.until)
    return [
        Term(row.public_key, datetime.fromisoformat(row.since), datetime.fromisoformat(row.until))
        for row in db.execute(query)
    ]


def _last_retired(db: sa.Connection, node_id: str) -> Ed25519PublicKey | None:
    keys = _retired(db, node_id)
    return read_key(keys[-1].pem) if keys else None


def _known(db: sa.Connection) -> set[str]:
    pems = db.execute(sa.select(member.c.receipt_key)).scalars()
    return {*(key_id(read_key(pem)) for pem in pems), *db.execute(sa.select(retired_key.c.key_id)).scalars()}
