"""Members of the federation: inviting a hospital, and taking it in with the keys that were born there.

An invitation works once and for one site; of its token only a digest is kept.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from consent import key_id
from coordinator.errors import ConfigurationError, PeerError
from coordinator.receipt_keys import hold
from coordinator.store import invitation, log_head, member, receipt_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinator.authority import Authority
    from coordinator.config import CoordinatorConfig

INVITATION_LIFE = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Member:
    """A hospital of the federation, by its site name."""

    site: str
    node_id: int
    receipt_key: Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """What a site sends to become a member; PEM texts."""

    token: str
    signing_request: bytes
    node_key: bytes
    receipt_key: bytes


def invite(store: sa.Engine, config: CoordinatorConfig, authority: Authority, site: str, at: datetime) -> str:
    """Return the invitation for `site`, as the JSON text of its file.

    An unused earlier invitation of the same site stops working. A site that was revoked, or its receipt key, may be
    invited again.
    Raises: ConfigurationError if the site is a member already, or its name cannot be one.
    """
    if not site.isidentifier():
        raise ConfigurationError(f"site: {site!r} must be letters, digits and _")
    token = secrets.token_urlsafe(32)
    expires_at = (at + INVITATION_LIFE).isoformat()
    with store.begin() as db:
        in_force = (member.c.revoked_at.is_(None), member.c.key_revoked_at.is_(None))
        if db.execute(sa.select(member.c.site).where(member.c.site == site, *in_force)).first():
            raise ConfigurationError(f"{site} is a member already")
        db.execute(sa.delete(invitation).where(invitation.c.site == site))
        db.execute(sa.insert(invitation).values(token_sha256=_digest(token), site=site, expires_at=expires_at))
    document = {
        "federation": config.federation,
        "site": site,
        "join_url": f"https://{config.host}:{config.join_port}",
        "fleet_address": f"{config.host}:{config.fleet_port}",
        "authority": authority.certificate.read_text(),
        "token": token,
        "expires_at": expires_at,
    }
    return json.dumps(document, indent=2)


def take_in(
    store: sa.Engine,
    authority: Authority,
    register: Callable[[bytes, str], int],
    request: JoinRequest,
    at: datetime,
) -> dict[str, str]:
    """Make the site of the request's invitation a member; return its certificate and node id.

    With the new keys the site's receipts form a new chain.
    Raises: PeerError if the invitation is unknown, used or expired, or a key is not what it must be.
    """
    _check_keys(request)
    with store.begin() as db:
        row = db.execute(sa.select(invitation).where(invitation.c.token_sha256 == _digest(request.token))).first()
        if row is None or row.used_at or datetime.fromisoformat(row.expires_at) <= at:
            raise PeerError("the invitation is unknown, used or expired")
        certificate = authority.sign_member(request.signing_request, row.site, at)
        node_id = register(request.node_key, row.site)
        if db.execute(sa.select(member.c.site).where(member.c.node_id == str(node_id))).first():
            raise PeerError("the node key is another member's")
        db.execute(sa.update(invitation).where(invitation.c.site == row.site).values(used_at=at.isoformat()))
        with_revoked_key = (
            member.c.site == row.site,
            member.c.revoked_at.is_(None),
            member.c.key_revoked_at.is_not(None),
        )
        db.execute(sa.update(member).where(*with_revoked_key).values(revoked_at=at.isoformat()))
        db.execute(
            sa.insert(member).values(
                site=row.site,
                node_id=str(node_id),
                node_key=request.node_key,
                receipt_key=request.receipt_key,
                certificate_sha256=_fingerprint(certificate),
                joined_at=at.isoformat(),
            )
        )
    return {"certificate": certificate.decode(), "node_id": str(node_id)}


def active(store: sa.Engine) -> list[Member]:
    """Return the members that may contribute: neither they nor their keys are revoked; by name."""
    in_force = (member.c.revoked_at.is_(None), member.c.key_revoked_at.is_(None))
    query = sa.select(member).where(*in_force).order_by(member.c.site)
    with store.connect() as db:
        return [Member(row.site, int(row.node_id), _receipt_key(row.receipt_key)) for row in db.execute(query)]


def admits(store: sa.Engine, certificate_sha256: str) -> bool:
    """Return whether the certificate with this digest is that of a member who is not revoked."""
    query = sa.select(member.c.site).where(
        member.c.certificate_sha256 == certificate_sha256, member.c.revoked_at.is_(None)
    )
    with store.connect() as db:
        return db.execute(query).first() is not None


def by_certificate(store: sa.Engine, certificate_sha256: str) -> Member:
    """Return the member who shows the certificate with this digest.

    Raises: PeerError if nobody does, or the membership was revoked.
    """
    query = sa.select(member).where(member.c.certificate_sha256 == certificate_sha256, member.c.revoked_at.is_(None))
    with store.connect() as db:
        row = db.execute(query).first()
    if row is None:
        raise PeerError("not a member")
    return Member(row.site, int(row.node_id), _receipt_key(row.receipt_key))


def revoke(store: sa.Engine, site: str, clock: Callable[[], datetime]) -> None:
    """Let a member in no longer, from this moment on; what it contributed stays on the record.

    Raises: ConfigurationError if it is no member.
    """
    this = (member.c.site == site) & member.c.revoked_at.is_(None)
    with store.begin() as db:
        hold(db, this)
        changed = db.execute(sa.update(member).where(this).values(revoked_at=clock().isoformat()))
        if changed.rowcount != 1:
            raise ConfigurationError(f"{site} is not a member")


def heads(store: sa.Engine) -> dict[str, str]:
    """Return the last receipt seen of each member, by its digest; one of an earlier membership is none of these."""
    query = (
        sa.select(receipt_head, member.c.receipt_key)
        .join(member, member.c.site == receipt_head.c.site)
        .where(member.c.revoked_at.is_(None))
    )
    with store.connect() as db:
        rows = db.execute(query).all()
    return {row.site: row.digest for row in rows if key_id(_receipt_key(row.receipt_key)).encode() in row.receipt}


def logs(store: sa.Engine) -> dict[str, tuple[int, str]]:
    """Return size and root of each member's consent log as it was accepted last, by the key it has now."""
    query = sa.select(log_head, member.c.receipt_key).join(member, member.c.site == log_head.c.site)
    with store.connect() as db:
        rows = db.execute(query.where(member.c.revoked_at.is_(None))).all()
    return {row.site: (row.size, row.root) for row in rows if key_id(_receipt_key(row.receipt_key)) == row.key_id}


def _check_keys(request: JoinRequest) -> None:
    try:
        node = load_pem_public_key(request.node_key)
        receipt = load_pem_public_key(request.receipt_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PeerError("a public key is malformed") from error
    if not (isinstance(node, ec.EllipticCurvePublicKey) and isinstance(receipt, Ed25519PublicKey)):
        raise PeerError("a public key is of the wrong kind")


def _receipt_key(pem: bytes) -> Ed25519PublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError("a member's receipt key is not an Ed25519 key")
    return key


def _fingerprint(certificate: bytes) -> str:
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
