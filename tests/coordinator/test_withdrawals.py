"""A contribution is withdrawn: before its round closes it counts no more; later, the task says what follows.

The races are real: the notice comes from another connection, or another process, at the moment that the name says.
"""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from consent import receipt_digest
from coordinator import runs, withdrawals
from coordinator.errors import PeerError, RunEnded
from coordinator.members import active
from coordinator.provenance import audit, provenance, texts_as_they_stand, write_bundle
from coordinator.runs import describe
from coordinator.store import contribution, open_store, withdrawal_notice
from models import WeightedMean, model_digest
from tests.coordinator.conftest import NOON
from tests.federation import NAME, Federation, sealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.federation import Answer


def state(federation: Federation, run: str = "") -> str:
    return str(describe(federation.store, run or federation.run)["state"])


def contained(federation: Federation) -> list[int]:
    """Return the rounds whose models are flagged."""
    rows: Any = describe(federation.store, federation.run)["rounds"]
    return [row["round"] for row in rows if row["contains_withdrawn"]]


def finish(federation: Federation) -> None:
    """Carry the run out and end it, as the coordinator does."""
    federation.record.begin(datetime.now(UTC))
    federation.train()
    document = provenance(federation.store, NAME, federation.run, federation.task)
    write_bundle(federation.record, federation.task, document)
    federation.record.end("finished", "", datetime.now(UTC))


def mean_of(federation: Federation, number: int, *sites: str) -> str:
    """Return the digest of the mean of what these sites sent in a round."""
    mean = WeightedMean(federation.record.model(number - 1))
    for name in sites:
        sent = federation.site(name).history[number]
        mean.add(sent.arrays, sent.claim["weight"])
    return model_digest(mean.result())


def faults(federation: Federation) -> list[str]:
    return audit(federation.store, federation.run, federation.folder / "runs")


# ------------------------------------------------------------------ before the round closes (invariant I5)


def before_the_fold(federation: Federation, act: Callable[[], object]) -> None:
    """West answers last: by then the update of north waits on disk."""
    federation.site("west").meanwhile(2, act)


def between_fold_and_close(federation: Federation, act: Callable[[], object]) -> None:
    """Act when the mean is made and the closing transaction is about to begin."""
    seen: list[str] = []

    def on_statement(_c: object, _cur: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE run SET state") and federation.record.last_round() == 1 and not seen:
            seen.append(statement)
            act()

    federation.site("west").meanwhile(
        2, lambda: sa.event.listen(federation.store, "before_cursor_execute", on_statement)
    )


RACES = {"before the fold": before_the_fold, "between the fold and the close": between_fold_and_close}


def hand_in(folder: Path, site: str, envelope: bytes, answers: Any) -> None:
    """Hand a notice in, as another process."""
    store = open_store(folder / "coordinator.db")
    sender = next(member for member in active(store) if member.site == site)
    answers.put(list(withdrawals.take_in(store, NAME, sender, envelope, datetime.now(UTC)).values()))


@pytest.mark.parametrize("moment", RACES)
def test_I5_an_update_taken_back_before_the_close_by_another_process_is_not_in_the_model(
    tmp_path: Path, moment: str
) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    spawn = multiprocessing.get_context("spawn")
    answers: Any = spawn.Queue()

    def another_process() -> None:
        envelope = federation.notice("north", 2)
        process = spawn.Process(target=hand_in, args=(tmp_path, "north", envelope, answers))
        process.start()
        process.join(60)

    RACES[moment](federation, another_process)
    federation.train(rounds=2)

    assert answers.get(timeout=5) == ["retracted"]
    assert federation.outcome(2, "north") == ("retracted", "")
    assert federation.digests()[2] == mean_of(federation, 2, "east", "west")
    assert contained(federation) == []
    assert list(federation.record.folder.rglob("open/*")) == []
    assert faults(federation) == []


def test_I5_a_notice_that_comes_while_the_round_is_closed_waits_and_is_answered_aggregated(
    tmp_path: Path,
) -> None:
    federation = Federation(tmp_path, withdrawal_policy="keep")
    federation.train(rounds=1)
    spawn = multiprocessing.get_context("spawn")
    answers: Any = spawn.Queue()
    started: list[Any] = []

    def on_statement(_c: object, _cur: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO round ") and not started:  # the closing transaction holds the lock
            args = (tmp_path, "north", federation.notice("north", 2), answers)
            started.append(spawn.Process(target=hand_in, args=args))
            started[0].start()
            started[0].join(4)
            assert started[0].is_alive()
            assert answers.empty()

    sa.event.listen(federation.store, "before_cursor_execute", on_statement)
    federation.train(rounds=2)

    assert answers.get(timeout=60) == ["aggregated"]
    started[0].join(60)
    assert federation.outcome(2, "north") == ("counted", "")
    assert contained(federation) == [2]


def test_I5_the_quorum_is_asked_again_without_what_was_taken_back(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    federation.site("east").silent_once_in(2)
    between_fold_and_close(federation, lambda: federation.withdraw("north", 2))

    federation.train(rounds=2)

    assert federation.site("west").asked.count("train 2") == 2
    assert federation.outcome(2, "north") == ("counted", "")
    assert federation.digests()[2] == mean_of(federation, 2, "east", "north", "west")
    assert any("north retracted" in line and "short of the quorum" in line for line in federation.said)
    assert faults(federation) == []


def test_I5_an_update_that_is_taken_back_before_it_arrives_is_not_counted(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    north = federation.site("north")
    said: list[list[str]] = []

    def withdraw_first(answer: Answer) -> Answer:
        if answer.claim["kind"] != "train":
            return answer
        made = north.history[2] = sealed(answer)
        said.append(federation.withdraw("north", 2))
        return made

    north.fault = withdraw_first
    federation.train(rounds=2)

    assert said == [["retracted"]]
    assert federation.outcome(2, "north") == ("retracted", "")
    assert federation.digests()[2] == mean_of(federation, 2, "east", "west")
    assert contained(federation) == []
    assert faults(federation) == []


def test_I5_a_measurement_that_is_taken_back_before_it_is_kept_does_not_count(tmp_path: Path) -> None:
    federation = Federation(tmp_path)

    def withdraw_first(answer: Answer) -> Answer:
        if answer.claim["kind"] == "evaluate":
            federation.withdraw_measurement("north", 3)  # whose answer came before
        return answer

    federation.site("west").fault = withdraw_first
    federation.train()

    assert federation.outcome(3, "north", "evaluate") == ("retracted", "")
    assert federation.outcome(3, "east", "evaluate") == ("counted", "")
    assert withdrawals.standing(federation.store, federation.run).measured_with_withdrawn is False
    assert faults(federation) == []


# ------------------------------------------------------------------ who may withdraw what


def test_the_answers_say_what_became_of_each_update_and_are_given_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path, withdrawal_policy="keep")
    federation.train(rounds=2)
    federation.site("north").history[7] = federation.site("north").history[1]

    first = federation.withdraw("north", 1, 2)
    federation.train()

    assert first == federation.withdraw("north", 1, 2) == ["aggregated", "aggregated"]
    assert federation.withdraw("north", 3) == ["aggregated"]
    assert contained(federation) == [1, 2, 3]
    stored = withdrawals.received(federation.store)
    assert [row["answers"] for row in stored] == ["2 aggregated", "", "1 aggregated"]
    assert all("payload" in str(row["envelope"]) for row in stored)


def test_a_receipt_that_left_no_trace_is_unknown(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.site("north").silent_once_in(1)
    federation.train(rounds=2)
    north = federation.site("north")
    north.history[1] = sealed(north.history[2], round=1)

    assert federation.withdraw("north", 1) == ["unknown"]
    assert contained(federation) == []


def test_a_notice_of_a_run_that_is_not_known_is_kept_and_answered(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    north = federation.site("north")
    north.history[1] = sealed(north.history[1], nonce="of another life")
    federation.run = "run-ffffffff"

    assert federation.withdraw("north", 1) == ["unknown"]
    assert [row["run"] for row in withdrawals.received(federation.store)] == ["run-ffffffff"]


def test_nobody_withdraws_what_is_not_their_own(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    federation.site("north").history[1] = federation.site("east").history[1]

    with pytest.raises(PeerError, match="not the site's own"):
        federation.withdraw("north", 1)

    assert withdrawals.received(federation.store) == []
    assert contained(federation) == []


def test_a_notice_of_another_site_or_by_another_key_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    notice = federation.notice("north", 1)

    with pytest.raises(PeerError, match="bad-signature"):
        withdrawals.take_in(federation.store, NAME, federation.member("east"), notice, NOON)
    with pytest.raises(PeerError, match="another federation"):
        withdrawals.take_in(federation.store, "south-sea", federation.member("north"), notice, NOON)
    with pytest.raises(PeerError, match="malformed"):
        withdrawals.take_in(federation.store, NAME, federation.member("north"), b"{}", NOON)
    assert withdrawals.received(federation.store) == []


# ------------------------------------------------------------------ what becomes of a model


def test_keep_flags_every_model_from_the_first_affected_round_on_and_hands_it_out(tmp_path: Path) -> None:
    federation = Federation(tmp_path, withdrawal_policy="keep")
    finish(federation)

    federation.withdraw("north", 2, 3)

    assert contained(federation) == [2, 3]
    stands = withdrawals.standing(federation.store, federation.run)
    assert (stands.state, stands.withdrawn_from, stands.refusal) == ("finished", 2, "")
    texts = texts_as_they_stand(federation.store, NAME, federation.record, federation.task)
    assert b"contains a withdrawn contribution" in texts["docs/README.md"]
    assert b"contains a withdrawn contribution" in texts["configs/metadata.json"]
    written = federation.record.folder / "bundle" / "docs" / "README.md"
    assert b"withdrawn" not in written.read_bytes()
    document = provenance(federation.store, NAME, federation.run, federation.task)
    assert [row["contains_withdrawn"] for row in document["rounds"]] == [False, False, True, True]


def test_a_partner_reads_no_more_of_a_retracted_update_than_of_an_abstention(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    before_the_fold(federation, lambda: federation.withdraw("north", 2))
    finish(federation)

    made = provenance(federation.store, NAME, federation.run, federation.task)["rounds"][2]["contributions"]
    north = next(row for row in made if row["site"] == "north")

    assert federation.outcome(2, "north") == ("retracted", "")
    told = {key: value for key, value in north.items() if value not in ("", 0, None, {})}
    assert told == {"site": "north", "outcome": "abstained"}


@pytest.mark.parametrize("rounds", [(1,), (3,)])
def test_stop_distribution_refuses_a_finished_model_and_keeps_it_for_auditors(
    tmp_path: Path, rounds: tuple[int, ...]
) -> None:
    federation = Federation(tmp_path)
    finish(federation)

    federation.withdraw("north", *rounds)

    stands = withdrawals.standing(federation.store, federation.run)
    assert (stands.state, "not handed out" in stands.refusal) == ("finished", True)
    assert (federation.record.folder / "bundle" / "models" / "model.pt").exists()
    assert faults(federation) == []


def test_stop_distribution_ends_a_run_whose_model_nobody_would_be_given(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.site("west").meanwhile(3, lambda: federation.withdraw("north", 1))

    with pytest.raises(RunEnded):
        federation.train()

    assert state(federation) == "stopped"
    assert federation.record.last_round() == 2
    assert not federation.record.end("failed", "", NOON)
    assert withdrawals.standing(federation.store, federation.run).refusal
    assert list(federation.record.folder.rglob("open/*")) == []


def without_the_patient(folder: Path) -> list[str]:
    """Return the models of a run in which the patient never was."""
    control = Federation(folder)
    control.train()
    return control.digests()


@pytest.mark.parametrize("first", [1, 2, 3])
def test_retraining_after_a_finished_run_gives_the_bits_of_a_run_that_never_used_the_patient(
    tmp_path: Path, first: int
) -> None:
    federation = Federation(tmp_path / "run", withdrawal_policy="rollback-retrain")
    north, old = federation.site("north"), federation.run
    north.uses_a_patient_from(first)
    finish(federation)
    used = federation.digests()

    north.behave()
    federation.withdraw("north", *range(first, 4))
    federation.go_on()
    finish(federation)

    control = without_the_patient(tmp_path / "control")
    assert federation.digests() == control
    assert [ours == theirs for ours, theirs in zip(used, control, strict=True)] == [n < first for n in range(4)]
    assert (federation.run != old, state(federation, old), state(federation)) == (True, "superseded", "finished")
    assert withdrawals.standing(federation.store, old).refusal.endswith(f"{federation.run} takes its place")
    assert contained(federation) == []
    document = provenance(federation.store, NAME, federation.run, federation.task)
    assert document["derived_from"] == {"run": old, "carried_rounds": first - 1}
    assert [row["made_in"] == old for row in document["rounds"]] == [n < first for n in range(4)]
    assert north.asked.count("initialise 0") == 1
    assert faults(federation) == []


def test_a_run_under_way_is_superseded_at_once_and_its_open_round_makes_no_model(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", withdrawal_policy="rollback-retrain")
    north, old = federation.site("north"), federation.run
    north.uses_a_patient_from(2)

    def withdraw() -> None:
        north.behave()
        federation.withdraw("north", 2)

    federation.site("west").meanwhile(3, withdraw)
    with pytest.raises(RunEnded):
        federation.train()
    federation.go_on()
    finish(federation)

    assert state(federation, old) == "superseded"
    assert federation.digests() == without_the_patient(tmp_path / "control")
    assert faults(federation) == []
    federation.run = old
    assert len(federation.digests()) == 3
    assert faults(federation) == []


def test_a_second_withdrawal_during_the_retraining_rolls_back_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", withdrawal_policy="rollback-retrain")
    north, east, first = federation.site("north"), federation.site("east"), federation.run
    north.uses_a_patient_from(3)
    east.uses_a_patient_from(2)
    finish(federation)

    north.behave()
    federation.withdraw("north", 3)
    earlier = east.history[2]
    federation.go_on()
    second = federation.run

    def withdraw() -> None:
        east.behave()
        east.history[2] = earlier
        federation.run = first  # the update of round 2 was made in the first run, and is carried by the second
        federation.withdraw("east", 2)
        federation.run = second

    federation.site("west").meanwhile(3, withdraw)
    with pytest.raises(RunEnded):
        federation.train()
    federation.go_on()
    finish(federation)

    assert [state(federation, run) for run in (first, second, federation.run)] == ["superseded"] * 2 + ["finished"]
    assert federation.digests() == without_the_patient(tmp_path / "control")
    assert withdrawals.standing(federation.store, first).successor == federation.run
    assert faults(federation) == []


def test_a_withdrawal_of_the_measurement_alone_does_only_that_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path, withdrawal_policy="rollback-retrain")
    finish(federation)
    before = federation.digests()

    federation.withdraw_measurement("north", 3)
    federation.go_on()
    finish(federation)

    assert federation.digests() == before
    assert federation.site("north").asked.count("train 3") == 1
    assert federation.site("north").asked.count("evaluate 3") == 2
    assert faults(federation) == []


def test_a_crash_in_the_notice_leaves_nothing_and_the_notice_works_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path, withdrawal_policy="rollback-retrain")
    finish(federation)

    def crash(*_args: object) -> None:
        raise KeyboardInterrupt

    sa.event.listen(federation.store, "commit", crash)
    with pytest.raises(KeyboardInterrupt):
        federation.withdraw("north", 2)
    sa.event.remove(federation.store, "commit", crash)

    assert (state(federation), runs.next_open(federation.store), contained(federation)) == ("finished", None, [])
    assert federation.withdraw("north", 2) == ["aggregated"]
    assert (state(federation), contained(federation)) == ("superseded", [2, 3])
    assert runs.next_open(federation.store) is not None


def test_a_retraining_that_is_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "run", withdrawal_policy="rollback-retrain")
    federation.site("north").uses_a_patient_from(2)
    finish(federation)
    federation.site("north").behave()
    federation.withdraw("north", 2, 3)
    federation.go_on()
    federation.record.begin(NOON)
    federation.train(rounds=2)

    restarted = Federation(tmp_path / "run", run=federation.run)
    finish(restarted)

    assert restarted.digests() == without_the_patient(tmp_path / "control")


# ------------------------------------------------------------------ what an audit finds


def test_an_audit_finds_a_count_of_what_was_answered_to_be_in_no_model(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    north = federation.site("north")
    before_the_fold(federation, lambda: federation.withdraw("north", 2))
    federation.train(rounds=2)
    envelope = north.history[2].envelope or b""

    with federation.store.begin() as db:
        row = (contribution.c.round == 2) & (contribution.c.site == "north") & (contribution.c.kind == "train")
        db.execute(
            sa.update(contribution)
            .where(row)
            .values(outcome="counted", receipt=envelope, receipt_digest=receipt_digest(envelope))
        )

    assert "round 2, train, north: counted although it was taken back" in faults(federation)


def test_an_audit_finds_a_notice_that_the_member_did_not_sign(tmp_path: Path) -> None:
    federation = Federation(tmp_path, withdrawal_policy="keep")
    federation.train(rounds=1)
    federation.withdraw("north", 1)
    with federation.store.begin() as db:
        db.execute(sa.update(withdrawal_notice).values(site="east"))

    assert any("east: not signed by it" in fault for fault in faults(federation))


TAKEN_AWAY = {
    "the notice with its flags": (
        ("DELETE FROM withdrawn_receipt", "DELETE FROM withdrawal_notice"),
        "round 2, train, north: taken back, and no notice of the site is on record",
    ),
    "the flags": (("DELETE FROM withdrawn_receipt",), "which is not flagged"),
    "the receipt of a flag": (
        ("UPDATE withdrawn_receipt SET receipt = '000000000000'",),
        "north: no notice flags the receipt 000000000000",
    ),
    "the digest of the notice": (
        ("UPDATE withdrawal_notice SET digest = '000000000000'",),
        "the notice 000000000000 of north: it is under another's digest",
    ),
}


@pytest.mark.parametrize("what", TAKEN_AWAY)
def test_an_audit_finds_what_was_taken_away_of_a_withdrawal(tmp_path: Path, what: str) -> None:
    statements, expected = TAKEN_AWAY[what]
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    before_the_fold(federation, lambda: federation.withdraw("north", 2))
    federation.train(rounds=2)
    assert faults(federation) == []

    with closing(sqlite3.connect(federation.folder / "coordinator.db")) as db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0
        db.commit()

    assert [fault for fault in faults(federation) if expected in fault], faults(federation)


def test_an_audit_finds_a_carried_round_that_is_not_as_it_was_made(tmp_path: Path) -> None:
    federation = Federation(tmp_path, withdrawal_policy="rollback-retrain")
    finish(federation)
    federation.withdraw("north", 3)
    federation.go_on()
    with federation.store.begin() as db:
        row = (contribution.c.run == federation.run) & (contribution.c.round == 1) & (contribution.c.site == "east")
        assert db.execute(sa.delete(contribution).where(row)).rowcount == 1

    assert [fault for fault in faults(federation) if fault.startswith("round 1: is not as run")]
