"""A receipt key gives way to the next by both their signatures, and what the old one signed can still be verified."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent import Succession, key_id, succeed
from coordinator import members, receipt_keys
from coordinator.errors import ConfigurationError, PeerError
from coordinator.provenance import audit, provenance
from coordinator.receipt_keys import take_over
from coordinator.runs import describe
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
    take_over(federation.store, NAME, certificate, asked, lambda: datetime.now(UTC))


def rotate(federation: Federation, new: Ed25519PrivateKey = NEW) -> None:
    north = federation.site("north")
    ask(federation, succeed(NAME, "north", north.key, new))
    north.key = new


def revoke(federation: Federation) -> None:
    receipt_keys.revoke(federation.store, "north", lambda: datetime.now(UTC))


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


def test_a_receipt_that_arrives_after_the_membership_was_revoked_is_refused(federation: Federation) -> None:
    before_the_answer(federation, 2, lambda made: members.revoke(made.store, "north", lambda: datetime.now(UTC)))
    federation.train()

    assert [federation.outcome(number, "north") for number in (1, 2)] == [("counted", ""), ("refused", "key-revoked")]
    assert faults(federation) == []


def ended_before_it_counted(federation: Federation) -> None:
    rotate(federation)
    change(federation, retired_key, until=before_round_2(federation))


def began_after_it_counted(federation: Federation) -> None:
    change(federation, member, key_since=datetime.now(UTC).isoformat())


def was_revoked_before_it_counted(federation: Federation) -> None:
    revoke(federation)
    change(federation, member, key_revoked_at=before_round_2(federation))


def left_before_it_counted(federation: Federation) -> None:
    members.revoke(federation.store, "north", lambda: datetime.now(UTC))
    change(federation, member, revoked_at=before_round_2(federation))


def before_round_2(federation: Federation) -> str:
    """Return a moment between the first and the second receipt of north."""
    rows: Any = describe(federation.store, federation.run)["contributions"]
    first, second = [row["at"] for row in rows if (row["site"], row["kind"]) == ("north", "train")][:2]
    return datetime.fromtimestamp((first + second) / 2, UTC).isoformat()


def change(federation: Federation, table: sa.Table, **values: object) -> None:
    with federation.store.begin() as db:
        columns = table.c
        assert db.execute(sa.update(table).where(columns.node_id == "101").values(**values)).rowcount == 1


ENDED = {
    "gave way": (ended_before_it_counted, [2, 3]),
    "began later": (began_after_it_counted, [1, 2, 3]),
    "was revoked": (was_revoked_before_it_counted, [2, 3]),
    "ended with the membership": (left_before_it_counted, [2, 3]),
}


@pytest.mark.parametrize("how", ENDED)
def test_an_audit_finds_a_receipt_that_was_counted_while_its_key_was_not_in_force(
    federation: Federation, how: str
) -> None:
    plant, rounds = ENDED[how]
    federation.train()
    assert faults(federation) == []

    plant(federation)

    said = "north: counted while the key that signed it was not in force"
    last = [f"round 3, evaluate, {said}"]
    assert sorted(faults(federation)) == sorted([f"round {number}, train, {said}" for number in rounds] + last)


def test_a_key_that_is_being_asked_for_ends_afterwards(federation: Federation) -> None:
    """Between the question whether a key counts and its answer no other connection ends it."""
    read: list[datetime] = []

    def clock() -> datetime:
        read.append(datetime.now(UTC))
        return read[-1]

    threads = [Thread(target=receipt_keys.revoke, args=(federation.store, "north", clock))]

    def on_statement(_c: object, _cur: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT retired_key") and not threads[0].ident:
            threads[0].start()
            threads[0].join(0.3)
            assert read == []

    sa.event.listen(federation.store, "before_cursor_execute", on_statement)
    fault = receipt_keys.why_not(federation.store, 101, key_id(site_key("north").public_key()).encode())
    threads[0].join(30)

    assert (fault, len(read)) == ("", 1)
    assert receipt_keys.why_not(federation.store, 101, key_id(site_key("north").public_key()).encode()) == "key-revoked"


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
        take_over(federation.store, NAME, "0" * 64, signed_for(), lambda: datetime.now(UTC))


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
