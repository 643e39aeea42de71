"""Joining a federation: keys are born here, and only their public halves are sent.

An invitation is one JSON file with the coordinator's address, the certificate authority to trust, and a token that
works once. Nothing is written before the coordinator has accepted; a refused invitation leaves no trace. A site whose
membership was revoked joins its federation again with a new invitation, and with new keys.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consent import generate_signing_key
from site_node import release
from site_node.errors import ConfigurationError, PeerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from site_node.config import SiteHome

MAX_INVITATION_BYTES = 64 * 2**10

_Text = Annotated[str, Field(min_length=1, max_length=16_384)]


class Invitation(BaseModel):
    """What a coordinator gives to a hospital it invites."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    federation: _Text
    site: _Text
    join_url: Annotated[str, Field(pattern=r"^https://", max_length=16_384)]
    fleet_address: _Text
    authority: _Text
    token: _Text
    expires_at: _Text


def read_invitation(path: Path) -> Invitation:
    """Return the invitation in the file.

    Raises: ConfigurationError if it is not one.
    """
    try:
        content = path.read_bytes()[: MAX_INVITATION_BYTES + 1]
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return Invitation.model_validate_json(content[:MAX_INVITATION_BYTES])
    except ValidationError as error:
        keys = ", ".join(sorted({str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}))
        raise ConfigurationError(
            f"{path}: not an invitation: {keys or 'not JSON'}; ask the coordinator for the file again"
        ) from None


def join(home: SiteHome, site: str, invitation: Invitation) -> None:
    """Make this site a member: make its keys, have them accepted, and write the membership.

    Raises: ConfigurationError if the site is a member of another federation or the invitation is another site's;
        PeerError if the coordinator refuses.
    """
    if (home.identity / "membership.json").exists() and home.load_identity().federation != invitation.federation:
        raise ConfigurationError("this site is already a member of another federation")
    if invitation.site != site:
        raise ConfigurationError(f"the invitation is for site {invitation.site!r}, not {site!r}")
    tls, node = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    receipt = generate_signing_key()
    answer = release.join(
        invitation.join_url,
        invitation.authority,
        invitation.token,
        _signing_request(tls, site),
        {"node": _public(node), "receipt": _public(receipt)},
    )
    _check_certificate(answer, tls)
    files = {
        "tls.key": _private(tls),
        "node.key": _private(node),
        "receipt.key": _private(receipt),
        "tls.pem": answer["certificate"].encode(),
        "authority.pem": invitation.authority.encode(),
        "membership.json": json.dumps(
            {
                "federation": invitation.federation,
                "site": site,
                "fleet_address": invitation.fleet_address,
                "node_id": int(answer["node_id"]),
            }
        ).encode(),
    }
    _write_all(home.identity, files)


def _check_certificate(answer: Mapping[str, str], key: ec.EllipticCurvePrivateKey) -> None:
    try:
        certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
        int(answer["node_id"])
    except (KeyError, ValueError) as error:
        raise PeerError("joining: the coordinator's answer is malformed") from error
    if certificate.public_key() != key.public_key():
        raise PeerError("joining: the coordinator certified another key than ours")


def _signing_request(key: ec.EllipticCurvePrivateKey, site: str) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, each mode 0600; the membership, which makes them count, goes first and comes last."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "membership.json").unlink(missing_ok=True)
    (folder / "receipt.key.next").unlink(missing_ok=True)  # of a membership that ends now
    for name, content in files.items():
        part = folder / f".{name}.part"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)
