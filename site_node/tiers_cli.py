"""`filmroom-site tiers`: where images lie in the course of time; files leave the site's folder and come back."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from consent import Deny
from site_node.app import open_recalling, open_site, open_tiering
from site_node.errors import LockedCopyInvalid
from site_node.terminal import By, Json, ask_patient, err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from site_node.archive.tiers.failover import Difference
    from site_node.archive.tiers.tiering import Tiering

tiers_app = typer.Typer(no_args_is_help=True, help=__doc__)
ERROR, REFUSED, UNREACHABLE = 1, 3, 5
_ALL = "all"
_DIGITS = 16

Reason = Annotated[str, typer.Option(help="Why; goes on the record.")]


@tiers_app.command("plan")
def show_plan(context: typer.Context, as_json: Json = False) -> None:
    """Show what a run would take out of the folder, and why the rest stays; changes nothing, asks no endpoint."""
    rows = _tiering(context).plan()
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    table = Table("object", "study date", "files", "MB", "state", "why", title="tiers")
    for row in rows:
        size = f"{row.bytes / 1e6:.1f}"
        table.add_row(row.object[:_DIGITS], row.study_date or "", str(row.files), size, row.state, row.why)
    out.print(table)
    leaving = sum(row.bytes for row in rows if row.state == "leaves")
    out.print(f"a run would free {leaving / 1e6:.1f} MB, if every copy is read back well")


@tiers_app.command("run")
def run_tiers(context: typer.Context, as_json: Json = False) -> None:
    """Copy what is missing, read every copy back, and only then take files out of the folder. Run it by a timer."""
    tiering = _tiering(context)
    if not tiering.locking.copies:
        raise typer.Exit(REFUSED)
    done = tiering.run()
    if as_json:
        print(json.dumps(asdict(done)))
    else:
        out.print(
            f"{done.here} objects in the folder, {done.protected} of them protected; {done.left} left now, "
            f"{done.freed / 1e6:.1f} MB are free; {done.away} were away before; {done.problems} problems",
            soft_wrap=True,
        )
    _conclude(tiering, bad=done.problems > 0 or done.protected < done.here)


@tiers_app.command("recall")
def recall_files(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(help="`all`, a StudyInstanceUID, or a patient's pseudonym; see --patient.")
    ] = "",
    of_patient: Annotated[bool, typer.Option("--patient", help="One patient; the PatientID is asked for.")] = False,
    lost_marks: Annotated[
        bool, typer.Option("--lost-marks", help="Also what is not in the folder and has no mark there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring files that are away back into the folder, byte for byte. Cut off, run it again."""
    if bool(what) == of_patient:
        raise typer.BadParameter("say what: all, a StudyInstanceUID, a pseudonym, or --patient")
    tiering = _tiering(context)
    recalling = open_recalling(open_site(context.obj), _say)
    if lost_marks:
        from site_node.archive.tiers.failover import set_marks  # noqa: PLC0415 -- few commands need it

        set_marks(tiering, tiering.locked.copies)
    names = _chosen(tiering, what, of_patient=of_patient)
    files = size = lost = 0
    with _bar("recalling") as heard:
        for done, name in enumerate(names, start=1):
            try:
                members = recalling.object(name)
            except LockedCopyInvalid as error:
                err.print(f"not recalled: {error}", soft_wrap=True)
                lost += 1
                continue
            files, size = files + len(members), size + sum(one.size for one in members)
            heard(done, len(names))
    if as_json:
        print(json.dumps({"objects": len(names) - lost, "files": files, "bytes": size, "lost": lost}))
    else:
        out.print(f"{len(names) - lost} objects are back: {files} files, {size / 1e6:.1f} MB")
    if lost:
        raise typer.Exit(UNREACHABLE if recalling.down else ERROR)


@tiers_app.command("failover")
def fail_over(
    context: typer.Context,
    domain: Annotated[str, typer.Argument(help="The administrative domain that takes over.")],
    by: By,
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Let a domain stand in for the folder: what the folder has not is opened from there. Nothing leaves meanwhile."""
    from site_node.archive.tiers import failover  # noqa: PLC0415 -- few commands need it

    found = failover.fail_over(_tiering(context), domain, by, reason)
    if isinstance(found, Deny):
        err.print(f"refused: {found.reason}", soft_wrap=True)
        raise typer.Exit(REFUSED)
    _tell(found, f"{domain} stands in", as_json=as_json)
    if found.lost:
        raise typer.Exit(ERROR)


@tiers_app.command("failback")
def fail_back(context: typer.Context, by: By, reason: Reason, as_json: Json = False) -> None:
    """Return to the folder, once every copy has all again; shows the difference, and refuses while something lacks."""
    from site_node.archive.tiers import failover  # noqa: PLC0415 -- few commands need it

    tiering = _tiering(context)
    difference, refusal = failover.fail_back(tiering, by, reason)
    _tell(difference, "the folder serves again" if refusal is None else "not returned", as_json=as_json)
    if refusal is not None:
        err.print(f"refused: {refusal.reason}", soft_wrap=True)
        raise typer.Exit(UNREACHABLE if tiering.locking.stopped else REFUSED)


# ------------------------------------------------------------------ the parts


def _tiering(context: typer.Context) -> Tiering:
    return open_tiering(open_site(context.obj), _bar, _say)


def _say(line: str) -> None:
    err.print(line, soft_wrap=True)


def _chosen(tiering: Tiering, what: str, *, of_patient: bool) -> list[str]:
    """Return the names of the objects that are away and meant."""
    if what == _ALL:
        return tiering.recallable()
    if of_patient:
        return tiering.recallable(patient=tiering.patient(ask_patient()))
    by_study = tiering.recallable(study=tiering.locking.seal.token(what))
    return by_study or tiering.recallable(patient=what)


def _conclude(tiering: Tiering, *, bad: bool) -> None:
    compliant = tiering.compliant()
    if any(not isinstance(compliant[name], Deny) for name in tiering.locking.stopped):
        raise typer.Exit(UNREACHABLE)
    if tiering.locking.stopped:
        raise typer.Exit(REFUSED)
    if bad:
        raise typer.Exit(ERROR)


def _tell(difference: Difference, title: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(difference)))
        return
    table = Table("files", "", title=title)
    for name, meaning in (
        ("same", "in the folder, as archived" if difference.new is not None else "in the folder; not read yet"),
        ("away", "come when they are opened"),
        ("changed", "in the folder, with another content than was archived"),
        ("lost", "neither in the folder nor at the domain"),
        ("new", "in the folder, not archived yet"),
    ):
        count = getattr(difference, name)
        table.add_row("not looked for" if count is None else str(count), f"{name}: {meaning}")
    out.print(table)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, and give what hears (done, total)."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
