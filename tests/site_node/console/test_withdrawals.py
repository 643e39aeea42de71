"""A withdrawal in the console is the command's own: shown, confirmed by a person, and printed."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from site_node import confirmation, withdrawals
from site_node.console.guard import HEADERS
from tests.site_node.console.browser import Browser, entries, field_of, outcome, said
from tests.site_node.hospital import PROJECT, PSEUDONYMS, Hospital, PowerCut, consent_of

if TYPE_CHECKING:
    from httpx import Response

NOTHING = {"scope": "all"}


def preview(browser: Browser, patient_id: str, **fields: str) -> Response:
    return browser.post("/withdrawals/preview", "/withdrawals", patient_id=patient_id, **(fields or NOTHING))


def record(browser: Browser, ticket: str) -> Response:
    return browser.post("/withdrawals/record", "/withdrawals", ticket=ticket)


def cells(page: str) -> list[list[str]]:
    found = re.findall(r'<tr><th scope="row">(.*?)</tr>', page, re.DOTALL)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.split(r"</t[hd]>(?:<td>)?", row) if cell] for row in found]


def test_what_it_reaches_is_shown_before_anything_is_recorded(hospital: Hospital, manager: Browser) -> None:
    hospital.ask("m2", round=2, nonce="n2")

    def cut() -> None:
        raise PowerCut

    hospital.trainer.during = cut
    with pytest.raises(PowerCut):
        hospital.ask("m3", round=3, nonce="n3")
    before = entries(hospital)

    page = preview(manager, "N0").text

    assert cells(page) == [
        ["run-1", "3", "train", "1", "runs now: is stopped, and what it made is thrown away"],
        ["run-1", "2", "train", "1", "was handed over: the coordinator is told"],
    ]
    assert "Run run-1, from round 2 on: the model stays in use and is marked" in page
    assert "any further use of all images" in page
    assert (entries(hospital), outcome(hospital, "N0")) == (before, "PERMIT")


def test_it_is_recorded_once_by_whom_and_names_no_patient(hospital: Hospital, manager: Browser) -> None:
    hospital.load(consent_of("N1", patient={"identifier": {"value": "PID-77-31"}}, id="c77"))
    ticket = field_of(preview(manager, "N1"), "ticket")
    assert record(manager, "another").status_code == 422
    assert "Begin again" in said(record(manager, ticket))  # one wrong ticket ends it
    assert outcome(hospital, "N1") == "PERMIT"

    ticket = field_of(preview(manager, " N1 "), "ticket")
    done = record(manager, ticket)
    assert done.status_code == 303
    assert record(manager, ticket).status_code == 422
    assert outcome(hospital, "N1") == "DENY"
    assert [detail.get("by") for entry, detail in entries(hospital) if entry == "site:consent:withdrawn"] == ["mara"]

    shown = preview(manager, "PID-77-31").text + manager.get(done.headers["location"]).text
    assert "PID-77-31" not in shown + "".join(str(answer.url) for answer in manager.seen) + str(entries(hospital))
    urls = [str(answer.url) + answer.headers.get("location", "") for answer in manager.seen]
    assert not [url for url in urls if "N1" in url or "?" in url or PSEUDONYMS.patient("N1") in url]


def test_the_scope_chosen_is_the_scope_recorded(hospital: Hospital, manager: Browser) -> None:
    limits = {"scope": "part", "project": PROJECT, "modality": "MR", "first": "2026-01-01", "last": "2026-12-31"}
    page = preview(manager, "N0", **limits)
    assert f"in the research project {PROJECT}, of images of the kind magnetic resonance (MR)" in page.text
    assert "<dd>1</dd>" in page.text
    record(manager, field_of(page, "ticket"))

    other = preview(manager, "N1", scope="part", modality="CT")
    assert re.search(r"Studies within it</dt><dd>0</dd>\s*<dt>Studies left as they are</dt><dd>1</dd>", other.text)
    record(manager, field_of(other, "ticket"))

    assert [outcome(hospital, patient) for patient in ("N0", "N1")] == ["DENY", "PERMIT"]
    recorded = [one.scope for one in withdrawals.recorded(hospital.store, hospital.gate, hospital.clock.now)]
    assert recorded[0].endswith("taken from 01 January 2026 on, of images taken up to 31 December 2026")
    assert recorded[1] == "any further use of images of the kind computed tomography (CT)"


@pytest.mark.parametrize(
    ("patient_id", "fields", "words"),
    [
        ("  ", {"scope": "all"}, "A PatientID is needed"),
        ("N0", {"scope": "all", "project": PROJECT}, "“Everything” is chosen, and so is a limit"),
        ("N0", {"scope": "part"}, "no limit"),
        ("N0", {"scope": "none"}, "Choose what"),
        ("N0", {"scope": "part", "first": "2026-02-01", "last": "2026-01-01"}, "the days are reversed"),
        ("N0", {"scope": "part", "modality": "magnet"}, "a modality is none"),
    ],
)
def test_a_form_that_says_too_little_or_two_things_is_asked_again(
    hospital: Hospital, manager: Browser, patient_id: str, fields: dict[str, str], words: str
) -> None:
    answer = preview(manager, patient_id, **fields)

    assert (answer.status_code, words in said(answer)) == (422, True)
    assert "look again" in said(answer)
    assert 'name="ticket"' not in answer.text
    assert patient_id not in said(answer)
    if "project" in fields:
        assert f'value="{PROJECT}" checked' in answer.text
    assert outcome(hospital, "N0") == "PERMIT"


def test_a_withdrawal_of_somebody_unknown_is_doubted_and_taken(hospital: Hospital, manager: Browser) -> None:
    doubted = preview(manager, "never-seen")
    assert (doubted.status_code, "Neither an image nor a consent" in said(doubted)) == (422, True)
    assert 'name="ticket"' not in doubted.text

    page = preview(manager, "never-seen", scope="all", unknown_here="yes")
    assert "holds no image and no consent of that patient" in said(page)

    assert record(manager, field_of(page, "ticket")).status_code == 303
    assert [entry for entry, _ in entries(hospital)].count("site:consent:withdrawn") == 1


def test_every_withdrawal_is_listed_and_its_page_is_the_commands(hospital: Hospital, manager: Browser) -> None:
    hospital.ask()
    hospital.clock.now += timedelta(seconds=1)
    done = record(manager, field_of(preview(manager, "N0"), "ticket"))
    hospital.load(consent_of("N1", status="inactive", meta={"lastUpdated": "2026-06-01T12:00:00Z"}))
    own, came = withdrawals.recorded(hospital.store, hospital.gate, hospital.clock.now)

    listed = manager.get("/withdrawals").text
    assert [f"/withdrawals/{one.number}" in listed for one in (own, came)] == [True, True]
    assert "from a source of consents" in listed
    one = manager.get(done.headers["location"]).text
    assert cells(one) == [["run-1", "1", "train", "1", "was handed over before"]]

    page = manager.get(f"/withdrawals/{own.number}/confirmation")
    assert page.text == confirmation.page(own, "north")
    assert {name: page.headers[name] for name in HEADERS} == HEADERS
