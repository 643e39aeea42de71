"""A request for access is decided on in the console by who is signed in, under the rules of every decision."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from consent import AccessRequest, RequestState
from consent.access_request import TRANSITIONS
from demo.task import TASK
from site_node import access_requests, permissions
from site_node.access_requests import Numbered
from site_node.console.request_pages import STEPS
from tests.site_node.console.browser import Browser, entries, said
from tests.site_node.hospital import TERMS, Hospital, form_of

if TYPE_CHECKING:
    from httpx import Response

ASKING = TERMS | {"modifiers": [{"code": "DUO:0000021"}]}  # needs an ethics approval, which a task does not state
UNTIL = "2099-01-01"


def submitted(hospital: Hospital, dataset: str = "brain-mr", by: str = "anna") -> int:
    made = access_requests.draft(hospital.store, form_of(dataset), by, hospital.clock.now)
    assert isinstance(made, Numbered)
    access_requests.submit(hospital.store, made.number, by, hospital.clock.now)
    return made.number


def found(hospital: Hospital, number: int) -> AccessRequest:
    with hospital.store.connect() as db:
        return access_requests.find(db, number)


def decide(browser: Browser, hospital: Hospital, number: int, act: str, **fields: str) -> Response:
    """Send a form of the request's page, as it is now unless `seen` says otherwise."""
    seen = {"seen": str(found(hospital, number).version)}
    return browser.post(f"/requests/{number}/{act}", f"/requests/{number}", **(seen | fields))


def offered(browser: Browser, number: int) -> set[str]:
    return set(re.findall(rf'action="/requests/{number}/(\w+)"', browser.get(f"/requests/{number}").text))


def test_two_accounts_approve_with_an_end_and_conditions_and_one_revokes(hospital: Hospital, manager: Browser) -> None:
    number = submitted(hospital)
    assert offered(manager, number) == {"approve", "review", "return", "reject"}

    decide(manager, hospital, number, "approve", until=UNTIL, conditions="no export\r\n\r\n report yearly ", by="eve")
    assert offered(manager, number) == {"confirm", "return", "reject"}
    manager.sign_in("nils")
    assert decide(manager, hospital, number, "confirm").headers["location"] == f"/requests/{number}"

    request = found(hospital, number)
    assert (request.state, request.conditions) == (RequestState.APPROVED, ("no export", "report yearly"))
    assert f"{request.expires_at:%Y-%m-%d}" == UNTIL
    told = [(entry, detail["by"]) for entry, detail in entries(hospital)[-3:] if "request:" in entry]
    assert told == [("site:request:approved", "mara"), ("site:request:confirmed", "nils")]

    assert offered(manager, number) == {"revoke"}
    decide(manager, hospital, number, "revoke", words="over")
    assert found(hospital, number).state is RequestState.REVOKED
    assert offered(manager, number) == set()


def test_the_same_account_does_not_confirm(hospital: Hospital, manager: Browser) -> None:
    number = submitted(hospital)
    decide(manager, hospital, number, "approve", until=UNTIL)

    refused = decide(manager, hospital, number, "confirm", by="nils")

    assert refused.status_code == 422
    assert "who approved it first cannot confirm it: another person must" in said(refused)
    assert found(hospital, number).state is RequestState.SECOND_AWAITED


def test_who_made_it_decides_nothing(hospital: Hospital, manager: Browser) -> None:
    number = submitted(hospital, by="Mara")

    for act in ("approve", "review", "return", "reject"):
        assert "another person must" in said(decide(manager, hospital, number, act, until=UNTIL, words="fine"))
    assert found(hospital, number).version == 2


@pytest.mark.parametrize(
    ("act", "state"),
    [("return", RequestState.RETURNED), ("reject", RequestState.REJECTED), ("review", RequestState.IN_REVIEW)],
)
def test_a_request_is_given_back_refused_and_commented_with_a_reason(
    hospital: Hospital, manager: Browser, act: str, state: RequestState
) -> None:
    number = submitted(hospital)

    assert "with a reason in words" in said(decide(manager, hospital, number, act, words="  "))
    decide(manager, hospital, number, act, words="not now")

    assert found(hospital, number).state is state
    assert "not now" in manager.get(f"/requests/{number}").text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"until": ""}, "the day on which the grant ends is missing"),
        ({"until": "soon"}, "the day on which the grant ends is missing"),
        ({"until": "2020-01-01"}, "a grant must end in the future"),
        ({"until": UNTIL, "seen": "1"}, "the request changed: it is at version 2"),
        ({"until": UNTIL, "seen": "x"}, "the request changed: it is at version 2"),
        ({"until": UNTIL, "words": "x" * 2001}, "too long"),
    ],
)
def test_an_approval_that_may_not_be_says_why_and_keeps_what_was_typed(
    hospital: Hospital, manager: Browser, fields: dict[str, str], words: str
) -> None:
    number = submitted(hospital)

    refused = decide(manager, hospital, number, "approve", step="approve", conditions="no export", **fields)

    assert (refused.status_code, words in said(refused)) == (422, True)
    assert "what may be done now stands" in said(refused)
    assert ">no export</textarea>" in refused.text
    assert found(hospital, number).version == 2


@pytest.mark.parametrize("act", ["return", "reject", "review"])
def test_a_decision_on_a_version_that_nobody_shows_any_more_is_not_taken(
    hospital: Hospital, manager: Browser, act: str
) -> None:
    number = submitted(hospital)

    assert "it is at version 2" in said(decide(manager, hospital, number, act, words="no", seen="1"))
    assert found(hospital, number).version == 2


def test_the_machines_verdict_stands_beside_the_humans(hospital: Hospital, manager: Browser) -> None:
    permissions.register_dataset(hospital.store, "asking", ASKING, "MR", "steward", hospital.clock.now)
    number = submitted(hospital, "asking")
    assert "approve with a reason in words" in said(decide(manager, hospital, number, "approve", until=UNTIL))
    decide(manager, hospital, number, "approve", until=UNTIL, words="ethics vote 17")
    refused = submitted(hospital)
    decide(manager, hospital, refused, "reject", words="no room")

    listed = manager.get("/requests").text
    told = re.findall(r'">Request \d+</a></th>(.*?)</tr>', listed, re.DOTALL)
    cells = [re.findall(r"<td>(?:<span[^>]*>)?(.*?)(?:</span>)?</td>", row) for row in told]
    assert [row[2:5] for row in cells] == [
        ["approve", "rejected", "differs"],
        ["manual", "approved by one, and waits for a second", "left to people"],
        ["approve", "approved", "agrees"],
    ]
    page = manager.get(f"/requests/{number}").text
    assert "<td>manual, no ethics approval is stated</td>" in page
    assert '<th scope="row">methods development</th><td>yes</td>' in page


def test_what_is_new_in_a_task_of_the_project_is_shown(hospital: Hospital, manager: Browser) -> None:
    longer = TASK | {"rounds": 99, "purpose": TASK["purpose"] | {"commercial": True}}
    permissions.keep_task(hospital.store, json.dumps(longer).encode(), hospital.clock.now)

    page = manager.get(f"/requests/{hospital.request}").text

    assert re.search(r'<th scope="row">rounds</th><td><code>\d+</code></td><td><code>99</code></td>', page)
    assert "not approved here; it claims more than this request: commercial" in page


def test_a_grant_that_ran_out_and_a_history_that_was_altered_offer_nothing(
    hospital: Hospital, manager: Browser
) -> None:
    hospital.clock.now += timedelta(days=31)
    manager.sign_in("mara")
    assert offered(manager, hospital.request) == set()
    assert "expired" in manager.get("/requests").text

    with hospital.store.begin() as db:
        db.exec_driver_sql("INSERT INTO request_event (request, version, event) VALUES (9, 2, '{}')")
    assert "grants nothing: its history has a gap" in manager.get("/requests").text
    assert "Choose another" in said(manager.get("/requests/9"))


def test_every_decision_of_a_request_has_its_step() -> None:
    made_elsewhere = {"drafted", "submitted"}

    assert {str(step.act) for step in STEPS.values()} == {str(act) for _, act in TRANSITIONS} - made_elsewhere


def test_a_step_that_is_none_is_refused(manager: Browser, hospital: Hospital) -> None:
    answer = manager.post(f"/requests/{hospital.request}/grant")

    assert (answer.status_code, "open the request again" in said(answer)) == (404, True)
