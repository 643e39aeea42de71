"""A request to use a dataset, from its draft to the end of its grant: which step is legal, and what comes of it.

A request is the fold of its events; nothing is ever taken out or changed. Every event is judged when it happens and
again each time the request is read, so that an event which breaks a rule yields no grant, however it got there.
Knows no clock and no storage, and does not say who holds which office: it compares names.

Source: after REMS's application events and DUOS's committee vote.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from consent.access import Deny, Grant, same_person
from consent.datause import DataUse, DataUseDecision, ResearchKind, ResearchPurpose, match_data_use
from consent.errors import DataUseInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime


class RequestState(StrEnum):
    """Where a request stands."""

    DRAFT = "a draft"
    SUBMITTED = "submitted"
    IN_REVIEW = "in review"
    RETURNED = "returned"
    SECOND_AWAITED = "approved by one, and waits for a second"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"
    EXPIRED = "expired"


class RequestAct(StrEnum):
    """What a person did with a request."""

    DRAFTED = "drafted"
    SUBMITTED = "submitted"
    REVIEWED = "reviewed"
    RETURNED = "returned"
    APPROVED = "approved"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    REVOKED = "revoked"


# Every legal step; the rest is refused. Time alone makes an approved request an expired one.
TRANSITIONS: Final[Mapping[tuple[RequestState | None, RequestAct], RequestState]] = MappingProxyType(
    {
        (None, RequestAct.DRAFTED): RequestState.DRAFT,
        (RequestState.DRAFT, RequestAct.DRAFTED): RequestState.DRAFT,
        (RequestState.DRAFT, RequestAct.SUBMITTED): RequestState.SUBMITTED,
        (RequestState.SUBMITTED, RequestAct.REVIEWED): RequestState.IN_REVIEW,
        (RequestState.SUBMITTED, RequestAct.RETURNED): RequestState.RETURNED,
        (RequestState.SUBMITTED, RequestAct.APPROVED): RequestState.SECOND_AWAITED,
        (RequestState.SUBMITTED, RequestAct.REJECTED): RequestState.REJECTED,
        (RequestState.IN_REVIEW, RequestAct.REVIEWED): RequestState.IN_REVIEW,
        (RequestState.IN_REVIEW, RequestAct.RETURNED): RequestState.RETURNED,
        (RequestState.IN_REVIEW, RequestAct.APPROVED): RequestState.SECOND_AWAITED,
        (RequestState.IN_REVIEW, RequestAct.REJECTED): RequestState.REJECTED,
        (RequestState.RETURNED, RequestAct.DRAFTED): RequestState.DRAFT,
        (RequestState.RETURNED, RequestAct.SUBMITTED): RequestState.SUBMITTED,
        (RequestState.SECOND_AWAITED, RequestAct.RETURNED): RequestState.RETURNED,
        (RequestState.SECOND_AWAITED, RequestAct.CONFIRMED): RequestState.APPROVED,
        (RequestState.SECOND_AWAITED, RequestAct.REJECTED): RequestState.REJECTED,
        (RequestState.APPROVED, RequestAct.REVOKED): RequestState.REVOKED,
    }
)

ASSESSED: Final = frozenset({RequestAct.SUBMITTED, RequestAct.APPROVED, RequestAct.CONFIRMED, RequestAct.REJECTED})
"""Acts beside which the machine's verdict of that moment is kept."""

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Words = Annotated[str, Field(max_length=2000)]


@dataclass(frozen=True, slots=True)
class RequestForm:
    """What is asked for: a dataset, for a project, for a purpose."""

    dataset: _Name
    project: _Name
    purpose: ResearchPurpose


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the dataset's terms say of the purpose, each term that did not approve, and the last end they allow."""

    decision: DataUseDecision
    reasons: tuple[str, ...]
    ends_by: AwareDatetime | None = None


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """One act of one person; `words` are a reason or a comment, and what an act does not need stays empty."""

    act: RequestAct
    by: _Name
    at: AwareDatetime
    words: _Words = ""
    form: RequestForm | None = None
    assessment: Assessment | None = None
    expires_at: AwareDatetime | None = None
    conditions: tuple[_Words, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A request as its events made it; `version` is their number."""

    state: RequestState
    form: RequestForm
    version: int = 0
    applicants: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    assessment: Assessment | None = None
    first_approver: str | None = None
    conditions: tuple[str, ...] = ()
    expires_at: datetime | None = None
    granted_at: datetime | None = None
    revoked_at: datetime | None = None

    def state_at(self, at: datetime) -> RequestState:
        """Return where the request stands at a moment."""
        if self.state is RequestState.APPROVED and (self.expires_at is None or self.expires_at <= at):
            return RequestState.EXPIRED
        return self.state

    @property
    def grant(self) -> Grant | None:
        """The grant that two approvals made, ended or not; whether it holds is for `permits_project`."""
        if self.granted_at is None or self.expires_at is None:
            return None
        return Grant(self.form.dataset, self.form.project, self.granted_at, self.expires_at, self.revoked_at)


def assess_request(form: RequestForm, terms: DataUse, at: datetime) -> Assessment:
    """Return what a dataset's terms say of a request at a moment."""
    verdict = match_data_use(terms, form.purpose, at)
    return Assessment(verdict.decision, verdict.reasons, terms.expiry(at))


def advance_request(request: AccessRequest | None, event: RequestEvent) -> AccessRequest | Deny:
    """Return the request after one more event, or why that event may not happen."""
    state = request.state_at(event.at) if request else None
    target = TRANSITIONS.get((state, event.act))
    if target is None:
        return Deny(f"the request is {state}: it cannot be {event.act}" if state else "there is no such request")
    if not event.by.strip():
        return Deny("the record says who does it")
    if event.act in ASSESSED and event.assessment is None:
        return Deny("the terms were not asked")
    if request is None or event.act is RequestAct.DRAFTED:
        if event.form is None:
            return Deny("a draft says what is asked for")
        request = AccessRequest(target, event.form) if request is None else replace(request, form=event.form)
    for rule in _RULES[event.act]:
        fault = rule(request, event)
        if fault is not None:
            return Deny(fault)
    return replace(_AFTER[event.act](request, event), state=target, version=request.version + 1)


def replay_request(events: Iterable[RequestEvent]) -> AccessRequest | Deny:
    """Return the request that the events make; a history in which one breaks a rule makes none."""
    request: AccessRequest | None = None
    for number, event in enumerate(events, 1):
        after = advance_request(request, event)
        if isinstance(after, Deny):
            return Deny(f"event {number} breaks a rule: {after.reason}")
        request = after
    return request or Deny("there is no such request")


# ------------------------------------------------------------------ rules of each act


def _by_another(request: AccessRequest, event: RequestEvent) -> str | None:
    if any(same_person(event.by, other) for other in request.applicants):
        return "who drafted or submitted it does not decide on it: another person must"
    return None


def _not_reviewed_by(request: AccessRequest, event: RequestEvent) -> str | None:
    if any(same_person(event.by, other) for other in request.reviewers):
        return "who reviewed it does not approve it: another person must"
    return None


def _by_a_second(request: AccessRequest, event: RequestEvent) -> str | None:
    if request.first_approver is None or same_person(event.by, request.first_approver):
        return "who approved it first cannot confirm it: another person must"
    return None


def _with_words(_request: AccessRequest, event: RequestEvent) -> str | None:
    return None if event.words.strip() else f"a request is {event.act} with a reason in words"


def _within_the_terms(_request: AccessRequest, event: RequestEvent) -> str | None:
    # The terms are a promise to others: who decides on access cannot lift them.
    assessment = event.assessment
    if assessment is None or assessment.decision is DataUseDecision.DENY:
        reasons = "; ".join(assessment.reasons) if assessment else ""
        return f"the terms of use forbid it: {reasons}"
    if assessment.decision is DataUseDecision.MANUAL and not event.words.strip():
        return f"the terms leave it to people ({'; '.join(assessment.reasons)}): approve with a reason in words"
    return None


def _with_an_end(_request: AccessRequest, event: RequestEvent) -> str | None:
    limit = event.assessment.ends_by if event.assessment else None
    if event.expires_at is None or event.expires_at <= event.at:
        return "a grant must end in the future"
    if limit is not None and event.expires_at > limit:
        return f"the terms of use end a grant by {limit:%Y-%m-%d}"
    return None


def _as_the_first_saw_it(request: AccessRequest, event: RequestEvent) -> str | None:
    now, then = event.assessment, request.assessment
    if now is None or then is None or now.decision > then.decision:
        reasons = "; ".join(now.reasons) if now else ""
        return f"the terms of use say otherwise than at the first approval: {reasons}; return the request"
    if request.expires_at is None or request.expires_at <= event.at:
        return "the end that was approved has passed: return the request"
    return None


_RULES: Final[Mapping[RequestAct, tuple[Callable[[AccessRequest, RequestEvent], str | None], ...]]] = MappingProxyType(
    {
        RequestAct.DRAFTED: (),
        RequestAct.SUBMITTED: (),
        RequestAct.REVIEWED: (_by_another, _with_words),
        RequestAct.RETURNED: (_by_another, _with_words),
        RequestAct.APPROVED: (_by_another, _not_reviewed_by, _within_the_terms, _with_an_end),
        RequestAct.CONFIRMED: (_by_another, _not_reviewed_by, _by_a_second, _as_the_first_saw_it),
        RequestAct.REJECTED: (_by_another, _with_words),
        RequestAct.REVOKED: (_with_words,),
    }
)


# ------------------------------------------------------------------ what each act changes


def _applied(request: AccessRequest, event: RequestEvent) -> AccessRequest:
    return replace(request, applicants=(*request.applicants, event.by), assessment=event.assessment)


def _reviewed(request: AccessRequest, event: RequestEvent) -> AccessRequest:
    return replace(request, reviewers=(*request.reviewers, event.by))


def _returned(request: AccessRequest, _event: RequestEvent) -> AccessRequest:
    return replace(request, assessment=None, first_approver=None, expires_at=None, conditions=())


def _approved(request: AccessRequest, event: RequestEvent) -> AccessRequest:
    return replace(
        request,
        assessment=event.assessment,
        first_approver=event.by,
        expires_at=event.expires_at,
        conditions=event.conditions,
    )


_AFTER: Final[Mapping[RequestAct, Callable[[AccessRequest, RequestEvent], AccessRequest]]] = MappingProxyType(
    {
        RequestAct.DRAFTED: _applied,
        RequestAct.SUBMITTED: _applied,
        RequestAct.REVIEWED: _reviewed,
        RequestAct.RETURNED: _returned,
        RequestAct.APPROVED: _approved,
        RequestAct.CONFIRMED: lambda request, event: replace(request, granted_at=event.at),
        RequestAct.REJECTED: lambda request, _event: request,
        RequestAct.REVOKED: lambda request, event: replace(request, revoked_at=event.at),
    }
)


# ------------------------------------------------------------------ people and the machine

_AGREEMENT: Final[Mapping[tuple[RequestAct, DataUseDecision], str]] = MappingProxyType(
    {
        (RequestAct.APPROVED, DataUseDecision.APPROVE): "agrees",
        (RequestAct.APPROVED, DataUseDecision.MANUAL): "left to people",
        (RequestAct.CONFIRMED, DataUseDecision.APPROVE): "agrees",
        (RequestAct.CONFIRMED, DataUseDecision.MANUAL): "left to people",
        (RequestAct.REJECTED, DataUseDecision.APPROVE): "differs",
        (RequestAct.REJECTED, DataUseDecision.MANUAL): "left to people",
        (RequestAct.REJECTED, DataUseDecision.DENY): "agrees",
    }
)


def agreement(event: RequestEvent) -> str | None:
    """Return how a person's decision stands to the machine's: `agrees`, `differs` or `left to people`."""
    return _AGREEMENT.get((event.act, event.assessment.decision)) if event.assessment else None


def exceeds(stated: ResearchPurpose, approved: ResearchPurpose) -> tuple[str, ...]:
    """Return the facts in which a purpose goes beyond the approved one; what is not stated goes beyond nothing."""
    return tuple(
        fact.name for fact in fields(stated) if _goes_beyond(getattr(stated, fact.name), getattr(approved, fact.name))
    )


def _goes_beyond(stated: object, approved: object) -> bool:
    if isinstance(stated, tuple) and isinstance(approved, tuple):
        return not set(stated) <= set(approved)
    if isinstance(stated, ResearchKind):
        return stated is not approved and (stated, approved) != (ResearchKind.HEALTH, ResearchKind.GENERAL)
    return stated not in {None, False} and stated != approved


_PURPOSE: Final = TypeAdapter(ResearchPurpose)


def parse_purpose(document: bytes) -> ResearchPurpose:
    """Read a purpose: a JSON object of the facts of `ResearchPurpose`.

    Raises: DataUseInvalid naming the facts that are missing, unknown or wrong.
    """
    try:
        return _PURPOSE.validate_json(document, strict=True, extra="forbid")
    except ValidationError as error:
        facts = {".".join(map(str, fault["loc"])) or "not a JSON object" for fault in error.errors()}
        raise DataUseInvalid(f"purpose: wrong, unknown or missing: {', '.join(sorted(facts))}") from None
