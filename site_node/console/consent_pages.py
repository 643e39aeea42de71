"""Consents: a file of them is loaded, and one that waits in doubt is let count again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from starlette.datastructures import UploadFile

from consent import MAX_BYTES
from site_node import consents, doubts, ledger, sources
from site_node.console.frame import NOT_FOUND, OK, UNPROCESSABLE, number_in
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, Response
    from starlette.requests import Request

    from site_node.console.frame import Frame
    from site_node.console.sessions import Session

MAX_FAULTS_SHOWN: Final = 500
_CHANGED: Final = (
    "No such consent waits: it came anew, or somebody let it count again. Nothing was changed now; "
    "the inbox shows what waits."
)


class ConsentPages:
    """One method for each page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

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
            return self._show_load(session, fault="Say up to when the file is complete, and load it again.")
        if not isinstance(file, UploadFile) or not file.filename:
            return self._show_load(session, fault="Choose a file.")
        document = await file.read(MAX_BYTES + 1)
        at, site = self._frame.now(), self._frame.site
        loaded = consents.load(site.store, document, site.pseudonymiser, at, site.config.patient_system)
        try:
            if loaded.is_whole:
                sources.note(site.store, source, as_of, at)
            fault = None
        except ConfigurationError as error:
            fault = (
                f"The consents were loaded, and the source does not count as read: {error}. Load the file again with "
                "the moment when it was written."
            )
        with site.store.begin() as db:
            ledger.write(db, at, "site:console:consents-loaded", by=session.account.name, records=loaded.records)
        return self._show_load(session, loaded=loaded, fault=fault)

    async def review(self, request: Request, session: Session) -> Response:
        """Show what it does to let a consent count again, before anybody does; the address names its record alone."""
        found = doubts.find(self._frame.site.store, self._frame.gate, number_in(request), self._frame.now())
        if found is None:
            return self._frame.refused(session, NOT_FOUND, _CHANGED)
        return self._frame.show("doubt.html", session, held=found)

    async def confirm(self, request: Request, session: Session) -> Response:
        """Let the consent that was shown count again."""
        site, at = self._frame.site, self._frame.now()
        found = doubts.find(site.store, self._frame.gate, number_in(request), at)
        if found is None:
            return self._frame.refused(session, NOT_FOUND, _CHANGED)
        try:
            consents.confirm(site.store, found.consent_id, session.account.name, at, found.number)
        except ConfigurationError:  # between the question and the transaction
            return self._frame.refused(session, NOT_FOUND, _CHANGED)
        return self._frame.show("confirmed.html", session, held=found, at=at)

    def _show_load(
        self, session: Session, loaded: consents.Loaded | None = None, fault: str | None = None
    ) -> HTMLResponse:
        status = OK if fault is None else UNPROCESSABLE
        shown = loaded.faults[:MAX_FAULTS_SHOWN] if loaded else ()
        mib = MAX_BYTES // 2**20
        return self._frame.show("load.html", session, status, loaded=loaded, shown=shown, fault=fault, mib=mib)
