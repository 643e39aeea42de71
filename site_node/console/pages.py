"""The pages: forms and tables, without scripts. No address says anything of a patient."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from consent import Deny, Outcome
from site_node import permissions
from site_node.accounts import Role
from site_node.config import CONFIG_NAME
from site_node.consents import ConsentReader
from site_node.console.consent_pages import ConsentPages
from site_node.console.frame import FOLDER, NOT_FOUND, Frame
from site_node.console.request_pages import RequestPages
from site_node.console.withdrawal_pages import WithdrawalPages
from site_node.inbox import ENDS_SOON, open_inbox
from site_node.store import reading

if TYPE_CHECKING:
    from fastapi.responses import Response
    from starlette.requests import Request

    from site_node.console.frame import Console
    from site_node.console.sessions import Session


def console_pages(console: Console) -> FastAPI:
    """Return the application; `Guard` stands before it."""
    frame = Frame(console)
    pages = FastAPI(openapi_url=None, exception_handlers={HTTPException: frame.failed, Exception: frame.failed})
    pages.mount("/static", StaticFiles(directory=FOLDER / "static"))
    pages.add_api_route("/sign-in", frame.sign_in_form, methods=["GET"])
    pages.add_api_route("/sign-in", frame.sign_in, methods=["POST"])
    pages.add_api_route("/sign-out", frame.signed_in(frame.sign_out, changes=True), methods=["POST"])
    read, consents, requests, withdrawals = (
        _Reading(frame),
        ConsentPages(frame),
        RequestPages(frame),
        WithdrawalPages(frame),
    )
    for path, page in (
        ("/", read.inbox),
        ("/tasks", read.tasks),
        ("/tasks/{digest}", read.why),
        ("/consents/load", consents.load_form),
        ("/consents/review/{number}", consents.review),
        ("/requests", requests.list_all),
        ("/requests/{number}", requests.one),
        ("/withdrawals", withdrawals.list_all),
        ("/withdrawals/{number}", withdrawals.one),
        ("/withdrawals/{number}/confirmation", withdrawals.confirmation),
    ):
        pages.add_api_route(path, frame.signed_in(page), methods=["GET"])
    for path, page in (
        ("/consents/load", consents.load),
        ("/consents/review/{number}", consents.confirm),
        ("/requests/{number}/{act}", requests.decide),
        ("/withdrawals/preview", withdrawals.preview),
        ("/withdrawals/record", withdrawals.record),
    ):
        managed = frame.signed_in(page, changes=True, role=Role.CONSENT_MANAGER)
        pages.add_api_route(path, managed, methods=["POST"])
    return pages


class _Reading:
    """Pages that only show."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._reader = frame, ConsentReader()

    async def inbox(self, _request: Request, session: Session) -> Response:
        """Show what waits."""
        site = self._frame.site
        inbox = open_inbox(site.store, self._reader, site.config.max_consent_age, self._frame.now())
        limit_h, days = site.config.max_consent_age_h, ENDS_SOON.days
        return self._frame.show("inbox.html", session, inbox=inbox, limit_h=limit_h, days=days, file=CONFIG_NAME)

    async def tasks(self, _request: Request, session: Session) -> Response:
        """Show the tasks that are known here."""
        with reading(self._frame.site.store).connect() as db:
            known = permissions.tasks(db)
        return self._frame.show("tasks.html", session, tasks=known)

    async def why(self, request: Request, session: Session) -> Response:
        """Show why each study is in or out for a task, by pseudonym."""
        digest = request.path_params["digest"]
        with reading(self._frame.site.store).connect() as db:
            offered = permissions.tasks(db).get(digest)
        if offered is None:
            words = "There is no such task here. Choose one under “Studies in and out”."
            return self._frame.refused(session, NOT_FOUND, words)
        answer = self._frame.gate.explained(digest, self._frame.now())
        refusal = answer.reason if isinstance(answer, Deny) else None
        verdicts = {} if isinstance(answer, Deny) else answer.cohort.verdicts
        order = list(Outcome)
        return self._frame.show(
            "why.html",
            session,
            task=offered.task,
            digest=digest,
            refusal=refusal,
            counts=Counter(verdict.outcome.name for verdict in verdicts.values()),
            verdicts=sorted(verdicts.items(), key=lambda pair: (order.index(pair[1].outcome), pair[0])),
        )
