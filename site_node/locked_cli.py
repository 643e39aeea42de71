"""`filmroom-site locked`: copies of images that nobody deletes before their date, and the server that can hold them."""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path  # noqa: TC003 -- Typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from consent import Deny, Permit
from site_node.app import Site, archive_seal, lock_places, now, open_site
from site_node.errors import ConfigurationError, EndpointError, LockedCopyInvalid, NotCompliant
from site_node.terminal import By, Json, ask_patient, err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from site_node.archive.locked.clock import Clock
    from site_node.archive.locked.places import Places
    from site_node.archive.locked.probe import ProbeResult
    from site_node.archive.locked.worm import LockedObject, Locking
    from site_node.config import LockedCopy

locked_app = typer.Typer(no_args_is_help=True, help=__doc__)
ERROR, REFUSED, UNREACHABLE = 1, 3, 5
_SHOWN_DIGITS = 16
_REGION = "us-east-1"

Names = Annotated[list[str] | None, typer.Argument(help="Names of objects, or how they begin.")]
OfPatient = Annotated[bool, typer.Option("--patient", help="All of one patient; the PatientID is asked for.")]


@locked_app.command("serve")
def serve(
    folder: Annotated[Path, typer.Argument(help="The server's folder; an empty or new one is set up.")],
    address: Annotated[
        str, typer.Option(help="The IP address of its S3 port; the rest stays on this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Its S3 port; the three above it, and those plus 10000, are used too.")
    ] = 8333,
) -> None:
    """Run a lock server (SeaweedFS, hardened), in the foreground; its keys are born in its folder when it is new."""
    from site_node.archive.locked import lock_server  # noqa: PLC0415 -- only this command needs it

    server = lock_server.find(folder) or lock_server.set_up(folder, address, port, now())
    command = server.command()
    out.print(f"lock server at {server.endpoint}, in {folder}", soft_wrap=True)
    out.print(f"for a site: {server.authority} and {server.credentials}, and in its site.toml:", soft_wrap=True)
    doors = ", ".join(f'"{door}"' for door in server.back_doors)
    out.print(
        "[[locked.copies]]\n"
        'name = "basement"\n'
        f'endpoint = "{server.endpoint}"\n'
        'bucket = "images"\n'
        f'credentials = "file:{server.credentials.absolute()}"\n'
        f'authority_file = "{server.authority.absolute()}"\n'
        f"back_doors = [{doors}]\n"
        'domain = "hospital"',
        soft_wrap=True,
    )
    lock_server.run(server, command)


@locked_app.command("member")
def add_member(
    folder: Annotated[Path, typer.Argument(help="The folder of a lock server that runs.")],
    name: Annotated[str, typer.Argument(help="The hospital's name; its bucket has it too.")],
) -> None:
    """Hold another hospital's copies: two buckets, and an account that can do nothing elsewhere."""
    from site_node.archive.locked import credentials, lock_server  # noqa: PLC0415 -- only this command needs it
    from site_node.archive.locked.s3 import Bucket  # noqa: PLC0415 -- botocore is slow to import, and few commands need it

    server = lock_server.find(folder)
    if server is None:
        raise ConfigurationError(f"{folder} holds no lock server")
    administrator = credentials.read(server.credentials)
    for bucket_name in lock_server.buckets_of(name):
        bucket = Bucket(server.endpoint, _REGION, bucket_name, administrator, server.authority)
        if not bucket.is_there():
            bucket.make()
    account = lock_server.add_member(server, name)
    out.print(f"{name} may use bucket {name} at {server.endpoint}", soft_wrap=True)
    out.print(f"give it {account} by a safe way, and {server.authority}", soft_wrap=True)


@locked_app.command("local")
def copy_here(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="What is copied.")],
    target: Annotated[Path, typer.Argument(help="On a disk of this machine whose files can be immutable.")],
) -> None:
    """Copy files and make the copies immutable; needs root. This is `local`: never compliant, and it stops no root."""
    from site_node.archive.locked import immutable  # noqa: PLC0415 -- only this command needs it

    open_site(context.obj)
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder")
    with _bar("copying") as heard:
        copied = immutable.copy(folder, target, heard)
    out.print(f"{copied.new} new local copies in {target}; they are not compliant", soft_wrap=True)
    if copied.differing:
        out.print(
            f"{copied.differing} files are not what their copies are; the copies stay as they were", soft_wrap=True
        )
    if copied.away:
        out.print(
            f"{copied.away} files are away and have no local copy: `filmroom-site tiers recall` brings them back",
            soft_wrap=True,
        )
    if copied.differing or copied.away:
        raise typer.Exit(1)


@locked_app.command("probe")
def probe_copies(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A copy of [[locked.copies]]; without it, all.")] = None,
    make_buckets: Annotated[
        bool, typer.Option("--make-buckets", help="Make what is missing, with Object Lock.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Try on each endpoint what an attacker would try; only what withstood all of it is used. Run it by a timer."""
    from site_node.archive.locked import probe, probe_log  # noqa: PLC0415 -- botocore is slow to import, and few commands need it

    site = open_site(context.obj)
    clock, places = _clock(site), lock_places(site)
    archive_seal(site)
    validity = timedelta(days=site.config.locked.probe_days)
    results, unreachable = [], False
    for copy in places.chosen(name):
        try:
            places.have(copy, make=make_buckets)
            with _bar(f"probing {copy.name}") as heard:
                result = probe.run(places.target(copy), validity, clock.now(), now, time.sleep, heard)
        except EndpointError as error:
            unreachable = True
            _say(f"{copy.name}: {error}: not probed")
            continue
        probe_log.keep(site.store, result, _signing_key(site))
        results.append(result)
        if not as_json:
            _tell_probe(copy, result)
    if as_json:
        print(json.dumps([result.model_dump(mode="json") for result in results]))
    if any(result.failed for result in results):
        raise typer.Exit(REFUSED)
    if unreachable:
        raise typer.Exit(UNREACHABLE)


@locked_app.command("put")
def put(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM; always the same one, since its paths are kept.")],
    as_json: Json = False,
) -> None:
    """Seal every series of a folder and lock it at every copy; what is there already is left. Cut off, run it again."""
    from site_node.archive.locked import series  # noqa: PLC0415 -- it brings pydicom, which is slow to import

    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder")
    site = open_site(context.obj)
    if site.config.tiers.mode and (site.home.root / site.config.tiers.folder).resolve() == folder.resolve():
        raise ConfigurationError(f"{folder} has tiers: `filmroom-site tiers run` locks what is in it")
    locking = _locking(site)
    with _bar("reading") as heard:
        found = series.find(folder, heard)
    made: dict[str, LockedObject] = {}
    changed = 0
    with _bar("locking") as heard:
        for done, one in enumerate(found.series, start=1):
            term = series.term(one, site.config.locked, locking.now())
            try:
                locked = locking.lock(one, folder, site.pseudonymiser.patient(one.PatientID), term)
            except LockedCopyInvalid as error:
                changed += 1
                _say(f"not locked: a series of {len(one.members)} files: {error}")
            else:
                made[locked.name] = locked
            heard(done, len(found.series))
    for sha256, why in found.passed_over:
        err.print(f"not locked: file {sha256[:_SHOWN_DIGITS]}: {why}")
    _conclude(site, locking, list(made.values()), len(found.passed_over) + changed, as_json=as_json)


@locked_app.command("resume")
def resume(context: typer.Context, as_json: Json = False) -> None:
    """Bring what is on record to the copies that lack it: after an outage, or when a copy is new. Run it by a timer."""
    site = open_site(context.obj)
    locking = _locking(site)
    with _bar("bringing") as heard:
        locking.finish(heard)
    _conclude(site, locking, _objects(site), 0, as_json=as_json)


@locked_app.command("verify")
def verify(
    context: typer.Context,
    sample: Annotated[int, typer.Option(help="Only so many objects, drawn at random; 0 is all.")] = 0,
    as_json: Json = False,
) -> None:
    """Read objects back from every copy, compare them and look at their locks. Run it by a timer."""
    site = open_site(context.obj)
    locking = _locking(site)
    chosen = _objects(site)
    if 0 < sample < len(chosen):
        chosen = random.SystemRandom().sample(chosen, sample)
    bad = 0
    with _bar("reading back") as heard:
        for done, locked in enumerate(chosen, start=1):
            bad += not locking.verify(locked)
            heard(done, len(chosen))
    _conclude(site, locking, chosen, bad, as_json=as_json)


@locked_app.command("list")
def list_objects(
    context: typer.Context, names: Names = None, of_patient: OfPatient = False, as_json: Json = False
) -> None:
    """Show every object, until when it is locked, where, and whether it is protected; asks no endpoint."""
    site = open_site(context.obj)
    moment = _clock(site).now()
    verdicts = lock_places(site).verdicts(moment)
    rows = [_row(site, locked, verdicts, moment) for locked in _chosen_objects(site, names, of_patient=of_patient)]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("object", "modality", "files", "locked until", "hold", "copies", "state", title="locked copies")
    for row in rows:
        copies = ", ".join(row["copies"])
        table.add_row(
            row["name"][:_SHOWN_DIGITS], row["modality"], str(row["files"]), row["until"][:10],
            "hold" if row["hold"] else "", copies, row["state"],
        )  # fmt: skip
    out.print(table)
    for name, verdict in verdicts.items():
        if isinstance(verdict, Deny):
            err.print(f"{name} is not compliant: {verdict.reason}", soft_wrap=True)


@locked_app.command("hold")
def hold(
    context: typer.Context,
    by: By,
    reason: Annotated[str, typer.Option(help="Why; goes on the record.")],
    names: Names = None,
    of_patient: OfPatient = False,
    lift: Annotated[bool, typer.Option("--lift", help="Lift the hold instead.")] = False,
) -> None:
    """Put a legal hold on objects at every copy: they stay, whatever their date, until it is lifted."""
    site = open_site(context.obj)
    if not names and not of_patient:
        raise typer.BadParameter("name objects, or --patient")
    locking = _locking(site)
    changed = [
        locking.hold(locked, by, reason, on=not lift) for locked in _chosen_objects(site, names, of_patient=of_patient)
    ]
    _conclude(site, locking, changed, 0, as_json=False)


@locked_app.command("extend")
def extend(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A copy that holds snapshots; without it, all that do.")] = None,
    as_json: Json = False,
) -> None:
    """Push the locks of snapshots forward by `rolling_days`, and none back. Run it by a timer, daily."""
    from site_node.archive.locked import rolling  # noqa: PLC0415 -- few commands need it

    site = open_site(context.obj)
    places, moment = lock_places(site), _clock(site).now()
    copies = [copy for copy in places.chosen(name) if copy.snapshots]
    if not copies:
        raise ConfigurationError("no copy holds snapshots: `snapshots = true` in [[locked.copies]] says which does")
    told = {}
    for copy in copies:
        places.require(copy, moment)
        with _bar(f"extending {copy.name}") as heard:
            done = rolling.extend(places.bucket(copy), moment, timedelta(days=copy.rolling_days), heard)
        for problem in done.problems:
            _say(f"{copy.name}: {problem}")
        told[copy.name] = done
        if not as_json:
            out.print(f"{copy.name}: {done.line}", soft_wrap=True)
    if as_json:
        print(json.dumps({name: asdict(done) for name, done in told.items()}, default=str))
    if any(done.faults for done in told.values()):
        raise typer.Exit(ERROR)


@locked_app.command("restore")
def restore(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="A folder; what is in it already is never replaced.")],
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of objects, or how they begin; without, all.")
    ] = None,
    copy: Annotated[str | None, typer.Option(help="From this copy; else each in turn until all came back.")] = None,
    as_of: Annotated[
        datetime | None, typer.Option("--as-of", help="Only versions that the endpoint had then (UTC).")
    ] = None,
    of_patient: OfPatient = False,
    as_json: Json = False,
) -> None:
    """Bring series back, byte for byte, past what was written over them or hides them; needs the site's keys alone."""
    from site_node.archive.locked import recovery  # noqa: PLC0415 -- few commands need it
    from site_node.archive.locked.sealing import open_seal  # noqa: PLC0415 -- as above

    site = open_site(context.obj)
    seal = open_seal(site.home.root)
    moment = as_of.replace(tzinfo=UTC) if as_of else None
    places = lock_places(site)
    sources = [source for source in places.chosen(copy) if not source.snapshots]
    silent: set[str] = set()
    if names or of_patient:
        wanted = {locked.name for locked in _chosen_objects(site, names, of_patient=of_patient)}
        is_all = True
    else:  # no copy alone says what there was: its disk may be an attacker's
        on_record = {locked.name for locked in _objects(site)} if moment is None else set()
        wanted = on_record.union(*(_held(places, source, moment, silent) for source in sources))
        is_all = bool(on_record) or not silent
    total = recovery.Restored(0, 0, 0, tuple((name, "no copy answered") for name in sorted(wanted)))
    for source in sources:
        if not total.lost or source.name in silent:
            continue
        left = {name for name, _ in total.lost}
        with _asking(source, silent), _bar(f"restoring from {source.name}") as heard:
            done = recovery.restore(places.bucket(source), seal, left, target, moment, heard)
            total = recovery.Restored(
                total.objects + done.objects, total.files + done.files, total.bytes + done.bytes, done.lost
            )
    for name, why in total.lost:
        err.print(f"not restored: {name[:_SHOWN_DIGITS]}: {why}", soft_wrap=True)
    if as_json:
        print(json.dumps(asdict(total)))
    else:
        out.print(f"{total.objects} objects, {total.files} files, {total.bytes} bytes in {target}", soft_wrap=True)
    if len(silent) == len(sources):
        raise typer.Exit(UNREACHABLE)
    if not wanted:
        _say("nothing was restored: no copy holds anything, or held anything then")
    if total.lost or not wanted:
        raise typer.Exit(ERROR)
    if not is_all:
        _say(f"what {', '.join(sorted(silent))} alone holds is not among it: restore again when it answers")
        raise typer.Exit(UNREACHABLE)


@locked_app.command("clock")
def accept_clock(context: typer.Context, by: By) -> None:
    """Take the machine's clock as it is, after it jumped ahead or the machine was off for long; never a way back."""
    moment = _clock(open_site(context.obj)).accept(by)
    out.print(f"expiry is judged by this clock again: {moment:%Y-%m-%d %H:%M:%S} UTC")


# ------------------------------------------------------------------ the parts


def _clock(site: Site) -> Clock:
    from site_node.archive.locked.clock import Clock  # noqa: PLC0415 -- few commands need it

    return Clock(site.store)


def _signing_key(site: Site) -> Ed25519PrivateKey:
    from site_node.archive.locked.sealing import read_signing_key  # noqa: PLC0415 -- few commands need it

    return read_signing_key(site.home.root)


def _locking(site: Site) -> Locking:
    """Return the site's side of its copies; those that are not compliant are left out, and said.

    Raises: NotCompliant if none is left.
    """
    from site_node.archive.locked.worm import Copy, Locking  # noqa: PLC0415 -- botocore is slow to import, and few commands need it

    clock, places = _clock(site), lock_places(site)
    verdicts = places.verdicts(clock.now())
    copies = []
    refused: dict[str, str] = {}
    for copy in places.chosen():
        verdict = verdicts[copy.name]
        if copy.snapshots:
            continue
        if isinstance(verdict, Deny):
            err.print(f"refused: {copy.name} is not compliant: {verdict.reason}", soft_wrap=True)
            refused[copy.name] = verdict.reason
            continue
        copies.append(Copy(copy, places.bucket(copy)))
    if not copies:
        raise NotCompliant("no copy is left to lock anything at")
    return Locking(site.store, site.home.root, archive_seal(site), copies, clock.now, _say, refused)


def _held(places: Places, source: LockedCopy, as_of: datetime | None, silent: set[str]) -> set[str]:
    """Return the objects that a copy holds, or held at a moment; none where it does not answer."""
    from site_node.archive.locked import recovery  # noqa: PLC0415 -- few commands need it

    with _asking(source, silent):
        return recovery.names(places.bucket(source), as_of)
    return set()


@contextmanager
def _asking(source: LockedCopy, silent: set[str]) -> Iterator[None]:
    """Say that a copy did not answer, add it to those that are `silent`, and go on."""
    try:
        yield
    except EndpointError as error:
        silent.add(source.name)
        _say(f"{source.name}: {error}")


def _say(line: str) -> None:
    err.print(line, soft_wrap=True)


def _objects(site: Site) -> list[LockedObject]:
    return _chosen_objects(site, None, of_patient=False)


def _chosen_objects(site: Site, names: list[str] | None, *, of_patient: bool) -> list[LockedObject]:
    from site_node.archive.locked import worm  # noqa: PLC0415 -- few commands need it

    patient = site.pseudonymiser.patient(ask_patient()) if of_patient else None
    with site.store.connect() as db:
        chosen = {
            locked.name: locked
            for prefix in names or [""]
            for locked in worm.objects(db, patient=patient, prefix=prefix)
        }
        if names and not chosen:
            raise ConfigurationError("no locked object has such a name")
    return list(chosen.values())


def _row(site: Site, locked: LockedObject, verdicts: dict[str, Permit | Deny], at: datetime) -> dict[str, Any]:
    from site_node.archive.locked import worm  # noqa: PLC0415 -- few commands need it

    with site.store.connect() as db:
        known = worm.records(db, locked.name)
    standing = worm.standing(locked, known, verdicts, site.config.locked, at)
    return {
        "name": locked.name,
        "modality": locked.modality,
        "files": locked.files,
        "until": locked.until.isoformat(),
        "hold": locked.hold,
        "copies": sorted(name for name, record in known.items() if not record.fault),
        "state": f"not protected: {standing.reason}" if isinstance(standing, Deny) else "protected",
    }


def _conclude(site: Site, locking: Locking, objects: list[LockedObject], bad: int, *, as_json: bool) -> None:
    """Say how many objects are protected now, and why the others are not; the exit code tells the worst."""
    moment = locking.now()
    verdicts = lock_places(site).verdicts(moment)
    rows = [_row(site, locked, verdicts, moment) for locked in objects]
    protected = sum(row["state"] == "protected" for row in rows)
    reasons = sorted({row["state"] for row in rows if row["state"] != "protected"})
    if as_json:
        print(json.dumps({"objects": len(rows), "protected": protected, "reasons": reasons, "problems": bad}))
    else:
        out.print(f"{len(rows)} objects, {protected} protected")
        for reason in reasons:
            err.print(f"{sum(row['state'] == reason for row in rows)} objects {reason}", soft_wrap=True)
    unreachable = any(name in locking.stopped and not isinstance(verdicts[name], Deny) for name in verdicts)
    if unreachable:
        raise typer.Exit(UNREACHABLE)
    if locking.stopped:
        raise typer.Exit(REFUSED)
    if bad or any(len(row["copies"]) < len(locking.copies) for row in rows):
        raise typer.Exit(ERROR)


def _tell_probe(copy: LockedCopy, result: ProbeResult) -> None:
    from site_node.archive.locked.probe import CHECKS  # noqa: PLC0415 -- few commands need it

    passed = len(result.checks) - len(result.failed)
    if not result.failed:
        out.print(
            f"{copy.name}: {passed} of {len(result.checks)} checks passed: compliant until "
            f"{result.expires_at:%Y-%m-%d %H:%M} UTC",
            soft_wrap=True,
        )
        return
    table = Table("failed check", "found", "why it matters", title=f"{copy.name}: not compliant")
    for check in result.failed:
        table.add_row(check.check, check.found, CHECKS[check.check].why)
    err.print(table)
    err.print(f"{copy.name}: {passed} of {len(result.checks)} checks passed: not compliant, and not used")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, and give what hears (done, total)."""
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
