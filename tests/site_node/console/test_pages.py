"""The console's pages: who sees them, what they show, and what a form changes."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from site_node import access_requests, accounts, sources
from site_node.access_requests import Numbered
from site_node.accounts import Role
from site_node.console.frame import COOKIE
from site_node.console.guard import HEADERS
from site_node.store import withdrawal_notice
from tests.site_node.console.browser import PASSWORD, Browser, entries, outcome, rows, said
from tests.site_node.hospital import PROJECT, Clock, Hospital, bundle, consent_of, form_of
from tests.site_node.test_cli import refused, run

if TYPE_CHECKING:
    from httpx import Response

PAGES = (
    "/",
    "/tasks",
    "/consents/load",
    "/consents/review/1",
    "/requests",
    "/requests/1",
    "/withdrawals",
    "/withdrawals/1",
    "/withdrawals/1/confirmation",
)
FORMS = (
    "/consents/load",
    "/consents/review/1",
    "/requests/1/approve",
    "/withdrawals/preview",
    "/withdrawals/record",
    "/sign-out",
)


def test_who_is_not_signed_in_sees_the_sign_in_page_alone(browser: Browser) -> None:
    answers = [*map(browser.client.get, PAGES), *map(browser.client.post, FORMS)]

    assert {(answer.status_code, answer.headers["location"]) for answer in answers} == {(303, "/sign-in")}


def test_the_session_is_a_cookie_that_no_script_reads_and_no_other_site_sends(browser: Browser) -> None:
    cookie = browser.sign_in("mara").headers["set-cookie"]

    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_five_wrong_passwords_lock_an_account_for_a_while(hospital: Hospital, browser: Browser, clock: Clock) -> None:
    answers = [browser.sign_in("mara", f"wrong password {number}") for number in range(5)]
    assert [answer.status_code for answer in answers] == [403] * 5

    assert browser.sign_in("mara").status_code == 403
    assert browser.sign_in("otto").status_code == 303
    clock.now += accounts.LOCKED_FOR
    assert browser.sign_in("mara").status_code == 303
    assert [entry for entry, _ in entries(hospital)].count("site:account:locked") == 1


def test_a_right_password_ends_the_count(browser: Browser) -> None:
    for _ in range(2):
        for number in range(4):
            browser.sign_in("mara", f"wrong password {number}")
        assert browser.sign_in("mara").status_code == 303


def test_a_name_that_is_not_there_is_told_nothing_else(browser: Browser) -> None:
    assert browser.sign_in("nobody").text == browser.sign_in("mara", "wrong").text


def test_a_session_ends_when_idle_and_after_a_working_day(manager: Browser, clock: Clock) -> None:
    for _ in range(3):
        clock.now += timedelta(minutes=14)
        assert manager.get("/").status_code == 200
    clock.now += timedelta(minutes=15)
    assert manager.get("/").status_code == 303

    manager.sign_in("mara")
    for _ in range(34):
        clock.now += timedelta(minutes=14)
        assert manager.get("/").status_code == 200
    clock.now += timedelta(minutes=4)
    assert manager.get("/").status_code == 303


def test_who_signs_out_is_out_with_a_copy_of_the_cookie_too(manager: Browser) -> None:
    copy = manager.client.cookies[COOKIE]
    assert manager.post("/sign-out").headers["location"] == "/sign-in"

    manager.client.cookies.set(COOKIE, copy)

    assert manager.get("/").status_code == 303


def test_who_is_disabled_or_has_another_role_now_is_out_at_once(hospital: Hospital, manager: Browser) -> None:
    accounts.add(hospital.store, "mara", Role.AUDITOR, PASSWORD, hospital.clock.now)
    assert manager.get("/").status_code == 303
    manager.sign_in("mara")
    assert manager.get("/").status_code == 200

    accounts.disable(hospital.store, "mara", hospital.clock.now)

    assert manager.get("/").status_code == 303
    assert manager.sign_in("mara").status_code == 403


def test_a_form_without_the_token_of_this_session_changes_nothing(hospital: Hospital, manager: Browser) -> None:
    before = entries(hospital)
    tokens: tuple[dict[str, str], ...] = ({}, {"form_token": ""}, {"form_token": "another"})

    answers = [manager.client.post(path, data={"patient_id": "N0"} | token) for path in FORMS for token in tokens]

    assert [answer.status_code for answer in answers] == [403] * 3 * len(FORMS)
    assert entries(hospital) == before
    assert manager.get("/").status_code == 200


def test_a_form_from_elsewhere_or_too_long_does_not_reach_the_pages(manager: Browser) -> None:
    for name, value, status in (
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Host", "evil.example", 421),
        ("Content-Length", "100001", 413),
        ("Content-Length", "x", 411),
    ):
        answer = manager.client.post("/sign-out", content=b"a=b", headers={name: value})

        assert answer.status_code == status, (name, value)
        assert {known: answer.headers[known] for known in HEADERS} == HEADERS


def test_a_form_that_does_not_say_where_it_comes_from_is_refused(manager: Browser) -> None:
    del manager.client.headers["Origin"]

    assert manager.client.post("/sign-out").status_code == 403


def test_every_answer_forbids_scripts_frames_and_copies(hospital: Hospital, manager: Browser) -> None:
    for path in (*PAGES, "/sign-in", "/static/console.css", "/nowhere", "/tasks/none", f"/tasks/{hospital.task}"):
        answer = manager.get(path)

        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
        assert "<script" not in answer.text, path
        assert " style=" not in answer.text, path


def test_an_auditor_reads_and_changes_nothing(hospital: Hospital, browser: Browser) -> None:
    browser.sign_in("otto")
    before = entries(hospital)
    none_of_it = {"/consents/review/1", "/withdrawals/1", "/withdrawals/1/confirmation"}

    assert {page for page in PAGES if browser.get(page).status_code != 200} == none_of_it
    files = {"file": ("a.json", bundle(consent_of("N0", kind="deny")))}
    fields = {"patient_id": "N0", "scope": "all", "ticket": "x", "words": "no", "seen": "4", "source": "file"}
    answers = [browser.post(form, files=files, as_of="2026-01-01T00:00", **fields) for form in FORMS[:-1]]
    assert [(answer.status_code, said(answer)) for answer in answers] == [
        (403, "Your role reads only, and nothing was changed: a consent manager may do this.")
    ] * len(answers)
    assert entries(hospital) == before
    assert outcome(hospital, "N0") == "PERMIT"


def test_what_is_not_there_or_cannot_be_read_says_what_to_do(manager: Browser) -> None:
    for path in ("/nowhere", "/tasks/none", "/requests/9", "/requests/x", f"/requests/{10**30}", "/withdrawals/9",
                 f"/withdrawals/{10**30}/confirmation", f"/consents/review/{10**30}"):  # fmt: skip
        answer = manager.get(path)
        assert (answer.status_code, bool(said(answer))) == (404, True), path

    broken = manager.client.post("/sign-out", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (broken.status_code, "Go back" in said(broken)) == (400, True)


def test_a_page_that_fails_says_what_to_do_and_nothing_of_why(hospital: Hospital, manager: Browser) -> None:
    with hospital.store.begin() as db:
        db.exec_driver_sql("ALTER TABLE request_event RENAME TO gone")

    answer = manager.get("/requests")

    assert (answer.status_code, "Open the page anew" in said(answer), "gone" in answer.text) == (500, True, False)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_the_inbox_is_empty_but_for_the_grant_that_ends_in_thirty_days(manager: Browser) -> None:
    inbox = manager.get("/")

    assert [rows(inbox, heading) for heading in ("old", "review", "conflicts", "requests", "refused")] == [[]] * 5
    assert len(rows(inbox, "grants")) == 1


def test_the_inbox_shows_what_waits(hospital: Hospital, manager: Browser, clock: Clock) -> None:
    undecided = access_requests.draft(hospital.store, form_of("brain-mr"), "anna", clock.now)
    assert isinstance(undecided, Numbered)
    access_requests.submit(hospital.store, undecided.number, "anna", clock.now)
    hospital.load(
        consent_of("N1", kind="deny", id="refusal-N1"),
        consent_of("N2", kind="deny"),  # a refusal alone is no conflict
        consent_of("N3", provision={"period": {"start": "2026-01-01"}}),
        consent_of("N0", kind="deny", id="old-refusal-N0", status="inactive"),
    )
    sources.note(hospital.store, "archive", clock.now - timedelta(days=8), clock.now)
    notice = {"receipt": "e" * 64, "run": "run-1", "round": 1, "kind": "train", "found_at": clock.now.isoformat()}
    refusal = {"refusal": "410 <gone>", "refused_at": clock.now.isoformat()}
    with hospital.store.begin() as db:
        db.execute(sa.insert(withdrawal_notice).values(**notice, **refusal))
    inbox = manager.get("/")

    (waits,) = rows(inbox, "review")
    assert waits.startswith("consent-N3 …")
    assert waits.endswith("provision.type: required element is absent A clearer version, from its source")
    (conflict,) = rows(inbox, "conflicts")
    assert conflict.endswith("consent-N1 refusal-N1")
    assert [row.partition(" ")[0] for row in rows(inbox, "old")] == ["archive"]
    assert rows(inbox, "requests") == [f"Request {undecided.number} {PROJECT} brain-mr submitted"]
    (grant,) = rows(inbox, "grants")
    assert grant.startswith(f"Request {hospital.request} brain-mr")
    (refused,) = rows(inbox, "refused")
    assert "run-1 1 410" in refused
    assert "<gone>" not in inbox.text


def test_a_grant_with_more_than_thirty_days_left_does_not_wait(manager: Browser, clock: Clock) -> None:
    clock.now -= timedelta(seconds=1)
    assert rows(manager.get("/"), "grants") == []


def test_why_a_study_is_in_or_out_is_told_with_its_trace(hospital: Hospital, manager: Browser) -> None:
    hospital.load(consent_of("N1", kind="deny", id="refusal-N1"))

    assert f'href="/tasks/{hospital.task}"' in manager.get("/tasks").text
    page = manager.get(f"/tasks/{hospital.task}").text

    assert "an active consent denies this use" in page
    assert re.search("rule 1 of Consent/refusal-N1", page)
    assert page.count('<span class="mark PERMIT">') == 3
    assert manager.get("/tasks/none").status_code == 404

    hospital.revoke()
    assert "Nothing may be used: task" in manager.get(f"/tasks/{hospital.task}").text


def load(browser: Browser, document: bytes, as_of: datetime, source: str = "clinic") -> Response:
    files = {"file": ("consents.json", document)}
    return browser.post("/consents/load", "/consents/load", files=files, source=source, as_of=f"{as_of:%Y-%m-%dT%H:%M}")


def test_a_file_is_loaded_and_what_is_broken_in_it_is_named(hospital: Hospital, manager: Browser) -> None:
    broken = consent_of("N2", patient={"display": "Zwetschgenbaum"})
    as_of = hospital.clock.now.replace(second=0, microsecond=0)

    answer = load(manager, bundle(consent_of("N1", kind="deny", dateTime="2026-02-01T00:00:00Z"), broken), as_of)

    assert answer.status_code == 200
    assert "<strong>1</strong> loaded" in answer.text
    assert rows_of_faults(answer) == [
        ("Consent/consent-N2", "patient: neither an identifier nor a reference Patient/id")
    ]
    assert "Zwetschgenbaum" not in answer.text
    assert [outcome(hospital, patient) for patient in ("N0", "N1", "N2")] == ["PERMIT", "DENY", "REVIEW"]
    with hospital.store.connect() as db:
        assert sources.known(db)["clinic"] == as_of
    assert ("site:console:consents-loaded", {"by": "mara", "records": 1}) in entries(hospital)


def rows_of_faults(answer: Response) -> list[tuple[str, str]]:
    return re.findall(r"<tr><th scope=\"row\"[^>]*>(.*?)</th><td>(.*?)</td></tr>", answer.text)


@pytest.mark.parametrize(
    ("document", "ahead", "words"),
    [
        (b"no json", 0, "does not count as read"),
        (bundle(consent_of("N9")), 2, "cannot be current as of a moment to come"),
    ],
)
def test_a_file_that_says_too_little_or_too_much_does_not_make_its_source_recent(
    hospital: Hospital, manager: Browser, document: bytes, ahead: int, words: str
) -> None:
    answer = load(manager, document, hospital.clock.now + timedelta(days=ahead))

    assert words in answer.text
    with hospital.store.connect() as db:
        assert "clinic" not in sources.known(db)


def test_a_form_without_a_file_or_a_moment_is_told(manager: Browser) -> None:
    answer = manager.post("/consents/load", source="clinic", as_of="2026-01-01T00:00")
    assert (answer.status_code, "Choose a file." in answer.text) == (422, True)
    answer = manager.post("/consents/load", files={"file": ("a", b"{}")}, source="clinic", as_of="soon")
    assert (answer.status_code, "up to when" in answer.text) == (422, True)


def test_accounts_are_made_listed_and_disabled_by_command(hospital: Hospital) -> None:
    root = hospital.home.root
    refused(run(root, "accounts", "add", "ina", "auditor", said="short\n"), 4, "12 to 1024 characters")
    refused(run(root, "accounts", "add", "ina", "king", said=f"{PASSWORD}\n"), 2, "king")
    done = run(root, "accounts", "add", "ina", "auditor", said=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr

    assert run(root, "accounts", "disable", "ina").returncode == 0
    refused(run(root, "accounts", "disable", "nobody"), 4, "no account nobody")

    listed = json.loads(run(root, "accounts", "list", "--json").stdout)
    assert {"name": "ina", "role": "auditor", "disabled": True} in listed
    assert PASSWORD.encode() not in b"".join(file.read_bytes() for file in root.glob("site.db*"))
