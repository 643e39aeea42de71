"""Requests in the site's database: whole events, in one order, that nobody changes; the gate reads what they make."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from consent import AccessRequest, Deny, RequestForm, RequestState
from demo.task import TASK
from site_node import access_requests, permissions
from site_node.access_requests import Numbered
from site_node.consents import current_epoch
from site_node.errors import ConfigurationError
from site_node.gate import Snapshot
from site_node.store import ledger, request_event
from tests.site_node.deciding import decide_at_once
from tests.site_node.hospital import NOON, PROJECT, TERMS, form_of, grant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.site_node.hospital import Hospital

END = NOON + timedelta(days=30)


@pytest.fixture
def registered(store: sa.Engine) -> sa.Engine:
    """Return a database with a dataset."""
    permissions.register_dataset(store, "mr", TERMS, "MR", "steward", NOON)
    return store


def submitted(store: sa.Engine, form: RequestForm | None = None) -> int:
    made = access_requests.draft(store, form or form_of("mr"), "applicant", NOON)
    assert isinstance(made, Numbered)
    access_requests.submit(store, made.number, "applicant", NOON)
    return made.number


def state(store: sa.Engine, number: int) -> RequestState:
    with store.connect() as db:
        request = access_requests.requests(db)[number]
    assert isinstance(request, AccessRequest)
    return request.state


def entries(store: sa.Engine) -> list[dict[str, str]]:
    with store.connect() as db:
        rows = db.execute(sa.select(ledger).where(ledger.c.entry.like("site:request:%")).order_by(ledger.c.number))
        told = [{"entry": row.entry, **json.loads(row.detail)} for row in rows]
    # The digest by which an audit finds the event is compared in test_audit.py.
    return [{name: value for name, value in one.items() if name != "event"} for one in told]


def epoch(store: sa.Engine) -> int:
    with store.connect() as db:
        return current_epoch(db)


def test_requests_are_numbered_and_keep_their_own_versions(registered: sa.Engine) -> None:
    numbers = [submitted(registered) for _ in range(3)]

    assert numbers == [1, 2, 3]
    with registered.connect() as db:
        assert [len(access_requests.history(db, number)) for number in numbers] == [2, 2, 2]


def test_the_epoch_changes_when_a_grant_begins_and_when_it_ends(registered: sa.Engine) -> None:
    number, before = submitted(registered), epoch(registered)
    access_requests.approve(registered, number, "manager", NOON, END)
    assert epoch(registered) == before

    access_requests.confirm(registered, number, "director", NOON)
    assert epoch(registered) == before + 1

    access_requests.revoke(registered, number, "the agreement ended", "director", NOON)
    assert epoch(registered) == before + 2


def test_the_ledger_tells_what_people_and_terms_said(registered: sa.Engine) -> None:
    number = submitted(registered)

    access_requests.reject(registered, number, "not with us", "manager", NOON)

    assert entries(registered)[-1] == {
        "entry": "site:request:rejected",
        "request": number,
        "version": 3,
        "dataset": "mr",
        "project": PROJECT,
        "by": "manager",
        "terms": "APPROVE",
        "reasons": "",
        "agreement": "differs",
        "words": "not with us",
    }


def test_a_refusal_changes_nothing_and_is_on_record(registered: sa.Engine) -> None:
    number = submitted(registered)

    answer = access_requests.approve(registered, number, "Applicant", NOON, END)

    assert isinstance(answer, Deny)
    assert state(registered, number) is RequestState.SUBMITTED
    assert entries(registered)[-1] == {
        "entry": "site:request:refused",
        "request": number,
        "act": "approved",
        "reason": answer.reason,
        "by": "Applicant",
    }


def test_terms_that_forbid_the_purpose_cannot_be_overruled(store: sa.Engine) -> None:
    permissions.register_dataset(store, "mr", {"permission": "DUO:0000011"}, "MR", "steward", NOON)
    number = submitted(store)

    answer = access_requests.approve(store, number, "manager", NOON, END, words="I know better")

    assert isinstance(answer, Deny)
    assert answer.reason.startswith("the terms of use forbid it: POA: deny")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda store: access_requests.draft(store, form_of("ct"), "applicant", NOON), "the dataset is not registered"),
        (lambda store: access_requests.draft(store, form_of("mr", ""), "applicant", NOON), "form.project"),
        (lambda store: access_requests.draft(store, form_of("mr"), "", NOON), "empty, too long or wrong: by"),
        (lambda store: access_requests.draft(store, form_of("mr"), " ", NOON), "the record says who does it"),
        (lambda store: access_requests.draft(store, form_of("mr"), "x" * 201, NOON), "empty, too long or wrong: by"),
        (lambda store: access_requests.submit(store, 9, "applicant", NOON), "there is no such request"),
        (lambda store: access_requests.review(store, 1, "x" * 2001, "rita", NOON), "empty, too long or wrong: words"),
        (
            lambda store: access_requests.approve(store, 1, "manager", NOON, END.replace(tzinfo=None)),
            "empty, too long or wrong: expires_at",
        ),
        (
            lambda store: access_requests.approve(store, 1, "manager", NOON, END, seen=1),
            "the request changed: it is at version 2",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    registered: sa.Engine, act: Callable[[sa.Engine], Numbered | Deny], expected: str
) -> None:
    submitted(registered)

    answer = act(registered)

    assert isinstance(answer, Deny)
    assert expected in answer.reason
    with registered.connect() as db:
        assert list(access_requests.requests(db)) == [1]
    assert entries(registered)[-1]["entry"] == "site:request:refused"


@pytest.mark.parametrize("table", ["request_event", "ledger"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {table} SET number = 99",
        "DELETE FROM {table}",
        "INSERT OR REPLACE INTO {table} SELECT * FROM {table} LIMIT 1",
        "REPLACE INTO {table} SELECT * FROM {table} LIMIT 1",
    ],
)
def test_the_database_itself_keeps_what_was_written(registered: sa.Engine, table: str, statement: str) -> None:
    submitted(registered)

    with pytest.raises(sa.exc.IntegrityError, match="is append only"), registered.begin() as db:
        db.exec_driver_sql(statement.format(table=table))


def test_an_event_does_not_take_the_place_of_another(registered: sa.Engine) -> None:
    submitted(registered)

    with pytest.raises(sa.exc.IntegrityError, match="is append only"), registered.begin() as db:
        db.exec_driver_sql("INSERT OR REPLACE INTO request_event (request, version, event) VALUES (1, 1, '{}')")


@pytest.mark.parametrize(
    ("version", "event", "expected"),
    [
        (4, "{}", "its history has a gap"),
        (3, "{}", "its history cannot be read"),
        (3, "not JSON", "its history cannot be read"),
        (3, '{"act": "confirmed", "by": "director", "at": "2026-06-01T12:00:00Z"}', "event 3 breaks a rule: "),
        (3, '{"act": "reviewed", "by": "r", "at": "2026-06-01T12:00:00", "words": "x"}', "its history cannot be read"),
    ],
)
def test_a_history_that_is_not_whole_grants_nothing(
    registered: sa.Engine, version: int, event: str, expected: str
) -> None:
    grant(registered, "mr", NOON, END)
    submitted(registered)
    with registered.begin() as db:
        db.execute(sa.insert(request_event).values(request=2, version=version, event=event))

    with registered.connect() as db:
        found = access_requests.requests(db)
        grants = access_requests.granted(db)

    assert isinstance(found[2], Deny)
    assert found[2].reason.startswith(expected)
    assert len(grants) == 1
    assert isinstance(access_requests.approve(registered, 2, "manager", NOON, END), Deny)


def test_a_request_that_is_not_there_has_no_history(store: sa.Engine) -> None:
    with store.connect() as db, pytest.raises(ConfigurationError, match="there is no such request"):
        access_requests.history(db, 1)


def test_a_task_for_more_than_was_approved_may_not_use_the_grant(hospital: Hospital) -> None:
    wider = {**TASK, "purpose": {**TASK["purpose"], "commercial": True}}
    digest = permissions.keep_task(hospital.store, json.dumps(wider).encode(), NOON)
    permissions.approve_task(hospital.store, digest, "brain-mr", "manager", NOON)

    assert hospital.gate.snapshot(digest, NOON) == Deny("grant: made for another purpose: commercial")
    assert isinstance(hospital.gate.snapshot(hospital.task, NOON), Snapshot)


def test_what_was_stated_when_access_was_asked_for_answers_the_terms(hospital: Hospital) -> None:
    asking = {"permission": "DUO:0000006", "modifiers": [{"code": "DUO:0000021"}]}  # IRB
    permissions.register_dataset(hospital.store, "asking-mr", asking, "MR", "steward", NOON)
    permissions.approve_dataset(hospital.store, "asking-mr", "manager", NOON)
    permissions.approve_task(hospital.store, hospital.task, "asking-mr", "manager", NOON)
    form = form_of("asking-mr")
    form = replace(form, purpose=replace(form.purpose, ethics_approved_until=(NOON + timedelta(days=1)).date()))
    number = submitted(hospital.store, form)
    access_requests.approve(hospital.store, number, "manager", NOON, END)
    access_requests.confirm(hospital.store, number, "director", NOON)

    snapshot = hospital.gate.snapshot(hospital.task, NOON)

    assert isinstance(snapshot, Snapshot)
    assert snapshot.grants[0].duo == "APPROVE"
    # The ethics approval ends before the grant does.
    later = hospital.gate.snapshot(hospital.task, NOON + timedelta(days=2))
    assert isinstance(later, Deny)
    assert later.reason.startswith("data use: IRB: deny")


def test_one_approval_alone_permits_nothing(hospital: Hospital) -> None:
    hospital.revoke_grant()
    number = submitted(hospital.store, form_of("brain-mr"))
    access_requests.approve(hospital.store, number, "manager", NOON, END)
    assert hospital.gate.snapshot(hospital.task, NOON) == Deny("grant: revoked")

    access_requests.confirm(hospital.store, number, "director", NOON)

    assert isinstance(hospital.gate.snapshot(hospital.task, NOON), Snapshot)


REQUESTS = 12


@pytest.mark.parametrize(
    ("first", "second", "approved"),
    [("approve", "approve too", False), ("confirm", "give back", True), ("confirm", "reject", True)],
)
def test_of_two_decisions_at_once_one_wins(
    root: Path, registered: sa.Engine, first: str, second: str, *, approved: bool
) -> None:
    for _ in range(REQUESTS):
        number = submitted(registered)
        if approved:
            access_requests.approve(registered, number, "manager", NOON, END)
    spawning = multiprocessing.get_context("spawn")
    barrier, results = spawning.Barrier(2), spawning.Queue()
    people = [
        spawning.Process(target=decide_at_once, args=(root / "site.db", act, REQUESTS, barrier, results))
        for act in (first, second)
    ]
    for person in people:
        person.start()
    said = [results.get(timeout=120) for _ in range(2 * REQUESTS)]
    for person in people:
        person.join()

    winners = {number: [act for n, act, won in said if won and n == number] for number in range(1, REQUESTS + 1)}
    assert {len(acts) for acts in winners.values()} == {1}
    with registered.connect() as db:
        versions = {number: len(access_requests.history(db, number)) for number in winners}
    assert set(versions.values()) == {4 if approved else 3}


@pytest.mark.parametrize("lines", [1, 3])
def test_a_process_that_is_killed_leaves_whole_events_only(root: Path, registered: sa.Engine, lines: int) -> None:
    before = epoch(registered)
    command: list[str | Path] = [sys.executable, "-m", "tests.site_node.deciding", root / "site.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        told = [busy.stdout.readline() for _ in range(lines)]
        busy.kill()
    assert told[0] == "busy\n"

    with registered.connect() as db:
        found = access_requests.requests(db)
        events = [event for number in found for event in access_requests.history(db, number)]
    assert len(found) >= lines - 1
    assert not [request for request in found.values() if isinstance(request, Deny)]
    assert [entry["entry"] for entry in entries(registered)] == [f"site:request:{event.act}" for event in events]
    assert epoch(registered) - before == sum(event.act in {"confirmed", "revoked"} for event in events)
