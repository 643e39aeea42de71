"""The authority signs what it should, for whom it should, and keeps its keys to itself."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from consent import SignerInvalid, signer_key
from coordinator.authority import LEAF_LIFE, create_authority, write_private
from coordinator.errors import PeerError
from tests.coordinator.parts import signing_request

if TYPE_CHECKING:
    from pathlib import Path

    from coordinator.authority import Authority

NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "keys", "north-sea", "coordinator.example", NOON)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def signed_for(authority: Authority, site: str = "north", name: str = "any") -> x509.Certificate:
    request = signing_request(ec.generate_private_key(ec.SECP256R1()), name)
    return x509.load_pem_x509_certificate(authority.sign_member(request, site, NOON))


def usages(found: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_members_certificate_chains_to_the_authority(authority: Authority) -> None:
    member = signed_for(authority)

    member.verify_directly_issued_by(certificate(authority.certificate))
    assert member.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "north"
    assert usages(member) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert member.not_valid_before_utc < NOON < member.not_valid_after_utc == NOON + LEAF_LIFE


def test_a_members_certificate_is_no_authority(authority: Authority) -> None:
    constraints = signed_for(authority).extensions.get_extension_for_class(x509.BasicConstraints)

    assert constraints.critical
    assert not constraints.value.ca


def test_the_name_in_a_request_does_not_matter(authority: Authority) -> None:
    member = signed_for(authority, site="north", name="west")

    assert member.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "north"


@pytest.mark.parametrize(("host", "other"), [("coordinator.example", "other.example"), ("hub", "coordinator.example")])
def test_the_servers_certificate_is_good_for_its_host_alone(tmp_path: Path, host: str, other: str) -> None:
    authority = create_authority(tmp_path / "keys", "north-sea", host, NOON)
    builder = PolicyBuilder().store(Store([certificate(authority.certificate)])).time(NOON)
    server = certificate(authority.server_certificate)

    builder.build_server_verifier(x509.DNSName(host)).verify(server, [])

    assert usages(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName(other)).verify(server, [])


def test_an_address_is_named_as_an_address(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "keys", "north-sea", "127.0.0.1", NOON)

    names = certificate(authority.server_certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)

    assert [str(address) for address in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_keys_are_for_their_owner_alone(authority: Authority) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.folder.glob("*.key")}

    assert modes == {"authority.key": 0o600, "server.key": 0o600}
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700


def test_a_key_is_never_written_over(authority: Authority) -> None:
    with pytest.raises(FileExistsError):
        write_private(authority.server_key, b"other")
    with pytest.raises(FileExistsError):
        create_authority(authority.folder, "north-sea", "h", NOON)


def request_on(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, digest).public_bytes(Encoding.PEM)


def tampered() -> bytes:
    request = x509.load_pem_x509_csr(signing_request(ec.generate_private_key(ec.SECP256R1()), "north"))
    body = request.public_bytes(Encoding.DER).replace(b"north", b"south")
    return x509.load_der_x509_csr(body).public_bytes(Encoding.PEM)


WRONG = {
    "nothing": b"",
    "text": b"please",
    "an RSA key": request_on(rsa.generate_private_key(65537, 2048)),
    "an Ed25519 key": request_on(ed25519.Ed25519PrivateKey.generate()),
    "a changed name": tampered(),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_request_that_is_not_a_self_signed_one_on_an_ec_key_is_refused(authority: Authority, wrong: str) -> None:
    with pytest.raises(PeerError, match="signing request"):
        authority.sign_member(WRONG[wrong], "north", NOON)


def test_a_certificate_made_now_is_valid_for_a_clock_a_little_behind(authority: Authority) -> None:
    assert signed_for(authority).not_valid_before_utc <= NOON - timedelta(minutes=4)


def test_the_key_of_statements_is_made_once_for_its_owner_alone_and_its_certificate_renewed(
    authority: Authority,
) -> None:
    issuer = authority.certificate.read_bytes()
    first, same = (authority.statement_signer("north-sea", NOON) for _ in range(2))
    later = NOON + LEAF_LIFE + timedelta(days=1)
    renewed = authority.statement_signer("north-sea", later)

    assert stat.S_IMODE((authority.folder / "statements.key").stat().st_mode) == 0o600
    assert (first.certificate == same.certificate, first.certificate == renewed.certificate) == (True, False)
    shown = ((first.certificate, NOON), (renewed.certificate, later))
    keys = [signer_key(certificate, issuer, "north-sea", at).public_bytes_raw() for certificate, at in shown]
    assert keys == [first.key.public_key().public_bytes_raw()] * 2
    with pytest.raises(SignerInvalid, match="not-in-time"):
        signer_key(first.certificate, issuer, "north-sea", later)


def test_only_the_certificate_of_statements_of_this_federation_vouches_for_a_statement(authority: Authority) -> None:
    issuer = authority.certificate.read_bytes()
    member = signed_for(authority, "north-sea statements").public_bytes(Encoding.PEM)
    another = authority.statement_signer("south-sea", NOON).certificate

    for certificate in (member, another, authority.server_certificate.read_bytes(), issuer):
        with pytest.raises(SignerInvalid, match="wrong-kind"):
            signer_key(certificate, issuer, "north-sea", NOON)
