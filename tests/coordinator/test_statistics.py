"""A member's statistics are taken from that member alone, and shown as ranges that add up."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from consent import FEWER, ConsentStatistics, RangeCounts, generate_signing_key, sign_statistics
from coordinator import members, statistics, tasks
from coordinator.api import member_pages
from coordinator.errors import PeerError
from coordinator.fleet import Fleet
from coordinator.statistics import CHECKS, Told
from coordinator.store import member, open_store, partner, statistic
from site_node.errors import NotAMember, PeerRefused
from site_node.link import post_statistics
from tests.coordinator.conftest import NOON
from tests.coordinator.parts import FEDERATION, HOST, public_pem, registered
from tests.coordinator.parts import new_identity as identity_of
from tests.federation import DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from site_node.config import Identity
    from tests.coordinator.conftest import Office
    from tests.coordinator.parts import Consortium

STUDIES: Final = RangeCounts(permit="64-127", deny=FEWER, no_consent="20-31", review=FEWER)


@dataclass(frozen=True, slots=True)
class House:
    """A coordinator with a task, and a member's key."""

    store: sa.Engine
    task: str
    key: Ed25519PrivateKey

    def made(self, **changes: Any) -> ConsentStatistics:
        """Return what the member north may tell; `changes` replace what it says."""
        said: dict[str, Any] = {
            "federation": FEDERATION,
            "site": "north",
            "task": self.task,
            "dataset": "brain-mr",
            "modality": "MR",
            "as_of": NOON.date(),
            "studies": STUDIES,
        }
        return ConsentStatistics(**said | changes)

    def tell(self, made: ConsentStatistics, key: Ed25519PrivateKey | None = None, at: datetime = NOON) -> None:
        """Hand a statement in as the member north."""
        envelope = sign_statistics(made, key or self.key)
        statistics.take(self.store, FEDERATION, "north", self.key.public_key(), envelope, at)

    def refused(self, made: ConsentStatistics, key: Ed25519PrivateKey | None = None) -> str:
        """Return why a statement is not taken."""
        with pytest.raises(PeerError) as refusal:
            self.tell(made, key)
        return str(refusal.value)


def admit(store: sa.Engine, site: str, key: Ed25519PrivateKey, certificate_sha256: str = "") -> None:
    pem = public_pem(key.public_key())
    with store.begin() as db:
        db.execute(
            sa.insert(member).values(
                node_id=str(sum(site.encode())),
                site=site,
                node_key=pem,
                receipt_key=pem,
                certificate_sha256=certificate_sha256 or site,
                joined_at=NOON.isoformat(),
            )
        )


def offer(store: sa.Engine) -> str:
    with store.begin() as db:
        db.execute(sa.insert(partner).values(name="acme", token_sha256="0" * 64, added_at=NOON.isoformat()))
    return tasks.submit(store, DOCUMENT, "acme", NOON)


@pytest.fixture
def house(office: Office) -> House:
    """Return a coordinator with one task and the member north."""
    key = generate_signing_key()
    admit(office.store, "north", key)
    return House(office.store, offer(office.store), key)


def test_the_last_statement_of_a_member_on_a_task_is_what_is_shown(house: House) -> None:
    house.tell(house.made())
    house.tell(house.made(as_of=NOON.date(), studies=STUDIES.model_copy(update={"permit": "32-63"})))

    (told,) = statistics.told(house.store, house.task)

    studies = STUDIES.model_dump() | {"permit": "32-63"}
    assert told == Told("north", "brain-mr", "MR", "2026-06-01", studies)
    with house.store.connect() as db:
        assert len(db.execute(sa.select(statistic)).all()) == 1


WRONG: Final[dict[str, dict[str, Any]]] = {
    "another-federation": {"federation": "south-sea"},
    "another-site": {"site": "east"},
    "unknown-task": {"task": "d" * 64},
    "dated-ahead": {"as_of": NOON.date() + timedelta(days=2)},
    "older-than-held": {"as_of": NOON.date() - timedelta(days=1)},
}


def test_every_check_fails_once() -> None:
    assert WRONG.keys() == CHECKS.keys()


@pytest.mark.parametrize("reason", WRONG)
def test_a_statement_that_fails_a_check_is_not_taken_and_changes_nothing(house: House, reason: str) -> None:
    house.tell(house.made())
    before = statistics.told(house.store, house.task)

    assert house.refused(house.made(**WRONG[reason])) == reason

    assert statistics.told(house.store, house.task) == before


def test_a_statement_by_another_key_is_not_the_members(house: House) -> None:
    assert house.refused(house.made(), generate_signing_key()) == "statistics-bad-signature"


def test_a_member_that_was_revoked_is_not_shown(house: House) -> None:
    house.tell(house.made())

    members.revoke(house.store, "north", lambda: NOON)

    assert statistics.told(house.store, house.task) == []


def test_ranges_add_up_to_what_they_leave_open_together() -> None:
    one = Told("north", "a", "MR", "2026-06-01", STUDIES.model_dump())
    other = replace(one, site="east", studies=STUDIES.model_dump() | {"permit": FEWER})

    assert statistics.total([one, other]) == {
        "permit": (64, 127 + 19),
        "deny": (0, 38),
        "no_consent": (40, 62),
        "review": (0, 38),
    }
    assert set(statistics.total([]).values()) == {(0, 0)}


# ------------------------------------------------------------------ over the members' line


@dataclass(frozen=True, slots=True)
class Line:
    """A listening coordinator, and two members of it with real certificates."""

    store: sa.Engine
    task: str
    north: Identity
    east: Identity
    keys: dict[str, Ed25519PrivateKey]

    def envelope(self, site: str, by: str = "") -> bytes:
        """Return what `site` tells, signed with the key of `by`."""
        made = House(self.store, self.task, self.keys[site]).made(site=site, as_of=datetime.now(UTC).date())
        return sign_statistics(made, self.keys[by or site])


def no_signer() -> NoReturn:
    """Statistics are answered without a word."""
    raise AssertionError


@pytest.fixture
def line(consortium: Consortium, tmp_path: Path) -> Iterator[Line]:
    store = open_store(tmp_path / "coordinator.db")
    pages = member_pages(store, FEDERATION, lambda: datetime.now(UTC), lambda _line: None, no_signer)
    admits = lambda certificate: members.admits(store, certificate)  # noqa: E731 -- as the service binds it
    address = (HOST, consortium.port)
    fleet = Fleet(tmp_path / "fleet.db", address, consortium.authority, pages, admits, 1.0, None)
    fleet.start()
    keys, identities = {}, {}
    for site in ("north", "east"):
        keys[site] = generate_signing_key()
        made = identity_of(tmp_path / site, consortium.authority, consortium.address, site)
        certificate = x509.load_pem_x509_certificate(made.tls_certificate.read_bytes())
        admit(store, site, keys[site], certificate.fingerprint(hashes.SHA256()).hex())
        identities[site] = registered(made, fleet)
    yield Line(store, offer(store), identities["north"], identities["east"], keys)
    fleet.stop()
    store.dispose()


def test_a_member_tells_its_own_and_nobody_elses(line: Line) -> None:
    post_statistics(line.north.fleet_address, line.north, line.envelope("north"))

    assert [told.site for told in statistics.told(line.store, line.task)] == ["north"]
    for envelope in (
        line.envelope("north"),  # north's own words, sent by east
        line.envelope("east", by="north"),
        line.envelope("north", by="east"),
        b"",
        b"{" * 100,
        b" " * 100_000,
        json.dumps({"studies": {"permit": 64}}).encode(),
    ):
        with pytest.raises(PeerRefused, match="422"):
            post_statistics(line.east.fleet_address, line.east, envelope)
    assert [told.site for told in statistics.told(line.store, line.task)] == ["north"]


def test_a_revoked_member_tells_nothing(line: Line) -> None:
    members.revoke(line.store, "east", lambda: NOON)

    with pytest.raises(NotAMember):
        post_statistics(line.east.fleet_address, line.east, line.envelope("east"))
