"""Withdrawals, grants, expiries, clocks, lost lines and crashes, at any operation of any round, in any order.

After every operation what the site put on record is held against a naive record of what was permitted when. The checks
stand in `ward`; each names its invariant.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.site_node.invariants.ward import (
    PATIENTS,
    Ward,
    World,
    access_is_granted,
    access_is_revoked,
    arrives,
    dataset_is,
    lifts,
    says,
    source_is_read,
    source_is_retired,
    task_is,
    time_passes,
    withdraws,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LAST = 60  # more operations than any round has

patients = st.sampled_from(PATIENTS)
taken_back: st.SearchStrategy[Callable[[Ward, World], None]] = st.one_of(
    patients.map(withdraws),
    st.builds(says, patients, st.sampled_from(("deny", "inactive", "review"))),
    st.sampled_from([task_is(approved=False), dataset_is(approved=False), access_is_revoked]),
)
given_anew: st.SearchStrategy[Callable[[Ward, World], None]] = st.one_of(
    patients.map(lifts),
    st.builds(says, patients, st.just("permit"), st.sampled_from((None, 1, 30))),
    st.sampled_from([task_is(approved=True), dataset_is(approved=True), arrives("N7"), arrives("N8")]),
    st.sampled_from((1, 30, 3000)).map(access_is_granted),
)
happens = st.one_of(
    taken_back,
    given_anew,
    st.sampled_from((0, 60, 130)).map(lambda ago: source_is_read("paper", ago)),
    st.sampled_from([source_is_read("file"), source_is_retired("paper"), source_is_retired("file")]),
    st.sampled_from((1, 2, 31, -1, -0.01, 121)).map(time_passes),
)
plans = st.dictionaries(st.integers(1, LAST), st.lists(happens, min_size=1, max_size=3), max_size=3)


class AnythingAtAnyMoment(RuleBasedStateMachine):
    """One hospital, its people, its coordinator and its misfortunes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="filmroom-invariants-"))
        self.ward = Ward(self.folder)
        self.rounds = 0
        self.pending = False

    @rule(act=happens)
    def people_do(self, act: Callable[[Ward, World], None]) -> None:
        """Let something happen between two rounds, or while the site is down."""
        assert self.ward.happen(act)

    @rule()
    def everything_is_given_anew(self) -> None:
        """Let all permit again, so that rounds go on being released."""
        for act in (
            *(lifts(patient) for patient in PATIENTS),
            *(says(patient, "permit") for patient in PATIENTS),
            task_is(approved=True),
            dataset_is(approved=True),
            access_is_granted(3000),
            source_is_retired("paper"),
            source_is_read("file"),
        ):
            assert self.ward.happen(act)

    @rule(minutes=st.sampled_from((0, 1, -1)))
    def clocks_differ(self, minutes: int) -> None:
        """Let the clock of those who take permissions back be another than the site's."""
        self.ward.ahead = timedelta(minutes=minutes)

    @precondition(lambda self: not self.pending)
    @rule(
        kind=st.sampled_from(("train", "train", "evaluate")),
        plan=plans,
        during=st.lists(happens, max_size=2),
        asks=st.booleans(),
        crash_at=st.one_of(st.just(0), st.just(0), st.integers(1, LAST)),
        fate=st.sampled_from(("", "", "", "lost", "lost after", "refused")),
        again=st.sampled_from((False, False, False, True)),
        ahead_s=st.sampled_from((0, 0, 0, 30, 31)),
    )
    def the_coordinator_opens_a_round(
        self,
        kind: str,
        plan: dict[int, list[Callable[[Ward, World], None]]],
        during: list[Callable[[Ward, World], None]],
        asks: bool,  # noqa: FBT001 -- drawn
        crash_at: int,
        fate: str,
        again: bool,  # noqa: FBT001 -- drawn
        ahead_s: int,
    ) -> None:
        """Open a round, and let things happen inside it."""
        ward = self.ward
        self.rounds += not again
        ward.asks = asks
        ward.during = lambda: [ward.happen(act) for act in during]
        ward.meet(fate)
        sent_at = (ward.now + timedelta(seconds=ahead_s)).isoformat()
        committed = len(ward.committed)
        ended = ward.ask(plan, crash_at, kind=kind, round=self.rounds, nonce=f"n{self.rounds}", sent_at=sent_at)
        if ahead_s > 30 and not plan:
            assert len(ward.committed) == committed, "I10: clocks that differ too much"
        self.pending = ended in {"crashed", "lost"}
        self.ward.meet("")

    @precondition(lambda self: self.pending)
    @rule(
        crash_at=st.sampled_from((0, 0, *range(1, 16))), fate=st.sampled_from(("", "", "lost", "lost after", "refused"))
    )
    def the_site_comes_back(self, crash_at: int, fate: str) -> None:
        """Connect again; that may go wrong as well."""
        self.ward.meet(fate)
        self.pending = self.ward.resume(crash_at) in {"crashed", "lost"}
        self.ward.meet("")

    @rule()
    def the_site_is_killed(self) -> None:
        """Lose the process between two rounds."""
        self.ward.crash()

    @invariant()
    def what_left_was_permitted(self) -> None:
        """Check what left, after every step."""
        self.ward.check_what_left()
        if not self.pending:
            self.ward.check_nothing_waits()

    def teardown(self) -> None:
        """Remove the files."""
        self.ward.close()
        shutil.rmtree(self.folder)


def _run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        AnythingAtAnyMoment,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.reuse, Phase.generate],  # a failure says enough; making it small takes minutes
            print_blob=True,
        ),
    )


def test_I1_I3_I4_I6_I7_I8_I9_I10_I11_hold_whatever_happens_at_whatever_moment() -> None:
    _run(examples=25, steps=12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_I1_I3_I4_I6_I7_I8_I9_I10_I11_hold_in_many_more_histories() -> None:
    _run(examples=1500, steps=20)
