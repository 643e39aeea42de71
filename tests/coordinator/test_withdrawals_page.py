"""The members' page for withdrawals, through real mutual TLS: a notice is small, signed by its sender, and answered."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from fastapi import FastAPI, Response

from consent import MAX_NOTICE_BYTES, open_answer, signer_key
from coordinator import withdrawals
from coordinator.api import member_pages
from coordinator.app import now
from coordinator.store import member
from site_node.errors import NotAMember, PeerError, PeerRefused
from site_node.link import post_notice, tls_context
from tests.coordinator.parts import new_identity
from tests.federation import NAME, Federation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coordinator.fleet import Fleet
    from site_node.config import Identity
    from tests.coordinator.parts import Consortium


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = Federation(tmp_path / "federation", withdrawal_policy="keep")
    made.train(rounds=2)
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def listening(consortium: Consortium, federation: Federation, said: list[str]) -> Iterator[Fleet]:
    pages = member_pages(
        federation.store, NAME, now, said.append, lambda: consortium.authority.statement_signer(NAME, now())
    )
    with consortium.running(pages=pages) as fleet:
        yield fleet


def identity_of(consortium: Consortium, federation: Federation, site: str) -> Identity:
    """Return the keys with which a site of the federation reaches the coordinator."""
    made = new_identity(consortium.folder / site, consortium.authority, consortium.address, site)
    shown = x509.load_pem_x509_certificate(made.tls_certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    with federation.store.begin() as db:
        db.execute(sa.update(member).where(member.c.site == site).values(certificate_sha256=shown))
    return made


def post(identity: Identity, body: bytes) -> httpx.Response:
    with httpx.Client(verify=tls_context(identity)) as client:
        return client.post(f"https://{identity.fleet_address}/v1/members/withdrawals", content=body)


@pytest.mark.usefixtures("listening")
def test_a_member_hands_its_notice_in_and_hears_what_became_of_each_update(
    consortium: Consortium, federation: Federation, said: list[str]
) -> None:
    north = identity_of(consortium, federation, "north")
    notice = federation.notice("north", 1, 2)
    receipts = [hashlib.sha256(federation.site("north").history[n].envelope or b"").hexdigest() for n in (1, 2)]

    answers = [post(north, notice) for _ in range(2)]

    assert answers[0].content == answers[1].content
    signed, certificate = (answers[0].json()[name].encode() for name in ("answer", "certificate"))
    key = signer_key(certificate, consortium.authority.certificate.read_bytes(), NAME, datetime.now(UTC))
    said_of = open_answer(signed, key)
    assert {one.sha256: one.standing for one in said_of.receipts} == dict.fromkeys(receipts, "aggregated")
    assert (said_of.federation, said_of.site, said_of.run) == (NAME, "north", federation.run)
    assert said_of.notice == hashlib.sha256(notice).hexdigest()
    assert said == ["north: withdrawal: 2 aggregated"] * 2
    assert [row["digest"] for row in withdrawals.received(federation.store)] == [hashlib.sha256(notice).hexdigest()]


@pytest.mark.usefixtures("listening")
def test_a_site_reads_the_reason_of_a_refusal(consortium: Consortium, federation: Federation) -> None:
    north = identity_of(consortium, federation, "north")

    with pytest.raises(PeerRefused, match=r"^403 notice-bad-signature$"):
        post_notice(north.fleet_address, north, federation.notice("east", 1))


ANSWERS = {
    (403, b'{"detail": "the notice is too \\u0007old"}'): (PeerRefused, "403 the notice is too old"),
    (404, b""): (PeerRefused, "404"),
    (410, b"gone"): (PeerRefused, "410"),
    (413, b'{"detail": 7}'): (PeerRefused, "413"),
    (422, b'{"detail": "' + 300 * b"x" + b'"}'): (PeerRefused, f"422 {'x' * 200}"),
    (403, b"not a member"): (NotAMember, "no member of it"),
    (408, b""): (PeerError, "answered 408"),
    (429, b""): (PeerError, "answered 429"),
    (500, b""): (PeerError, "answered 500"),
    (503, b'{"detail": "busy"}'): (PeerError, "answered 503"),
    (302, b""): (PeerError, "answered 302"),
    (200, b"no"): (PeerError, "not JSON"),
    (200, b'{"' + b"e" * 64 + b'": "aggregated"}'): (PeerError, "not signed"),
    (200, b'{"answer": "", "certificate": 7}'): (PeerError, "malformed"),
}


def test_a_site_knows_which_refusals_are_for_good(consortium: Consortium, federation: Federation) -> None:
    given = list(ANSWERS)
    pages = FastAPI(openapi_url=None)
    pages.post("/v1/members/withdrawals")(lambda: Response(given[0][1], given.pop(0)[0]))
    north, found = identity_of(consortium, federation, "north"), {}
    with consortium.running(pages=pages):
        for answer in ANSWERS:
            with pytest.raises(PeerError) as refused:
                post_notice(north.fleet_address, north, b"a notice")
            found[answer] = (type(refused.value), str(refused.value))

    assert {answer: kind for answer, (kind, _) in found.items()} == {
        answer: kind for answer, (kind, _) in ANSWERS.items()
    }
    assert [answer for answer, (_, said) in ANSWERS.items() if said not in found[answer][1]] == []


@pytest.mark.usefixtures("listening")
def test_what_is_no_notice_of_the_sender_is_refused_and_leaves_no_trace(
    consortium: Consortium, federation: Federation
) -> None:
    north = identity_of(consortium, federation, "north")
    refusals = {
        "of another member": (federation.notice("east", 1), 403, "notice-bad-signature"),
        "no notice": (b"{}", 403, "notice-malformed"),
        "too large": (bytes(MAX_NOTICE_BYTES + 1), 413, "the notice is too large"),
    }

    answers = {name: post(north, body) for name, (body, _, _) in refusals.items()}

    assert {name: (answer.status_code, answer.json()["detail"]) for name, answer in answers.items()} == {
        name: (status, detail) for name, (_, status, detail) in refusals.items()
    }
    assert withdrawals.received(federation.store) == []
