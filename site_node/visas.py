"""GA4GH visas for grants: signed with a key of the site's own that serves for nothing else.

The key is born here and stays; its public half goes out as a JWKS file. joserfc signs, and is installed where a site
gives out visas at all (extra `visas`). A visa that was given out cannot be called back: it ends by its own end.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from consent import (
    VISA_TYPE,
    AccessRequest,
    DataUseDecision,
    Deny,
    generate_signing_key,
    match_data_use,
    permits_dataset,
    visa_claims,
)
from site_node import access_requests, keys, ledger, permissions
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    import sqlalchemy as sa
    from joserfc.jwk import Key

    from consent import VisaParties

MISSING: Final = "GA4GH visas need one package more: install filmroom with the extra `visas`"


class Algorithm(StrEnum):
    """What a visa is signed with: RFC 9864 section 2.2, and ES256, which AAI 1.2 names beside RS256."""

    ED25519 = "Ed25519"
    ES256 = "ES256"


_BORN: Final[dict[Algorithm, Callable[[], Ed25519PrivateKey | ec.EllipticCurvePrivateKey]]] = {
    Algorithm.ED25519: generate_signing_key,
    Algorithm.ES256: lambda: ec.generate_private_key(ec.SECP256R1()),
}


@dataclass(frozen=True, slots=True)
class Visa:
    """A signed visa (JWS compact serialisation), and what it claims."""

    token: str
    claims: dict[str, Any]


def issue(
    store: sa.Engine,
    folder: Path,
    number: int,
    parties: VisaParties,
    jku: str,
    by: str,
    at: datetime,
    algorithm: Algorithm = Algorithm.ED25519,
    until: datetime | None = None,
) -> Visa | Deny:
    """Return a visa for the grant of a request, and put it on record before it is handed out; or why there is none.

    Raises: ConfigurationError if joserfc is not installed or the key is not kept as a secret.
    """
    key = _key(folder, algorithm)
    with store.begin() as db:
        claims = _claims(db, number, parties, at, until)
        if isinstance(claims, Deny):
            ledger.write(db, at, "site:visa:refused", request=number, reason=claims.reason, by=by)
            return claims
        kid = key.thumbprint()
        ledger.write(
            db, at, "site:visa:issued", request=number, jti=claims["jti"], exp=claims["exp"], kid=kid,
            subject=parties.subject, by=by,
        )  # fmt: skip
    return Visa(_signed(claims, key, algorithm, jku), claims)


def jwks(folder: Path) -> dict[str, Any]:
    """Return the public keys of this site's visas (RFC 7517 section 5); those of every algorithm it ever used.

    Raises: ConfigurationError as `issue` does.
    """
    made = [algorithm for algorithm in Algorithm if _path(folder, algorithm).exists()]
    return {"keys": [_public(_key(folder, algorithm), algorithm) for algorithm in made]}


def _public(key: Key, algorithm: Algorithm) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": algorithm.value, "use": "sig"}


def _claims(
    db: sa.Connection, number: int, parties: VisaParties, at: datetime, until: datetime | None
) -> dict[str, Any] | Deny:
    request = access_requests.find(db, number)
    grant = request.grant
    data = permissions.datasets(db).get(request.form.dataset)
    if grant is None or data is None:
        return Deny("grant: never approved here")
    refusal = _refusal(request, data, at)
    if refusal is not None:
        return refusal
    ends = (grant.expires_at, data.terms.expiry(grant.granted_at), until)
    grant = replace(grant, expires_at=min(end for end in ends if end is not None))
    return visa_claims(grant, request.conditions, parties, str(uuid.uuid4()), at)


def _refusal(request: AccessRequest, data: permissions.Dataset, at: datetime) -> Deny | None:
    """Return why the dataset may not be used although access was granted, as the gate asks it in every round."""
    approved = permits_dataset([data.approval] if data.approval else [], data.name, at)
    if isinstance(approved, Deny):
        return approved
    verdict = match_data_use(data.terms, request.form.purpose, at)
    return Deny(f"data use: {', '.join(verdict.reasons)}") if verdict.decision is DataUseDecision.DENY else None


def _signed(claims: dict[str, Any], key: Key, algorithm: Algorithm, jku: str) -> str:
    from joserfc import jwt  # noqa: PLC0415 -- an extra; `_key` has said so already where it is missing

    header = {"typ": VISA_TYPE, "alg": algorithm.value, "kid": key.thumbprint(), "jku": jku}
    return jwt.encode(header, claims, key, algorithms=[algorithm.value])


def _key(folder: Path, algorithm: Algorithm) -> Key:
    """Return the signing key, made now if there is none."""
    try:
        from joserfc.jwk import ECKey, OKPKey  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise ConfigurationError(MISSING) from error
    path = _path(folder, algorithm)
    if not path.exists():
        born = _BORN[algorithm]()
        keys.make_file(path, born.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        loaded = load_pem_private_key(keys.read_secret(path), password=None)
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged: restore it from a backup") from error
    if algorithm is Algorithm.ED25519 and isinstance(loaded, Ed25519PrivateKey):
        return OKPKey.import_key(loaded)
    if algorithm is Algorithm.ES256 and isinstance(loaded, ec.EllipticCurvePrivateKey):
        return ECKey.import_key(loaded)
    raise ConfigurationError(f"{path}: not a key for {algorithm}")


def _path(folder: Path, algorithm: Algorithm) -> Path:
    return folder / f"visa-{algorithm.value.lower()}.key"
