"""Joining: an invitation is checked before anything is sent, and nothing is kept before it is accepted."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from site_node.config import SiteHome
from site_node.errors import ConfigurationError, PeerError
from site_node.membership import MAX_INVITATION_BYTES, Invitation, join, read_invitation
from tests.site_node.hospital import NOON

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def certificate() -> str:
    """Return an authority's certificate that nobody uses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, NOON, NOON + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()


def document(**values: Any) -> dict[str, Any]:
    return {
        "federation": "demo",
        "site": "north",
        "join_url": "https://127.0.0.1:9",
        "fleet_address": "127.0.0.1:9",
        "authority": AUTHORITY,
        "token": "once",
        "expires_at": "2026-01-01T00:00:00+00:00",
    } | values


def written(root: Path, content: object) -> Path:
    path = root / "invitation.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_an_invitation_is_read_as_it_was_written(root: Path) -> None:
    assert read_invitation(written(root, document())) == Invitation(**document())


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ([1], "not JSON"),
        (document(token=7), "token"),
        (document(more=1), "more"),
        (document(join_url="http://127.0.0.1:9"), "join_url"),
        ({"federation": "demo"}, "token"),
        (document(token="x" * MAX_INVITATION_BYTES), "not JSON"),
    ],
    ids=["empty", "no text", "a list", "a number", "one more key", "not encrypted", "missing", "too long"],
)
def test_a_malformed_invitation_names_what_is_wrong(root: Path, content: object, named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"not an invitation: .*{named}"):
        read_invitation(written(root, content))


def test_an_invitation_that_is_not_there_is_told(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_invitation(root / "nothing.json")


def test_another_sites_invitation_is_refused_before_anything_is_sent(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="is for site 'north', not 'east'"):
        join(SiteHome(root), "east", Invitation(**document()))

    assert list(root.iterdir()) == []


def member_of(federation: str, root: Path) -> SiteHome:
    home = SiteHome(root)
    home.identity.mkdir()
    membership = {"federation": federation, "site": "north", "fleet_address": "127.0.0.1:9", "node_id": 1}
    (home.identity / "membership.json").write_text(json.dumps(membership))
    return home


def test_a_member_does_not_join_another_federation(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="already a member of another"):
        join(member_of("south", root), "north", Invitation(**document()))


def test_a_member_whose_new_invitation_comes_to_nothing_stays_what_it_was(root: Path, certificate: str) -> None:
    home = member_of("demo", root)

    with pytest.raises(PeerError, match="joining: ConnectError"):
        join(home, "north", Invitation(**document(authority=certificate)))

    assert [path.name for path in home.identity.iterdir()] == ["membership.json"]


@pytest.mark.parametrize("authority", [AUTHORITY, "garbage", "gärbage"])
def test_an_authority_that_is_no_certificate_is_told_and_leaves_no_trace(root: Path, authority: str) -> None:
    with pytest.raises((ConfigurationError, PeerError)):
        join(SiteHome(root), "north", Invitation(**document(authority=authority)))

    assert list(root.iterdir()) == []


@pytest.mark.parametrize("url", ["https://[::1", "https://127.0.0.1:99999", "https://"])
def test_an_address_that_is_none_is_told_and_leaves_no_trace(root: Path, url: str, certificate: str) -> None:
    with pytest.raises((ConfigurationError, PeerError)):
        join(SiteHome(root), "north", Invitation(**document(join_url=url, authority=certificate)))

    assert list(root.iterdir()) == []


def test_a_coordinator_that_does_not_answer_leaves_no_trace(root: Path, certificate: str) -> None:
    with pytest.raises(PeerError, match="joining: ConnectError"):
        join(SiteHome(root), "north", Invitation(**document(authority=certificate)))

    assert list(root.iterdir()) == []
