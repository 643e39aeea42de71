"""Withdrawals: what one would reach is shown, a person confirms it, and there is a page for the patient.

A patient is named once, in the body of the form that asks for a preview; what follows knows the pseudonym by a ticket
that is good once, and then the withdrawal's number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.datastructures import FormData

from consent import Deny
from site_node import confirmation, withdrawals
from site_node.consents import ALL, WithdrawalScope
from site_node.console.frame import NOT_FOUND, OK, SEE_OTHER, UNPROCESSABLE, number_in
from site_node.console.sessions import Shown
from site_node.errors import ConfigurationError
from site_node.withdrawals import MODALITIES, POLICIES

if TYPE_CHECKING:
    from fastapi.responses import Response
    from starlette.requests import Request

    from site_node.console.frame import Frame
    from site_node.console.sessions import Session
    from site_node.withdrawals import StillPermitted, Withdrawal


_UNKNOWN_PATIENT = (
    "Neither an image nor a consent of this PatientID is known here. Check it, and look again; or tick that it is "
    "meant for images that come later."
)


class WithdrawalPages:
    """One method for each page."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def list_all(self, _request: Request, session: Session) -> Response:
        """Show every withdrawal, however it came, and ask whose the next one is."""
        return self._show_all(session)

    async def preview(self, request: Request, session: Session) -> Response:
        """Show what a withdrawal would reach, before it is recorded."""
        form, store = await request.form(), self._frame.site.store
        patient_id = str(form.get("patient_id", "")).strip()
        if not patient_id:
            return self._show_all(session, form, "A PatientID is needed. Type it, and look again.")
        scope = _scope(form)
        if isinstance(scope, Deny):
            return self._show_all(session, form, scope.reason)
        patient = self._frame.site.pseudonymiser.patient(patient_id)
        if not (withdrawals.is_known(store, patient) or form.get("unknown_here")):
            return self._show_all(session, form, _UNKNOWN_PATIENT)
        try:
            reached = withdrawals.preview(store, patient, scope, self._frame.now())
        except ConfigurationError as error:
            return self._show_all(session, form, f"Not understood: {error}. Correct it, and look again.")
        session.shown = Shown(patient, scope)
        is_known = withdrawals.is_known(store, patient)
        return self._frame.show(
            "preview.html", session, reached=reached, shown=session.shown, is_known=is_known, policies=POLICIES
        )

    async def record(self, request: Request, session: Session) -> Response:
        """Record the withdrawal whose preview was just shown."""
        shown, session.shown = session.shown, None
        if shown is None or str((await request.form()).get("ticket", "")) != shown.ticket:
            fault = "Nothing was recorded now: this was recorded already, or another was begun. Begin again."
            return self._show_all(session, fault=fault)
        by, at = session.account.name, self._frame.now()
        number = withdrawals.record(self._frame.site.store, shown.patient, shown.scope, at, by)
        return RedirectResponse(f"/withdrawals/{number}", SEE_OTHER)

    async def one(self, request: Request, session: Session) -> Response:
        """Show what became of a withdrawal."""
        found = self._find(request)
        if isinstance(found, Deny):
            return self._frame.refused(session, NOT_FOUND, found.reason)
        return self._frame.show(
            "withdrawal.html", session, found=found, still=self._still_permitted(found), policies=POLICIES
        )

    async def confirmation(self, request: Request, session: Session) -> Response:
        """Show the page for the patient, as the command writes it."""
        found = self._find(request)
        if isinstance(found, Deny):
            return self._frame.refused(session, NOT_FOUND, found.reason)
        return HTMLResponse(confirmation.page(found, self._frame.site.config.name, self._still_permitted(found)))

    def _still_permitted(self, found: Withdrawal) -> tuple[StillPermitted, ...]:
        frame = self._frame
        return withdrawals.still_permitted(frame.site.store, frame.gate, found.patient, frame.now())

    def _find(self, request: Request) -> Withdrawal | Deny:
        frame = self._frame
        try:
            return withdrawals.find(frame.site.store, frame.gate, number_in(request), frame.now())
        except ConfigurationError:
            return Deny("There is no withdrawal of this number. Choose one of those listed under “Withdrawals”.")

    def _show_all(self, session: Session, typed: FormData | None = None, fault: str | None = None) -> HTMLResponse:
        frame = self._frame
        return frame.show(
            "withdrawals.html",
            session,
            OK if fault is None else UNPROCESSABLE,
            found=withdrawals.recorded(frame.site.store, frame.gate, frame.now()),
            projects=sorted(withdrawals.projects(frame.site.store)),
            modalities=MODALITIES,
            typed=typed or FormData(),
            fault=fault,
        )


def _scope(form: FormData) -> WithdrawalScope | Deny:
    """Return what a form limits a withdrawal to; one that says two things is not guessed at."""
    projects, modalities = (tuple(map(str, form.getlist(name))) for name in ("project", "modality"))
    first, last = (str(form.get(name, "")).strip() or None for name in ("first", "last"))
    limited = WithdrawalScope(projects, modalities, first, last)
    match form.get("scope"), limited == ALL:
        case "all", True:
            return ALL
        case "part", False:
            return limited
        case "all", False:
            return Deny("“Everything” is chosen, and so is a limit. Choose one of the two, and look again.")
        case "part", True:
            return Deny("“Only a part” is chosen, and no limit. Choose at least one, and look again.")
    return Deny("Choose what the patient withdraws from, and look again.")
