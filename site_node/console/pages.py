"""The pages: forms and tables, without scripts. No address says anything of a patient."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from consent import MAX_BYTES, Deny, Outcome
from site_node import accounts, catalogue, consents, ledger, permissions, sources
from site_node.accounts import Role
from site_node.config import CONFIG_NAME
from site_node.consents import ConsentReader
from site_node.console.sessions import Preview, Session, Sessions
from site_node.errors import ConfigurationError
from site_node.gate import Gate
from site_node.inbox import ENDS_SOON, open_inbox
from site_node.store import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from site_node.app import Site

FOLDER: Final = Path(__file__).parent
COOKIE: Final = "filmroom_session"
SEE_OTHER, FORBIDDEN, UNPROCESSABLE, NOT_FOUND = 303, 403, 422, 404
# The files of a form apart from its other fields, which are short.
MAX_FIELD_BYTES: Final = 64 * 1024
MAX_FAULTS_SHOWN: Final = 500

Page = Callable[[Request, Session], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Console:
    """What the pages are made from."""

    site: Site
    federation: str
    now: Callable[[], datetime]


def console_pages(console: Console) -> FastAPI:
    """Return the application; `Guard` stands before it."""
    pages = FastAPI(openapi_url=None)
    pages.mount("/static", StaticFiles(directory=FOLDER / "static"))
    made = _Pages(console)
    pages.add_api_route("/sign-in", made.sign_in_form, methods=["GET"])
    pages.add_api_route("/sign-in", made.sign_in, methods=["POST"])
    for path, method, page in (
        ("/", "GET", made.inbox),
        ("/tasks", "GET", made.tasks),
        ("/tasks/{digest}", "GET", made.why),
        ("/consents/load", "GET", made.load_form),
        ("/withdraw", "GET", made.withdraw_form),
    ):
        pages.add_api_route(path, made.signed_in(page), methods=[method])
    pages.add_api_route("/sign-out", made.signed_in(made.sign_out, changes=True), methods=["POST"])
    for path, page in (
        ("/consents/load", made.load),
        ("/withdraw", made.preview_withdrawal),
        ("/withdraw/confirm", made.withdraw),
    ):
        managed = made.signed_in(page, changes=True, role=Role.CONSENT_MANAGER)
        pages.add_api_route(path, managed, methods=["POST"])
    return pages


class _Pages:
    """One method for each page."""

    def __init__(self, console: Console) -> None:
        self._site, self._now = console.site, console.now
        config = console.site.config
        self._gate = Gate(console.site.store, console.federation, config.minimum_studies, config.max_consent_age)
        self._sessions = Sessions()
        self._reader = ConsentReader()
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined
        )
        self._templates.filters["short"] = lambda pseudonym: f"…{pseudonym[-12:]}"
        self._templates.filters["moment"] = lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

    def signed_in(self, page: Page, *, changes: bool = False, role: Role | None = None) -> Callable[..., Any]:
        """Return `page` for who is signed in; one that changes something asks for the form's token, and the role."""

        async def answer(request: Request) -> Response:
            session = self._session(request)
            if session is None:
                return RedirectResponse("/sign-in", SEE_OTHER)
            if not changes:
                return await page(request, session)
            async with request.form(max_files=1, max_fields=20, max_part_size=MAX_FIELD_BYTES) as form:
                sent = form.get("form_token")
                if not isinstance(sent, str) or not secrets.compare_digest(sent.encode(), session.form_token.encode()):
                    return self._refused(session, "This form is not from this session. Open the page again.")
                if role is not None and session.account.role is not role:
                    return self._refused(session, "Your role reads only.")
                return await page(request, session)

        return answer

    async def sign_in_form(self, request: Request) -> Response:
        """Ask for name and password."""
        if self._session(request) is not None:
            return RedirectResponse("/", SEE_OTHER)
        return self._show("sign_in.html", None, failed=False)

    async def sign_in(self, request: Request) -> Response:
        """Begin a session."""
        async with request.form(max_files=0, max_fields=5, max_part_size=MAX_FIELD_BYTES) as form:
            name, password = str(form.get("name", "")), str(form.get("password", ""))
        account = accounts.sign_in(self._site.store, name, password, self._now())
        if account is None:
            return self._show("sign_in.html", None, FORBIDDEN, failed=True)
        answer = RedirectResponse("/", SEE_OTHER)
        answer.set_cookie(COOKIE, self._sessions.open(account, self._now()), httponly=True, samesite="strict", path="/")
        return answer

    async def sign_out(self, request: Request, _session: Session) -> Response:
        """End the session."""
        self._sessions.close(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", SEE_OTHER)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
        return answer

    async def inbox(self, _request: Request, session: Session) -> Response:
        """Show what waits."""
        config = self._site.config
        inbox = open_inbox(self._site.store, self._reader, config.max_consent_age, self._now())
        return self._show(
            "inbox.html", session, inbox=inbox, limit_h=config.max_consent_age_h, days=ENDS_SOON.days, file=CONFIG_NAME
        )

    async def tasks(self, _request: Request, session: Session) -> Response:
        """Show the tasks that are known here."""
        with reading(self._site.store).connect() as db:
            known = permissions.tasks(db)
        return self._show("tasks.html", session, tasks=known)

    async def why(self, request: Request, session: Session) -> Response:
        """Show why each study is in or out for a task, by pseudonym."""
        digest = request.path_params["digest"]
        with reading(self._site.store).connect() as db:
            offered = permissions.tasks(db).get(digest)
        if offered is None:
            return self._show("refused.html", session, NOT_FOUND, words="There is no such task here.")
        answer = self._gate.explained(digest, self._now())
        refusal = answer.reason if isinstance(answer, Deny) else None
        verdicts = {} if isinstance(answer, Deny) else answer.cohort.verdicts
        order = list(Outcome)
        return self._show(
            "why.html",
            session,
            task=offered.task,
            digest=digest,
            refusal=refusal,
            counts=Counter(verdict.outcome.name for verdict in verdicts.values()),
            verdicts=sorted(verdicts.items(), key=lambda pair: (order.index(pair[1].outcome), pair[0])),
        )

    async def load_form(self, _request: Request, session: Session) -> Response:
        """Ask for a file of consents."""
        return self._show_load(session)

    async def load(self, request: Request, session: Session) -> Response:
        """Take a file of consents in."""
        form = await request.form()
        file, source = form.get("file"), str(form.get("source", "")).strip()
        try:
            as_of = datetime.fromisoformat(str(form.get("as_of", ""))).replace(tzinfo=UTC)
        except ValueError:
            return self._show_load(session, fault="Say up to when the file is complete.")
        if not isinstance(file, UploadFile) or not file.filename:
            return self._show_load(session, fault="Choose a file.")
        document = await file.read(MAX_BYTES + 1)
        at, site = self._now(), self._site
        loaded = consents.load(site.store, document, site.pseudonymiser, at, site.config.patient_system)
        try:
            if loaded.is_whole:
                sources.note(site.store, source, as_of, at)
            fault = None
        except ConfigurationError as error:
            fault = f"The consents were loaded, and the source does not count as read: {error}."
        with site.store.begin() as db:
            ledger.write(db, at, "site:console:consents-loaded", by=session.account.name, records=loaded.records)
        return self._show_load(session, loaded=loaded, fault=fault)

    async def withdraw_form(self, _request: Request, session: Session) -> Response:
        """Ask whose withdrawal it is."""
        return self._show_withdrawal(session)

    async def preview_withdrawal(self, request: Request, session: Session) -> Response:
        """Show what a withdrawal will do, before it is recorded; the next page knows the patient by a ticket."""
        patient_id = str((await request.form()).get("patient_id", "")).strip()
        if not patient_id:
            return self._show_withdrawal(session, fault="A PatientID is needed.")
        patient = self._site.pseudonymiser.patient(patient_id)
        with reading(self._site.store).connect() as db:
            held = self._reader.read(db, consents.current_epoch(db)).get(patient, consents.NONE_HELD)
            studies = catalogue.studies_of(db, patient)
        session.preview = Preview(patient, len(held.numbers), studies)
        return self._show_withdrawal(session, preview=session.preview)

    async def withdraw(self, request: Request, session: Session) -> Response:
        """Record the withdrawal that was just shown."""
        shown, session.preview = session.preview, None
        if shown is None or str((await request.form()).get("preview", "")) != shown.ticket:
            return self._show_withdrawal(session, fault="This was recorded already, or another was begun. Begin again.")
        at = self._now()
        epoch = consents.withdraw(self._site.store, shown.patient, at)
        with self._site.store.begin() as db:
            ledger.write(db, at, "site:console:withdrawal-recorded", by=session.account.name, epoch=epoch)
        return self._show("withdrawn.html", session, patient=shown.patient, at=at, epoch=epoch)

    def _show_withdrawal(
        self, session: Session, preview: Preview | None = None, fault: str | None = None
    ) -> HTMLResponse:
        status = 200 if fault is None else UNPROCESSABLE
        may_change = session.account.role is Role.CONSENT_MANAGER
        return self._show("withdraw.html", session, status, preview=preview, fault=fault, may_change=may_change)

    def _show_load(
        self, session: Session, loaded: consents.Loaded | None = None, fault: str | None = None
    ) -> HTMLResponse:
        status = 200 if fault is None else UNPROCESSABLE
        shown = loaded.faults[:MAX_FAULTS_SHOWN] if loaded else ()
        return self._show(
            "load.html",
            session,
            status,
            loaded=loaded,
            shown=shown,
            fault=fault,
            mib=MAX_BYTES // 2**20,
            may_change=session.account.role is Role.CONSENT_MANAGER,
        )

    def _session(self, request: Request) -> Session | None:
        token = request.cookies.get(COOKIE, "")
        session = self._sessions.get(token, self._now())
        if session is None:
            return None
        # Whoever was disabled, or has another role now, is out at once.
        with reading(self._site.store).connect() as db:
            if accounts.active(db, session.account.name) == session.account:
                return session
        self._sessions.close(token)
        return None

    def _refused(self, session: Session, words: str) -> HTMLResponse:
        return self._show("refused.html", session, FORBIDDEN, words=words)

    def _show(self, template: str, session: Session | None, status: int = 200, **values: object) -> HTMLResponse:
        given: Mapping[str, object] = {"session": session, "site": self._site.config.name, **values}
        return HTMLResponse(self._templates.get_template(template).render(given), status)
