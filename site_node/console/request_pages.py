"""Requests for access: what is asked, what the terms of use say of it, and what people decide.

Who decides is who is signed in. Which step is legal, and whose it may be, is for `access_requests` to say; a page
offers the steps that the state of the request has.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fastapi.responses import RedirectResponse

from consent import AccessRequest, Deny, RequestAct, agreement, exceeds
from consent.access_request import TRANSITIONS
from site_node import access_requests, permissions
from site_node.console.frame import NOT_FOUND, OK, SEE_OTHER, UNPROCESSABLE, number_in, number_of
from site_node.errors import ConfigurationError
from site_node.gate import research_purpose
from site_node.store import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import sqlalchemy as sa
    from fastapi.responses import Response
    from starlette.datastructures import FormData
    from starlette.requests import Request

    from models import Change
    from site_node.access_requests import Numbered
    from site_node.console.frame import Frame
    from site_node.console.sessions import Session


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided on a request, as the form says it; `seen` is the version that was shown."""

    number: int
    words: str
    by: str
    at: datetime
    seen: int
    until: datetime | None
    conditions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What may be done with a request, in words, and what does it."""

    act: RequestAct
    title: str
    meaning: str
    needs_words: bool
    do: Callable[[sa.Engine, Decision], Numbered | Deny]


@dataclass(frozen=True, slots=True)
class TaskOfProject:
    """A task of the project: what it claims beyond the request, and what is new since a version was approved."""

    digest: str
    name: str
    is_approved: bool
    beyond: tuple[str, ...]
    previous: str | None
    changes: Sequence[Change]


def _with_words(act: Callable[..., Numbered | Deny]) -> Callable[[sa.Engine, Decision], Numbered | Deny]:
    return lambda store, said: act(store, said.number, said.words, said.by, said.at, said.seen)


def _approve(store: sa.Engine, said: Decision) -> Numbered | Deny:
    if said.until is None:
        return Deny("the day on which the grant ends is missing, or is none")
    return access_requests.approve(
        store, said.number, said.by, said.at, said.until, said.conditions, said.words, said.seen
    )


STEPS: Final[Mapping[str, Step]] = {
    "confirm": Step(
        RequestAct.CONFIRMED,
        "Confirm the approval",
        "You approve as second, with the end and the conditions of the first. From then on the project may use the "
        "dataset.",
        needs_words=False,
        do=lambda store, said: access_requests.confirm(store, said.number, said.by, said.at, said.words, said.seen),
    ),
    "approve": Step(
        RequestAct.APPROVED,
        "Approve",
        "You approve as first of two. Nothing may be used until another person confirms it.",
        needs_words=False,
        do=_approve,
    ),
    "review": Step(
        RequestAct.REVIEWED,
        "Comment",
        "Your comment stays on the record. Who comments does not approve.",
        needs_words=True,
        do=_with_words(access_requests.review),
    ),
    "return": Step(
        RequestAct.RETURNED,
        "Return",
        "It goes back to who made it, to be written anew or handed in again.",
        needs_words=True,
        do=_with_words(access_requests.give_back),
    ),
    "reject": Step(
        RequestAct.REJECTED,
        "Reject",
        "It is refused for good; whoever still wants the dataset makes a new request.",
        needs_words=True,
        do=_with_words(access_requests.reject),
    ),
    "revoke": Step(
        RequestAct.REVOKED,
        "Revoke the grant",
        "The grant ends for good, and work that runs under it stops now.",
        needs_words=True,
        do=_with_words(access_requests.revoke),
    ),
}


class RequestPages:
    """One method for each page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def list_all(self, _request: Request, session: Session) -> Response:
        """Show every request, where it stands, and what the terms say beside what people say."""
        with reading(self._frame.site.store).connect() as db:
            asked = access_requests.requests(db)
            beside = {
                number: agreement(access_requests.history(db, number)[-1])
                for number, one in asked.items()
                if isinstance(one, AccessRequest)
            }
        sound = {number: one for number, one in asked.items() if isinstance(one, AccessRequest)}
        void = {number: one.reason for number, one in asked.items() if isinstance(one, Deny)}
        return self._frame.show(
            "requests.html", session, requests=sound, void=void, beside=beside, at=self._frame.now()
        )

    async def one(self, request: Request, session: Session) -> Response:
        """Show a request, all that was said of it, and what may be done with it."""
        return self._show(session, number_in(request))

    async def decide(self, request: Request, session: Session) -> Response:
        """Do a step with a request, in the name of who is signed in."""
        step, number, form = STEPS.get(request.path_params["act"]), number_in(request), await request.form()
        if step is None:
            words = "There is no such step. Nothing was changed: open the request again."
            return self._frame.refused(session, NOT_FOUND, words)
        answer = step.do(self._frame.site.store, _said(form, number, session.account.name, self._frame.now()))
        if isinstance(answer, Deny):
            return self._show(session, number, form, answer.reason)
        return RedirectResponse(f"/requests/{number}", SEE_OTHER)

    def _show(self, session: Session, number: int, typed: FormData | None = None, fault: str | None = None) -> Response:
        at = self._frame.now()
        with reading(self._frame.site.store).connect() as db:
            try:
                asked = access_requests.find(db, number)
            except ConfigurationError as error:
                words = f"This request cannot be decided on: {error}. Choose another under “Access requests”."
                return self._frame.refused(session, NOT_FOUND, words)
            events = access_requests.history(db, number)
            data = permissions.datasets(db).get(asked.form.dataset)
            tasks = _tasks(db, asked)
        state = asked.state_at(at)
        return self._frame.show(
            "request.html",
            session,
            OK if fault is None else UNPROCESSABLE,
            number=number,
            asked=asked,
            state=state,
            facts=access_requests.facts(asked.form.purpose),
            terms=access_requests.answers(data.terms, asked.assessment) if data else [],
            tasks=tasks,
            events=[(event, agreement(event)) for event in events],
            steps={name: step for name, step in STEPS.items() if (state, step.act) in TRANSITIONS},
            typed=typed or {},
            fault=fault,
        )


def _said(form: FormData, number: int, by: str, at: datetime) -> Decision:
    """Return what the form says; what it does not say as it must is none, and refused where it is needed."""
    try:
        until = datetime.fromisoformat(str(form.get("until", ""))).replace(tzinfo=UTC)
    except ValueError:
        until = None
    return Decision(
        number,
        str(form.get("words", "")).strip(),
        by,
        at,
        number_of(form.get("seen")),
        until,
        tuple(line.strip() for line in str(form.get("conditions", "")).splitlines() if line.strip()),
    )


def _tasks(db: sa.Connection, asked: AccessRequest) -> list[TaskOfProject]:
    found = []
    for digest, offered in permissions.tasks(db).items():
        if offered.task.project != asked.form.project:
            continue
        previous = permissions.previous_version(db, digest)
        found.append(
            TaskOfProject(
                digest,
                offered.task.name,
                bool(offered.approval and not offered.approval.revoked_at),
                exceeds(research_purpose(offered.task), asked.form.purpose),
                previous,
                permissions.changes(db, previous, digest) if previous else (),
            )
        )
    return found
