"""Every decision of the gate is one AuditEvent, by pseudonym, and a reading goes on where the last one ended."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from consent import GateDecision, Outcome
from site_node import audit_events
from site_node.app import create_site
from site_node.config import Identity, SiteHome
from tests.site_node.hospital import NOON, PSEUDONYMS, Hospital
from tests.site_node.test_cli import refused, run
from tests.site_node.test_disclosures import keep_verdicts

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa

LATER = NOON + timedelta(hours=1)


def fill(hospital: Hospital) -> None:
    """Keep the verdicts of two openings: all four patients permitted, then one of them denied."""
    rows: list[list[Any]] = [
        [study, PSEUDONYMS.patient(patient), "2026-03-12", "permit", "permitted", [number], "0" * 64]
        for number, (patient, study) in enumerate(hospital.studies.items(), 1)
    ]
    keep_verdicts(hospital, rows)
    hospital.clock.now = LATER
    rows[0][3:6] = ["deny", "an active consent denies this use", [1, 5]]
    rows[1][3:6] = ["no-consent", "no consent on record", []]
    keep_verdicts(hospital, rows, run="run-2", nonce="nonce-2", root=None)


def membership(home: SiteHome) -> Identity:
    home.identity.mkdir(exist_ok=True)
    document = {"federation": "demo", "site": "north", "fleet_address": "127.0.0.1:9", "node_id": 1}
    (home.identity / "membership.json").write_text(json.dumps(document))
    return home.load_identity()


def decided(hospital: Hospital, **which: Any) -> list[tuple[int, GateDecision]]:
    with hospital.store.connect() as db:
        return list(audit_events.decisions(db, membership(hospital.home), **which))


def test_each_study_of_each_opening_is_one_decision_in_the_state_that_was_decided(hospital: Hospital) -> None:
    fill(hospital)

    found = decided(hospital)

    assert [(opening, one.number) for opening, one in found] == [
        (opening, f"{opening}.{place}") for opening in (1, 2) for place in range(4)
    ]
    assert [one.outcome for _, one in found[:4]] == [Outcome.PERMIT] * 4
    assert [(one.outcome, one.consents) for _, one in found[4:6]] == [
        (Outcome.DENY, (1, 5)),
        (Outcome.NO_CONSENT, ()),
    ]
    assert {(one.at, one.run, one.nonce, one.phase) for _, one in found} == {
        (NOON, "run-1", "nonce-1", "released"),
        (LATER, "run-2", "nonce-2", "abstained"),
    }
    assert {(one.task, one.purposes) for _, one in found} == {(hospital.task, ("CLINTRCH",))}


def test_what_the_node_decides_in_a_round_is_what_is_told(hospital: Hospital) -> None:
    hospital.withdraw("N0")
    hospital.ask()

    told = [(one.phase, one.outcome, one.reason, len(one.consents)) for _, one in decided(hospital)]

    assert sorted(told, key=str) == [
        ("released", Outcome.DENY, "an active consent denies this use", 2),
        *[("released", Outcome.PERMIT, "permitted", 1)] * 3,
    ]


def test_what_was_decided_is_told_though_too_few_studies_were_permitted(hospital: Hospital) -> None:
    for patient in ("N0", "N1", "N2"):
        hospital.withdraw(patient)

    assert hospital.ask() == "abstain"

    told = [(one.phase, one.outcome) for _, one in decided(hospital)]
    assert sorted(told, key=str) == [*[("abstained", Outcome.DENY)] * 3, ("abstained", Outcome.PERMIT)]


@pytest.mark.parametrize(
    ("which", "numbers"),
    [
        ({"after": 1}, ["2.0", "2.1", "2.2", "2.3"]),
        ({"after": 2}, []),
        ({"since": LATER}, ["2.0", "2.1", "2.2", "2.3"]),
        ({"run": "run-1"}, ["1.0", "1.1", "1.2", "1.3"]),
        ({"patient": PSEUDONYMS.patient("N1")}, ["1.1", "2.1"]),
        ({"patient": PSEUDONYMS.patient("N1"), "run": "run-2"}, ["2.1"]),
        ({"patient": "nobody"}, []),
    ],
    ids=str,
)
def test_what_is_asked_for_is_what_comes(hospital: Hospital, which: dict[str, Any], numbers: list[str]) -> None:
    fill(hospital)

    assert [one.number for _, one in decided(hospital, **which)] == numbers


@pytest.fixture
def home(root: Path, store: sa.Engine) -> Path:
    """Return the folder of a member with the decisions of two openings."""
    create_site(root, "north")
    (root / "identity" / "pseudonym.key").write_bytes(bytes(range(32)))  # the key behind PSEUDONYMS
    hospital = Hospital(SiteHome(root), store)
    membership(hospital.home)
    fill(hospital)
    return root


def test_a_reading_tells_where_the_next_one_goes_on(home: Path) -> None:
    first = run(home, "audit-events", "--run", "run-1")
    rest = run(home, "audit-events", "--after", "1")
    none = run(home, "audit-events", "--after", "2")

    assert "4 events; the next reading goes on with --after 1" in first.stderr
    events = [json.loads(line) for line in (first.stdout + rest.stdout).splitlines()]
    assert [event["id"] for event in events] == [f"decision-{o}.{place}" for o in (1, 2) for place in range(4)]
    assert {event["resourceType"] for event in events} == {"AuditEvent"}
    assert none.stdout == ""
    assert "0 events; the next reading goes on with --after 2" in none.stderr


def test_a_file_is_new_and_for_its_owner_alone(home: Path) -> None:
    file = home.parent / "events.ndjson"

    assert run(home, "audit-events", "--to", file, "--since", "2026-06-01T12:30:00").returncode == 0

    assert len(file.read_text().splitlines()) == 4
    assert file.stat().st_mode & 0o777 == 0o600
    refused(run(home, "audit-events", "--to", file), 6, "events.ndjson")


def test_one_patient_is_asked_for_and_not_repeated(home: Path) -> None:
    done = run(home, "audit-events", "--patient", said="N1\n")

    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["id"] for event in events] == ["decision-1.1", "decision-2.1"]
    assert run(home, "audit-events", "--patient", said="\n").returncode != 0


def test_no_event_holds_what_only_the_hospital_calls_a_patient(home: Path) -> None:
    said = run(home, "audit-events").stdout

    assert said
    assert [secret for secret in ('"N0"', '"N1"', "consent-N", "2026-03-12") if secret in said] == []


def test_a_site_that_is_no_member_has_no_decisions_to_tell(root: Path) -> None:
    create_site(root, "north")

    refused(run(root, "audit-events"), 4, "has not joined")
