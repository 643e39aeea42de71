"""A receipt key gives way to the next by both their signatures, and what the old one signed can still be verified."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent import Succession, key_id, succeed
from coordinator import members, receipt_keys
from coordinator.errors import ConfigurationError, PeerError
from coordinator.provenance import audit, provenance
from coordinator.receipt_keys import take_over
from coordinator.store import member, retired_key
from tests.coordinator.parts import public_pem
from tests.federation import NAME, Federation, site_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.federation import Answer

NEW = Ed25519PrivateKey.from_private_bytes(b"n" * 32)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def ask(federation: Federation, asked: Succession, name: str = "north") -> None:
    certificate = hashlib.sha256(public_pem(site_key(name).public_key())).hexdigest()
    take_over(federation.store, NAME, certificate, asked, datetime.now(UTC))


def rotate(federation: Federation, new: Ed25519PrivateKey = NEW) -> None:
    north = federation.site("north")
    ask(federation, succeed(NAME, "north", north.key, new))
    north.key = new


def revoke(federation: Federation) -> None:
    receipt_keys.revoke(federation.store, "north", datetime.now(UTC))


def in_force(federation: Federation) -> dict[str, str]:
    return {one.site: key_id(one.receipt_key) for one in members.active(federation.store)}


def retired(federation: Federation) -> list[str]:
    with federation.store.connect() as db:
        return list(db.execute(sa.select(retired_key.c.key_id).order_by(retired_key.c.until)).scalars())


def faults(federation: Federation) -> list[str]:
    return audit(federation.store, federation.run, federation.folder / "runs")


def before_the_answer(federation: Federation, number: int, act: Callable[[Federation], None]) -> None:
    """Let something happen at the coordinator while north's answer of a round is on its way."""
    north = federation.site("north")

    def late(answer: Answer) -> Answer:
        if answer.claim["round"] == number:
            north.behave()
            act(federation)
        return answer

    north.fault = late


# ------------------------------------------------------------------ in a run


def test_a_receipt_by_a_retired_key_is_refused_and_those_before_and_after_can_be_verified(
    federation: Federation,
) -> None:
    before_the_answer(federation, 2, rotate)
    federation.train()

    outcomes = [federation.outcome(number, "north") for number in (1, 2, 3)]
    assert outcomes == [("counted", ""), ("refused", "key-retired"), ("counted", "")]
    assert faults(federation) == []
    listed = provenance(federation.store, NAME, federation.run, federation.task)["receipt_keys"]["north"]
    assert listed == [public_pem(key.public_key()).decode() for key in (site_key("north"), NEW)]


def test_a_receipt_by_a_revoked_key_is_refused_and_those_before_can_be_verified(federation: Federation) -> None:
    before_the_answer(federation, 2, revoke)
    federation.train()

    assert [federation.outcome(number, "north") for number in (1, 2)] == [("counted", ""), ("refused", "key-revoked")]
    assert federation.site("north").asked.count("train 3") == 0  # it is asked no more
    assert in_force(federation).keys() == {"east", "west"}
    assert faults(federation) == []


# ------------------------------------------------------------------ the change itself


def test_asked_again_for_the_same_key_nothing_changes(federation: Federation) -> None:
    asked = succeed(NAME, "north", site_key("north"), NEW)
    for _ in range(3):
        ask(federation, asked)

    assert in_force(federation)["north"] == key_id(NEW.public_key())
    assert retired(federation) == [key_id(site_key("north").public_key())]


def test_a_key_changes_more_than_once(federation: Federation) -> None:
    other = Ed25519PrivateKey.generate()
    rotate(federation)
    rotate(federation, other)
    ask(federation, succeed(NAME, "north", NEW, other))

    assert in_force(federation)["north"] == key_id(other.public_key())
    assert retired(federation) == [key_id(key.public_key()) for key in (site_key("north"), NEW)]


def signed_for(federation: str = NAME, site: str = "north", old: Ed25519PrivateKey | None = None) -> Succession:
    return succeed(federation, site, old or site_key("north"), NEW)


@pytest.mark.parametrize(
    "asked",
    [
        signed_for(federation="south-sea"),
        signed_for(site="west"),
        signed_for(old=site_key("west")),
        signed_for(old=NEW),
        Succession(NEW.public_key(), signed_for().by_new, signed_for().by_old),
        Succession(NEW.public_key(), signed_for().by_old, signed_for().by_old),
        Succession(site_key("west").public_key(), signed_for().by_old, signed_for().by_new),
    ],
)
def test_a_key_that_is_not_signed_by_both_is_refused(federation: Federation, asked: Succession) -> None:
    with pytest.raises(PeerError, match="key-not-signed"):
        ask(federation, asked)
    assert in_force(federation)["north"] == key_id(site_key("north").public_key())


def test_another_members_certificate_changes_nothing(federation: Federation) -> None:
    with pytest.raises(PeerError, match="key-not-signed"):
        ask(federation, signed_for(), "west")
    with pytest.raises(PeerError, match="not a member"):
        take_over(federation.store, NAME, "0" * 64, signed_for(), datetime.now(UTC))


@pytest.mark.parametrize("name", ["north", "west"])
def test_a_key_that_is_or_was_in_force_is_not_taken_again(federation: Federation, name: str) -> None:
    with pytest.raises(PeerError, match="key-known"):
        ask(federation, succeed(NAME, "north", site_key("north"), site_key(name)))
    rotate(federation)
    with pytest.raises(PeerError, match="key-known"):
        ask(federation, succeed(NAME, "north", NEW, site_key(name)))


def test_a_revoked_key_names_no_other(federation: Federation) -> None:
    revoke(federation)

    with pytest.raises(PeerError, match="key-revoked"):
        ask(federation, signed_for())
    with pytest.raises(ConfigurationError, match="receipt key in force"):
        revoke(federation)
    with federation.store.connect() as db:
        assert db.execute(sa.select(member.c.revoked_at).where(member.c.site == "north")).scalar_one() is None
