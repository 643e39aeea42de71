"""The cohort: studies whose patients permit, and which of them only measure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from consent import Decider, Reading, Request, parse_consent
from site_node.catalogue import Instance, Series
from site_node.cohort import Standing, freeze, is_validation, split
from tests.consent import test_alike as alike
from tests.consent.records import requests
from tests.site_node.hospital import NOON, consent_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pytest

    from consent import LegalBasis, Study, Verdict
    from consent.record import ConsentRecord

REQUEST = Request(("CLINTRCH",), ("urn:filmroom:federation|demo",))
patients = st.text("ABCDEFGH234567", min_size=1, max_size=20)
fractions = st.floats(0, 0.9)
seeds = st.integers(0, 2**32 - 1)


def series(uid: str, patient: str, study: str, study_date: str | None = "2026-03-12") -> Series:
    return Series(uid, study, patient, study_date, (Instance("p", "0" * 64, uid),), None)


def record(patient: str, kind: str = "permit") -> tuple[Reading, ...]:
    return (Reading.of(parse_consent(consent_of(patient, kind)).record),)


def test_silence_is_not_consent() -> None:
    cohort = freeze([series("s1", "A", "1"), series("s2", "B", "2")], {"A": record("A")}, REQUEST, NOON)

    assert [item.patient for item in cohort.items] == ["A"]
    assert cohort.studies == {"1"}
    assert {study: verdict.outcome.value for study, verdict in cohort.verdicts.items()} == {
        "1": "permit",
        "2": "no-consent",
    }


@given(st.permutations(["A", "B"]), st.sampled_from(["deny", None]))
def test_two_patients_under_one_study_must_both_permit(order: list[str], other: str | None) -> None:
    consents = {"A": record("A")} | ({"B": record("B", other)} if other else {})
    items = [series(f"s{patient}", patient, "1") for patient in order]

    assert freeze(items, consents, REQUEST, NOON).items == ()


@given(st.permutations(["2026-03-12", "2020-01-01", None]))
def test_a_study_known_under_several_dates_must_be_permitted_for_each(dates: list[str | None]) -> None:
    document = consent_of("A")
    document["provision"]["dataPeriod"] = {"start": "2026-01-01", "end": "2026-12-31"}
    consents = {"A": (Reading.of(parse_consent(document).record),)}
    items = [series(f"s{number}", "A", "1", date) for number, date in enumerate(dates)]
    within = [replace(item, study_date="2026-03-12") for item in items]

    assert freeze(items, consents, REQUEST, NOON).items == ()
    assert freeze(within, consents, REQUEST, NOON).items == tuple(within)


@settings(max_examples=80, deadline=None)
@given(
    alike.patients(),
    requests,
    alike.bases,
    st.lists(st.tuples(alike.moments, st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=6),
)
def test_what_stood_before_changes_no_verdict(
    cohort: list[list[ConsentRecord]], request: Request, basis: LegalBasis, history: list[tuple[datetime, int, int]]
) -> None:
    """Freezes one after another, at moments in any order, while records of a patient come and go."""
    read = [[Reading.of(one) for one in records] for records in cohort]
    days = [day.isoformat() if day else None for day in alike.DAYS]
    items = [series(f"s{n}", f"P{n}", f"{n}", days[n]) for n in range(len(read))]
    before: dict[str, Standing] = {}
    for at, changed, held in history:
        consents = {f"P{n}": tuple(some[:held] if n == changed else some) for n, some in enumerate(read)}
        again = freeze(items, consents, request, at, basis, "MR", before)
        anew = freeze(items, consents, request, at, basis, "MR")
        assert again == anew
        assert {uid: one.trace for uid, one in again.verdicts.items()} == {u: v.trace for u, v in anew.verdicts.items()}
        before = dict(again.standing)


def test_a_study_is_decided_again_only_when_something_may_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [series("s1", "A", "1"), series("s2", "B", "2")]
    consents = {"A": record("A"), "B": record("B")}
    first = freeze(items, consents, REQUEST, NOON)
    decided, decide = [], Decider.decide

    def noted(decider: Decider, readings: Sequence[Reading], study: Study) -> Verdict:
        decided.append(study.patient)
        return decide(decider, readings, study)

    monkeypatch.setattr(Decider, "decide", noted)

    assert freeze(items, consents, REQUEST, NOON, before=first.standing) == first
    assert decided == []
    assert freeze(items, consents | {"B": record("B", "deny")}, REQUEST, NOON, before=first.standing).studies == {"1"}
    assert decided == ["B"]


@given(patients, fractions, seeds)
def test_a_patient_is_on_one_side_in_every_round(patient: str, fraction: float, seed: int) -> None:
    items = [series("s1", patient, "1"), series("s2", patient, "2")]

    train, validate = split(items, fraction, seed)

    assert (train, validate) in {(tuple(items), ()), ((), tuple(items))}
    assert split(items, fraction, seed) == (train, validate)
    assert bool(validate) is is_validation(patient, fraction, seed)


@given(patients, fractions, fractions, seeds)
def test_a_larger_fraction_only_adds_patients(patient: str, first: float, second: float, seed: int) -> None:
    small, large = sorted((first, second))

    assert is_validation(patient, large, seed) >= is_validation(patient, small, seed)


def test_about_the_asked_fraction_of_patients_measures() -> None:
    measured = sum(is_validation(f"P{number}", 0.25, 7) for number in range(4000))

    assert 900 < measured < 1100  # four standard deviations and a little
    assert not any(is_validation(f"P{number}", 0.0, 7) for number in range(100))
