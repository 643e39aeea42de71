"""A consent in doubt is let count again by a person who was told what that does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from site_node import consents, doubts
from site_node.errors import ConfigurationError
from tests.site_node.console.browser import Browser, entries, outcome, rows, said
from tests.site_node.hospital import Hospital, consent_of

if TYPE_CHECKING:
    from site_node.doubts import Doubted

BROKEN: dict[str, Any] = {"patient": {"display": "Zwetschgenbaum"}}


@pytest.fixture
def number(hospital: Hospital) -> int:
    """Return the number of a consent of N1 in doubt."""
    hospital.load(consent_of("N1", **BROKEN))
    assert outcome(hospital, "N1") == "REVIEW"
    with hospital.store.connect() as db:
        return consents.doubted(db)["consent-N1"]


def found(hospital: Hospital, number: int) -> Doubted:
    doubted = doubts.find(hospital.store, hospital.gate, number, hospital.clock.now)
    assert doubted is not None
    return doubted


def test_the_second_click_lets_it_count_and_names_who_did_it(hospital: Hospital, manager: Browser, number: int) -> None:
    (waits,) = rows(manager.get("/"), "review")
    assert waits.endswith("Look at consent-N1")
    address = re.findall(r'href="(/consents/review/\d+)"', manager.get("/").text)
    assert address == [f"/consents/review/{number}"]
    before = entries(hospital)

    page = manager.get(address[0])
    assert "what came after it could not be taken: patient: neither an identifier" in page.text
    assert "<td>0</td><td>1</td>" in page.text
    assert (entries(hospital), outcome(hospital, "N1")) == (before, "REVIEW")

    done = manager.post(address[0], address[0])
    assert "counts again" in done.text
    assert outcome(hospital, "N1") == "PERMIT"
    assert entries(hospital)[-1] == ("site:consent:confirmed", {"record": number, "by": "mara"})
    again = manager.post(address[0])
    assert (again.status_code, "the inbox shows what waits" in said(again)) == (404, True)
    assert rows(manager.get("/"), "review") == []
    assert not [answer for answer in manager.seen if "N1" in str(answer.url) or "Zwetschgenbaum" in answer.text]


def test_what_came_since_it_was_read_is_not_confirmed(hospital: Hospital, manager: Browser, number: int) -> None:
    address = f"/consents/review/{number}"
    manager.get(address)
    hospital.load(consent_of("N1", "deny", dateTime="2026-02-01T00:00:00Z"))

    assert manager.post(address).status_code == 404
    assert outcome(hospital, "N1") == "DENY"


def test_a_doubt_that_came_anew_is_read_anew(hospital: Hospital, number: int) -> None:
    consents.confirm(hospital.store, "consent-N1", "mara", hospital.clock.now, number)
    hospital.load(consent_of("N1", **BROKEN))

    with pytest.raises(ConfigurationError):
        consents.confirm(hospital.store, "consent-N1", "mara", hospital.clock.now, number)
    assert outcome(hospital, "N1") == "REVIEW"


def test_what_it_does_is_told_with_the_patients_other_consents(hospital: Hospital, number: int) -> None:
    assert [(one.task, one.now, one.then) for one in found(hospital, number).effects] == [("brain-tissue", 0, 1)]

    hospital.load(consent_of("N1", "deny", id="refusal-N1"))

    assert [(one.now, one.then) for one in found(hospital, number).effects] == [(0, 0)]
    consents.confirm(hospital.store, "consent-N1", "mara", hospital.clock.now)
    assert outcome(hospital, "N1") == "DENY"


def test_a_consent_that_is_unclear_itself_is_not_offered(hospital: Hospital, manager: Browser) -> None:
    hospital.load(consent_of("N3", provision={"period": {"start": "2026-01-01"}}))

    assert "/consents/review/" not in manager.get("/").text
    with hospital.store.connect() as db:
        number = consents.last_number(db)
    address = f"/consents/review/{number}"
    assert (manager.get(address).status_code, manager.post(address).status_code) == (404, 404)
    assert outcome(hospital, "N3") == "REVIEW"
