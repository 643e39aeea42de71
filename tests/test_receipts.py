"""What a hospital releases is what the coordinator's checks accept, round after round; and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from consent import EMPTY_ROOT, ENGINE, NO_PREVIOUS, POLICY, open_receipt, receipt_digest
from coordinator.verification import Evidence, Expected, Refused, verify
from demo.task import TASK
from site_node.config import SiteHome
from site_node.eligibility import read_rows
from site_node.store import consent_checkpoint, eligibility, open_store, participation
from tests.site_node.hospital import NOON, Hospital, consent_of

if TYPE_CHECKING:
    from pathlib import Path

NOTHING: Expected = Expected(
    federation="demo",
    run="run-1",
    round=0,
    kind="train",
    nonce="",
    site="north",
    base_model="",
    task="",
    prev=NO_PREVIOUS,
    asked_at=NOON,
    minimum_count=2,
    clock_skew=timedelta(seconds=30),
    purposes=tuple(TASK["purpose"]["purposes"]),
    policies=(POLICY,),
    engines=(ENGINE,),
    log_size=0,
    log_root=EMPTY_ROOT.hex(),
    witnesses=(),
    witness_quorum=0,
    release_window=timedelta(minutes=1),
)


class Consortium:
    """Asks one hospital as the strategy does, and verifies what comes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.hospital = Hospital(SiteHome(folder), open_store(folder / "site.db"))
        self.expected = NOTHING

    def round(self, number: int, kind: str = "train") -> Evidence | Refused:
        """Ask for a round; remember what was accepted."""
        asked: dict[str, Any] = {"round": number, "kind": kind, "nonce": f"nonce-{number}"}
        at: dict[str, Any] = {"receipt_head": self.expected.prev, "log_size": self.expected.log_size}
        assert self.hospital.ask(f"m{number}", **asked, **at) == "release", self.hospital.said
        envelope = self.hospital.line.sent[-1][2][2]
        instruction = self.hospital.instruction(**asked)
        self.expected = replace(self.expected, **asked, base_model=instruction["base_model"], task=instruction["task"])
        public = self.hospital.key.public_key()
        answer = verify(envelope, public, self.expected, open_receipt(envelope, public).update, NOON)
        if isinstance(answer, Evidence):
            log = answer.recheck
            self.expected = replace(
                self.expected, prev=receipt_digest(envelope), log_size=log.size, log_root=log.root.hex()
            )
        return answer


def test_the_receipts_of_a_hospital_are_accepted_round_after_round(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path / "site")

    for number, kind in enumerate(["train", "train", "evaluate", "train"], start=1):
        consortium.hospital.load(consent_of(f"M{number}"))
        assert isinstance(consortium.round(number, kind), Evidence)
    consortium.hospital.withdraw("N3")
    assert isinstance(consortium.round(5), Evidence)


def test_a_hospital_that_lost_its_log_abstains_before_it_trains(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path / "site")
    consortium.round(1)
    other = Consortium(tmp_path / "restored").hospital

    answer = other.ask(log_size=consortium.expected.log_size)

    assert (answer, other.trainer.used) == ("abstain", [])
    assert "names a state of the consent log this site never signed" in other.said[-1]


def test_a_hospital_that_rewrote_its_log_is_refused(tmp_path: Path) -> None:
    """The same key, the same sizes, another history."""
    consortium, other = Consortium(tmp_path / "site"), Consortium(tmp_path / "rewritten")
    other.hospital.key = consortium.hospital.key
    other.hospital.restart()
    consortium.round(1)
    other.round(1)

    other.expected = consortium.expected
    other.expected = replace(other.expected, prev=receipt_digest(other.hospital.line.sent[-1][2][2]))

    assert other.round(2) == Refused("consent-log-forked")


def test_what_a_round_without_a_release_kept_says_so(tmp_path: Path) -> None:
    hospital = Consortium(tmp_path / "site").hospital
    hospital.trainer.during = lambda: hospital.withdraw("N0")

    assert hospital.ask() == "abstain"

    (kept,) = hospital.rows(consent_checkpoint)
    assert kept["size"] == 64
    (verdicts,) = hospital.rows(eligibility)
    assert (verdicts["root"], verdicts["padded_size"]) == (None, 0)
    assert {row.outcome for row in read_rows(verdicts["rows"])} == {"permit"}
    assert [row["outcome"] for row in hospital.rows(participation)] == ["abstained"]
