"""What is decided once for many studies is what each of them would have been told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from consent.alike import Decider, stands_until, still_stands
from consent.basis import CONSENT, BasisKind, LegalBasis, decide_under
from consent.decision import Request, Study
from consent.reading import Reading, Shape
from consent.record import Clause, ConsentRecord, Kind, Period, Provision
from tests.consent.records import AT, HUB, RESEARCH, STUDY, permit, record, record_lists, requests

many = settings(max_examples=120, deadline=None)
DAYS = (
    None,
    date(1899, 5, 1),
    date(2024, 5, 1),
    date(2025, 1, 1),
    date(2026, 6, 1),
    date(2027, 1, 1),
    date(2028, 5, 1),
)
TICK = timedelta(microseconds=1)
MOMENTS = tuple(
    day + step
    for day in (
        datetime(2024, 5, 1, tzinfo=UTC),
        datetime(2025, 1, 1, tzinfo=UTC),
        AT,
        datetime(2027, 1, 1, tzinfo=UTC),
    )
    for step in (timedelta(), TICK, -TICK, timedelta(days=1) - TICK, timedelta(days=1))
)
moments = st.sampled_from(MOMENTS)
bases = st.sampled_from(
    [
        CONSENT,
        CONSENT,
        *(
            LegalBasis(kind, "r", date(2025, 1, 1), date(2026, 6, 2), ("HRESCH",), (HUB,), later_opt_outs=later)
            for kind in BasisKind
            if kind is not BasisKind.CONSENT
            for later in (True, False)
        ),
    ]
)


def _period(first: datetime | None, last: datetime | None) -> Period:
    ordered = sorted(filter(None, (first, last)))
    return Period(*ordered) if len(ordered) > 1 else Period(first, last)


periods = st.builds(_period, st.none() | moments, st.none() | moments)


@st.composite
def moved(draw: st.DrawFn, given_record: ConsentRecord) -> ConsentRecord:
    """Return the record with other periods, near the moments that matter."""

    def rule(old: Provision) -> Provision:
        period, data = (draw(periods) if old.period else None), (draw(periods) if old.data_period else None)
        return replace(old, period=period, data_period=data, children=tuple(map(rule, old.children)))

    def clause(old: Clause) -> Clause:
        return replace(old, period=draw(st.none() | periods))

    return replace(
        given_record,
        consent_id=draw(st.sampled_from(["a", "b"])),
        root=rule(given_record.root),
        period=draw(st.none() | periods),
        dated_at=draw(st.none() | moments),
        clauses=None if given_record.clauses is None else tuple(map(clause, given_record.clauses)),
    )


@st.composite
def patients(draw: st.DrawFn) -> list[list[ConsentRecord]]:
    """Return the consents of several patients, written from few forms."""
    forms = draw(st.lists(record_lists, min_size=1, max_size=2))
    return [[draw(moved(one)) for one in draw(st.sampled_from(forms))] for _ in range(draw(st.integers(1, 5)))]


studies = st.builds(
    Study,
    st.just("patient-1"),
    st.sampled_from([STUDY.StudyInstanceUID, "9.9", "7"]),
    st.sampled_from(DAYS),
    st.none() | st.sampled_from([frozenset({"N"}), frozenset({"R", "HIV"}), frozenset({"HIV"})]),
    st.sampled_from([None, "CT", "DX"]),
)


@many
@given(patients(), st.lists(studies, min_size=1, max_size=4), requests, st.none() | st.just("brain"), bases, moments)
def test_a_cohort_decided_once_for_all_alike_is_that_decided_study_by_study(
    cohort: list[list[ConsentRecord]],
    asked: list[Study],
    request: Request,
    project: str | None,
    basis: LegalBasis,
    at: datetime,
) -> None:
    request = replace(request, project=project)
    decider = Decider(basis, request, at)
    for records in cohort:
        readings = [Reading.of(one) for one in records]
        for study in asked:
            plain = decide_under(basis, records, study, request, at)
            made = decider.decide(readings, study)
            assert (made.outcome, made.reason, made.trace) == (plain.outcome, plain.reason, plain.trace)


@many
@given(patients(), studies, requests, bases, moments, st.lists(moments, max_size=5))
def test_no_verdict_changes_before_the_moment_that_was_told(
    cohort: list[list[ConsentRecord]],
    study: Study,
    request: Request,
    basis: LegalBasis,
    at: datetime,
    later: list[datetime],
) -> None:
    for records in cohort:
        until = stands_until(map(Reading.of, records), basis, at)
        before = decide_under(basis, records, study, request, at)
        last = [until - TICK] if until and until > at else []
        for moment in (*later, *last):
            if still_stands(until, at, moment):
                assert decide_under(basis, records, study, request, moment) == before


def test_a_verdict_stands_until_the_next_moment_and_never_before_it_was_made() -> None:
    ends = AT + timedelta(days=3)
    readings = [Reading.of(record(permit(period=Period(None, ends)), dated_at=None))]

    until = stands_until(readings, CONSENT, AT)

    assert until == ends
    assert still_stands(until, AT, ends - TICK)
    assert not still_stands(until, AT, ends)
    assert not still_stands(until, AT, AT - TICK)
    assert stands_until(readings, CONSENT, ends + TICK) is None
    waiver = LegalBasis(BasisKind.WAIVER)
    assert stands_until(readings, waiver, AT) == datetime(2026, 6, 2, tzinfo=UTC)


def test_records_alike_are_decided_once() -> None:
    decider = Decider(CONSENT, Request(("BIORCH",), (HUB,)), AT)
    first = decider.decide([Reading.of(RESEARCH)], STUDY)
    shape = Reading.of(RESEARCH).shape
    later = Reading("other", Shape(shape.text), (AT - timedelta(days=7),))

    second = decider.decide([later], STUDY)

    assert (second.outcome, second.reason) == (first.outcome, first.reason)
    assert "Consent/other" in second.trace[1]
    assert second.reason is first.reason


@many
@given(record_lists.flatmap(lambda found: st.tuples(*map(moved, found))))
def test_a_record_read_back_from_its_shape_and_moments_is_the_record(found: tuple[ConsentRecord, ...]) -> None:
    for one in found:
        reading = Reading.of(one)
        again = Reading(one.consent_id, Shape(reading.shape.text), reading.moments).record()
        assert again == one
        assert repr(again) == repr(one)


def test_an_offset_is_kept_as_it_was_written() -> None:
    east = datetime.fromisoformat("2025-01-01T02:00:00+02:00")
    one = record(Provision(Kind.PERMIT, period=Period(east, None)), dated_at=east.astimezone(UTC))

    assert repr(Reading.of(one).record()) == repr(one)


def test_a_period_that_begins_or_ends_now_is_told_from_one_a_tick_away() -> None:
    request = Request(("BIORCH",), (HUB,))
    decider = Decider(CONSENT, request, AT)
    for moment in (AT - TICK, AT, AT + TICK):
        for period in (Period(moment, None), Period(None, moment)):
            records = [record(permit(purposes=("HRESCH",), period=period))]
            plain = decide_under(CONSENT, records, STUDY, request, AT)
            assert decider.decide([Reading.of(records[0])], STUDY) == plain
