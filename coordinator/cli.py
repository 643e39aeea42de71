"""`filmroom-coordinator`: what a consortium does with its coordinator, and a partner from outside.

Exit codes: 0 done; 1 error or a failed audit; 2 usage; 3 refused by policy; 4 wrong configuration; 5 a peer refused or
cannot be reached; 6 no space left, or the file system refused.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer

from coordinator import members, partner, receipt_keys, runs, tasks
from coordinator.app import Coordinator, create_coordinator, now, open_coordinator
from coordinator.authority import write_private
from coordinator.config import CoordinatorConfig
from coordinator.errors import ConfigurationError, CoordinatorError, PeerError
from coordinator.provenance import audit as audit_run
from coordinator.provenance import receipt_count
from coordinator.statistics_cli import show_statistics
from coordinator.store import member, run
from coordinator.terminal import Json, err, out
from coordinator.terminal import show as _show
from coordinator.withdrawals_cli import list_models, withdrawals_app
from coordinator.witness_cli import witness_app
from models import ModelsError, TaskRefused
from models.memory import loading

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (TaskRefused, 3),
    (ConfigurationError, 4),
    (PeerError, 5),
    (OSError, 6),
    (CoordinatorError, 1),
    (ModelsError, 1),
)

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
members_app = typer.Typer(no_args_is_help=True, help="The hospitals of the federation.")
partners_app = typer.Typer(no_args_is_help=True, help="AI partners who submit tasks.")
tasks_app = typer.Typer(no_args_is_help=True, help="Tasks.")
runs_app = typer.Typer(no_args_is_help=True, help="Runs of tasks.")
models_app = typer.Typer(no_args_is_help=True, help="Finished models.")
for name, group in (
    ("members", members_app),
    ("partners", partners_app),
    ("tasks", tasks_app),
    ("runs", runs_app),
    ("models", models_app),
    ("witness", witness_app),
    ("withdrawals", withdrawals_app),
):
    app.add_typer(group, name=name)
models_app.command("list")(list_models)
app.command("statistics")(show_statistics)

AccessFile = Annotated[Path, typer.Option("--access", help="The partner's access file.")]


@app.callback()
def choose_home(
    context: typer.Context,
    home: Annotated[Path, typer.Option(help="The coordinator's folder.")] = Path("coordinator-home"),
) -> None:
    """Run the consortium's side of a federation."""
    context.obj = home


def _coordinator(context: typer.Context) -> Coordinator:
    return open_coordinator(context.obj)


@app.command()
def init(
    context: typer.Context,
    federation: Annotated[str, typer.Option(help="The federation's name.")],
    host: Annotated[str, typer.Option(help="Name or address that sites reach.")] = "127.0.0.1",
    fleet_port: Annotated[int, typer.Option(help="Port for members.")] = 9443,
    join_port: Annotated[int, typer.Option(help="Port for joining and partners.")] = 9444,
) -> None:
    """Make the coordinator's folder, its certificate authority and its database."""
    create_coordinator(context.obj, CoordinatorConfig(federation, host, fleet_port, join_port))
    out.print(f"coordinator of {federation} is ready in {context.obj}")


@app.command()
def serve(context: typer.Context) -> None:
    """Run the coordinator until interrupted."""
    with loading():
        from coordinator.service import serve as run_coordinator  # noqa: PLC0415 -- Flower; no other command needs it

    stopping = threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: _interrupt(stopping))
    try:
        run_coordinator(_coordinator(context), _say, stopping)
    except KeyboardInterrupt:
        _say("stopped; a run in progress goes on at the next start")


@app.command()
def audit(context: typer.Context, name: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Verify every stored receipt and the chain of models of a run again."""
    coordinator = _coordinator(context)
    faults = audit_run(coordinator.store, name, coordinator.home.runs)
    for fault in faults:
        err.print(fault)
    if faults:
        raise typer.Exit(1)
    out.print(f"{receipt_count(coordinator.store, name)} receipts verified; the models form a chain")


@members_app.command("invite")
def invite(
    context: typer.Context,
    site: str,
    to: Annotated[Path, typer.Option("--to", help="Where to write the invitation.")],
) -> None:
    """Write a one-time invitation for a hospital."""
    coordinator = _coordinator(context)
    text = members.invite(coordinator.store, coordinator.config, coordinator.authority, site, now())
    write_private(to, text.encode())
    out.print(f"{to}: give it to {site} by a safe way; it works once")


@members_app.command("list")
def list_members(context: typer.Context, as_json: Json = False) -> None:
    """List the members."""
    with _coordinator(context).store.connect() as db:
        query = sa.select(member.c.site, member.c.joined_at, member.c.revoked_at)
        rows = [dict(row) for row in db.execute(query.order_by(member.c.site)).mappings()]
    _show(rows, ("site", "joined_at", "revoked_at"), "members", as_json=as_json)


@members_app.command("revoke")
def revoke_member(context: typer.Context, site: str) -> None:
    """Let a member in no longer; its node is refused from now on."""
    members.revoke(_coordinator(context).store, site, now)
    out.print(f"{site} takes part no longer")


@members_app.command("revoke-key")
def revoke_key(context: typer.Context, site: str) -> None:
    """Count no receipt by this member's key any more, because it was stolen, say; invite it anew for another key."""
    receipt_keys.revoke(_coordinator(context).store, site, now)
    out.print(f"receipts by the key of {site} count no longer; invite it anew")


@partners_app.command("add")
def add_partner(
    context: typer.Context,
    name: str,
    to: Annotated[Path, typer.Option("--to", help="Where to write the access file.")],
) -> None:
    """Admit an AI partner and write its access file."""
    coordinator = _coordinator(context)
    text = tasks.add_partner(coordinator.store, coordinator.config, coordinator.authority, name, now())
    write_private(to, text.encode())
    out.print(f"{to}: give it to {name} by a safe way")


@partners_app.command("revoke")
def revoke_partner(context: typer.Context, name: str) -> None:
    """Let a partner's access file open nothing any more; its tasks stay on the record."""
    tasks.revoke_partner(_coordinator(context).store, name, now())
    out.print(f"{name} can neither submit nor fetch any more")


@tasks_app.command("submit")
def submit_task(document: Path, access: AccessFile) -> None:
    """Submit a task, as a partner."""
    print(partner.submit(partner.read_access(access), document.read_bytes()))


@tasks_app.command("list")
def list_tasks(context: typer.Context, as_json: Json = False) -> None:
    """List the tasks."""
    rows = [
        {"digest": digest, "name": json.loads(document)["name"], "partners": ", ".join(partners)}
        for digest, document, partners in tasks.offered(_coordinator(context).store)
    ]
    _show(rows, ("digest", "name", "partners"), "tasks", as_json=as_json)


@runs_app.command("start")
def start_run(context: typer.Context, digest: str) -> None:
    """Start a run of a task; the serving coordinator carries it out."""
    store = _coordinator(context).store
    tasks.find(store, digest)
    print(runs.request(store, digest, now()))


@runs_app.command("list")
def list_runs(context: typer.Context, as_json: Json = False) -> None:
    """List the runs."""
    with _coordinator(context).store.connect() as db:
        found = db.execute(sa.select(run).order_by(run.c.requested_at)).mappings()
        rows = [dict(row) for row in found]
    _show(rows, ("run", "state", "detail", "task"), "runs", as_json=as_json)


@runs_app.command("show")
def show_run(context: typer.Context, name: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Print a run's whole record as JSON."""
    print(json.dumps(runs.describe(_coordinator(context).store, name)))


@runs_app.command("wait")
def wait_for_run(context: typer.Context, name: Annotated[str, typer.Argument(metavar="RUN")]) -> None:
    """Wait until a run has ended; exit code 1 if it failed."""
    store = _coordinator(context).store
    while (record := runs.describe(store, name))["state"] in runs.OPEN_STATES:
        time.sleep(0.2)
    out.print(f"{name} {record['state']} {record['detail']}")
    if record["state"] != "finished":
        raise typer.Exit(1)


@models_app.command("fetch")
def fetch_model(name: Annotated[str, typer.Argument(metavar="RUN")], to: Path, access: AccessFile) -> None:
    """Fetch a finished run's MONAI bundle, as a partner."""
    partner.fetch_bundle(partner.read_access(access), name, to)
    out.print(f"{to}: a MONAI bundle; see docs/README.md in it")


def main() -> None:
    """Run the command line; one line for an error, and its own exit code."""
    try:
        app()
    except tuple(kind for kind, _ in EXIT_CODES) as error:
        code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
        err.print(f"filmroom-coordinator: {_line(error)}", soft_wrap=True, markup=False)
        sys.exit(code)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; nothing half-written is kept: mend it and run this again"
    return str(error)


def _interrupt(stopping: threading.Event) -> None:
    """Stop: an idle coordinator at once, one in the middle of a run by leaving the round open."""
    stopping.set()
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(f"{now():%H:%M:%S} {line}", flush=True)
