"""A real coordinator on free ports, and members that join it with real keys."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from fastapi import FastAPI
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from coordinator.authority import create_authority, pem, write_private
from coordinator.fleet import Fleet
from site_node.config import Identity
from site_node.link import tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from flwr.supercore.protobuf.client import ProtobufClientInterceptor

    from coordinator.authority import Authority

HOST: Final = "127.0.0.1"
FEDERATION: Final = "north-sea"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def signing_request(key: ec.EllipticCurvePrivateKey, name: str = "any") -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def public_pem(key: ec.EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def node_pem(identity: Identity) -> bytes:
    """Return the public half of a member's node key, as it goes to the coordinator."""
    return (identity.node_key.parent / "node.pub").read_bytes()


def new_identity(folder: Path, authority: Authority, address: str, site: str) -> Identity:
    """Return a member's keys and certificate, with a node id that is not registered yet."""
    folder.mkdir(parents=True)
    tls, node = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    write_private(folder / "tls.key", pem(tls))
    write_private(folder / "node.key", pem(node))
    (folder / "node.pub").write_bytes(public_pem(node.public_key()))
    certificate = authority.sign_member(signing_request(tls), site, datetime.now(UTC))
    (folder / "tls.pem").write_bytes(certificate)
    return Identity(
        federation=FEDERATION,
        site=site,
        fleet_address=address,
        node_id=0,
        authority=authority.certificate,
        tls_certificate=folder / "tls.pem",
        tls_key=folder / "tls.key",
        node_key=folder / "node.key",
        receipt_key=folder / "receipt.key",
    )


def trusting(authority: Authority) -> ssl.SSLContext:
    """Return TLS without a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.certificate)
    return context


@dataclass(slots=True)
class Consortium:
    """Where a fleet listens, its authority, and its members."""

    folder: Path
    authority: Authority
    port: int
    revoked: set[str] = field(default_factory=set)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @contextmanager
    def running(
        self, hold_s: float = 5.0, arrivals: list[tuple[str, bytes]] | None = None, pages: FastAPI | None = None
    ) -> Iterator[Fleet]:
        """Yield the fleet, listening."""
        if pages is None:
            pages = FastAPI(openapi_url=None)
            pages.get("/v1/members/tasks")(lambda: ["one"])
        record = None if arrivals is None else lambda path, body: arrivals.append((path, body))
        fleet = Fleet(self.folder / "fleet.db", (HOST, self.port), self.authority, pages, self.admits, hold_s, record)
        fleet.start()
        try:
            yield fleet
        finally:
            fleet.stop()

    def admits(self, certificate_sha256: str) -> bool:
        """Return whether the certificate is a member's."""
        return len(certificate_sha256) == 64 and certificate_sha256 not in self.revoked

    def revoke(self, identity: Identity) -> None:
        """Let the member in no longer."""
        certificate = x509.load_pem_x509_certificate(identity.tls_certificate.read_bytes())
        self.revoked.add(certificate.fingerprint(hashes.SHA256()).hex())

    def member(self, fleet: Fleet, site: str) -> Identity:
        """Return a new member, registered."""
        identity = new_identity(self.folder / site, self.authority, self.address, site)
        return registered(identity, fleet)


def registered(identity: Identity, fleet: Fleet) -> Identity:
    """Return `identity` with the node id the fleet knows it by."""
    node_id = fleet.register(node_pem(identity), identity.site)
    known = {name: getattr(identity, name) for name in Identity.__slots__}
    return Identity(**{**known, "node_id": node_id})


def new_consortium(folder: Path) -> Consortium:
    authority = create_authority(folder / "keys", FEDERATION, HOST, datetime.now(UTC))
    return Consortium(folder, authority, free_port())


def receipt_pem() -> bytes:
    return public_pem(Ed25519PrivateKey.generate().public_key())


@contextmanager
def raw_client(identity: Identity, timeout_s: float = 10.0) -> Iterator[FleetHttpClient]:
    """Yield a signed Fleet client that says whatever it is told to."""
    key = load_pem_private_key(identity.node_key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    address = f"https://{identity.fleet_address}"
    with FleetHttpClient(address, interceptors=interceptors, verify=tls_context(identity), timeout=timeout_s) as client:
        yield client
