"""An invitation works once, for one site, in time; and a failed joining leaves nothing behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from coordinator import members, receipt_keys
from coordinator.errors import ConfigurationError, PeerError
from coordinator.members import INVITATION_LIFE, JoinRequest
from coordinator.store import invitation, member, metadata
from tests.coordinator.conftest import NOON
from tests.coordinator.parts import public_pem, receipt_pem, signing_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.coordinator.conftest import Office


def invited(office: Office, site: str = "north", at: datetime = NOON) -> str:
    document = json.loads(members.invite(office.store, office.config, office.authority, site, at))
    return str(document["token"])


def request(token: str, **changes: bytes) -> JoinRequest:
    node, tls = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usual = {
        "signing_request": signing_request(tls),
        "node_key": public_pem(node.public_key()),
        "receipt_key": receipt_pem(),
    }
    return JoinRequest(token, **{**usual, **changes})


def register(_key: bytes, site: str) -> int:
    return 2**64 - sum(site.encode())


def join(
    office: Office, asked: JoinRequest, at: datetime = NOON, how: Callable[[bytes, str], int] = register
) -> dict[str, str]:
    return members.take_in(office.store, office.authority, how, asked, at)


def fingerprint(answer: dict[str, str]) -> str:
    return x509.load_pem_x509_certificate(answer["certificate"].encode()).fingerprint(hashes.SHA256()).hex()


def sites(office: Office) -> list[str]:
    return [one.site for one in members.active(office.store)]


def test_a_site_with_an_invitation_becomes_a_member_under_the_invited_name(office: Office) -> None:
    answer = join(office, request(invited(office)))

    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "north"
    assert answer["node_id"] == str(register(b"", "north"))
    assert sites(office) == ["north"]


def test_an_invitation_works_once(office: Office) -> None:
    token = invited(office)
    join(office, request(token))

    with pytest.raises(PeerError, match="unknown, used or expired"):
        join(office, request(token))
    assert sites(office) == ["north"]


@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=1)])
def test_an_invitation_expires(office: Office, late: timedelta) -> None:
    token = invited(office)

    with pytest.raises(PeerError, match="expired"):
        join(office, request(token), NOON + INVITATION_LIFE + late)
    join(office, request(token), NOON + INVITATION_LIFE - timedelta(seconds=1))


@pytest.mark.parametrize("token", ["", "guessed", "x" * 256])
def test_a_token_nobody_was_given_opens_nothing(office: Office, token: str) -> None:
    invited(office)

    with pytest.raises(PeerError, match="unknown"):
        join(office, request(token))
    assert sites(office) == []


def test_a_new_invitation_makes_the_earlier_one_worthless(office: Office) -> None:
    first, second = invited(office), invited(office)

    with pytest.raises(PeerError):
        join(office, request(first))
    join(office, request(second))


def test_a_member_is_not_invited_again(office: Office) -> None:
    join(office, request(invited(office)))

    with pytest.raises(ConfigurationError, match="member already"):
        invited(office)


@pytest.mark.parametrize("name", ["", "a b", "../x", "north-west", "1st", "a\nb"])
def test_a_name_that_cannot_be_a_sites_is_refused(office: Office, name: str) -> None:
    with pytest.raises(ConfigurationError, match="site"):
        invited(office, name)


def test_no_token_lies_in_the_database(office: Office) -> None:
    token = invited(office)
    join(office, request(token))
    waiting = invited(office, "west")

    with office.store.connect() as db:
        rows = [str(tuple(row)) for table in metadata.sorted_tables for row in db.execute(sa.select(table))]

    assert rows
    assert not any(secret in row for row in rows for secret in (token, waiting))


WRONG_KEYS = {
    "no key": {"node_key": b"key"},
    "a receipt key for the node": {"node_key": receipt_pem()},
    "a node key for receipts": {"receipt_key": public_pem(ec.generate_private_key(ec.SECP256R1()).public_key())},
    "a kind nobody uses": {"receipt_key": public_pem(ed448.Ed448PrivateKey.generate().public_key())},
    "no signing request": {"signing_request": b"please"},
}


@pytest.mark.parametrize("wrong", WRONG_KEYS)
def test_wrong_keys_are_refused_and_the_invitation_still_works(office: Office, wrong: str) -> None:
    token = invited(office)

    with pytest.raises(PeerError):
        join(office, request(token, **WRONG_KEYS[wrong]))
    assert sites(office) == []
    join(office, request(token))


def test_a_site_that_could_not_be_registered_is_no_member_and_may_try_again(office: Office) -> None:
    class Unreachable(Exception):
        pass

    def fail(_key: bytes, _site: str) -> int:
        raise Unreachable

    token = invited(office)
    with pytest.raises(Unreachable):
        join(office, request(token), how=fail)

    with office.store.connect() as db:
        assert db.execute(sa.select(invitation.c.used_at)).scalars().all() == [None]
        assert db.execute(sa.select(member)).all() == []
    join(office, request(token))


def test_the_node_key_of_another_member_is_refused(office: Office) -> None:
    join(office, request(invited(office)), how=lambda _key, _site: 7)

    with pytest.raises(PeerError, match="another member"):
        join(office, request(invited(office, "west")), how=lambda _key, _site: 7)
    assert sites(office) == ["north"]


def test_a_revoked_member_takes_part_no_longer(office: Office) -> None:
    for site in ("west", "north"):
        join(office, request(invited(office, site)))
    before = sites(office)

    members.revoke(office.store, "north", lambda: NOON)

    assert (before, sites(office)) == (["north", "west"], ["west"])
    with pytest.raises(ConfigurationError, match="not a member"):
        members.revoke(office.store, "north", lambda: NOON)


def test_a_revoked_member_that_is_invited_again_joins_with_other_keys(office: Office) -> None:
    token = invited(office)
    old = join(office, request(token), how=lambda _key, _site: 7)
    members.revoke(office.store, "north", lambda: NOON)

    with pytest.raises(PeerError, match="used"):
        join(office, request(token), how=lambda _key, _site: 8)
    again = invited(office)
    with pytest.raises(PeerError, match="another member"):
        join(office, request(again), how=lambda _key, _site: 7)
    new = join(office, request(again), how=lambda _key, _site: 8)

    assert [(one.site, one.node_id) for one in members.active(office.store)] == [("north", 8)]
    assert [members.admits(office.store, fingerprint(answer)) for answer in (old, new)] == [False, True]
    with pytest.raises(ConfigurationError, match="member already"):
        invited(office)


def test_a_certificate_lets_in_until_its_member_is_revoked(office: Office) -> None:
    shown = {site: fingerprint(join(office, request(invited(office, site)))) for site in ("north", "west")}

    members.revoke(office.store, "north", lambda: NOON)

    assert {site: members.admits(office.store, one) for site, one in shown.items()} == {"north": False, "west": True}
    assert not members.admits(office.store, "")


def test_who_never_was_a_member_cannot_be_revoked(office: Office) -> None:
    with pytest.raises(ConfigurationError, match="not a member"):
        members.revoke(office.store, "north", lambda: datetime.now(UTC))


def test_a_members_receipt_key_is_the_one_it_sent(office: Office) -> None:
    key = Ed25519PrivateKey.generate()
    join(office, request(invited(office), receipt_key=public_pem(key.public_key())))

    assert public_pem(members.active(office.store)[0].receipt_key) == public_pem(key.public_key())


def test_a_site_whose_key_was_revoked_is_invited_and_joins_with_another(office: Office) -> None:
    key = Ed25519PrivateKey.generate()
    join(office, request(invited(office)))
    receipt_keys.revoke(office.store, "north", lambda: NOON)
    assert sites(office) == []

    join(office, request(invited(office), receipt_key=public_pem(key.public_key())), how=lambda *_: 7)

    (back,) = members.active(office.store)
    assert (back.site, back.node_id) == ("north", 7)
    assert public_pem(back.receipt_key) == public_pem(key.public_key())
    with pytest.raises(ConfigurationError, match="member already"):
        invited(office)
