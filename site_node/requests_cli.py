"""`filmroom-site requests`: how a project comes to use a dataset, from the draft to the end of its grant."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 -- typer reads it at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter
from rich.table import Table
from rich.text import Text

from consent import (
    AccessRequest,
    DataUseDecision,
    DataUseInvalid,
    Deny,
    RequestEvent,
    RequestForm,
    agreement,
    parse_purpose,
)
from site_node import access_requests, permissions
from site_node.app import now, open_site
from site_node.errors import ConfigurationError
from site_node.gate import research_purpose
from site_node.terminal import By, Json, confirm_at_terminal, err, out

if TYPE_CHECKING:
    import sqlalchemy as sa

    from consent import Assessment, DataUse, ResearchPurpose
    from site_node.access_requests import Numbered

requests_app = typer.Typer(no_args_is_help=True, help="Requests of projects to use a dataset, and their grants.")

REFUSED = 3
_EVENTS = TypeAdapter(list[RequestEvent])
_COLOURS = {DataUseDecision.APPROVE: "green", DataUseDecision.MANUAL: "yellow", DataUseDecision.DENY: "red"}

Number = Annotated[int, typer.Argument(help="The request's number, as `requests list` shows it.")]
Why = Annotated[str, typer.Option("--reason", help="Why, in words that name no patient; goes on the record.")]
Comment = Annotated[str, typer.Option("--reason", help="Why; needed where the terms of use leave it to people.")]
Seen = Annotated[int | None, typer.Option(help="The version that was read; refuse if the request changed since.")]


@requests_app.command("draft")
def draft_request(
    context: typer.Context,
    dataset: str,
    by: By,
    task: Annotated[str | None, typer.Option(help="A task's digest: what it is for is asked for.")] = None,
    project: Annotated[str | None, typer.Option(help="The project that asks; else the task's.")] = None,
    purpose: Annotated[Path | None, typer.Option(help="What the research is, JSON; else what the task states.")] = None,
    again: Annotated[int | None, typer.Option(help="Write this draft or returned request anew.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Hand it in at once.")] = False,
) -> None:
    """Write a request to use a dataset; prints its number."""
    site = open_site(context.obj)
    with site.store.connect() as db:
        form = _form(db, dataset, task, project, purpose)
    made = _done(access_requests.draft(site.store, form, by, now(), again))
    if submit:
        made = _done(access_requests.submit(site.store, made.number, by, now()))
    print(made.number)
    _tell(made)


@requests_app.command("submit")
def submit_request(context: typer.Context, number: Number, by: By) -> None:
    """Hand a request in; from here on others decide."""
    _tell(_done(access_requests.submit(open_site(context.obj).store, number, by, now())))


@requests_app.command("review")
def review_request(context: typer.Context, number: Number, reason: Why, by: By) -> None:
    """Put a comment on the record; who comments does not approve."""
    _tell(_done(access_requests.review(open_site(context.obj).store, number, reason, by, now())))


@requests_app.command("return")
def return_request(context: typer.Context, number: Number, reason: Why, by: By) -> None:
    """Give a request back, to be written anew or handed in again."""
    _tell(_done(access_requests.give_back(open_site(context.obj).store, number, reason, by, now())))


@requests_app.command("approve")
def approve_request(
    context: typer.Context,
    number: Number,
    by: By,
    until: Annotated[datetime, typer.Option(help="When the grant ends (UTC).")],
    condition: Annotated[list[str] | None, typer.Option(help="A condition of use; may be repeated.")] = None,
    reason: Comment = "",
    seen: Seen = None,
) -> None:
    """Approve a request as first of two; at a terminal it is shown first."""
    store, ends = open_site(context.obj).store, until.replace(tzinfo=UTC)
    version = _read_first(store, number, f"approve it until {ends:%Y-%m-%d}?", seen)
    approved = access_requests.approve(store, number, by, now(), ends, condition or (), reason, version)
    _tell(_done(approved))


@requests_app.command("confirm")
def confirm_request(context: typer.Context, number: Number, by: By, reason: Comment = "", seen: Seen = None) -> None:
    """Approve a request as second, as the first approved it; from here on the project may use the dataset."""
    store = open_site(context.obj).store
    version = _read_first(store, number, "confirm this approval?", seen)
    _tell(_done(access_requests.confirm(store, number, by, now(), reason, version)))


@requests_app.command("reject")
def reject_request(context: typer.Context, number: Number, reason: Why, by: By) -> None:
    """Refuse a request for good."""
    _tell(_done(access_requests.reject(open_site(context.obj).store, number, reason, by, now())))


@requests_app.command("revoke")
def revoke_request(context: typer.Context, number: Number, reason: Why, by: By) -> None:
    """End a grant; running work stops."""
    _tell(_done(access_requests.revoke(open_site(context.obj).store, number, reason, by, now())))


@requests_app.command("list")
def list_requests(context: typer.Context, as_json: Json = False) -> None:
    """Show every request, where it stands, and what the terms of use say of it."""
    with open_site(context.obj).store.connect() as db:
        rows = [_summary(number, request) for number, request in access_requests.requests(db).items()]
    if as_json:
        print(json.dumps(rows))
        return
    columns = ("request", "dataset", "project", "state", "terms", "until", "version")
    table = Table(*columns, title="requests")
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    out.print(table)


@requests_app.command("show")
def show_request(context: typer.Context, number: Number, as_json: Json = False) -> None:
    """Show a request: the purpose beside the terms of use, and what people and the terms said at each step."""
    with open_site(context.obj).store.connect() as db:
        events = access_requests.history(db, number)
        summary = _summary(number, access_requests.requests(db)[number])
        if not as_json:
            _show(db, number)
            return
    told = json.loads(_EVENTS.dump_json(list(events)))
    for event, line in zip(events, told, strict=True):
        line["agreement"] = agreement(event)
        if event.assessment:
            line["assessment"]["decision"] = event.assessment.decision.name
    print(json.dumps(summary | {"events": told}))


def _form(
    db: sa.Connection, dataset: str, digest: str | None, project: str | None, purpose: Path | None
) -> RequestForm:
    offered = permissions.tasks(db).get(digest) if digest else None
    if digest and offered is None:
        raise ConfigurationError(f"task {digest} is not known here: run `filmroom-site tasks list`")
    named = project or (offered.task.project if offered else None)
    if named is None:
        raise typer.BadParameter("give --task, or --project and --purpose")
    if purpose is None:
        if offered is None:
            raise typer.BadParameter("give --task or --purpose")
        return RequestForm(dataset, named, research_purpose(offered.task))
    try:
        return RequestForm(dataset, named, parse_purpose(purpose.read_bytes()))
    except DataUseInvalid as error:
        raise ConfigurationError(f"{purpose}: {error}") from error


def _read_first(store: sa.Engine, number: int, question: str, seen: int | None) -> int | None:
    """Show the request and return the version that was shown; `seen` says it was read before."""
    if seen is not None:
        return seen
    with store.connect() as db:
        version = _show(db, number)
    confirm_at_terminal(question)
    return version


def _show(db: sa.Connection, number: int) -> int:
    events = access_requests.history(db, number)
    request = access_requests.requests(db)[number]
    if isinstance(request, Deny):
        err.print(f"request {number} grants nothing: {request.reason}")
        return 0
    out.print(f"request {number}, version {request.version}: {request.state_at(now())}")
    out.print(f"{request.form.project} asks for {request.form.dataset}")
    data = permissions.datasets(db).get(request.form.dataset)
    if data is not None:
        _show_terms(request.form.purpose, data.terms, request.assessment)
    if request.expires_at:
        out.print(f"until {request.expires_at:%Y-%m-%d}; conditions: {'; '.join(request.conditions) or 'none'}")
    table = Table("when", "who", "did", "terms said", "beside them", "words", title="what happened")
    for event in events:
        said = _verdict(event.assessment) if event.assessment else Text()
        table.add_row(f"{event.at:%Y-%m-%d %H:%M}", event.by, event.act, said, agreement(event) or "", event.words)
    out.print(table)
    return request.version


def _show_terms(purpose: ResearchPurpose, terms: DataUse, assessment: Assessment | None) -> None:
    table = Table("purpose", "stated", title="the purpose")
    for fact, stated in access_requests.facts(purpose):
        table.add_row(fact, stated or "not stated")
    out.print(table)
    table = Table("term", "values", "answer", title="the terms of use")
    for answer in access_requests.answers(terms, assessment):
        table.add_row(*answer)
    out.print(table)


def _verdict(assessment: Assessment) -> Text:
    return Text(assessment.decision.name, _COLOURS[assessment.decision])


def _summary(number: int, request: AccessRequest | Deny) -> dict[str, Any]:
    if isinstance(request, Deny):
        return {"request": number, "dataset": "", "project": "", "state": request.reason, "terms": "", "until": "",
                "version": 0}  # fmt: skip
    return {
        "request": number,
        "dataset": request.form.dataset,
        "project": request.form.project,
        "state": request.state_at(now()).name.lower(),
        "terms": request.assessment.decision.name if request.assessment else "",
        "until": f"{request.expires_at:%Y-%m-%d}" if request.expires_at else "",
        "version": request.version,
    }


def _done(answer: Numbered | Deny) -> Numbered:
    if isinstance(answer, Deny):
        err.print(f"refused: {answer.reason}")
        raise typer.Exit(REFUSED)
    return answer


def _tell(made: Numbered) -> None:
    request, number = made.request, made.number
    err.print(f"request {number} is {request.state_at(now())}")
    if request.assessment and request.assessment.reasons:
        err.print(f"the terms of use leave open or refuse: {'; '.join(request.assessment.reasons)}")
