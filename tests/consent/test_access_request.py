"""A request goes only where the table leads, and to a grant only through two who neither made nor reviewed it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consent import (
    ASSESSED,
    AccessRequest,
    DataUse,
    DataUseDecision,
    DataUseInvalid,
    Deny,
    Modifier,
    Permit,
    RequestAct,
    RequestEvent,
    RequestForm,
    RequestState,
    ResearchKind,
    ResearchPurpose,
    advance_request,
    agreement,
    assess_request,
    exceeds,
    parse_purpose,
    permits_project,
    replay_request,
    same_person,
)
from consent.access_request import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

AT: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY: Final = timedelta(days=1)
PURPOSE: Final = ResearchPurpose(ResearchKind.HEALTH, methods_development=True)
FORM: Final = RequestForm("chest", "pneumonia", PURPOSE)
OPEN, ASKS, FORBIDS = DataUse("GRU"), DataUse("GRU", (), (Modifier("NCU"),)), DataUse("POA")


def event(act: RequestAct, by: str, at: datetime = AT, terms: DataUse = OPEN, **values: Any) -> RequestEvent:
    """Return an event that has what its act needs; `values` replace it."""
    own: dict[str, Any] = {"words": "because"}
    if act is RequestAct.DRAFTED:
        own["form"] = FORM
    if act in ASSESSED:
        own["assessment"] = assess_request(values.get("form") or FORM, terms, at)
    if act is RequestAct.APPROVED:
        own["expires_at"] = AT + 30 * DAY
    return RequestEvent(act, by, at, **(own | values))


DRAFTED: Final = event(RequestAct.DRAFTED, "anna")
SUBMITTED: Final = event(RequestAct.SUBMITTED, "anna")
REVIEWED: Final = event(RequestAct.REVIEWED, "rita")
RETURNED: Final = event(RequestAct.RETURNED, "rolf")
APPROVED: Final = event(RequestAct.APPROVED, "ben")
CONFIRMED: Final = event(RequestAct.CONFIRMED, "carla")
REJECTED: Final = event(RequestAct.REJECTED, "ben")
REVOKED: Final = event(RequestAct.REVOKED, "dora", AT + DAY)
GRANTED: Final = (DRAFTED, SUBMITTED, APPROVED, CONFIRMED)
PATHS: Final[dict[RequestState | None, tuple[RequestEvent, ...]]] = {
    None: (),
    RequestState.DRAFT: (DRAFTED,),
    RequestState.SUBMITTED: (DRAFTED, SUBMITTED),
    RequestState.IN_REVIEW: (DRAFTED, SUBMITTED, REVIEWED),
    RequestState.RETURNED: (DRAFTED, SUBMITTED, RETURNED),
    RequestState.SECOND_AWAITED: (DRAFTED, SUBMITTED, APPROVED),
    RequestState.APPROVED: GRANTED,
    RequestState.REJECTED: (DRAFTED, SUBMITTED, REJECTED),
    RequestState.REVOKED: (*GRANTED, REVOKED),
    RequestState.EXPIRED: GRANTED,
}


def made(*events: RequestEvent) -> AccessRequest:
    request = replay_request(events)
    assert isinstance(request, AccessRequest), request
    return request


def refusal(*events: RequestEvent) -> str:
    before = made(*events[:-1]) if len(events) > 1 else None
    answer = advance_request(before, events[-1])
    assert isinstance(answer, Deny)
    return answer.reason


@pytest.mark.parametrize(("state", "act"), list(product(PATHS, RequestAct)), ids=str)
def test_every_pair_outside_the_table_is_refused_and_every_other_leads_where_it_says(
    state: RequestState | None, act: RequestAct
) -> None:
    at = AT + (30 * DAY if state is RequestState.EXPIRED else timedelta())
    events = PATHS[state]
    request = made(*events) if events else None
    assert (request.state_at(at) if request else None) == state

    by = {RequestAct.DRAFTED: "anna", RequestAct.SUBMITTED: "anna", RequestAct.CONFIRMED: "carla"}.get(act, "ben")
    after = advance_request(request, event(act, by, at))

    if (state, act) in TRANSITIONS:
        assert isinstance(after, AccessRequest)
        assert after.state is TRANSITIONS[state, act]
        assert after.version == len(events) + 1
    else:
        expected = f"the request is {state}: it cannot be {act}" if state else "there is no such request"
        assert after == Deny(expected)


def test_a_grant_begins_with_the_second_approval_and_has_the_end_of_the_first() -> None:
    later = replace(CONFIRMED, at=AT + DAY)
    request = made(DRAFTED, SUBMITTED, replace(APPROVED, conditions=("no export",)), later)

    assert request.conditions == ("no export",)
    assert request.grant is not None
    assert (request.grant.granted_at, request.grant.expires_at) == (AT + DAY, AT + 30 * DAY)
    assert made(DRAFTED, SUBMITTED, APPROVED).grant is None


def test_an_approved_request_expires_by_time_alone() -> None:
    request = made(*GRANTED)

    assert request.state_at(AT + 30 * DAY - timedelta(microseconds=1)) is RequestState.APPROVED
    assert request.state_at(AT + 30 * DAY) is RequestState.EXPIRED


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((DRAFTED, SUBMITTED, replace(REVIEWED, by="anna")), "who drafted or submitted it does not decide"),
        ((DRAFTED, SUBMITTED, replace(RETURNED, by=" A N N A")), "who drafted or submitted it does not decide"),
        ((DRAFTED, SUBMITTED, replace(REJECTED, by="Anna")), "who drafted or submitted it does not decide"),
        ((DRAFTED, SUBMITTED, replace(APPROVED, by="anna")), "who drafted or submitted it does not decide"),
        ((DRAFTED, replace(SUBMITTED, by="otto"), replace(APPROVED, by="anna")), "who drafted or submitted it"),
        ((DRAFTED, replace(SUBMITTED, by="otto"), replace(APPROVED, by="otto")), "who drafted or submitted it"),
        ((DRAFTED, SUBMITTED, REVIEWED, replace(APPROVED, by="Rita")), "who reviewed it does not approve it"),
        ((DRAFTED, SUBMITTED, APPROVED, replace(CONFIRMED, by="BEN ")), "who approved it first cannot confirm"),
        ((DRAFTED, SUBMITTED, APPROVED, replace(CONFIRMED, by="anna")), "who drafted or submitted it does not decide"),
        ((DRAFTED, SUBMITTED, REVIEWED, APPROVED, replace(CONFIRMED, by="rita")), "who reviewed it does not approve"),
        ((DRAFTED, SUBMITTED, REVIEWED, RETURNED, SUBMITTED, replace(APPROVED, by="rita")), "who reviewed it"),
    ],
)
def test_who_made_or_reviewed_a_request_does_not_approve_it(events: tuple[RequestEvent, ...], expected: str) -> None:
    assert refusal(*events).startswith(expected)


@pytest.mark.parametrize("event", [REVIEWED, RETURNED, REJECTED])
@pytest.mark.parametrize("words", ["", "  \n"])
def test_what_is_said_against_a_request_is_said_in_words(event: RequestEvent, words: str) -> None:
    assert refusal(DRAFTED, SUBMITTED, replace(event, words=words)).endswith("with a reason in words")
    assert refusal(*GRANTED, replace(REVOKED, words=words)).endswith("with a reason in words")


@pytest.mark.parametrize("end", [None, AT - DAY, AT])
def test_an_approval_has_an_end_in_the_future(end: datetime | None) -> None:
    assert refusal(DRAFTED, SUBMITTED, replace(APPROVED, expires_at=end)) == "a grant must end in the future"


def test_a_time_limit_of_the_terms_ends_every_grant() -> None:
    limited = DataUse("GRU", (), (Modifier("TS", ("2",)),))
    until = datetime(2026, 8, 1, 12, tzinfo=UTC)

    def approved(end: datetime) -> RequestEvent:
        return event(RequestAct.APPROVED, "ben", terms=limited, expires_at=end)

    assert made(DRAFTED, SUBMITTED, approved(until)).expires_at == until
    assert refusal(DRAFTED, SUBMITTED, approved(until + DAY)) == "the terms of use end a grant by 2026-08-01"


def test_what_the_terms_forbid_nobody_approves() -> None:
    approval = event(RequestAct.APPROVED, "ben", terms=FORBIDS)

    assert refusal(DRAFTED, SUBMITTED, approval).startswith("the terms of use forbid it: POA: deny")


def test_what_the_terms_leave_to_people_is_approved_with_a_reason() -> None:
    approval = event(RequestAct.APPROVED, "ben", terms=ASKS)

    assert agreement(approval) == "left to people"
    assert made(DRAFTED, SUBMITTED, approval).first_approver == "ben"
    assert "NCU: manual" in refusal(DRAFTED, SUBMITTED, replace(approval, words=" "))


def test_terms_that_forbid_it_since_the_first_approval_are_not_confirmed() -> None:
    ethics = DataUse("GRU", (), (Modifier("IRB"),))
    form = replace(FORM, purpose=replace(PURPOSE, ethics_approved_until=date(2026, 6, 1)))
    before = (
        event(RequestAct.DRAFTED, "anna", form=form),
        SUBMITTED,
        replace(APPROVED, assessment=assess_request(form, ethics, AT)),
    )
    late = replace(CONFIRMED, at=AT + DAY, assessment=assess_request(form, ethics, AT + DAY))

    assert "IRB: deny" in refusal(*before, late)


def test_an_end_that_passed_before_the_second_approval_is_not_confirmed() -> None:
    assert "has passed" in refusal(DRAFTED, SUBMITTED, APPROVED, replace(CONFIRMED, at=AT + 30 * DAY))


def test_what_was_approved_before_a_return_counts_no_more() -> None:
    request = made(DRAFTED, SUBMITTED, APPROVED, replace(RETURNED, by="carla"))

    assert (request.first_approver, request.expires_at, request.conditions) == (None, None, ())
    assert refusal(DRAFTED, SUBMITTED, APPROVED, RETURNED, SUBMITTED, CONFIRMED).endswith("cannot be confirmed")


def test_a_form_is_needed_and_a_name_and_the_terms() -> None:
    assert refusal(replace(DRAFTED, form=None)) == "a draft says what is asked for"
    assert refusal(replace(DRAFTED, by=" ")) == "the record says who does it"
    assert refusal(DRAFTED, replace(SUBMITTED, assessment=None)) == "the terms were not asked"


@pytest.mark.parametrize(
    ("act", "terms", "expected"),
    [
        (RequestAct.APPROVED, OPEN, "agrees"),
        (RequestAct.CONFIRMED, ASKS, "left to people"),
        (RequestAct.REJECTED, OPEN, "differs"),
        (RequestAct.REJECTED, ASKS, "left to people"),
        (RequestAct.REJECTED, FORBIDS, "agrees"),
        (RequestAct.SUBMITTED, OPEN, None),
        (RequestAct.REVIEWED, OPEN, None),
    ],
)
def test_a_decision_stands_beside_the_machines(act: RequestAct, terms: DataUse, expected: str | None) -> None:
    assert agreement(event(act, "ben", terms=terms)) == expected


def test_an_event_put_in_by_hand_that_breaks_a_rule_makes_no_request() -> None:
    forged = (DRAFTED, SUBMITTED, replace(APPROVED, by="anna"), CONFIRMED)

    assert replay_request(forged) == Deny(
        "event 3 breaks a rule: who drafted or submitted it does not decide on it: another person must"
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Anna", "anna ", True),
        ("Jos\u00e9", "Jose\u0301", True),
        ("\uff21nna", "Anna", True),
        ("Strasse", "Straße", True),
        ("Anna", "Hanna", False),
    ],
)
def test_one_person_has_one_name(one: str, other: str, expected: bool) -> None:  # noqa: FBT001 -- a table's column
    assert same_person(one, other) is expected


@pytest.mark.parametrize(
    ("stated", "approved", "expected"),
    [
        ({}, {}, ()),
        ({"commercial": True}, {}, ("commercial",)),
        ({"commercial": True}, {"commercial": False}, ("commercial",)),
        ({"commercial": True}, {"commercial": True}, ()),
        ({"commercial": False}, {"commercial": True}, ()),
        ({}, {"commercial": True, "diseases": ("MONDO:1",)}, ()),
        ({"diseases": ("MONDO:1", "MONDO:2")}, {"diseases": ("MONDO:1",)}, ("diseases",)),
        ({"diseases": ("MONDO:1",)}, {"diseases": ("MONDO:2", "MONDO:1")}, ()),
        ({"kind": ResearchKind.GENERAL}, {}, ("kind",)),
        ({}, {"kind": ResearchKind.GENERAL}, ()),
    ],
)
def test_a_purpose_goes_beyond_another_in_what_it_states_more(
    stated: dict[str, Any], approved: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert exceeds(replace(PURPOSE, **stated), replace(PURPOSE, **approved)) == expected


def test_a_purpose_is_read_from_json() -> None:
    document = b'{"kind": "health", "methods_development": true, "ethics_approved_until": "2027-01-01"}'

    assert parse_purpose(document) == replace(PURPOSE, ethics_approved_until=date(2027, 1, 1))


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (b"{", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"kind": "health"}', "methods_development"),
        (b'{"kind": "health", "methods_development": 1}', "methods_development"),
        (b'{"kind": "cure", "methods_development": true}', "kind"),
        (b'{"kind": "health", "methods_development": true, "users": "all"}', "users"),
        (b'{"kind": "health", "methods_development": true, "colour": 1}', "colour"),
    ],
)
def test_a_purpose_that_cannot_be_read_is_named_by_its_fact(document: bytes, named: str) -> None:
    with pytest.raises(DataUseInvalid, match=named):
        parse_purpose(document)


FINAL: Final = (RequestState.REJECTED, RequestState.REVOKED, RequestState.EXPIRED)
people = st.sampled_from(("anna", "Anna ", "ben", "carla", "dora"))
terms = st.sampled_from((OPEN, OPEN, ASKS, FORBIDS))


class Requests(RuleBasedStateMachine):
    """People do whatever comes to their minds, in any order, under terms that change; beside it stands a plain account.

    The account is a list of who did what, as it was accepted; from that list alone the invariants are checked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = AT
        self.terms = OPEN
        self.request: AccessRequest | None = None
        self.happened: list[RequestEvent] = []

    @rule(hours=st.integers(1, 24 * 20))
    def time_passes(self, hours: int) -> None:
        """Move the clock."""
        self.now += timedelta(hours=hours)

    @rule(terms=terms)
    def terms_change(self, terms: DataUse) -> None:
        """Let the machine answer otherwise from now on."""
        self.terms = terms

    @precondition(lambda self: self.request and self.request.state_at(self.now) in FINAL)
    @rule()
    def another_request(self) -> None:
        """Begin anew, since this one has ended."""
        self.request, self.happened = None, []

    @rule(
        act=st.sampled_from(RequestAct),
        by=people,
        words=st.sampled_from(("", "because")),
        days=st.none() | st.integers(-1, 40),
        assessed=st.sampled_from((True, True, True, False)),
    )
    def somebody_acts(self, act: RequestAct, by: str, words: str, days: int | None, assessed: bool) -> None:  # noqa: FBT001 -- drawn
        """Try any act."""
        assessment = assess_request(FORM, self.terms, self.now) if assessed else None
        ends = None if days is None else self.now + days * DAY
        self._attempt(RequestEvent(act, by, self.now, words, FORM, assessment, ends))

    @rule(makers=people, submitter=people, reviewer=st.none() | people, first=people, second=people, terms=terms)
    def the_way_to_a_grant(
        self, makers: str, submitter: str, reviewer: str | None, first: str, second: str, terms: DataUse
    ) -> None:
        """Go straight ahead, whoever it is, and let the terms change before the last step."""
        self._attempt(event(RequestAct.DRAFTED, makers, self.now))
        self._attempt(event(RequestAct.SUBMITTED, submitter, self.now, self.terms))
        if reviewer:
            self._attempt(event(RequestAct.REVIEWED, reviewer, self.now))
        self._attempt(event(RequestAct.APPROVED, first, self.now, self.terms, expires_at=self.now + 30 * DAY))
        self.terms = terms
        self._attempt(event(RequestAct.CONFIRMED, second, self.now, self.terms))

    def _attempt(self, attempt: RequestEvent) -> None:
        after = advance_request(self.request, attempt)
        if isinstance(after, AccessRequest):
            self.request = after
            self.happened.append(attempt)

    @invariant()
    def a_grant_that_holds_went_the_whole_way(self) -> None:
        """Check the grant against the plain account."""
        grants = [self.request.grant] if self.request and self.request.grant else []
        if not isinstance(permits_project(grants, "chest", "pneumonia", self.now), Permit):
            return
        acts = [one.act for one in self.happened]
        assert acts[-2:] == [RequestAct.APPROVED, RequestAct.CONFIRMED]
        first, second = self.happened[-2:]
        makers = _people(self.happened, RequestAct.DRAFTED, RequestAct.SUBMITTED)
        reviewers = _people(self.happened, RequestAct.REVIEWED)
        approvers = {_plain(first.by), _plain(second.by)}
        assert len(approvers) == 2
        assert not approvers & (makers | reviewers)
        assert RequestAct.REVOKED not in acts
        assert first.expires_at is not None
        assert self.now < first.expires_at
        for approval in (first, second):
            assert approval.assessment is not None
            assert approval.assessment.decision is not DataUseDecision.DENY
        if first.assessment and first.assessment.decision is DataUseDecision.MANUAL:
            assert first.words

    @invariant()
    def the_events_alone_make_the_request(self) -> None:
        """Fold anew what happened."""
        if self.request is not None:
            assert replay_request(self.happened) == self.request
            assert self.request.version == len(self.happened)


def _plain(name: str) -> str:
    return name.strip().lower()


def _people(events: Iterable[RequestEvent], *acts: RequestAct) -> set[str]:
    return {_plain(one.by) for one in events if one.act in acts}


TestRequests = Requests.TestCase
