"""What a withdrawal reaches is told before it is recorded and after, however it came, and names nobody."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from site_node import confirmation, lineage, withdrawals
from site_node.consents import ALL, WithdrawalScope
from site_node.errors import ConfigurationError, PeerError, PeerRefused
from site_node.store import consent_record, dataset, metadata, participation
from tests.site_node.hospital import (
    NOON,
    PERMIT,
    PROJECT,
    PSEUDONYMS,
    TERMS,
    Hospital,
    PowerCut,
    add_study,
    consent_of,
    lost_line,
)
from tests.site_node.test_lineage import Coordinator, notices

if TYPE_CHECKING:
    from consent import Standing
    from site_node.withdrawals import Part, Preview, Withdrawal

SECOND = timedelta(seconds=1)


def preview(hospital: Hospital, patient_id: str = "N0", scope: WithdrawalScope = ALL) -> Preview:
    return withdrawals.preview(hospital.store, PSEUDONYMS.patient(patient_id), scope, hospital.clock.now)


def recorded(hospital: Hospital) -> list[Withdrawal]:
    return withdrawals.recorded(hospital.store, hospital.gate, hospital.clock.now)


def rounds(parts: tuple[Part, ...]) -> list[int]:
    return [part.round for part in parts]


def cut() -> None:
    raise PowerCut


def everything(hospital: Hospital) -> dict[str, list[dict[str, Any]]]:
    return {table.name: hospital.rows(table) for table in metadata.sorted_tables}


def test_running_work_is_foreseen_for_its_patients_and_for_no_other(hospital: Hospital) -> None:
    hospital.trainer.during = cut
    with pytest.raises(PowerCut):
        hospital.ask(round=3)

    found = preview(hospital)
    assert (rounds(found.running), found.waiting, found.handed_over) == ([3], (), ())
    assert (found.running[0].studies, found.studies, found.remaining) == (1, 1, 0)
    assert preview(hospital, "N9").running == ()


def test_an_update_that_waits_is_foreseen_as_waiting_alone(hospital: Hospital) -> None:
    hospital.line.failures = [lost_line()]
    with pytest.raises(PeerError):
        hospital.ask()

    found = preview(hospital)
    assert (found.running, rounds(found.waiting), found.handed_over, found.models) == ((), [1], (), ())


def test_what_was_handed_over_is_foreseen_with_its_models_and_their_policy(hospital: Hospital) -> None:
    for number in (2, 3):
        hospital.ask(f"m{number}", round=number, nonce=f"n{number}")

    found = preview(hospital)
    assert (found.running, found.waiting, rounds(found.handed_over)) == ((), (), [2, 3])
    assert [(one.run, one.first_round, one.policy) for one in found.models] == [("run-1", 2, "keep")]
    assert withdrawals.POLICIES[found.models[0].policy]


def test_a_preview_changes_nothing(hospital: Hospital) -> None:
    hospital.ask()
    before = everything(hospital)

    preview(hospital)

    assert everything(hospital) == before


@pytest.mark.parametrize(
    ("scope", "rounds_reached", "studies"),
    [
        (WithdrawalScope(projects=(PROJECT,)), [1], 1),
        (WithdrawalScope(modalities=("CT",)), [], 0),
        (WithdrawalScope(modalities=("MR",), first="2026-03"), [1], 1),
        (WithdrawalScope(last="2026-03-11"), [], 0),
    ],
)
def test_a_preview_keeps_to_the_scope(
    hospital: Hospital, scope: WithdrawalScope, rounds_reached: list[int], studies: int
) -> None:
    hospital.ask()

    found = preview(hospital, scope=scope)

    assert (rounds(found.handed_over), found.studies, found.remaining) == (rounds_reached, studies, 1 - studies)


def test_a_preview_tells_how_many_studies_remain(hospital: Hospital) -> None:
    add_study(hospital.store, "N0", "2.25.77", "2025-01-01")

    found = preview(hospital, scope=WithdrawalScope(first="2026"))

    assert (found.studies, found.remaining) == (1, 1)


def test_a_scope_that_cannot_be_stated_is_not_previewed(hospital: Hospital) -> None:
    with pytest.raises(ConfigurationError):
        preview(hospital, scope=WithdrawalScope(modalities=("magnet",)))


@pytest.mark.parametrize("word", ["retracted", "aggregated", "unknown"])
def test_a_withdrawal_is_completed_once_every_notice_is_answered_and_a_restart_forgets_nothing(
    hospital: Hospital, word: Standing
) -> None:
    hospital.ask()
    hospital.clock.now += SECOND
    number = withdrawals.record(hospital.store, PSEUDONYMS.patient("N0"), ALL, hospital.clock.now)
    telling = notices(hospital, Coordinator(hospital, word))
    assert [one.status for one in recorded(hospital)] == ["recorded"]  # found by nobody yet
    telling.look()
    assert [one.status for one in recorded(hospital)] == ["recorded"]
    telling.send()
    hospital.restart()

    (found,) = recorded(hospital)
    assert (found.number, found.came_by, found.scope) == (number, "command", "any further use of all images")
    assert ([part.word for part in found.handed_over], found.status) == ([word], "completed")
    assert bool(found.models) is (word == "aggregated")
    assert withdrawals.find(hospital.store, hospital.gate, number, hospital.clock.now) == found


def test_a_withdrawal_whose_notice_is_refused_says_so_to_the_manager_and_on_the_page(hospital: Hospital) -> None:
    hospital.ask()
    hospital.clock.now += SECOND
    hospital.withdraw("N0")
    coordinator = Coordinator(hospital)
    coordinator.refuses["run-1"] = PeerRefused("403 notice-bad-signature")
    telling = notices(hospital, coordinator)
    telling.look()
    telling.send()

    (found,) = recorded(hospital)
    assert ([part.refusal for part in found.handed_over], found.status) == (["403 notice-bad-signature"], "refused")
    assert "refused to hear of it" in confirmation.page(found, "north")

    lineage.tell_again(hospital.store, "manager", hospital.clock.now)
    (found,) = recorded(hospital)
    assert ([part.refusal for part in found.handed_over], found.status) == ([""], "recorded")


def test_work_that_a_withdrawal_stopped_is_on_its_record_and_on_no_other(hospital: Hospital) -> None:
    hospital.trainer.during = lambda: hospital.withdraw("N0")
    assert hospital.ask() == "abstain"
    hospital.withdraw("N9")

    first, other = recorded(hospital)
    assert (rounds(first.stopped), first.running, first.status) == ([1], (), "completed")
    assert other.stopped == ()


def test_an_update_that_was_discarded_is_on_the_record(hospital: Hospital) -> None:
    hospital.line.failures = [lost_line()]
    with pytest.raises(PeerError):
        hospital.ask()
    hospital.withdraw("N0")
    (waiting,) = recorded(hospital)
    assert (rounds(waiting.waiting), waiting.status) == ([1], "recorded")
    hospital.restart()
    hospital.resume()

    (found,) = recorded(hospital)
    assert (rounds(found.discarded), found.waiting, found.handed_over) == ([1], (), ())
    assert found.status == "recorded"  # it may have left before the crash, so the coordinator is asked
    telling = notices(hospital, Coordinator(hospital, "unknown"))
    telling.send()
    assert [one.status for one in recorded(hospital)] == ["completed"]


@pytest.mark.parametrize(
    "resource",
    [
        consent_of("N0", status="inactive", meta={"lastUpdated": "2026-06-01T12:00:00Z"}),
        consent_of("N0", "deny", dateTime="2026-06-01T12:00:00Z", provision={"type": "deny"}),
        consent_of("N0", "deny", id="refusal", dateTime="2026-06-01T12:00:00Z", provision={"type": "deny"}),
    ],
    ids=["made inactive", "now denies", "a refusal beside it"],
)
def test_a_withdrawal_that_came_as_fhir_is_listed_with_its_rounds(hospital: Hospital, resource: dict[str, Any]) -> None:
    hospital.ask()
    hospital.clock.now += SECOND
    hospital.load(resource)

    (found,) = recorded(hospital)
    assert (found.came_by, rounds(found.handed_over), found.status) == ("fhir", [1], "recorded")


def test_a_renewal_and_a_first_refusal_are_no_withdrawals(hospital: Hospital) -> None:
    hospital.load(
        consent_of("N0", dateTime="2026-06-01T00:00:00Z"), consent_of("N9", "deny", provision={"type": "deny"})
    )

    assert recorded(hospital) == []


def test_the_scope_is_told_in_words(hospital: Hospital) -> None:
    scope = WithdrawalScope(("brain",), ("MR",), "2026-02", "2026-03")
    withdrawals.record(hospital.store, PSEUDONYMS.patient("N0"), scope, NOON)

    (found,) = recorded(hospital)
    assert found.scope == (
        "any further use in the research project brain, of images of the kind magnetic resonance (MR), "
        "of images taken from 01 February 2026 on, of images taken up to 31 March 2026"
    )


def test_the_page_for_the_patient_tells_all_and_names_nobody(hospital: Hospital) -> None:
    hospital.ask()
    withdrawals.record(hospital.store, PSEUDONYMS.patient("N0"), ALL, hospital.clock.now)
    (found,) = recorded(hospital)

    text = confirmation.page(found, "north <hospital>")

    for said in (
        "W00005",
        "Run run-1, round 1",
        "is marked as containing withdrawn data",
        "any further use of all images",
    ):
        assert said in text
    assert "north &lt;hospital&gt;" in text
    study = hospital.studies["N0"]
    for planted in ("N0<", ">N0", "consent-N0", "2026-03-12", "12 March", study, PSEUDONYMS.patient("N0")):
        assert planted not in text
    with hospital.store.connect() as db:
        consent_ids = db.execute(sa.select(consent_record.c.consent_id)).scalars().all()
    assert not [consent_id for consent_id in consent_ids if consent_id in text]
    assert not [scheme for scheme in ("http:", "https:", "src=", "url(") if scheme in text]


def test_the_page_of_a_limited_withdrawal_tells_of_the_models_outside_it(hospital: Hospital) -> None:
    hospital.ask()
    hospital.clock.now += SECOND
    scope = WithdrawalScope(projects=("another",))
    withdrawals.record(hospital.store, PSEUDONYMS.patient("N0"), scope, hospital.clock.now)
    (found,) = recorded(hospital)

    text = confirmation.page(found, "north")

    assert (found.status, found.had_no_effect, found.models) == ("completed", True, ())
    assert "No model is known to contain what was learned from your images within what you withdrew." in text
    assert "outside what you withdrew; they stay as they are</h2><ul><li>Run run-1, from round 1 on." in text
    assert "Nothing was there to be done" in text
    assert "Completed." not in text


def still_permitted(hospital: Hospital) -> list[tuple[str, int]]:
    patient = PSEUDONYMS.patient("N0")
    found = withdrawals.still_permitted(hospital.store, hospital.gate, patient, hospital.clock.now)
    return [(one.project, one.studies) for one in found]


def test_what_a_limited_withdrawal_leaves_permitted_is_told_and_after_a_whole_one_nothing_is(
    hospital: Hospital,
) -> None:
    patient = PSEUDONYMS.patient("N0")
    withdrawals.record(hospital.store, patient, WithdrawalScope(projects=("another",)), hospital.clock.now)
    limited = still_permitted(hospital)
    hospital.withdraw("N0")

    assert (limited, still_permitted(hospital)) == ([(PROJECT, 1)], [])


def test_a_use_that_no_withdrawal_stops_is_told_to_the_manager_and_the_patient(hospital: Hospital) -> None:
    lenient = TERMS | {"legal_basis": PERMIT | {"later_opt_outs": False}}
    with hospital.store.begin() as db:
        db.execute(sa.update(dataset).values(terms=json.dumps(lenient)))
    hospital.withdraw("N0")
    patient = PSEUDONYMS.patient("N0")
    still = withdrawals.still_permitted(hospital.store, hospital.gate, patient, hospital.clock.now)

    text = confirmation.page(recorded(hospital)[0], "north", still)

    assert still_permitted(hospital) == [(PROJECT, 1)]
    assert f"does not rest on your consent</h2><ul><li>Project {PROJECT}: 1 of your examinations.</li></ul>" in text


def test_a_project_nobody_named_here_is_not_previewed(hospital: Hospital) -> None:
    with pytest.raises(ConfigurationError, match=f"not known here; known are: .*{PROJECT}"):
        preview(hospital, scope=WithdrawalScope(projects=(PROJECT.upper(),)))


def test_work_given_before_is_kept_on_the_record_of_an_abstention(hospital: Hospital) -> None:
    hospital.trainer.during = lambda: hospital.withdraw("N0")
    hospital.ask()

    (row,) = hospital.rows(participation)
    assert (row["outcome"], row["studies"]) == ("abstained", "[]")
    assert PSEUDONYMS.patient("N0") in row["used"]
