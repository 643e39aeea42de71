"""The cohort: studies whose patients permit, and which of them only measure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from consent import Reading, Request, parse_consent
from site_node.catalogue import Instance, Series
from site_node.cohort import freeze, is_validation, split
from tests.site_node.hospital import NOON, consent_of

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
