"""Whatever happens in whatever order: every release was permitted, whole, at the epoch it was committed in."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consent import NO_PREVIOUS, open_receipt, receipt_digest
from site_node import permissions
from site_node.audit import Audited, audit
from site_node.config import SiteHome
from site_node.errors import PeerError
from site_node.store import open_store, participation
from tests.site_node.hospital import NOON, Hospital, PowerCut, add_study, consent_of, grant, lost_line

if TYPE_CHECKING:
    from collections.abc import Callable

START = 3
patients = st.integers(0, START + 2).map("N{}".format)


class Releases(RuleBasedStateMachine):
    """A hospital, and beside it a plain account of who permits and what else holds."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = open_store(self.folder / "site.db")
        self.hospital = Hospital(SiteHome(self.folder), self.store, patients=START)
        self.permitting = set(self.hospital.studies)
        self.withdrawn: set[str] = set()
        self.approved = True
        self.granted_until = NOON + timedelta(days=30)
        self.permitted_at: dict[int, frozenset[str]] = {}
        self.openings = 0
        self.head = NO_PREVIOUS
        self.remember()

    def teardown(self) -> None:
        """Have an auditor replay what happened, and remove the folder."""
        found = audit(self.store, Audited(self.folder, "demo", "north", b""))
        # The studies here are rows; no file is behind them.
        assert [fault for one in found if "files" not in one.what for fault in one.faults] == []
        self.store.dispose()
        shutil.rmtree(self.folder)

    def remember(self) -> None:
        """Note which studies may be used in the epoch of now, by the plain account."""
        usable = self.permitting - self.withdrawn if self.approved else set()
        studies = frozenset(self.hospital.studies[patient] for patient in usable)
        self.permitted_at[self.hospital.gate.epoch()] = studies

    # what happens in a hospital; each may also happen in the middle of a round

    def withdraw(self, patient: str) -> None:
        """Let a patient withdraw."""
        self.hospital.withdraw(patient)
        self.withdrawn.add(patient)
        self.remember()

    def agree(self, patient: str) -> None:
        """Let a patient, perhaps a new one, agree; a withdrawal is not lifted by that."""
        if patient not in self.hospital.studies:
            self.hospital.studies[patient] = add_study(self.store, patient)
        self.hospital.load(consent_of(patient))
        self.permitting.add(patient)
        self.remember()

    def refuse(self, patient: str) -> None:
        """Load a new version of a patient's consent that refuses."""
        self.hospital.load(consent_of(patient, "deny"))
        self.permitting.discard(patient)
        self.remember()

    def revoke(self, _patient: str) -> None:
        """Take the task's approval back."""
        if self.approved:
            self.hospital.revoke()
            self.approved = False
            self.remember()

    def let_the_grant_end(self, _patient: str) -> None:
        """Time passes until the grant has ended."""
        self.hospital.clock.now = max(self.hospital.clock.now, self.granted_until)

    def lose_power(self, _patient: str) -> None:
        """Kill the process."""
        raise PowerCut

    def nothing(self, _patient: str) -> None:
        """Let the round go its way."""

    EVENTS = (nothing, withdraw, agree, refuse, revoke, let_the_grant_end, lose_power)

    @rule(event=st.sampled_from((withdraw, agree, refuse)), patient=patients)
    def between_rounds(self, event: Callable[[Releases, str], None], patient: str) -> None:
        """Something happens while the node waits."""
        event(self, patient)

    @precondition(lambda self: not self.approved)
    @rule()
    def approve_again(self) -> None:
        """Approve the task again."""
        manager = ("manager", self.hospital.clock.now)
        permissions.approve_task(self.store, self.hospital.task, "brain-mr", *manager)
        self.approved = True
        self.remember()

    @precondition(lambda self: self.hospital.clock.now >= self.granted_until)
    @rule()
    def grant_again(self) -> None:
        """Grant access for another month."""
        now = self.hospital.clock.now
        self.granted_until = now + timedelta(days=30)
        grant(self.store, "brain-mr", now, self.granted_until)
        self.remember()

    @rule(
        kind=st.sampled_from(["train", "evaluate"]),
        event=st.sampled_from(EVENTS),
        patient=patients,
        failure=st.sampled_from([None, PowerCut, lost_line]),
        again=st.booleans(),
    )
    def one_round(
        self,
        kind: str,
        event: Callable[[Releases, str], None],
        patient: str,
        failure: Callable[[], BaseException] | None,
        *,
        again: bool,
    ) -> None:
        """One opening: something happens while it trains, the hand-over may fail, and it may be asked twice."""
        self.openings += 1
        hospital = self.hospital
        hospital.trainer.during = lambda: event(self, patient)
        hospital.line.failures = [failure()] if failure else []
        now = hospital.clock.now
        values = {
            "kind": kind,
            "round": self.openings,
            "nonce": f"n{self.openings}",
            "sent_at": now.isoformat(),
            "deadline": (now + timedelta(days=60)).isoformat(),
            "receipt_head": self.head,
            "carried_receipt": NO_PREVIOUS,
        }
        for name in ("first", "second") if again else ("first",):
            with suppress(PowerCut, PeerError):
                hospital.ask(f"{name}{self.openings}", **values)
            hospital.line.failures = []
            hospital.restart()
            hospital.resume()
        envelopes = [content[2] for sort, _, content in hospital.line.sent if sort == "release"]
        self.head = receipt_digest(envelopes[-1]) if envelopes else NO_PREVIOUS

    @invariant()
    def every_release_was_permitted_at_the_epoch_of_its_commit(self) -> None:
        """Compare the hospital's record and its receipts with the plain account."""
        released = [row for row in self.hospital.rows(participation) if row["outcome"] == "released"]
        for row in released:
            receipt = open_receipt(row["receipt"], self.hospital.key.public_key())
            assert receipt.epoch.recheck == receipt.epoch.release == row["epoch"]
            assert set(json.loads(row["studies"])) <= self.permitted_at[row["epoch"]]
            assert receipt.times.released < receipt.grants[0].expires_at
        assert len({row["nonce"] for row in released}) == len(released)

    @invariant()
    def every_message_has_one_answer_and_nothing_waits(self) -> None:
        """Count the answers by message."""
        answered = [message_id for _, message_id, _ in self.hospital.line.sent]
        assert len(answered) == len(set(answered))
        assert list(self.hospital.home.outbox.iterdir()) == []

    @invariant()
    def what_was_handed_over_is_what_was_committed(self) -> None:
        """Compare the receipts that left with those on record."""
        left = [content[2] for sort, _, content in self.hospital.line.sent if sort == "release"]
        kept = [row["receipt"] for row in self.hospital.rows(participation) if row["receipt"]]
        assert sorted(left) == sorted(kept)


TestReleases = Releases.TestCase
TestReleases.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
