"""What has to hold inside a round, one invariant after the other: the ids are those of docs/consent.md."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import signal
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from site_node.config import SiteHome
from site_node.release import ABSTAIN
from site_node.release import Line as RealLine
from site_node.rounds import ASK_AGAIN
from site_node.store import inflight, open_store, outbox, participation
from tests.site_node.hospital import Line, Trainer, lost_line
from tests.site_node.invariants.interruptions import Interruptions
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
    template,
    time_passes,
    withdraws,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flwr.app import Message

    Act = Callable[[Ward, World], None]


def during(ward: Ward, *acts: Act, noticed: bool) -> None:
    """Let things happen while it trains; the watch asks afterwards, or is lost."""
    ward.asks = noticed
    ward.during = lambda: [ward.happen(act) for act in acts]


def operations(ward: Ward) -> int:
    """Return how many operations a whole round has, by one that is released."""
    assert ward.ask({}) == "release"
    return ward.interruptions.number


def reason(ward: Ward) -> str:
    """Return why the site abstained last."""
    return ward.site.said[-1].removeprefix("abstained: ")


# ------------------------------------------------------------------ I1


def test_I1_a_withdrawal_before_any_operation_counts_up_to_the_commit_and_from_there_on_it_is_too_late(
    ward: Ward,
) -> None:
    """The ward holds each commit against the ledger; here, besides, no round ends in between."""
    operations(ward)
    answers = []
    for number in count(1):
        answers.append(ward.ask({number: [withdraws("N0")]}, round=number + 1))
        if ward.interruptions.number < number:
            break  # a round has no more operations
        assert ward.happen(lifts("N0"))

    rows = ward.site.rows(participation)
    used = [row["outcome"] == "released" and ward.site.studies["N0"] in json.loads(row["studies"]) for row in rows]
    first = answers.index("abstain")
    ended = list(zip(answers, used[1:], strict=True))
    # Not permitted when the round began, then void, and released with the study once it was committed. How many
    # operations a round has depends on the shape of the consent log: where it commits is not the same in each.
    assert set(ended[:first]) == {("release", False)}
    assert set(ended[first:]) == {("abstain", False), ("release", True)}
    assert answers.count("abstain") > 10
    assert answers[first:-1].count("release") > 0  # the last one had come to its end before


def test_I1_a_receipt_names_the_epoch_of_its_commit_whenever_another_patient_consents(ward: Ward) -> None:
    total = operations(ward)

    for number in range(total - 30, total + 1, 2):
        assert ward.ask({number: [says("N0", "permit"), arrives("N8"), withdraws("N8")]}, round=number) in ANSWERS
        assert ward.happen(lifts("N8"))


ANSWERS = {"release", "abstain"}  # the ward compares the epoch of each release


# ------------------------------------------------------------------ I3


def test_I3_what_was_computed_with_a_withdrawn_study_is_discarded_whole_and_not_computed_again(ward: Ward) -> None:
    during(ward, withdraws("N0"), noticed=False)

    assert ward.ask({}) == "abstain"

    assert ward.trained == [frozenset(ward.site.studies.values())]
    assert (ward.committed, list(ward.home.outbox.iterdir())) == ([], [])
    ward.during = lambda: None
    assert ward.ask({}, round=2) == "release"
    assert ward.committed[0].studies == frozenset(ward.site.studies.values()) - {ward.site.studies["N0"]}


def test_I3_an_update_that_is_not_released_is_off_the_disk_before_the_site_abstains(ward: Ward) -> None:
    ward.site.line.failures = [lost_line()]

    assert ward.ask({}, receipt_head="7" * 64) == "lost"  # found out in the transaction, after the file was written

    assert list(ward.home.outbox.iterdir()) == []


# ------------------------------------------------------------------ I4


def test_I4_no_later_receipt_holds_the_study_until_the_patient_permits_anew(ward: Ward) -> None:
    study = ward.site.studies["N1"]
    held: list[bool] = []
    for act in (None, withdraws("N1"), says("N1", "permit"), lifts("N1"), says("N1", "deny"), says("N1", "permit")):
        if act is not None:
            assert ward.happen(act)
        ward.ask({}, round=len(held))
        held.append(study in ward.committed[-1].studies)

    assert held == [True, False, False, True, False, True]
    assert [made.receipt.epoch.release for made in ward.committed] == [world.epoch for world in ward.history]


# ------------------------------------------------------------------ I6

GROWS: dict[str, tuple[tuple[Act, ...], str]] = {
    "a newcomer": ((arrives("N8"),), "release"),
    "another grant": ((access_is_granted(9000),), "release"),
    "withdrawn and lifted": ((withdraws("N0"), lifts("N0")), "abstain"),
    "refused and permitted": ((says("N0", "deny"), says("N0", "permit")), "abstain"),
    "unreadable and permitted": ((says("N0", "review"), says("N0", "permit")), "abstain"),
    "task revoked and approved": ((task_is(approved=False), task_is(approved=True)), "abstain"),
    "dataset revoked and approved": ((dataset_is(approved=False), dataset_is(approved=True)), "abstain"),
    "access revoked and granted": ((access_is_revoked, access_is_granted(9000)), "abstain"),
}


@pytest.mark.parametrize("change", GROWS)
def test_I6_what_is_given_inside_a_round_waits_for_the_next(ward: Ward, change: str) -> None:
    acts, answer = GROWS[change]
    assert ward.happen(says("N0", "permit"))
    during(ward, *acts, noticed=False)
    end = max(ward.world.grants.values())

    assert ward.ask({}) == answer

    if answer == "release":
        assert ward.committed[0].studies == ward.trained[0] == frozenset(ward.site.studies.values())
        assert ward.committed[0].receipt.grants[0].expires_at == end
    ward.during = lambda: None
    assert ward.ask({}, round=2) == "release"
    assert len(ward.committed[-1].studies) == len(PATIENTS) + (change == "a newcomer")


# ------------------------------------------------------------------ I7

ENDS: dict[str, tuple[Act, Act]] = {
    "the patient withdraws": (time_passes(0), withdraws("N0")),
    "a consent is refused": (time_passes(0), says("N0", "deny")),
    "a consent runs out": (says("N0", "permit", 5), time_passes(6)),
    "the grant runs out": (time_passes(30 * 24 * 60 - 5), time_passes(6)),
    "the grant is revoked": (time_passes(0), access_is_revoked),
    "the dataset is revoked": (time_passes(0), dataset_is(approved=False)),
    "the task is revoked": (time_passes(0), task_is(approved=False)),
    "a source is not recent any more": (time_passes(115), time_passes(6)),
    "the last source is retired": (time_passes(0), source_is_retired("file")),
}


def prepared(ward: Ward, name: str) -> Act:
    """Bring the ward to the brink of an end; return what brings it about."""
    before, end = ENDS[name]
    assert ward.happen(before)
    if name == "the grant runs out":
        assert ward.happen(source_is_read("file"))
    return end


@pytest.mark.parametrize("end", ENDS)
def test_I7_whatever_ends_while_training_stops_it_as_a_withdrawal_does(ward: Ward, end: str) -> None:
    act = prepared(ward, end)
    during(ward, act, noticed=True)
    if end == "the last source is retired":  # no new epoch: found when it is asked again
        during(ward, act, time_passes(ASK_AGAIN.total_seconds() / 60), noticed=True)

    assert ward.ask({}) == "abstain"

    assert reason(ward) == "stopped: a permission was taken back, or time ran out; work discarded"


@pytest.mark.parametrize("end", ENDS)
def test_I7_whatever_ends_and_is_not_noticed_is_found_by_the_second_asking(ward: Ward, end: str) -> None:
    during(ward, prepared(ward, end), noticed=False)

    assert ward.ask({}) == "abstain"

    assert not reason(ward).startswith("stopped")


@pytest.mark.parametrize("end", ["a consent runs out", "the grant runs out", "a source is not recent any more"])
def test_I7_what_ends_by_itself_between_the_second_asking_and_the_commit_is_not_released(ward: Ward, end: str) -> None:
    total = operations(ward)
    act = prepared(ward, end)
    clock = ward.now
    answers = []
    for number in range(1, total + 1, 3):
        ward.site.clock.now = clock
        answers.append(ward.ask({number: [act]}, round=number))  # the ward checks each commit

    assert ("abstain" in answers, answers[-1]) == (True, "release")


# ------------------------------------------------------------------ I8


class FileLine(Line):
    """Keeps what was handed over where a killed process leaves it."""

    def __init__(self, path: Path, tick: Callable[[], None]) -> None:
        super().__init__()
        self._path, self._tick = path, tick

    def _keep(self, kind: str, head: Message, content: object) -> None:
        self._tick()
        with self._path.open("ab") as file:
            pickle.dump((kind, head.metadata.message_id, content), file)
        super()._keep(kind, head, content)
        self._tick()


def handed_over(path: Path) -> list[tuple[str, str, Any]]:
    """Return what left the process that is gone."""
    found = []
    if path.exists():
        with path.open("rb") as file:
            while file.peek(1):
                found.append(pickle.load(file))  # noqa: S301 -- of our own child
    return found


def test_I8_a_process_killed_before_any_operation_has_released_nothing_or_exactly_one(tmp_path: Path) -> None:
    """A real process and SIGKILL: nothing of Python tidies up."""
    answers: list[str] = []
    while True:
        site, sent, killed = killed_at(tmp_path / f"{len(answers) + 1}", len(answers) + 1)
        if not killed:
            break
        site.rounds.tidy()
        site.resume()
        given = handed_over(sent)

        kinds = {kind for kind, _, _ in given}
        (committed,) = site.rows(participation) or ({"receipt": None},)
        assert len(kinds) <= 1
        if kinds == {"release"}:
            assert {content[2] for _, _, content in given} == {committed["receipt"]}
        else:
            assert committed["receipt"] is None
        assert site.rows(inflight) == site.rows(outbox) == list(site.home.outbox.iterdir()) == []
        answers.append(kinds.pop() if kinds else "")
        site.store.dispose()

    assert answers == sorted(answers, key=["", "abstain", "release"].index)
    assert answers.count("abstain") > 20
    assert answers.count("release") > 5


def killed_at(folder: Path, number: int) -> tuple[Any, Path, bool]:
    """Let a process do one round and kill it before its operation `number`; return what a new one finds."""
    site = copy.copy(template())
    shutil.copytree(site.home.root, folder)
    site.home, site.trainer, site.said = SiteHome(folder), Trainer(), []
    sent, interruptions = folder.with_suffix(".sent"), Interruptions()
    site.line = FileLine(sent, interruptions.tick)
    site.clock = copy.copy(site.clock)

    def kill(reached: int) -> None:
        if reached == number:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        site.store = open_store(site.home.database)
        interruptions.watch(site.store)
        site.clock.on_tick = interruptions.tick
        site.restart()
        with interruptions.watching(folder, kill):
            site.ask()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    site.store = open_store(site.home.database)
    site.restart()
    return site, sent, os.WIFSIGNALED(status)


def test_I8_an_opening_that_was_answered_is_answered_with_no_second_release(ward: Ward) -> None:
    for kind in ("train", "evaluate"):
        assert ward.ask({}, kind=kind, nonce="one") == "release"
        assert ward.ask({}, kind=kind, nonce="one") == "abstain"

    assert [made.opening for made in ward.committed] == [("run-1", 1, "train", "one"), ("run-1", 1, "evaluate", "one")]


# ------------------------------------------------------------------ I9


@pytest.mark.parametrize("acts", [
    (source_is_retired("file"),),
    (source_is_read("paper", 121),),
    (time_passes(121),),
    (time_passes(-121),),
], ids=["none", "one of two too old", "too old", "of a time to come"])  # fmt: skip
def test_I9_a_source_that_is_missing_or_not_recent_is_a_reason_to_abstain(ward: Ward, acts: tuple[Act, ...]) -> None:
    for act in acts:
        assert ward.happen(act)

    assert ward.ask({}) == "abstain"

    assert reason(ward).startswith("consent: no")
    assert ward.trained == []


# ------------------------------------------------------------------ I10


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(days=-1)])
@pytest.mark.parametrize("end", ["the patient withdraws", "the grant is revoked", "the dataset is revoked",
                                 "the task is revoked"])  # fmt: skip
def test_I10_what_is_taken_back_holds_from_its_epoch_on_whatever_the_clock_said(
    ward: Ward, end: str, ahead: timedelta
) -> None:
    ward.ahead = ahead
    during(ward, ENDS[end][1], noticed=False)
    if ahead < timedelta() and end == "the grant is revoked":
        ward.ahead = timedelta(hours=-1)  # of a grant that was made a day before

    assert ward.ask({}) == "abstain"


def test_I10_a_clock_that_goes_back_inside_the_round_makes_no_release(ward: Ward) -> None:
    total = operations(ward)

    answers = {ward.ask({number: [time_passes(-0.5)]}, round=number + 1) for number in range(1, total + 1)}

    assert answers == {"abstain", "release"}  # before the first reading and after the last it does no harm


@pytest.mark.parametrize(("ahead_s", "answer"), [(30, "release"), (30.001, "abstain"), (3600, "abstain")])
def test_I10_a_coordinator_further_ahead_than_the_bound_gets_nothing(ward: Ward, ahead_s: float, answer: str) -> None:
    assert ward.ask({}, sent_at=(ward.now + timedelta(seconds=ahead_s)).isoformat()) == answer


# ------------------------------------------------------------------ I11


def test_I11_one_study_fewer_than_the_minimum_is_not_trained_on_nor_released(ward: Ward) -> None:
    for patient in PATIENTS[2:]:
        assert ward.happen(withdraws(patient))
    assert ward.ask({}) == "release"

    assert ward.happen(withdraws(PATIENTS[1]))
    assert ward.ask({}, round=2) == "abstain"
    assert len(ward.trained) == 1


class Wire(Line):
    """Abstains in the words of the release module, and keeps the message that would leave."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Message] = []

    def abstain(self, head: Message) -> None:
        """Abstain as the real line does."""
        super().abstain(head)
        RealLine(self).abstain(head)  # type: ignore[arg-type] # what is used of a link

    def hand_over(self, reply: Message) -> None:
        """Keep the message."""
        self.replies.append(reply)


@pytest.mark.parametrize("end", [*ENDS, "time runs out", "too few", "asked twice"])
def test_I11_every_reason_to_abstain_leaves_as_the_one_same_code(ward: Ward, end: str) -> None:
    values: dict[str, Any] = {}
    if end == "time runs out":
        during(ward, time_passes(61), noticed=True)
    elif end == "too few":
        for patient in PATIENTS[1:]:
            assert ward.happen(withdraws(patient))
    elif end == "asked twice":
        assert ward.ask({}, nonce="n") == "release"
        values = {"nonce": "n"}
    else:
        during(ward, prepared(ward, end), noticed=False)
    ward.site.line = wire = Wire()

    ward.ask({}, **values)

    (reply,) = wire.replies
    assert reply.has_error()
    assert (reply.error.code, reply.error.reason) == (ABSTAIN, "abstain")
