"""Requests to use a dataset: their events are kept here, and the grants they made are read from here.

Which step is legal is decided in `consent.access_request`; this keeps the events, one transaction each, with the line
in the ledger and, where a grant begins or ends, the new consent epoch. A writer waits for the one before it and then
judges by what that one left, so that of two decisions that exclude each other one is refused. `seen` is the version
that was read before the decision: a request that changed since then is not decided on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from consent import (
    ASSESSED,
    AccessRequest,
    Deny,
    Grant,
    RequestAct,
    RequestEvent,
    RequestForm,
    ResearchPurpose,
    advance_request,
    agreement,
    assess_request,
    replay_request,
)
from site_node import ledger, permissions
from site_node.consents import advance
from site_node.errors import ConfigurationError
from site_node.store import request_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from consent import Assessment, DataUse

    _Rows = Sequence[tuple[int, str]]  # version, event

_EVENT = TypeAdapter(RequestEvent)
_PURPOSE = TypeAdapter(ResearchPurpose)
_CHANGES_WHAT_IS_PERMITTED = frozenset({RequestAct.CONFIRMED, RequestAct.REVOKED})


@dataclass(frozen=True, slots=True)
class Numbered:
    """A request under its number."""

    number: int
    request: AccessRequest


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant, and the purpose it was made for."""

    grant: Grant
    purpose: ResearchPurpose


def draft(store: sa.Engine, form: RequestForm, by: str, at: datetime, number: int | None = None) -> Numbered | Deny:
    """Write a request, or write the draft or returned request with this number anew."""
    return _happen(store, number, RequestAct.DRAFTED, by, at, form=form)


def submit(store: sa.Engine, number: int, by: str, at: datetime) -> Numbered | Deny:
    """Hand a request in; from here on others decide, and what its terms say is on record."""
    return _happen(store, number, RequestAct.SUBMITTED, by, at)


def review(
    store: sa.Engine, number: int, words: str, by: str, at: datetime, seen: int | None = None
) -> Numbered | Deny:
    """Put a reviewer's comment on the record; a reviewer does not approve."""
    return _happen(store, number, RequestAct.REVIEWED, by, at, words=words, seen=seen)


def give_back(
    store: sa.Engine, number: int, words: str, by: str, at: datetime, seen: int | None = None
) -> Numbered | Deny:
    """Return a request to who made it."""
    return _happen(store, number, RequestAct.RETURNED, by, at, words=words, seen=seen)


def approve(
    store: sa.Engine,
    number: int,
    by: str,
    at: datetime,
    expires_at: datetime,
    conditions: Iterable[str] = (),
    words: str = "",
    seen: int | None = None,
) -> Numbered | Deny:
    """Approve a request until a moment and under conditions; it grants nothing until another confirms it."""
    return _happen(
        store,
        number,
        RequestAct.APPROVED,
        by,
        at,
        words=words,
        expires_at=expires_at,
        conditions=tuple(conditions),
        seen=seen,
    )


def confirm(
    store: sa.Engine, number: int, by: str, at: datetime, words: str = "", seen: int | None = None
) -> Numbered | Deny:
    """Approve as second, with the end and the conditions of the first approval; from here on the grant holds."""
    return _happen(store, number, RequestAct.CONFIRMED, by, at, words=words, seen=seen)


def reject(
    store: sa.Engine, number: int, words: str, by: str, at: datetime, seen: int | None = None
) -> Numbered | Deny:
    """Refuse a request for good."""
    return _happen(store, number, RequestAct.REJECTED, by, at, words=words, seen=seen)


def revoke(
    store: sa.Engine, number: int, words: str, by: str, at: datetime, seen: int | None = None
) -> Numbered | Deny:
    """End a grant; a running round stops as it does for a withdrawal."""
    return _happen(store, number, RequestAct.REVOKED, by, at, words=words, seen=seen)


def requests(db: sa.Connection) -> dict[int, AccessRequest | Deny]:
    """Return every request by its number; one whose history breaks a rule, or cannot be read, is a refusal."""
    return {number: _replayed(rows) for number, rows in _histories(db)}


def facts(purpose: ResearchPurpose) -> list[tuple[str, str]]:
    """Return what a purpose states, fact by fact, for a person to read; what is not stated is empty."""
    return [(fact, _plain(value)) for fact, value in _PURPOSE.dump_python(purpose, mode="json").items()]


def answers(terms: DataUse, assessment: Assessment | None) -> list[tuple[str, str, str]]:
    """Return each term of use with its values and its answer in the assessment; those that concern no term last."""
    said = dict(reason.partition(": ")[::2] for reason in assessment.reasons) if assessment else {}
    asked = "approve" if assessment else "not asked yet"
    stated = [(terms.permission, terms.diseases), *((one.code, one.values) for one in terms.modifiers)]
    told = [(code, ", ".join(values), said.get(code, asked)) for code, values in stated]
    codes = {code for code, _ in stated}
    return told + [(code, "", answer) for code, answer in said.items() if code not in codes]


def history(db: sa.Connection, number: int) -> tuple[RequestEvent, ...]:
    """Return what happened to a request, oldest first.

    Raises: ConfigurationError if there is none, or it cannot be read.
    """
    try:
        events = tuple(_read(event) for _, event in _rows(db, number))
    except ValidationError as error:
        raise ConfigurationError(f"request {number}: its history cannot be read") from error
    if not events:
        raise ConfigurationError(f"request {number}: there is no such request")
    return events


def find(db: sa.Connection, number: int) -> AccessRequest:
    """Return the request with this number.

    Raises: ConfigurationError if there is none, or its history breaks a rule.
    """
    request = requests(db).get(number)
    if not isinstance(request, AccessRequest):
        why = request.reason if request else "there is no such request"
        raise ConfigurationError(f"request {number}: {why}")
    return request


def granted(db: sa.Connection) -> list[Granted]:
    """Return every grant that was ever made, ended or not; a request whose history breaks a rule made none."""
    found = (request for request in requests(db).values() if isinstance(request, AccessRequest))
    return [Granted(request.grant, request.form.purpose) for request in found if request.grant]


def _happen(
    store: sa.Engine,
    number: int | None,
    act: RequestAct,
    by: str,
    at: datetime,
    *,
    words: str = "",
    form: RequestForm | None = None,
    expires_at: datetime | None = None,
    conditions: tuple[str, ...] = (),
    seen: int | None = None,
) -> Numbered | Deny:
    """Let one event happen, whole, or put on record why it may not."""
    with store.begin() as db:
        before = None if number is None else _replayed(_rows(db, number))
        if isinstance(before, Deny):
            return _refuse(db, at, by, act, number, before.reason)
        if before is not None and seen not in {None, before.version}:
            return _refuse(db, at, by, act, number, f"the request changed: it is at version {before.version}")
        asked = form or (before.form if before else None)
        data = permissions.datasets(db).get(asked.dataset) if asked else None
        if asked is None or data is None:
            return _refuse(db, at, by, act, number, "the dataset is not registered")
        assessment = assess_request(asked, data.terms, at) if act in ASSESSED else None
        event = RequestEvent(act, by, at, words, form, assessment, expires_at, conditions)
        text = _EVENT.dump_json(event).decode()
        try:
            _read(text)
        except ValidationError as error:
            wrong = {".".join(map(str, fault["loc"])) for fault in error.errors()}
            return _refuse(db, at, by[:200], act, number, f"empty, too long or wrong: {', '.join(sorted(wrong))}")
        after = advance_request(before, event)
        if isinstance(after, Deny):
            return _refuse(db, at, by, act, number, after.reason)
        made = number or 1 + (db.scalar(sa.select(sa.func.max(request_event.c.request))) or 0)
        db.execute(sa.insert(request_event).values(request=made, version=after.version, event=text))
        if act in _CHANGES_WHAT_IS_PERMITTED:
            advance(db)
        ledger.write(db, at, f"site:request:{act}", **_detail(made, after, event), event=ledger.text_digest(text))
        return Numbered(made, after)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _detail(number: int, request: AccessRequest, event: RequestEvent) -> dict[str, str | int]:
    told: dict[str, str | int] = {
        "request": number,
        "version": request.version,
        "dataset": request.form.dataset,
        "project": request.form.project,
        "by": event.by,
    }
    if event.assessment:
        told |= {"terms": event.assessment.decision.name, "reasons": "; ".join(event.assessment.reasons)}
    if beside := agreement(event):
        told["agreement"] = beside
    if event.expires_at:
        told["until"] = event.expires_at.isoformat()
    return told | ({"words": event.words} if event.words else {})


def _refuse(db: sa.Connection, at: datetime, by: str, act: RequestAct, number: int | None, reason: str) -> Deny:
    """Put a refusal on the record and return it."""
    which = {} if number is None else {"request": number}
    ledger.write(db, at, "site:request:refused", **which, act=act, reason=reason, by=by)
    return Deny(reason)


def _rows(db: sa.Connection, number: int) -> _Rows:
    columns = request_event.c
    query = sa.select(columns.version, columns.event).where(columns.request == number).order_by(columns.version)
    return [(row.version, row.event) for row in db.execute(query)]


def _histories(db: sa.Connection) -> Iterator[tuple[int, _Rows]]:
    columns = request_event.c
    query = sa.select(columns.request, columns.version, columns.event).order_by(columns.request, columns.version)
    for number, rows in groupby(db.execute(query), lambda row: int(row.request)):
        yield number, [(row.version, row.event) for row in rows]


def _replayed(rows: _Rows) -> AccessRequest | Deny:
    if [version for version, _ in rows] != list(range(1, len(rows) + 1)):
        return Deny("its history has a gap")
    try:
        return replay_request(_read(event) for _, event in rows)
    except ValidationError:
        return Deny("its history cannot be read")


def _read(text: str) -> RequestEvent:
    return _EVENT.validate_json(text, strict=True, extra="forbid")
