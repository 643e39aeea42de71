"""The console's pages: who sees them, what they show, and what a form changes."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa

from site_node import accounts, sources
from site_node.accounts import Role
from site_node.app import open_site
from site_node.console.guard import HEADERS, Guard
from site_node.console.pages import COOKIE, Console, console_pages
from site_node.gate import Snapshot
from site_node.store import ledger, withdrawal_notice
from tests.site_node.hospital import Clock, Hospital, bundle, consent_of
from tests.site_node.test_cli import refused, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from httpx import Response

    from site_node.console.guard import Application

HOST = "127.0.0.1:8460"
PASSWORD = "a long enough sentence"  # noqa: S105 -- opens a console of one test
MAX_BYTES = 100_000
PAGES = ("/", "/tasks", "/consents/load", "/withdraw")
FORMS = ("/consents/load", "/withdraw", "/withdraw/confirm", "/sign-out")


class Client:
    """A client of an application in this process."""

    def __init__(self, application: Application) -> None:
        self._runner = asyncio.Runner()
        address = f"http://{HOST}"
        transport = httpx.ASGITransport(application)
        self._client = httpx.AsyncClient(transport=transport, base_url=address, headers={"Origin": address})
        self.headers, self.cookies = self._client.headers, self._client.cookies

    def request(self, method: str, path: str, **values: Any) -> Response:
        """Ask, and follow no redirect."""
        return self._runner.run(self._client.request(method, path, **values))

    def get(self, path: str) -> Response:
        """Ask for a page."""
        return self.request("GET", path)

    def post(self, path: str, **values: Any) -> Response:
        """Send a form."""
        return self.request("POST", path, **values)

    def close(self) -> None:
        """End the loop."""
        self._runner.run(self._client.aclose())
        self._runner.close()


@dataclass(slots=True)
class Browser:
    """Asks as a browser does: with its cookies, and saying where a form came from."""

    client: Client
    seen: list[Response] = field(default_factory=list)

    def get(self, path: str) -> Response:
        """Open a page."""
        return self._keep(self.client.get(path))

    def post(self, path: str, page: str = "/", /, files: Any = None, **fields: str) -> Response:
        """Send a form of `page`, with the token that stands there."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.get(page).text)
        token = {"form_token": found[1]} if found else {}
        return self._keep(self.client.post(path, data=token | fields, files=files))

    def sign_in(self, name: str, password: str = PASSWORD) -> Response:
        """Sign in."""
        return self._keep(self.client.post("/sign-in", data={"name": name, "password": password}))

    def _keep(self, answer: Response) -> Response:
        self.seen.append(answer)
        return answer


@pytest.fixture
def hospital(open_hospital: Hospital) -> Hospital:
    """Return a hospital with a consent manager and an auditor."""
    for name, role in (("mara", Role.CONSENT_MANAGER), ("otto", Role.AUDITOR)):
        accounts.add(open_hospital.store, name, role, PASSWORD, open_hospital.clock.now)
    return open_hospital


@pytest.fixture
def clock(hospital: Hospital) -> Clock:
    return hospital.clock


@pytest.fixture
def browser(hospital: Hospital, clock: Clock) -> Iterator[Browser]:
    """Yield a browser that nobody signed in with yet."""
    site = open_site(hospital.home.root)
    guarded = Guard(console_pages(Console(site, "demo", clock)), frozenset({HOST}), MAX_BYTES)
    client = Client(guarded)
    yield Browser(client)
    client.close()
    site.store.dispose()


@pytest.fixture
def manager(browser: Browser) -> Browser:
    assert browser.sign_in("mara").headers["location"] == "/"
    return browser


def outcome(hospital: Hospital, patient: str) -> str:
    found = hospital.gate.explained(hospital.task, hospital.clock.now)
    assert isinstance(found, Snapshot)
    return found.cohort.verdicts[hospital.studies[patient]].outcome.name


def entries(hospital: Hospital) -> list[tuple[str, dict[str, Any]]]:
    return [(row["entry"], json.loads(row["detail"])) for row in hospital.rows(ledger)]


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

    assert [answer.status_code for answer in answers] == [403] * 12
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

    assert [browser.get(page).status_code for page in PAGES] == [200] * 4
    assert browser.post("/withdraw", patient_id="N0").status_code == 403
    assert browser.post("/withdraw/confirm", preview="x").status_code == 403
    files = {"file": ("a.json", bundle(consent_of("N0", kind="deny")))}
    assert browser.post("/consents/load", files=files, as_of="2026-01-01T00:00", source="file").status_code == 403
    assert entries(hospital) == before
    assert outcome(hospital, "N0") == "PERMIT"


def rows(answer: Response, heading: str) -> list[str]:
    """Return the rows below a heading as text."""
    part = answer.text.partition(f'id="{heading}">')[2].partition("</section>")[0]
    found = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", part, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in found]


def test_the_inbox_is_empty_but_for_the_grant_that_ends_in_thirty_days(manager: Browser) -> None:
    inbox = manager.get("/")

    assert [rows(inbox, heading) for heading in ("old", "review", "conflicts", "refused")] == [[], [], [], []]
    assert len(rows(inbox, "grants")) == 1


def test_the_inbox_shows_what_waits(hospital: Hospital, manager: Browser, clock: Clock) -> None:
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
    assert waits.endswith("provision.type: required element is absent")
    (conflict,) = rows(inbox, "conflicts")
    assert conflict.endswith("consent-N1 refusal-N1")
    assert [row.partition(" ")[0] for row in rows(inbox, "old")] == ["archive"]
    (grant,) = rows(inbox, "grants")
    assert grant.startswith(f"{hospital.request} brain-mr")
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
    return re.findall(r"<tr><th scope=\"row\">(.*?)</th><td>(.*?)</td></tr>", answer.text)


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


def test_a_withdrawal_is_shown_first_then_recorded_once_and_names_no_patient(
    hospital: Hospital, manager: Browser
) -> None:
    hospital.load(consent_of("N1", patient={"identifier": {"value": "PID-77-31"}}, id="c77"))
    preview = manager.post("/withdraw", "/withdraw", patient_id="N1")
    assert "<dd>1</dd>" in preview.text
    assert outcome(hospital, "N1") == "PERMIT"

    ticket = re.findall(r'name="preview" value="([^"]+)"', preview.text)[0]
    assert manager.post("/withdraw/confirm", preview="another").status_code == 422
    assert manager.post("/withdraw/confirm", preview=ticket).status_code == 422  # one wrong ticket ends it
    assert outcome(hospital, "N1") == "PERMIT"

    preview = manager.post("/withdraw", "/withdraw", patient_id=" N1 ")
    ticket = re.findall(r'name="preview" value="([^"]+)"', preview.text)[0]
    done = manager.post("/withdraw/confirm", preview=ticket)
    assert "Withdrawal recorded" in done.text
    assert outcome(hospital, "N1") == "DENY"
    assert manager.post("/withdraw/confirm", preview=ticket).status_code == 422

    recorded = [detail for entry, detail in entries(hospital) if entry == "site:console:withdrawal-recorded"]
    assert [detail["by"] for detail in recorded] == ["mara"]
    shown = manager.post("/withdraw", "/withdraw", patient_id="PID-77-31").text
    assert "PID-77-31" not in shown + "".join(str(answer.url) for answer in manager.seen) + str(entries(hospital))


def test_a_withdrawal_of_somebody_unknown_is_doubted_and_taken(hospital: Hospital, manager: Browser) -> None:
    preview = manager.post("/withdraw", "/withdraw", patient_id="never-seen")
    assert "holds no consent of that patient" in preview.text
    ticket = re.findall(r'name="preview" value="([^"]+)"', preview.text)[0]

    assert "Withdrawal recorded" in manager.post("/withdraw/confirm", preview=ticket).text
    assert manager.post("/withdraw", "/withdraw", patient_id="  ").status_code == 422
    assert [entry for entry, _ in entries(hospital)].count("site:consent:withdrawn") == 1


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
