"""One round at the hospital: what is committed is what was permitted, once, whatever happens in between."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy as sa
from flwr.app import Array, ArrayRecord

from consent import NO_PREVIOUS, Receipt, generate_signing_key, open_receipt, receipt_digest
from models import update_digest
from site_node import consents, permissions
from site_node.errors import PeerError, PeerRefused, TrainingFailed
from site_node.store import inflight, ledger, outbox, participation
from tests.site_node.hospital import (
    NOON,
    PSEUDONYMS,
    Hospital,
    PowerCut,
    add_study,
    consent_of,
    lost_line,
    message,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def envelope(hospital: Hospital, number: int = -1) -> bytes:
    kind, _, content = hospital.line.sent[number]
    assert kind == "release"
    return bytes(content[2])


def receipt(hospital: Hospital, number: int = -1) -> Receipt:
    return open_receipt(envelope(hospital, number), hospital.key.public_key())


def reasons(hospital: Hospital) -> list[str]:
    return [row["reason"] for row in hospital.rows(participation)]


def at_tick(hospital: Hospital, number: int, happens: Callable[[], None]) -> None:
    """Let something happen when the clock is read for the `number`th time from now on."""
    ticks = iter(range(1, 1000))

    def tick() -> None:
        if next(ticks) == number:
            happens()

    hospital.clock.on_tick = tick


def count_ticks(hospital: Hospital) -> int:
    """Return how often a whole round reads the clock; uses one nonce up."""
    seen: list[None] = []
    hospital.clock.on_tick = lambda: seen.append(None)
    assert hospital.ask("counting", nonce="counting") == "release"
    return len(seen)


def _load(hospital: Hospital, *resources: dict[str, Any]) -> None:
    assert hospital.load(*resources).records == len(resources)


# ------------------------------------------------------------------ what leaves


def test_a_permitted_round_releases_the_update_with_a_receipt_that_binds_it(hospital: Hospital) -> None:
    assert hospital.ask() == "release"

    (_, _, (arrays, metrics, _)) = hospital.line.sent[0]
    found = receipt(hospital)
    assert found.update == update_digest(arrays, metrics)
    assert (found.run, found.round, found.kind, found.nonce) == ("run-1", 1, "train", "nonce-1")
    assert (found.task, found.site) == (hospital.task, "north")
    assert (found.count_bucket, found.weight) == ("4-7", 6)
    assert found.epoch.recheck == found.epoch.release == hospital.gate.epoch()
    assert found.prev == NO_PREVIOUS
    np.testing.assert_array_equal(arrays["float32"], hospital.trainer.arrays["float32"])


def test_a_released_round_leaves_nothing_waiting(hospital: Hospital) -> None:
    hospital.ask()

    assert hospital.rows(inflight) == hospital.rows(outbox) == []
    assert list(hospital.home.outbox.iterdir()) == []
    (row,) = hospital.rows(participation)
    assert (row["outcome"], row["receipt"]) == ("released", envelope(hospital))
    assert set(hospital.studies.values()) == set(json.loads(row["studies"]))


def test_a_releases_file_and_its_name_are_on_disk_before_the_commit(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = list[int](), os.fsync

    def watched(descriptor: int) -> None:
        synced.append(stat.S_IFMT(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    hospital.ask()

    assert synced == [stat.S_IFREG, stat.S_IFDIR]


def test_the_ledger_names_every_step(hospital: Hospital) -> None:
    hospital.ask()

    assert [row["entry"] for row in hospital.rows(ledger)] == [
        "site:consent:loaded",
        "site:source:added",
        "site:dataset:registered",
        "site:dataset:approved",
        "site:request:drafted",
        "site:request:submitted",
        "site:request:approved",
        "site:request:confirmed",
        "site:task:approved",
        "site:update:released",
    ]


def test_an_evaluation_releases_metrics_and_no_weights(hospital: Hospital) -> None:
    assert hospital.ask(kind="evaluate") == "release"

    assert hospital.line.sent[0][2][0] == {}
    assert hospital.line.sent[0][2][1] == {"train_loss": 0.25, "dice": 0.5}


def test_the_untrained_model_needs_no_patient_and_only_the_approved_task(hospital: Hospital) -> None:
    assert hospital.ask("m1", kind="initialise", whole=True) == "initial"
    assert hospital.trainer.used == [()]

    hospital.revoke()

    assert hospital.ask("m2", kind="initialise", nonce="nonce-2") == "abstain"


def test_the_next_receipt_follows_the_one_the_coordinator_has(hospital: Hospital) -> None:
    hospital.ask()
    head = receipt_digest(hospital.line.sent[0][2][2])

    hospital.ask("m2", round=2, nonce="nonce-2", receipt_head=head)

    assert receipt(hospital).prev == head


def test_the_coordinator_may_lack_a_receipt_but_not_forget_one_it_had(hospital: Hospital) -> None:
    def ask(number: int, head: str) -> str:
        return hospital.ask(f"m{number}", round=number, nonce=f"nonce-{number}", receipt_head=head)

    assert ask(1, NO_PREVIOUS) == "release"
    first = receipt_digest(envelope(hospital))
    assert ask(2, NO_PREVIOUS) == "release"  # the first receipt never arrived, or was not counted
    second = receipt_digest(envelope(hospital))
    assert ask(3, first) == "release"  # it was on its way
    assert ask(4, first) == "release"
    assert ask(5, NO_PREVIOUS) == "abstain"
    assert hospital.said[-1] == "abstained: the coordinator goes back to a receipt before one that it had"
    assert ask(6, second) == "release"
    assert ask(7, first) == "abstain"


def test_a_site_that_joined_again_with_a_new_key_begins_a_new_chain(hospital: Hospital) -> None:
    hospital.ask()
    hospital.key = generate_signing_key()
    hospital.restart()

    assert hospital.ask("m2", round=2, nonce="nonce-2") == "release"
    first = receipt(hospital)
    assert hospital.ask("m3", round=3, nonce="nonce-3", receipt_head=receipt_digest(envelope(hospital))) == "release"

    assert (first.prev, receipt(hospital).count_bucket) == (NO_PREVIOUS, "4-7")
    assert hospital.ask("m4", nonce="nonce-4", receipt_head=receipt_digest(envelope(hospital, 0))) == "abstain"


def test_the_count_goes_on_over_a_change_of_the_receipt_key_within_a_run(hospital: Hospital) -> None:
    """Else a withdrawal would show at the border of a range."""
    hospital.ask()
    hospital.key = generate_signing_key()
    hospital.restart()
    hospital.withdraw("N0")

    hospital.ask("m2", round=2, nonce="nonce-2")
    same_run = receipt(hospital).count_bucket
    hospital.ask("m3", run="run-2", nonce="nonce-3")

    assert (same_run, receipt(hospital).count_bucket) == ("4-7", "2-3")


def test_the_count_of_a_run_that_takes_up_another_goes_on_from_the_rounds_it_carried_over(hospital: Hospital) -> None:
    hospital.ask()
    carried = receipt_digest(envelope(hospital))
    hospital.withdraw("N0")

    hospital.ask("m2", run="run-2", round=2, nonce="nonce-2", receipt_head=carried, carried_receipt=carried)
    taken_up = receipt(hospital).count_bucket
    hospital.ask("m3", run="run-3", round=2, nonce="nonce-3", receipt_head=carried)

    assert (taken_up, receipt(hospital).count_bucket) == ("4-7", "2-3")


def test_a_receipt_holds_no_patient_and_no_study(hospital: Hospital) -> None:
    hospital.ask()

    text = receipt(hospital).model_dump_json()
    assert not [study for study in hospital.studies.values() if study in text]
    assert not [row for row in hospital.rows(ledger) if any(s in row["detail"] for s in hospital.studies.values())]


# ------------------------------------------------------------------ a permission is taken back


def test_a_withdrawal_while_training_releases_nothing(hospital: Hospital) -> None:
    hospital.trainer.during = lambda: hospital.withdraw("N0")

    assert hospital.ask() == "abstain"

    assert reasons(hospital) == ["stopped: a permission was taken back, or time ran out; work discarded"]
    assert [row["outcome"] for row in hospital.rows(participation)] == ["abstained"]
    assert list(hospital.home.outbox.iterdir()) == []


def test_the_withdrawn_study_is_in_no_later_release(hospital: Hospital) -> None:
    hospital.ask("m1")
    hospital.withdraw("N1")

    hospital.ask("m2", round=2, nonce="nonce-2")

    used = [json.loads(row["studies"]) for row in hospital.rows(participation)]
    assert [hospital.studies["N1"] in studies for studies in used] == [True, False]


@pytest.mark.parametrize(
    "take_back",
    [
        Hospital.revoke,
        lambda hospital: permissions.revoke_dataset(hospital.store, "brain-mr", "manager", NOON),
        lambda hospital: hospital.revoke_grant(),
    ],
    ids=["task", "dataset", "grant"],
)
def test_an_approval_taken_back_while_training_releases_nothing(
    hospital: Hospital, take_back: Callable[[Hospital], None]
) -> None:
    hospital.trainer.during = lambda: take_back(hospital)

    assert hospital.ask() == "abstain"

    assert reasons(hospital) == ["stopped: a permission was taken back, or time ran out; work discarded"]
    assert list(hospital.home.outbox.iterdir()) == []


def test_a_withdrawal_at_any_reading_of_the_clock_counts_before_the_commit_or_not_at_all(hospital: Hospital) -> None:
    """Whatever a round reads, decides and writes lies between two readings of its clock; each one is tried."""
    total = count_ticks(hospital)
    impatient = sa.create_engine(f"sqlite:///{hospital.home.database}", connect_args={"timeout": 0})
    for number in range(1, total + 1):
        patient = f"T{number}"
        withdrawn_at: list[int] = []
        study = add_study(hospital.store, patient)
        hospital.load(consent_of(patient))

        def withdraw(patient: str = patient, withdrawn_at: list[int] = withdrawn_at) -> None:
            with suppress(sa.exc.OperationalError):  # the commit is being written: the withdrawal waits for it
                withdrawn_at.append(consents.withdraw(impatient, PSEUDONYMS.patient(patient), NOON))

        at_tick(hospital, number, withdraw)
        answer = hospital.ask(f"m{number}", nonce=f"n{number}")
        row = hospital.rows(participation)[-1]
        if answer == "release" and study in row["studies"]:
            assert not withdrawn_at or row["epoch"] < withdrawn_at[0]
        hospital.clock.on_tick = lambda: None
        hospital.withdraw(patient)
    impatient.dispose()


def test_a_withdrawal_between_the_second_asking_and_the_commit_releases_nothing(hospital: Hospital) -> None:
    recheck = hospital.gate.recheck
    withdrawals: list[str] = []

    class Gate:
        """The hospital's gate; right after its second asking a patient withdraws."""

        def __getattr__(self, name: str) -> Any:
            return getattr(hospital.gate, name)

        def recheck(self, *arguments: Any) -> Any:
            answer = recheck(*arguments)
            if not withdrawals:
                hospital.withdraw("N1")
                withdrawals.append("N1")
            return answer

    hospital.rounds._gate = Gate()  # type: ignore[assignment] # noqa: SLF001 -- the moment has no other handle

    assert hospital.ask() == "abstain"

    assert withdrawals == ["N1"]
    assert reasons(hospital) == ["consent: a study in use is no longer permitted"]
    assert (hospital.rows(outbox), list(hospital.home.outbox.iterdir())) == ([], [])


def test_the_release_goes_on_when_others_consent_meanwhile(hospital: Hospital) -> None:
    hospital.trainer.during = lambda: _load(hospital, consent_of("N9"))

    assert hospital.ask() == "release"
    assert receipt(hospital).epoch.release == hospital.gate.epoch()


def test_a_grant_that_ends_before_the_commit_releases_nothing(hospital: Hospital) -> None:
    def end_grant() -> None:
        hospital.clock.now = NOON + timedelta(days=31)

    hospital.trainer.during = end_grant

    assert hospital.ask(deadline=(NOON + timedelta(days=60)).isoformat()) == "abstain"

    assert reasons(hospital) == ["stopped: a permission was taken back, or time ran out; work discarded"]


def test_a_grant_that_ends_at_any_reading_of_the_clock_ends_before_no_release(hospital: Hospital) -> None:
    total = count_ticks(hospital)
    ends = hospital.gate.snapshot(hospital.task, NOON).grants[0].expires_at  # type: ignore[union-attr] # it permits

    def end_grant() -> None:
        hospital.clock.now = ends

    for number in range(1, total + 1):
        hospital.clock.now = NOON
        at_tick(hospital, number, end_grant)
        deadline = (ends + timedelta(days=1)).isoformat()
        if hospital.ask(f"m{number}", nonce=f"n{number}", deadline=deadline) == "release":
            assert receipt(hospital).times.released < ends


# ------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"kind": "dump"}, "instruction: kind is not valid"),
        ({"round": -1}, "instruction: round is not valid"),
        ({"round": "1"}, "instruction: round is not valid"),
        ({"round": 1.0}, "instruction: round is not valid"),
        ({"round": True}, "instruction: round is not valid"),
        ({"run": b"run-1"}, "instruction: run is not valid"),
        ({"whole": 1}, "instruction: whole is not valid"),
        ({"whole": "yes"}, "instruction: whole is not valid"),
        ({"sent_at": int(NOON.timestamp())}, "instruction: sent_at is not valid"),
        ({"deadline": [1, 2]}, "instruction: deadline is not valid"),
        ({"task": "x"}, "instruction: task is not valid"),
        ({"deadline": "tomorrow"}, "instruction: deadline is not valid"),
        ({"sent_at": "2026-06-01T12:00:00"}, "instruction: sent_at is not valid"),
        ({"more": 1, "run": ""}, "instruction: more, run is not valid"),
        ({"base_model": "0" * 64}, "the base model is not the one the instruction names"),
        ({"receipt_head": "1" * 64}, "the coordinator names a receipt this site never made"),
        ({"task": "1" * 64}, "task: never approved here"),
        ({"deadline": NOON.isoformat()}, "the deadline has passed; if this repeats, set this machine's clock"),
        ({"sent_at": "2026-06-01T12:00:31Z"}, "clocks differ by 31 s: set this machine's clock"),
    ],
)
def test_an_instruction_that_cannot_be_followed_is_abstained_from(
    hospital: Hospital, values: dict[str, Any], reason: str
) -> None:
    assert hospital.ask(**values) == "abstain"

    assert hospital.said[-1] == f"abstained: {reason}"
    assert hospital.trainer.forgotten == 1
    assert hospital.rows(ledger)[-1]["entry"] == "site:round:abstained"
    assert hospital.rows(inflight) == []


@pytest.mark.parametrize(
    "array",
    [
        Array(np.zeros((3, 1), np.float32)),
        Array(np.zeros(3, np.float64)),
        Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=b""),
        Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=b"no array"),
        Array(dtype="float32", shape=(3,), stype="pickle", data=b"no array"),
    ],
    ids=["not flat", "another dtype", "empty", "no npy", "another serialisation"],
)
def test_a_base_model_that_cannot_be_read_is_abstained_from(hospital: Hospital, array: Array) -> None:
    hospital.line.message = message(hospital.instruction(), {}, "m1")
    hospital.line.message.content["arrays"] = ArrayRecord({"float32": array})

    hospital.take_part()

    assert hospital.said[-1] == "abstained: the base model cannot be read"
    assert hospital.line.kinds == ["abstain"]


def test_a_message_without_an_instruction_is_abstained_from(hospital: Hospital) -> None:
    hospital.line.message = message(None, {}, "m1")

    hospital.take_part()

    assert hospital.line.sent == [("abstain", "m1", None)]


def test_a_clock_that_is_a_little_off_is_no_reason_to_abstain(hospital: Hospital) -> None:
    assert hospital.ask(sent_at=(NOON + timedelta(seconds=30)).isoformat()) == "release"


def test_why_a_site_abstains_is_not_in_what_it_sends(hospital: Hospital) -> None:
    hospital.revoke()

    hospital.ask()

    assert hospital.line.sent == [("abstain", "m1", None)]
    assert reasons(hospital) == ["task: revoked"]


def test_one_opening_of_a_round_is_answered_with_one_release_at_most(hospital: Hospital) -> None:
    assert hospital.ask("m1") == "release"

    assert hospital.ask("m2") == "abstain"
    assert hospital.ask("m3", nonce="nonce-2") == "release"

    assert len([row for row in hospital.rows(participation) if row["outcome"] == "released"]) == 2
    assert hospital.said[-3] == "abstained: this opening of the round was answered before"


def test_an_opening_that_was_abstained_from_stays_so(hospital: Hospital) -> None:
    assert hospital.ask("m1", receipt_head="1" * 64) == "abstain"

    assert hospital.ask("m2") == "abstain"


# ------------------------------------------------------------------ what training made


@pytest.mark.parametrize(
    "metrics",
    [{"patients": 4.0}, {"dice": float("nan")}, {"dice": float("inf")}, {"dice": 1}, {"dice": [0.5]}],
)
def test_a_metric_that_is_not_declared_or_no_number_stops_the_release(
    hospital: Hospital, metrics: dict[str, Any]
) -> None:
    hospital.trainer.metrics = metrics

    assert hospital.ask() == "abstain"


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"float32": np.zeros(4, np.float32)},
        {"float32": np.zeros(3, np.float64)},
        {"float32": np.zeros(3, np.float32), "int64": np.zeros(1, np.int64)},
        {"float32": np.array([0, np.nan, 0], np.float32)},
        {"float32": np.full(3, 1e6, np.float32)},
    ],
    ids=["none", "shape", "dtype", "one more", "not finite", "too far"],
)
def test_weights_unlike_the_base_models_stop_the_release(hospital: Hospital, arrays: dict[str, Any]) -> None:
    hospital.trainer.arrays = arrays

    assert hospital.ask() == "abstain"
    assert list(hospital.home.outbox.iterdir()) == []


def test_an_evaluation_never_carries_weights_whatever_training_returned(hospital: Hospital) -> None:
    hospital.trainer.arrays = {"float32": np.ones(3, np.float32)}

    assert hospital.ask(kind="evaluate") == "release"
    assert hospital.line.sent[0][2][0] == {}


def test_a_worker_that_fails_is_an_abstention(hospital: Hospital) -> None:
    def fail() -> None:
        raise TrainingFailed("the training worker ended")

    hospital.trainer.during = fail

    assert hospital.ask() == "abstain"
    assert reasons(hospital) == ["the training worker ended"]


def test_training_past_the_deadline_is_stopped(hospital: Hospital) -> None:
    def sleep() -> None:
        hospital.clock.now = NOON + timedelta(minutes=5)

    hospital.trainer.during = sleep

    assert hospital.ask() == "abstain"


# ------------------------------------------------------------------ lost lines and power cuts


def cut_power() -> None:
    raise PowerCut


def test_after_a_power_cut_behind_the_commit_exactly_the_committed_bytes_are_handed_over(hospital: Hospital) -> None:
    hospital.line.failures.append(PowerCut())
    with pytest.raises(PowerCut):
        hospital.ask()
    (waiting,) = hospital.rows(outbox)
    hospital.trainer.arrays = {"float32": np.full(3, 9, np.float32)}

    hospital.restart()
    hospital.resume()

    ((kind, message_id, (arrays, metrics, envelope)),) = hospital.line.sent
    assert (kind, message_id, envelope) == ("release", "m1", waiting["receipt"])
    assert receipt(hospital).update == update_digest(arrays, metrics)
    np.testing.assert_array_equal(arrays["float32"], np.full(3, 0.5, np.float32))
    assert hospital.rows(inflight) == hospital.rows(outbox) == []


def test_after_a_power_cut_before_the_commit_the_site_abstains(hospital: Hospital) -> None:
    hospital.trainer.during = cut_power
    with pytest.raises(PowerCut):
        hospital.ask()

    hospital.restart()
    hospital.resume()

    assert hospital.line.sent == [("abstain", "m1", None)]
    assert hospital.rows(participation) == hospital.rows(inflight) == []


def test_a_power_cut_at_any_reading_of_the_clock_ends_in_one_answer(hospital: Hospital) -> None:
    total = count_ticks(hospital)
    for number in range(1, total + 1):
        at_tick(hospital, number, cut_power)
        hospital.line.sent.clear()
        with pytest.raises(PowerCut):
            hospital.ask(f"m{number}", nonce=f"n{number}")

        hospital.restart()
        hospital.resume()

        # The last reading is behind the commit, when consent is asked once more before the hand-over.
        assert hospital.line.kinds == ["release" if number == total else "abstain"], number
        assert list(hospital.home.outbox.iterdir()) == []
    assert len([row for row in hospital.rows(participation) if row["outcome"] == "released"]) == 2


def test_a_lost_line_keeps_the_release_for_the_next_connection(hospital: Hospital) -> None:
    hospital.line.failures += [lost_line(), lost_line()]
    with pytest.raises(PeerError):
        hospital.ask()
    with pytest.raises(PeerError):
        hospital.resume()

    hospital.resume()

    assert hospital.line.kinds == ["release"]
    assert hospital.rows(outbox) == []


def test_an_answer_the_coordinator_will_not_have_is_dropped_and_said(hospital: Hospital) -> None:
    hospital.line.failures += [lost_line(), PeerRefused("handing over a reply: the coordinator answered 404")]
    with pytest.raises(PeerError):
        hospital.ask()

    hospital.resume()

    assert hospital.line.sent == []
    assert hospital.rows(inflight) == hospital.rows(outbox) == []
    assert "no longer wanted" in hospital.said[-1]


def test_a_withdrawal_after_the_commit_lets_nothing_out_and_later_rounds_go_on(hospital: Hospital) -> None:
    hospital.line.failures.append(lost_line())
    with pytest.raises(PeerError):
        hospital.ask()
    hospital.withdraw("N0")

    hospital.resume()
    hospital.ask("m2", nonce="nonce-2")

    assert hospital.line.kinds == ["abstain", "release"]
    assert hospital.studies["N0"] not in hospital.rows(participation)[-1]["studies"]


def test_consents_that_grow_too_old_while_training_release_nothing(hospital: Hospital) -> None:
    hospital.config = replace(hospital.config, max_consent_age_h=0.05)
    hospital.restart()

    def three_minutes_pass() -> None:
        hospital.clock.now += timedelta(minutes=3, seconds=1)

    hospital.trainer.during = three_minutes_pass

    assert hospital.ask() == "abstain"
    assert reasons(hospital) == ["stopped: a permission was taken back, or time ran out; work discarded"]
    assert list(hospital.home.outbox.iterdir()) == []
