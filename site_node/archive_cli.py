"""`filmroom-site archive`: snapshots of the originals and of the site, and the alarm over them."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 -- Typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from site_node import alarms
from site_node.app import open_archive, open_site
from site_node.archive.restoring import Wanted
from site_node.drill_cli import tell_drills
from site_node.errors import ArchiveAlarm, ArchiveError, ClockRefused, EndpointError, NotCompliant
from site_node.terminal import By, Json, ask_patient, confirm_at_terminal, err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from site_node.archive.locked.rolling import Extended
    from site_node.archive.snapshot import Archive
    from site_node.errors import SiteError

archive_app = typer.Typer(
    no_args_is_help=True, help="Snapshots of the images and of the site, and the alarm over them."
)


AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", help="As a locked copy was then (UTC): past what was hidden or written over since."),
]


def _archive(context: typer.Context, as_of: datetime | None = None) -> Archive:
    return open_archive(open_site(context.obj), as_of.replace(tzinfo=UTC) if as_of else None)


@archive_app.command("init")
def create(context: typer.Context) -> None:
    """Make the repository, its password and the recovery key; copy both to a safe that is not in this building."""
    site = open_site(context.obj)
    open_archive(site).create()
    settings = site.config.archive
    out.print("the archive is ready; without these two files nobody can restore it, keep copies elsewhere:")
    for name in (settings.password_file, settings.recovery_key_file):
        out.print(f"  {site.home.root / name}", soft_wrap=True)


@archive_app.command("snapshot")
def take_snapshot(
    context: typer.Context,
    read_all: Annotated[
        bool, typer.Option("--read-all", help="Read every file, also those that look unchanged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take a snapshot; run it by a timer. Exit code 7: images changed as none may, and training is paused."""
    _take(context, read_all=read_all, as_json=as_json)


@archive_app.command("list")
def list_snapshots(context: typer.Context, as_of: AsOf = None, as_json: Json = False) -> None:
    """List the snapshots as the repository shows them."""
    listed = _archive(context, as_of).repository.snapshots()
    rows = [{"id": one.id, "at": one.at.isoformat(), "good": one.is_good} for one in listed]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("snapshot", "at", "good", title="snapshots")
    for one in listed:
        table.add_row(one.id[:12], f"{one.at:%Y-%m-%d %H:%M:%S}", "yes" if one.is_good else "no: an alarm was open")
    out.print(table)


@archive_app.command("restore")
def restore_files(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
    study: Annotated[str, typer.Option(help="Only this StudyInstanceUID.")] = "",
    patient: Annotated[bool, typer.Option("--patient", help="Only one patient; the PatientID is asked for.")] = False,
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only studies of this day.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All that the snapshot holds.")] = False,
    state: Annotated[bool, typer.Option("--state", help="The site's database, configuration and keys too.")] = False,
    snapshot: Annotated[str, typer.Option(help="Else the last good one.")] = "",
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Restore a study, a patient, a day or everything to a clean place; each file is compared with its digest.

    One that was cut off goes on when it is given again.
    """
    if everything == bool(study or patient or day):
        raise typer.BadParameter("say what: --study, --patient, --day, or --everything")
    archive = _archive(context, as_of)
    wanted = Wanted(study, ask_patient() if patient else "", f"{day:%Y%m%d}" if day else "")
    with _bars() as (rebuilding, _):
        restored = archive.restore(target, wanted, snapshot, with_state=state, progress=rebuilding)
    if as_json:
        print(json.dumps(asdict(restored)))
    else:
        out.print(f"{restored.files} files are back, each with the digest it was archived under")
    if restored.missing:
        why = restored.complaint or "their snapshot is damaged"
        raise ArchiveError(
            f"{restored.missing} files are missing: {why}; give the command again, or try an older snapshot"
        )


@archive_app.command("check")
def check_repository(
    context: typer.Context,
    subset: Annotated[str, typer.Option(help="Read only a part: 2/7 (the second seventh), or 5% (at random).")] = "",
) -> None:
    """Verify the repository and read its data, so that a flipped bit is found."""
    _archive(context).check(subset)
    out.print(f"what was read ({subset or 'everything'}) is as it was written")


@archive_app.command("rebuild-index")
def rebuild_index(context: typer.Context) -> None:
    """Make the repository's index anew from its packs, after a file of it was lost or damaged; then run `check`."""
    _archive(context).rebuild_index()
    out.print("the index is made anew; run `archive check`")


@archive_app.command("forget")
def forget_snapshots(context: typer.Context) -> None:
    """Forget snapshots beyond the schedule of site.toml, and free their space; not while an alarm is open."""
    _archive(context).forget()
    out.print("snapshots beyond the schedule are forgotten")


@archive_app.command("look")
def look_quickly(context: typer.Context) -> None:
    """Look for known images that no longer begin as one, and for many that are gone; reads no pixels.

    If that opens an alarm, a snapshot is taken at once.
    """
    before = _open_alarm(context)
    found = _archive(context).look()
    now = _open_alarm(context)
    if now is not None and before is None:
        err.print("ALARM; training is paused; a snapshot is taken now")
        _take(context)
    _alarm(context)
    out.print(f"no alarm; {len(found)} known images are gone")
    tell_drills(open_site(context.obj))


@archive_app.command("alarm")
def show_alarm(
    context: typer.Context,
    paths: Annotated[bool, typer.Option("--paths", help="Name the files; a path may name a patient.")] = False,
    as_json: Json = False,
) -> None:
    """Show the alarm that is open, if one is: exit code 7."""
    found = _archive(context).findings() if paths else ()
    alarm = _open_alarm(context)
    if as_json:
        rows = [{"kind": one.kind, "path": one.path} for one in found]
        print(json.dumps({"alarm": asdict(alarm) if alarm else None, "files": rows}))
    else:
        for one in found:
            out.print(f"{one.kind}  {os.fsencode(one.path).decode(errors='replace')}", soft_wrap=True, markup=False)
    _alarm(context)
    if not as_json:
        out.print("no alarm is open")


@archive_app.command("clear")
def clear_alarm(
    context: typer.Context,
    by: By,
    reason: Annotated[str, typer.Option(help="What it was; goes on the record.")],
    accept: Annotated[
        bool,
        typer.Option("--accept", help="The images are right as they are now; else they have to be what they were."),
    ] = False,
) -> None:
    """Clear the alarm, so that training may go on."""
    archive = _archive(context)
    confirm_at_terminal("may these images be trained on again?")
    number = archive.clear(by, reason, accept=accept)
    out.print(f"alarm {number} is cleared; take a snapshot now")


def _take(context: typer.Context, *, read_all: bool = False, as_json: bool = False) -> None:
    archive = _archive(context)
    try:
        with _bars() as (staging, storing):
            taken = archive.take(read_all=read_all, staging=staging, storing=storing, complain=_complain)
    except ArchiveError as error:
        if _open_alarm(context) is not None:
            err.print(f"no snapshot: {error}", soft_wrap=True, markup=False)
            _alarm(context)
        raise
    if not as_json:
        out.print(f"snapshot {taken.id[:12]}: {taken.files} files; {taken.read} read, {taken.gone} gone")
    extended, not_locked = _lock(archive)
    if as_json:
        print(json.dumps(asdict(taken) | {"lock": asdict(extended) if extended else None}, default=str))
    elif extended is not None:
        out.print(extended.line, soft_wrap=True)
    if not_locked is not None and (taken.lost or not taken.is_good):
        err.print(f"not locked: {not_locked}", soft_wrap=True)
    if not taken.is_good:
        _alarm(context)
    if taken.lost:
        raise ArchiveError(
            f"the last good snapshot, {taken.lost[:12]}, is not in the repository any more: who removed it?"
        )
    if not_locked is not None:
        raise not_locked


def _lock(archive: Archive) -> tuple[Extended | None, SiteError | None]:
    """Push the locks of a locked copy forward; return what that did, and why a snapshot is not called locked."""
    try:
        with _bars() as (extending, _):
            extended = archive.lock(extending)
    except (NotCompliant, ClockRefused, EndpointError) as error:
        return None, error
    if extended is None or not extended.faults:
        return extended, None
    return extended, ArchiveError(f"the snapshot is not called locked: {'; '.join(extended.problems)}")


def _complain(words: str) -> None:
    err.print(f"restic: {words}", soft_wrap=True)


def _open_alarm(context: typer.Context) -> alarms.Alarm | None:
    with open_site(context.obj).store.connect() as db:
        return alarms.open_alarm(db)


def _alarm(context: typer.Context) -> None:
    """End the command if an alarm is open.

    Raises: ArchiveAlarm.
    """
    alarm = _open_alarm(context)
    if alarm is None:
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in alarm.counts.items())
    good = f"the last good snapshot is {alarm.last_good[:12]}" if alarm.last_good else "there is no good snapshot"
    raise ArchiveAlarm(f"ALARM since {alarm.at[:16]}: {counts}; {good}; training is paused until `archive clear`")


@contextmanager
def _bars() -> Iterator[tuple[Callable[[int, int], None], Callable[[float], None]]]:
    """Show two bars, and give what hears of files (done, total), and of the share that is stored."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        files, stored = bar.add_task("files", total=None), bar.add_task("storing", total=100, visible=False)
        yield (
            lambda done, total: bar.update(files, completed=done, total=total),
            lambda share: bar.update(stored, completed=round(100 * share), visible=True),
        )
