"""What every page stands in: who is signed in and may do it, the form's token, and how an answer is made."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request

from site_node import accounts
from site_node.accounts import Role
from site_node.console.sessions import Session, Sessions
from site_node.gate import Gate
from site_node.store import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from site_node.app import Site

FOLDER: Final = Path(__file__).parent
COOKIE: Final = "filmroom_session"
OK, SEE_OTHER, FORBIDDEN, NOT_FOUND, UNPROCESSABLE, FAILED = 200, 303, 403, 404, 422, 500
# The files of a form apart from its other fields, which are short.
MAX_FIELDS: Final = 200
MAX_FIELD_BYTES: Final = 64 * 1024
_LONGEST_NUMBER: Final = 15
_UNREADABLE: Final = "This could not be read, and nothing was changed. Go back and open the page again."
_FAILURES: Final = {
    NOT_FOUND: "There is no such page. Choose one above, or sign in.",
    FAILED: "The console failed at this. Open the page anew to see what was done; what failed stands in its output.",
}

Page = Callable[[Request, Session], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Console:
    """What the pages are made from."""

    site: Site
    federation: str
    now: Callable[[], datetime]


class Frame:
    """Opens a page for who may see it, and shows it."""

    def __init__(self, console: Console) -> None:
        self.site, self.now = console.site, console.now
        config = console.site.config
        self.gate = Gate(console.site.store, console.federation, config.minimum_studies, config.max_consent_age)
        self._sessions = Sessions()
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined
        )
        self._templates.filters["short"] = lambda pseudonym: f"…{pseudonym[-12:]}"
        self._templates.filters["moment"] = lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

    def signed_in(self, page: Page, *, changes: bool = False, role: Role | None = None) -> Callable[..., Any]:
        """Return `page` for who is signed in; one that changes something asks for the form's token, and the role."""

        async def answer(request: Request) -> Response:
            session = self.session(request)
            if session is None:
                return RedirectResponse("/sign-in", SEE_OTHER)
            if not changes:
                return await page(request, session)
            async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
                sent = form.get("form_token")
                if not isinstance(sent, str) or not secrets.compare_digest(sent.encode(), session.form_token.encode()):
                    words = "This form is not from this session. Nothing was changed: open the page again."
                    return self.refused(session, FORBIDDEN, words)
                if role is not None and session.account.role is not role:
                    words = "Your role reads only, and nothing was changed: a consent manager may do this."
                    return self.refused(session, FORBIDDEN, words)
                return await page(request, session)

        return answer

    async def sign_in_form(self, request: Request) -> Response:
        """Ask for name and password."""
        if self.session(request) is not None:
            return RedirectResponse("/", SEE_OTHER)
        return self.show("sign_in.html", None, failed=False)

    async def sign_in(self, request: Request) -> Response:
        """Begin a session."""
        async with request.form(max_files=0, max_fields=5, max_part_size=MAX_FIELD_BYTES) as form:
            name, password = str(form.get("name", "")), str(form.get("password", ""))
        account = accounts.sign_in(self.site.store, name, password, self.now())
        if account is None:
            return self.show("sign_in.html", None, FORBIDDEN, failed=True)
        answer = RedirectResponse("/", SEE_OTHER)
        answer.set_cookie(COOKIE, self._sessions.open(account, self.now()), httponly=True, samesite="strict", path="/")
        return answer

    async def sign_out(self, request: Request, _session: Session) -> Response:
        """End the session."""
        self._sessions.close(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", SEE_OTHER)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
        return answer

    async def failed(self, request: Request, fault: Exception) -> Response:
        """Say what to do where there is no such page, where what was sent cannot be read, or where a page fails."""
        status = fault.status_code if isinstance(fault, HTTPException) else FAILED
        return self.refused(self.session(request), status, _FAILURES.get(status, _UNREADABLE))

    def session(self, request: Request) -> Session | None:
        """Return who asks, if signed in."""
        token = request.cookies.get(COOKIE, "")
        session = self._sessions.get(token, self.now())
        if session is None:
            return None
        # Whoever was disabled, or has another role now, is out at once.
        with reading(self.site.store).connect() as db:
            if accounts.active(db, session.account.name) == session.account:
                return session
        self._sessions.close(token)
        return None

    def refused(self, session: Session | None, status: int, words: str) -> HTMLResponse:
        """Say that it was not done, why, and what to do."""
        return self.show("refused.html", session, status, words=words)

    def show(self, template: str, session: Session | None, status: int = OK, **values: object) -> HTMLResponse:
        """Return a page made of a template."""
        given: Mapping[str, object] = {
            "session": session,
            "site": self.site.config.name,
            "may_change": session is not None and session.account.role is Role.CONSENT_MANAGER,
            **values,
        }
        return HTMLResponse(self._templates.get_template(template).render(given), status)


def number_in(request: Request) -> int:
    """Return the number that an address names; 0, which nothing has, if it names none."""
    return number_of(request.path_params["number"])


def number_of(text: object) -> int:
    """Return the number that a field is; 0, which nothing has, if it is none."""
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) <= _LONGEST_NUMBER else 0
