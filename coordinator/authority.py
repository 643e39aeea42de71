"""The federation's certificate authority: it signs the coordinator's server and the members' client certificates.

The authority's key is born on the coordinator and stays there, mode 0600. A member's private key is born at the member:
only a signing request arrives here.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from consent import signer_name
from coordinator.errors import ConfigurationError, PeerError

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
# Clocks differ; a certificate made now must be valid for a peer that is a little behind.
BACKDATE = timedelta(minutes=5)


class Signer(NamedTuple):
    """The key of the coordinator's statements, and its certificate (PEM)."""

    key: Ed25519PrivateKey
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority's certificate and key files, and the server's."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """PEM of the authority; public."""
        return self.folder / "authority.pem"

    @property
    def server_certificate(self) -> Path:
        """PEM chain of the coordinator's listeners."""
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        """Key of the coordinator's listeners."""
        return self.folder / "server.key"

    def sign_member(self, request_pem: bytes, site: str, at: datetime) -> bytes:
        """Return a client certificate (PEM) for `site` over the key of its signing request.

        Raises: PeerError if the request is not a well-formed, self-signed request on an EC key.
        """
        try:
            request = x509.load_pem_x509_csr(request_pem)
        except ValueError as error:
            raise PeerError("the certificate signing request is malformed") from error
        key = request.public_key()
        if not request.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise PeerError("the certificate signing request is not self-signed on an EC key")
        leaf = _leaf(site, key, at).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        return self._sign(leaf)

    def statement_signer(self, federation: str, at: datetime) -> Signer:
        """Return the key that the coordinator signs statements with, and its certificate as of `at`.

        The key is made at the first call; the certificate anew once it has run out.
        """
        path, certificate = self.folder / "statements.key", self.folder / "statements.pem"
        if not path.exists():
            write_private(path, pem(Ed25519PrivateKey.generate()))
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"{path}: not an Ed25519 key")
        shown = certificate.read_bytes() if certificate.exists() else b""
        if not shown or x509.load_pem_x509_certificate(shown).not_valid_after_utc <= at:
            shown = self._sign(_leaf(signer_name(federation), key.public_key(), at))
            part = certificate.with_suffix(".part")
            part.write_bytes(shown)
            part.replace(certificate)
        return Signer(key, shown)

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        key = load_pem_private_key((self.folder / "authority.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PeerError("the authority's key is not an EC key")
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        signed = (
            builder.issuer_name(issuer.subject).add_extension(identifier, critical=False).sign(key, hashes.SHA256())
        )
        return signed.public_bytes(Encoding.PEM)


def create_authority(folder: Path, federation: str, host: str, at: datetime) -> Authority:
    """Make the authority and a server certificate for `host` in `folder` (mode 0700)."""
    folder.mkdir(mode=0o700, parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"{federation} authority")
    certificate = (
        _builder(name, key.public_key(), at, AUTHORITY_LIFE)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_signing_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(folder)
    write_private(folder / "authority.key", pem(key))
    authority.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    server_key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _leaf(host, server_key.public_key(), at)
        .add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    write_private(authority.server_key, pem(server_key))
    authority.server_certificate.write_bytes(authority._sign(leaf))  # noqa: SLF001 -- its own maker
    return authority


def pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """Return `key` as unencrypted PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _leaf(common_name: str, key: ec.EllipticCurvePublicKey | Ed25519PublicKey, at: datetime) -> x509.CertificateBuilder:
    return _builder(_name(common_name), key, at, LEAF_LIFE).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey | Ed25519PublicKey, at: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - BACKDATE)
        .not_valid_after(at + life)
    )


def _signing_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
