"""What is told of the consents is ranges, the same to the same question, and no more often than a range changes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from consent import FEWER, ConsentStatistics, Deny, generate_signing_key, key_id
from demo.task import TASK
from site_node import permissions, sources, statistics
from site_node.app import create_site
from site_node.config import SiteHome
from site_node.store import ledger, open_store, told_statistics
from tests.site_node.hospital import NOON, TERMS, Hospital, add_study, consent_of, grant
from tests.site_node.test_audit_events import membership
from tests.site_node.test_cli import make_member, refused, run

if TYPE_CHECKING:
    from pathlib import Path

    from site_node.statistics import Prepared

SIGNER: Final = "s" * 64


@pytest.fixture
def many(root: Path, store: sa.Engine) -> Hospital:
    """Return a hospital of 40 patients who permit."""
    return Hospital(SiteHome(root), store, patients=40)


def prepared(hospital: Hospital, task: str | None = None) -> Prepared:
    made = _prepare(hospital, task)
    assert not isinstance(made, Deny)
    return made


def _prepare(hospital: Hospital, task: str | None = None) -> Prepared | Deny:
    identity = membership(hospital.home)
    with hospital.store.connect() as db:
        return statistics.prepare(db, hospital.gate, identity, task or hospital.task, hospital.clock.now)


def tell(hospital: Hospital, made: Prepared, *, handed_over: bool = True) -> None:
    with hospital.store.begin() as db:
        number = statistics.note(db, made, SIGNER, hospital.clock.now)
        if handed_over:
            statistics.note_handed_over(db, number, hospital.clock.now)


def known(hospital: Hospital, made: Prepared, signer: str = SIGNER) -> bool:
    with hospital.store.connect() as db:
        return statistics.is_known(db, made, signer)


def another_task(hospital: Hospital, **purpose: Any) -> str:
    """Let another task run on the same dataset."""
    document = json.dumps(TASK | {"name": "other", "purpose": TASK["purpose"] | purpose}).encode()
    grant(hospital.store, "brain-mr", NOON, NOON + timedelta(days=30), document)
    digest = permissions.keep_task(hospital.store, document, NOON)
    permissions.approve_task(hospital.store, digest, "brain-mr", "manager", NOON)
    return digest


def test_what_would_leave_is_ranges_by_what_consents_say(many: Hospital) -> None:
    many.load(*(consent_of(f"N{n}", "deny") for n in range(5)))

    made = prepared(many).statistics

    assert made.model_dump(mode="json") == {
        "federation": "demo",
        "site": "north",
        "task": many.task,
        "dataset": "brain-mr",
        "modality": "MR",
        "as_of": "2026-06-01",
        "studies": {"permit": "32-63", "deny": FEWER, "no_consent": FEWER, "review": FEWER},
    }


def test_a_task_that_may_not_run_is_told_nothing_of(hospital: Hospital) -> None:
    hospital.revoke_grant()

    assert _prepare(hospital) == Deny("grant: revoked")


def test_too_few_for_a_round_is_told_as_the_lowest_range(hospital: Hospital) -> None:
    for patient in hospital.studies:
        hospital.withdraw(patient)

    assert set(prepared(hospital).statistics.studies.model_dump().values()) == {FEWER}


def test_a_withdrawal_at_the_border_of_a_range_does_not_show_even_after_the_interval(many: Hospital) -> None:
    for n in range(8):
        many.withdraw(f"N{n}")  # 32 are left, the fewest of their range
    first = prepared(many)
    tell(many, first)
    many.clock.now += timedelta(days=10)
    many.withdraw("N9")

    assert prepared(many).statistics.studies == first.statistics.studies
    assert known(many, prepared(many))


def test_a_range_that_changes_is_told_only_after_the_interval(many: Hospital) -> None:
    first = prepared(many)
    tell(many, first)
    for n in range(30):
        many.withdraw(f"N{n}")
    many.clock.now += statistics.INTERVAL - timedelta(microseconds=1)
    before = prepared(many)
    many.clock.now += timedelta(microseconds=1)
    after = prepared(many)

    assert before.statistics == first.statistics
    assert known(many, before)
    assert (after.statistics.studies.permit, after.statistics.studies.deny) == (FEWER, "20-31")
    assert not known(many, after)


def test_two_tasks_that_ask_the_same_are_told_the_same(many: Hospital) -> None:
    tell(many, prepared(many))
    for n in range(30):
        many.withdraw(f"N{n}")
    other = another_task(many)

    made = prepared(many, other)

    assert made.statistics.studies == prepared(many).statistics.studies
    assert made.statistics.studies.permit == "32-63"
    assert not known(many, made)


def test_another_question_has_an_answer_of_its_own(many: Hospital) -> None:
    tell(many, prepared(many))
    for n in range(30):
        many.withdraw(f"N{n}")

    made = prepared(many, another_task(many, purposes=["BIORCH"]))

    assert made.statistics.studies.permit == FEWER


def test_what_was_not_handed_over_is_told_again_as_it_was(many: Hospital) -> None:
    first = prepared(many)
    tell(many, first, handed_over=False)
    many.clock.now += timedelta(days=1)

    assert not known(many, prepared(many))
    assert prepared(many).statistics == first.statistics


def test_a_new_membership_is_told_again(many: Hospital) -> None:
    tell(many, prepared(many))

    assert known(many, prepared(many))
    assert not known(many, prepared(many), "another key")


def test_another_dataset_is_told_anew(many: Hospital) -> None:
    tell(many, prepared(many))
    permissions.register_dataset(many.store, "other-mr", TERMS, "MR", "steward", NOON)
    permissions.approve_dataset(many.store, "other-mr", "manager", NOON)
    grant(many.store, "other-mr", NOON, NOON + timedelta(days=1))
    permissions.approve_task(many.store, many.task, "other-mr", "manager", NOON)

    assert not known(many, prepared(many))


def test_what_was_told_is_in_the_ledger_without_a_number_of_studies(many: Hospital) -> None:
    tell(many, prepared(many))

    (row,) = [row for row in many.rows(ledger) if row["entry"] == "site:statistics:told"]
    assert json.loads(row["detail"]) == {
        "task": many.task,
        "dataset": "brain-mr",
        "permit": "32-63",
        "deny": FEWER,
        "no_consent": FEWER,
        "review": FEWER,
    }


def test_a_study_more_of_a_patient_without_consent_stays_below_the_floor(many: Hospital) -> None:
    add_study(many.store, "N99")

    assert prepared(many).statistics.studies.no_consent == FEWER


def test_the_signer_is_the_key_of_the_membership(many: Hospital) -> None:
    tell(many, prepared(many))
    with many.store.begin() as db:
        db.execute(sa.update(told_statistics).values(signer=key_id(many.key.public_key())))

    assert known(many, prepared(many), key_id(many.key.public_key()))
    assert replace(prepared(many), question="x").statistics == prepared(many).statistics


# ------------------------------------------------------------------ the command


@pytest.fixture
def member(root: Path) -> Path:
    """Return the folder of a member whose coordinator is down."""
    create_site(root, "north")
    return make_member(root)


@pytest.fixture
def task(member: Path) -> str:
    """Return a task that may run at a member whose coordinator is down."""
    store = open_store(SiteHome(member).database)
    hospital = Hospital(SiteHome(member), store, patients=24)
    now = datetime.now(UTC)
    grant(store, "brain-mr", now, now + timedelta(days=1))
    sources.note(store, "file", now, now)
    store.dispose()
    key = generate_signing_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (member / "identity" / "receipt.key").write_bytes(key)
    return hospital.task


def test_what_is_shown_is_what_would_be_signed_and_nothing_leaves(member: Path, task: str) -> None:
    shown = run(member, "statistics", task)
    told = json.loads(run(member, "statistics", task, "--json").stdout)

    assert [word for word in ("permit", "20-31", FEWER, "brain-mr") if word not in shown.stdout] == []
    assert ConsentStatistics.model_validate_json(json.dumps(told)).studies.permit == "20-31"
    assert _rows(member) == []


def test_what_could_not_be_handed_over_is_on_record_and_tried_again(member: Path, task: str) -> None:
    for attempts in (1, 2):
        refused(run(member, "statistics", task, "--send"), 5, "telling statistics: ConnectError")
        assert [row.handed_over_at for row in _rows(member)] == [None] * attempts


def test_a_task_that_may_not_run_here_is_refused(member: Path, task: str) -> None:
    refused(run(member, "statistics", task.replace(task[0], "x")), 3, "nothing may be told: task: never approved here")


def _rows(member: Path) -> list[Any]:
    store = open_store(SiteHome(member).database)
    with store.connect() as db:
        found = list(db.execute(sa.select(told_statistics)))
    store.dispose()
    return found
