"""A hospital releases nothing unless the witnesses it chose cosigned its log, and believes no other's signature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent import COSIGNATURE, cosign, cosigners, log_origin, log_verifier, open_receipt, parse_verifier
from coordinator.witness import Witness, create_witness
from site_node.config import SiteHome
from site_node.errors import PeerError
from site_node.store import open_store
from site_node.witnesses import Witnesses
from tests.site_node.hospital import NOON, Hospital

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from consent import Verifier

    Ask = Callable[[str, bytes], tuple[int, str]]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    folder = tmp_path / "site"
    folder.mkdir()
    return Hospital(SiteHome(folder), open_store(folder / "site.db"))


@pytest.fixture
def witness(tmp_path: Path, hospital: Hospital) -> Witness:
    made, key = create_witness(tmp_path / "witness", "audit.example/witness"), hospital.key.public_key()
    made.trust(log_verifier(log_origin("demo", "north", key), key).text, NOON)
    return made


def asking(witness: Witness) -> Ask:
    def ask(_name: str, request: bytes) -> tuple[int, str]:
        answer = witness.add_checkpoint(request, NOON)
        return answer.status, answer.body

    return ask


def pinned(witness: Witness) -> Verifier:
    return parse_verifier(witness.vkey, COSIGNATURE)


def watch(hospital: Hospital, witness: Witness, ask: Ask, quorum: int = 1) -> None:
    hospital.witnesses = Witnesses((pinned(witness),), quorum, ask)
    hospital.restart()


def test_each_release_carries_the_cosignature(hospital: Hospital, witness: Witness) -> None:
    watch(hospital, witness, asking(witness))

    for number in (1, 2, 3):
        hospital.restart()  # a new process does not know where the witness is, and asks it
        assert hospital.ask(f"m{number}", round=number, nonce=f"nonce-{number}") == "release", hospital.said
        receipt = open_receipt(hospital.line.sent[-1][2][2], hospital.key.public_key())
        assert list(cosigners(receipt.consent_log.recheck, [pinned(witness)])) == [witness.name]
    assert [log.size for log in witness.known()] == [3 * 2 * 64]


def unreachable(_name: str, _request: bytes) -> tuple[int, str]:
    raise PeerError("no line")


def invented(_name: str, request: bytes) -> tuple[int, str]:
    """Cosign as a coordinator would that has a key of its own."""
    note = request.decode().partition("\n\n")[2]
    return 200, cosign(note, "audit.example/witness", Ed25519PrivateKey.generate(), NOON)


@pytest.mark.parametrize(
    "ask",
    [
        unreachable,
        invented,
        lambda _name, _request: (200, ""),
        lambda _name, _request: (200, "— x y\n" * 40),
        lambda _name, _request: (403, ""),
        lambda _name, _request: (409, "no number"),
        lambda _name, _request: (409, "99999999999\n"),
        lambda _name, _request: (409, "0\n"),
    ],
)
def test_without_the_cosignature_nothing_is_released(hospital: Hospital, witness: Witness, ask: Ask) -> None:
    watch(hospital, witness, ask)

    assert hospital.ask() == "abstain"
    assert "too few of them cosigned" in hospital.said[-1]


def test_where_no_quorum_is_asked_for_a_silent_witness_stops_nothing(hospital: Hospital, witness: Witness) -> None:
    watch(hospital, witness, unreachable, quorum=0)

    assert hospital.ask() == "release"


def test_a_hospital_that_shows_the_witness_another_history_gets_no_cosignature(
    hospital: Hospital, witness: Witness, tmp_path: Path
) -> None:
    watch(hospital, witness, asking(witness))
    assert hospital.ask() == "release"
    (tmp_path / "rewritten").mkdir()
    other = Hospital(SiteHome(tmp_path / "rewritten"), open_store(tmp_path / "rewritten" / "site.db"))
    other.key = hospital.key
    watch(other, witness, asking(witness))

    answers = [other.ask("m1"), other.ask("m2", nonce="again")]

    assert answers == ["abstain", "abstain"]
    assert [log.forks for log in witness.known()] == [1]
