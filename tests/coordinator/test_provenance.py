"""The audit passes on what happened, and finds every fault that is planted in the record."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from consent import EMPTY_ROOT, POLICY, open_receipt, receipt_digest, sign_receipt
from coordinator import tasks
from coordinator.errors import RunFailed
from coordinator.provenance import audit, provenance, receipt_count, write_bundle
from coordinator.runs import describe
from coordinator.store import contribution, member, receipt_head, round_, run, task
from coordinator.verification import expected_json, read_expected
from models import model_digest
from tests.federation import DOCUMENT, SITES, Federation, Log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.federation import Answer


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = Federation(tmp_path)
    made.site("west").forged_signature()
    made.train()
    return made


def faults(federation: Federation) -> list[str]:
    return audit(federation.store, federation.run, federation.folder / "runs")


def alter(federation: Federation, table: sa.Table, number: int, site: str = "", **values: object) -> None:
    where = table.c.round == number
    if site:
        where &= (table.c.site == site) & (table.c.kind == "train")
    with federation.store.begin() as db:
        assert db.execute(sa.update(table).where(where).values(**values)).rowcount == 1


def receipt_of(federation: Federation, number: int, site: str) -> bytes:
    columns = contribution.c
    query = sa.select(columns.receipt).where(columns.round == number, columns.site == site, columns.kind == "train")
    with federation.store.connect() as db:
        return bytes(db.execute(query).scalar_one())


def test_an_honest_run_has_no_faults(federation: Federation) -> None:
    assert faults(federation) == []
    assert receipt_count(federation.store, federation.run) == 2 * (federation.task.rounds + 1)


def test_a_round_that_was_short_of_its_quorum_once_leaves_no_fault(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    for name in ("north", "west"):
        federation.site(name).silent_once_in(2)

    federation.train()

    assert federation.site("east").asked.count("train 2") == 2
    assert faults(federation) == []


def test_a_run_that_failed_for_want_of_a_quorum_has_no_faults(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.site("north").forged_signature()
    federation.site("west").forged_signature()

    with pytest.raises(RunFailed):
        federation.train()

    assert faults(federation) == []


def test_a_final_model_is_measured_once(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train()
    federation.train()

    assert [site.asked.count(f"evaluate {federation.task.rounds}") for site in map(federation.site, SITES)] == [1, 1, 1]
    assert faults(federation) == []


def another_signer(federation: Federation) -> None:
    with federation.store.begin() as db:
        west = db.execute(sa.select(member.c.receipt_key).where(member.c.site == "west")).scalar_one()
        db.execute(sa.update(member).where(member.c.site == "north").values(receipt_key=west))


def alter_task(federation: Federation) -> None:
    other = json.dumps({**json.loads(DOCUMENT), "rounds": 4}).encode()
    digest = tasks.submit(federation.store, other, "acme", datetime.now(UTC))
    with federation.store.begin() as db:
        db.execute(sa.update(run).values(task=digest))


def changed_receipt(federation: Federation) -> None:
    content = receipt_of(federation, 2, "north").replace(b'"sig":"', b'"sig":"AAAA', 1)
    alter(federation, contribution, 2, "north", receipt=content)


def receipt_of_another_round(federation: Federation) -> None:
    alter(federation, contribution, 2, "north", receipt=receipt_of(federation, 1, "north"))


def expectation(federation: Federation, number: int, site: str, **changes: object) -> None:
    """Change what is kept of what was expected of a receipt."""
    columns = contribution.c
    query = sa.select(columns.expected).where(columns.round == number, columns.site == site, columns.kind == "train")
    with federation.store.connect() as db:
        kept = read_expected(db.execute(query).scalar_one())
    alter(federation, contribution, number, site, expected=expected_json(replace(kept, **changes)))  # type: ignore[arg-type] # its fields


def receipt_that_came_too_late(federation: Federation) -> None:
    """Date an answer before its receipt."""
    alter(federation, contribution, 2, "north", at=0.0)


def swapped_model(federation: Federation) -> None:
    folder = federation.record.folder
    (folder / "round-0002.safetensors").write_bytes((folder / "round-0001.safetensors").read_bytes())


def missing_model(federation: Federation) -> None:
    (federation.record.folder / "round-0002.safetensors").unlink()


def erase(federation: Federation, table: sa.Table, which: sa.ColumnElement[bool]) -> None:
    with federation.store.begin() as db:
        assert db.execute(sa.delete(table).where(which)).rowcount > 0


def older_head(federation: Federation) -> None:
    envelope = receipt_of(federation, 2, "north")
    head = {"digest": receipt_digest(envelope), "receipt": envelope}
    with federation.store.begin() as db:
        db.execute(sa.update(receipt_head).where(receipt_head.c.site == "north").values(**head))


def document(federation: Federation, text: bytes) -> None:
    with federation.store.begin() as db:
        db.execute(sa.update(task).values(document=text.decode()))


def measured(federation: Federation, metrics: str) -> None:
    north = (contribution.c.site == "north") & (contribution.c.kind == "evaluate")
    with federation.store.begin() as db:
        assert db.execute(sa.update(contribution).where(north).values(metrics=metrics)).rowcount == 1


TRAINED_BY_NORTH = (contribution.c.site == "north") & (contribution.c.kind == "train")
PLANTED: dict[str, tuple[Callable[[Federation], None], str]] = {
    "an answer dated before its receipt": (
        receipt_that_came_too_late,
        "round 2, train, north: the receipt does not hold: times-out-of-order",
    ),
    "nothing of what was expected": (
        lambda federation: alter(federation, contribution, 2, "north", expected=None),
        "round 2, train, north: what was expected of the receipt is not on record",
    ),
    "another expectation": (
        lambda federation: expectation(federation, 2, "north", nonce="another"),
        "round 2, train, north: the receipt does not hold: another-nonce",
    ),
    "another consent log before": (
        lambda federation: expectation(federation, 2, "north", log_root="0" * 64),
        "round 2, train, north: the receipt does not hold: consent-log-forked",
    ),
    "another task of the run": (
        alter_task,
        "round 1, train, east: the receipt speaks of something else",
    ),
    "a changed receipt": (changed_receipt, "round 2, train, north: receipt"),
    "a receipt of another round": (
        receipt_of_another_round,
        "round 2, train, north: the receipt speaks of something else",
    ),
    "a receipt of another signer": (another_signer, "round 1, train, north: receipt bad-signature"),
    "another update": (
        lambda federation: alter(federation, contribution, 2, "north", update="0" * 64),
        "round 2, train, north: the receipt speaks of something else",
    ),
    "another weight": (
        lambda federation: alter(federation, contribution, 2, "north", weight=10_000),
        "round 2, train, north: the receipt speaks of something else",
    ),
    "a swapped model file": (swapped_model, "round 2: the model of round 2 on disk is not the one on record"),
    "a missing model file": (missing_model, "round 2: the model of round 2 on disk is missing or damaged"),
    "a round that starts elsewhere": (
        lambda federation: alter(federation, round_, 2, model_before="0" * 64),
        "round 2: starts from another model than round 1 made",
    ),
    "another result of a round": (
        lambda federation: alter(federation, round_, 2, model_after="0" * 64),
        "round 3: starts from another model than round 2 made",
    ),
    "no contribution at all": (
        lambda federation: erase(federation, contribution, sa.true()),
        "round 1: 0 sound receipts, fewer than the quorum of 2",
    ),
    "no rounds": (lambda federation: erase(federation, round_, sa.true()), "no round of the run is on record"),
    "the last round gone": (
        lambda federation: erase(federation, round_, round_.c.round == federation.task.rounds),
        "rounds [0, 1, 2] are on record; the task has 3",
    ),
    "a receipt gone that another follows": (
        lambda federation: erase(federation, contribution, TRAINED_BY_NORTH & (contribution.c.round == 2)),
        "RUN, round 3, train, north: the receipt it follows is gone",
    ),
    "the last receipt gone": (
        lambda federation: erase(federation, contribution, contribution.c.kind == "evaluate"),
        "north: the last receipt on record is not among those counted",
    ),
    "an older receipt as the last": (
        older_head,
        "north: the last receipt on record is not the last that was counted",
    ),
    "another digest of a receipt": (
        lambda federation: alter(federation, contribution, 2, "north", receipt_digest="0" * 64),
        "RUN, round 2, train, north: the digest of its receipt is another's",
    ),
    "another task": (
        lambda federation: document(federation, DOCUMENT.replace(b'"rounds": 3', b'"rounds": 4')),
        "the task's document is another's",
    ),
    "no task that can be read": (lambda federation: document(federation, b"{}"), "the task's document cannot be read"),
    "another measurement": (
        lambda federation: measured(federation, '{"dice": 1.0}'),
        "round 3, evaluate, north: its metrics are not those of its receipt",
    ),
    "another mean of a round": (
        lambda federation: alter(federation, round_, 2, metrics='{"train_loss": 0.125}'),
        "round 2: its metrics are not the mean of its sites'",
    ),
    "a site's metrics of a training round": (
        lambda federation: alter(federation, contribution, 2, "north", metrics='{"train_loss": 8.0}'),
        "round 2: its metrics are not the mean of its sites'",
    ),
    "metrics that are no JSON": (
        lambda federation: alter(federation, round_, 2, metrics="{"),
        "a row of the run or of a member is damaged",
    ),
    "a member who is gone": (
        lambda federation: erase(federation, member, member.c.site == "north"),
        "north: has contributions and is no member",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_the_audit_finds_a_planted_fault_and_says_where(federation: Federation, planted: str) -> None:
    plant, expected = PLANTED[planted]

    plant(federation)

    found = faults(federation)
    assert any(fault.startswith(expected.replace("RUN", federation.run)) for fault in found), found


def test_every_check_that_was_made_is_made_again(federation: Federation) -> None:
    """A policy that is no longer allowed was allowed then; what was expected then is what counts."""
    with federation.store.connect() as db:
        kept = [read_expected(text) for text in db.scalars(sa.select(contribution.c.expected)) if text]

    assert len(kept) == 2 * (federation.task.rounds + 1)
    assert {one.policies for one in kept} == {(POLICY,)}
    federation.config = replace(federation.config, allowed_policies=("1" * 64,), minimum_count=1000)
    assert faults(federation) == []


def test_a_consent_log_that_does_not_follow_the_one_accepted_before_is_found(federation: Federation) -> None:
    """Both receipts hold by themselves: the site signed two histories, and the record of what was asked was changed."""
    key, log = federation.site("north").key, Log("north")
    row = receipt_of(federation, 2, "north")
    claim = open_receipt(row, key.public_key())
    forked = claim.model_copy(update={"consent_log": log.claim(key, 0)})
    expectation(federation, 2, "north", log_size=0, log_root=EMPTY_ROOT.hex())
    alter(federation, contribution, 2, "north", receipt=sign_receipt(forked, key))

    found = faults(federation)

    assert "round 2, train, north: its consent log does not follow the one accepted before" in found


def test_a_refused_receipt_is_kept_and_shown_as_an_alert(federation: Federation) -> None:
    record = describe(federation.store, federation.run)

    assert "round 1, train, west: receipt-bad-signature" in record["alerts"]  # type: ignore[operator] # a list
    assert receipt_of(federation, 1, "west").startswith(b'{"payload"')
    assert "ALERT: round 1, train: west refused: receipt-bad-signature" in federation.said


def test_the_provenance_tells_who_took_part_and_why_the_others_did_not(federation: Federation) -> None:
    document = provenance(federation.store, "north-sea", federation.run, federation.task)

    first = document["rounds"][1]
    told = {made["site"]: (made["outcome"], made["reason"]) for made in first["contributions"]}
    assert told == {
        "east": ("counted", ""),
        "north": ("counted", ""),
        "west": ("refused", "receipt-bad-signature"),
    }
    assert first["model_after"] == document["rounds"][2]["model_before"] == model_digest(federation.record.model(1))
    assert {made["site"] for made in document["evaluation"] if made["outcome"] == "counted"} == {"east", "north"}
    assert document["measured"] == {"dice": 0.75}
    sites = [made for place in document["rounds"] for made in place["contributions"]] + document["evaluation"]
    assert len(sites) > len(document["evaluation"])
    assert not any("metrics" in made for made in sites)


def test_anyone_can_check_the_receipts_of_a_bundle_with_its_keys(federation: Federation) -> None:
    document = provenance(federation.store, "north-sea", federation.run, federation.task)

    folder = write_bundle(federation.record, federation.task, document)

    written = json.loads((folder / "docs" / "provenance.json").read_text())
    assert written == json.loads(json.dumps(document))
    made = written["rounds"][1]["contributions"][1]
    receipt = open_receipt(made["receipt"].encode(), federation.site("north").key.public_key())
    assert (receipt.site, receipt.update, receipt.weight) == (made["site"], made["update"], made["weight"])
    assert "BEGIN PUBLIC KEY" in written["receipt_keys"]["north"][0]


def test_a_site_that_joined_again_during_a_run_is_audited_by_both_of_its_keys(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    north = federation.site("north")

    def answer_and_join_again(answer: Answer) -> Answer:
        if answer.claim["round"] == 2:  # it was a member still when the first answer came
            north.behave()
            federation.join_again("north")
        return answer

    north.fault = answer_and_join_again
    federation.train()

    assert [federation.outcome(number, "north")[0] for number in (1, 2, 3)] == ["counted", "refused", "counted"]
    assert faults(federation) == []
    document = provenance(federation.store, "north-sea", federation.run, federation.task)
    assert {site: len(keys) for site, keys in document["receipt_keys"].items()} == {"east": 1, "north": 2, "west": 1}
    alter(federation, contribution, 3, "north", receipt=receipt_of(federation, 1, "north"))
    assert any("speaks of something else" in fault for fault in faults(federation))


def test_a_run_without_the_last_round_is_not_delivered(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    document = provenance(federation.store, "north-sea", federation.run, federation.task)

    with pytest.raises(RunFailed, match="round 3"):
        write_bundle(federation.record, federation.task, document)
    assert not (federation.record.folder / "bundle").exists()


def test_each_receipt_of_a_site_follows_another(federation: Federation) -> None:
    key = federation.site("north").key.public_key()

    followed = {open_receipt(receipt_of(federation, number, "north"), key).prev for number in (1, 2, 3)}

    assert len(followed) == 3
