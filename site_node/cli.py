"""`filmroom-site`: what a hospital does with its node.

Exit codes: 0 done; 1 error; 2 usage; 3 refused by policy; 4 wrong configuration; 5 the coordinator or an endpoint of
locked copies refused or cannot be reached; 6 no space left, or the file system refused; 7 an alarm of the archive; 8 a
recovery drill failed; `stray scan` has three of its own.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import sqlalchemy as sa
import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from consent import MAX_BYTES, Deny, Outcome, Permit, UnreadableConsent, permits_sources, read_json
from models import ModelsError, TaskRefused
from models.memory import loading
from site_node import catalogue, consents, permissions, project_keys, reidentification, sources, withdrawals
from site_node.app import Recall, Site, create_site, fetch_consents, now, open_intake, open_site, open_vault
from site_node.archive.locked.immutable import give_up_capability
from site_node.archive_cli import archive_app
from site_node.audit_cli import audit_site, print_log_key
from site_node.audit_events_cli import write_audit_events
from site_node.config import ConsentServer
from site_node.console_cli import accounts_app, console_app
from site_node.disclosures_cli import account_for_disclosures
from site_node.drill_cli import drill_app
from site_node.errors import (
    ArchiveAlarm,
    ConfigurationError,
    DrillFailed,
    EndpointError,
    NotCompliant,
    PeerError,
    SiteError,
)
from site_node.gate import Gate
from site_node.locked_cli import locked_app
from site_node.requests_cli import requests_app
from site_node.review_cli import keys_app, reidentify_app, review_app
from site_node.rotation_cli import rotate_key
from site_node.statistics_cli import show_statistics
from site_node.store import disposition, ledger, participation
from site_node.stray_cli import stray_app
from site_node.terminal import By, Json, ask_patient, confirm_at_terminal, err, out
from site_node.tiers_cli import tiers_app
from site_node.visas_cli import make_visa
from site_node.withdrawals_cli import (
    Confirmation,
    show_preview,
    tell_still_permitted,
    withdrawals_app,
    write_confirmation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from consent import Verdict
    from site_node.deidentify.pseudonym import Known
    from site_node.fetching import Fetched
    from site_node.intake.folder import IngestSummary

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (TaskRefused, 3),
    (NotCompliant, 3),
    (ConfigurationError, 4),
    (PeerError, 5),
    (EndpointError, 5),
    (OSError, 6),
    (sa.exc.DBAPIError, 6),
    (ArchiveAlarm, 7),
    (DrillFailed, 8),
    (SiteError, 1),
    (ModelsError, 1),
)

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
consents_app = typer.Typer(no_args_is_help=True, help="Patients' consents.")
datasets_app = typer.Typer(no_args_is_help=True, help="Datasets and their terms of use.")
tasks_app = typer.Typer(no_args_is_help=True, help="Tasks the coordinator offers.")
for name, group in (
    ("accounts", accounts_app),
    ("archive", archive_app),
    ("consents", consents_app),
    ("console", console_app),
    ("datasets", datasets_app),
    ("drill", drill_app),
    ("locked", locked_app),
    ("requests", requests_app),
    ("tasks", tasks_app),
    ("review", review_app),
    ("tiers", tiers_app),
    ("keys", keys_app),
    ("reidentify", reidentify_app),
    ("withdrawals", withdrawals_app),
    ("stray", stray_app),
):
    app.add_typer(group, name=name)
requests_app.command("visa")(make_visa)
app.command("audit-events")(write_audit_events)
app.command("disclosures")(account_for_disclosures)
app.command("statistics")(show_statistics)

app.command("audit")(audit_site)
app.command("log-key")(print_log_key)
app.command("rotate-key")(rotate_key)


@app.callback()
def choose_home(
    context: typer.Context,
    home: Annotated[Path, typer.Option(help="The site's folder.")] = Path("site"),
) -> None:
    """Run one hospital's side of a federation."""
    context.obj = home


def _site(context: typer.Context) -> Site:
    return open_site(context.obj)


@app.command()
def init(context: typer.Context, name: Annotated[str, typer.Option(help="The site's name.")]) -> None:
    """Make the site's folder, its pseudonym key and its database."""
    create_site(context.obj, name)
    out.print(f"site {name} is ready in {context.obj}; edit site.toml, then join a federation")


@app.command()
def join(context: typer.Context, invitation: Path) -> None:
    """Join the federation of an invitation file, or join it again; this site's keys are born now and stay here."""
    from site_node import membership  # noqa: PLC0415 -- it brings the line, and Flower with it

    site = _site(context)
    membership.join(site.home, site.config.name, membership.read_invitation(invitation))
    out.print(f"{site.config.name} has joined; start the node with `filmroom-site serve`")


@app.command()
def ingest(context: typer.Context, folder: Path, as_json: Json = False) -> None:
    """Take in every file of a folder: de-identify, hold for review, or quarantine."""
    from site_node.intake.folder import ingest as take_in  # noqa: PLC0415 -- pydicom is slow to import, and few commands need it

    _check_folder(folder)
    taker = open_intake(_site(context))
    with _bar("taking in") as heard:
        summary = take_in(folder, taker, now(), progress=heard)
    _tell(summary, as_json=as_json)


@app.command("deidentify")
def deidentify_folder(
    context: typer.Context,
    folder: Path,
    target: Path,
    project: Annotated[str | None, typer.Option(help="Use this project's own pseudonyms (see `keys create`).")] = None,
    as_json: Json = False,
) -> None:
    """De-identify a folder into another; originals stay, held files are told in report.csv."""
    from site_node.intake.export import export  # noqa: PLC0415 -- as above

    _check_folder(folder)
    site = _site(context)
    pseudonymiser = site.pseudonymiser
    if project is not None:
        with site.store.connect() as db:
            pseudonymiser = project_keys.pseudonymiser(db, site.home.root, project)
    vault = open_vault(site, pseudonymiser)

    def keep(originals: Iterable[Known]) -> None:
        with site.store.begin() as db:
            reidentification.remember(db, vault, originals)

    with _bar("de-identifying") as heard:
        recall = Recall(site.home.root)
        summary = export(folder, target, site.config.deidentify, pseudonymiser, keep, progress=heard, recall=recall)
    _tell(summary, as_json=as_json)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, and give what hears (done, total)."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        files = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(files, completed=done, total=total)


def _tell(summary: IngestSummary, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(summary)))
        return
    out.print(_table("what became of the files", asdict(summary)))
    if summary.held:
        err.print("held files wait for a person: `filmroom-site review list`")


@app.command()
def intake(context: typer.Context, as_json: Json = False) -> None:
    """Show what became of everything that came in, by outcome and reason."""
    site = _site(context)
    query = sa.select(disposition.c.outcome, disposition.c.reason, sa.func.count()).group_by(
        disposition.c.outcome, disposition.c.reason
    )
    with site.store.connect() as db:
        rows = [tuple(row) for row in db.execute(query)]
    if as_json:
        print(json.dumps([{"outcome": o, "reason": r, "files": n} for o, r, n in rows]))
        return
    table = Table("outcome", "reason", "files", title="intake")
    for outcome, reason, files in rows:
        table.add_row(outcome, reason, str(files))
    out.print(table)


@app.command("labels")
def load_labels(context: typer.Context, csv_file: Path) -> None:
    """Load class labels from a CSV of original SOPInstanceUIDs."""
    from site_node import labels  # noqa: PLC0415 -- it brings pydicom, which is slow to import

    site = _site(context)
    found = labels.read_class_labels(csv_file, site.pseudonymiser)
    known = catalogue.set_class_labels(site.store, found)
    out.print(f"{len(found)} labels loaded; {known} labelled images are in the catalogue")


@consents_app.command("load")
def load_consents(
    context: typer.Context,
    files: list[Path],
    source: Annotated[str, typer.Option(help="Where they come from; a site may have several sources.")] = "file",
    as_of: Annotated[
        datetime | None, typer.Option(help="Up to when (UTC) they are complete; else when the oldest file was written.")
    ] = None,
) -> None:
    """Load FHIR consents (a Bundle, NDJSON, or one resource per file)."""
    site = _site(context)
    faulty, read = 0, True
    # Before they are read: what is written meanwhile is not in them.
    written = as_of.replace(tzinfo=UTC) if as_of else min(now(), *map(_written_at, files))
    for file in files:
        with file.open("rb") as opened:
            document = opened.read(MAX_BYTES + 1)  # one byte more is refused, however many there are
        loaded = consents.load(site.store, document, site.pseudonymiser, now(), site.config.patient_system)
        faulty += len(loaded.faults)
        read = read and loaded.is_whole
        out.print(f"{loaded.records} consents loaded, {loaded.unchanged} unchanged")
        _show_faults(loaded)
        if not loaded.is_whole:
            err.print(_NOT_READ["file" in dict(loaded.faults)], soft_wrap=True)
    if read:
        sources.note(site.store, source, written, now())
    else:
        err.print(f"source {source} does not count as read")
    if faulty:
        raise typer.Exit(1)


_NOT_READ = {
    True: "the file could not be read, or not to its end",
    False: "nothing in the file was taken: of each resource it says above why not",
}


def _show_faults(loaded: consents.Loaded | Fetched) -> None:
    for key, fault in loaded.faults:
        err.print(f"not loaded: {key}: {fault}", soft_wrap=True, markup=False)
    if loaded.doubted:
        err.print(f"{loaded.doubted} consents held before need review: what came after them could not be taken")
    for key in loaded.stand_ins:
        err.print(
            f"in review as {key}, until a newer version or `consents confirm`: its patient's studies are not used"
        )


def _written_at(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC)


@consents_app.command("fetch")
def fetch_from_server(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Argument(help="The FHIR server's base address, https; else that of site.toml.")
    ] = None,
    source: Annotated[str, typer.Option(help="The name of this source.")] = "fhir",
    token: Annotated[Path | None, typer.Option(help="A file (mode 0600) with the bearer token it asks for.")] = None,
    authority: Annotated[Path | None, typer.Option(help="Certificates (PEM) to trust in place of the usual.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="Read all consents, not only those changed since.")] = False,
) -> None:
    """Read the consents of a FHIR server that were changed since it was read last; run it by a timer."""
    site = _site(context)
    files = (str(file.absolute()) if file else "" for file in (token, authority))
    server = ConsentServer(url, 1, source, *files) if url else site.config.consents
    if not server.fhir_url:
        raise ConfigurationError("no FHIR server: name its address here, or as fhir_url in [consents] of site.toml")
    fetched = fetch_consents(site, server, whole=whole)
    _show_faults(fetched)
    if fetched.missed:
        err.print(f"{fetched.missed} consents held before need review: {server.source} no longer has them")
    out.print(f"{fetched.records} consents loaded; {server.source} is known as of {fetched.as_of:%Y-%m-%d %H:%M} UTC")
    if fetched.faults:
        raise typer.Exit(1)


@consents_app.command("sources")
def list_sources(context: typer.Context, as_json: Json = False) -> None:
    """Show where consents come from, and up to when each source is known; one that is too old stops all training."""
    site = _site(context)
    with site.store.connect() as db:
        found = sources.known(db)
    moment, limit = now(), site.config.max_consent_age
    rows = [
        {
            "source": name,
            "as_of": as_of.isoformat(),
            "recent": permits_sources({name: as_of}, limit, moment) == Permit(),
        }
        for name, as_of in found.items()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(
        "source", "as of", "recent", title=f"sources of consents, at most {limit.total_seconds() / 3600:g} h old"
    )
    for row in rows:
        table.add_row(*map(str, row.values()))
    out.print(table)


@consents_app.command("retire")
def retire_source(context: typer.Context, source: str, by: By) -> None:
    """Expect nothing more of a source; the consents it gave stay."""
    sources.retire(_site(context).store, source, by, now())
    out.print(f"nothing more is expected of {source}")


@consents_app.command("confirm")
def confirm_consent(context: typer.Context, consent_id: str, by: By) -> None:
    """Let a consent count again that waits for review because a later file about it was broken."""
    consents.confirm(_site(context).store, consent_id, by, now())
    out.print(f"Consent/{consent_id} counts again")


_UNKNOWN_PATIENT = (
    "of this PatientID neither an image nor a consent is known here; "
    "with --unknown-here the withdrawal is recorded all the same, for images that come later"
)


@consents_app.command("withdraw")
def withdraw_consent(
    context: typer.Context,
    project: Annotated[list[str] | None, typer.Option(help="Only for this project; may be repeated.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="Only images taken from this day on.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="Only images taken up to this day.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Only images of this DICOM modality.")] = None,
    only_preview: Annotated[bool, typer.Option("--preview", help="Show what it would reach; record nothing.")] = False,
    confirmation: Confirmation = None,
    unknown_here: Annotated[
        bool, typer.Option("--unknown-here", help="Also of a patient of whom no image and no consent is known here.")
    ] = False,
) -> None:
    """Record that a patient withdraws; the PatientID is asked for, so that no shell keeps it."""
    site = _site(context)
    patient = site.pseudonymiser.patient(ask_patient())
    while not (unknown_here or withdrawals.is_known(site.store, patient)):
        if not sys.stdin.isatty():
            raise ConfigurationError(_UNKNOWN_PATIENT)
        err.print(f"{_UNKNOWN_PATIENT}; type it again", soft_wrap=True)
        patient = site.pseudonymiser.patient(ask_patient())
    scope = consents.WithdrawalScope(tuple(project or ()), tuple(modality or ()), first, last)
    reached = withdrawals.preview(site.store, patient, scope, now())
    if only_preview:
        show_preview(reached)
        return
    number = withdrawals.record(site.store, patient, scope, now())
    effect = "running work within it stops now" if reached.running else "no work within it is running"
    out.print(f"recorded as withdrawal {number}; {effect}")
    show_preview(reached)
    tell_still_permitted(site, patient)
    if confirmation is not None:
        write_confirmation(site, number, confirmation)


@datasets_app.command("register")
def register_dataset(
    context: typer.Context,
    name: str,
    terms: Annotated[Path, typer.Option(help="Data-use terms (DUO), JSON.")],
    by: By,
    modality: Annotated[str, typer.Option(help="DICOM modality of its images.")] = "MR",
) -> None:
    """Register a dataset under its terms of use; another person approves it."""
    try:
        document = read_json(terms.read_bytes())
    except UnreadableConsent as error:
        raise ConfigurationError(f"{terms}: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{terms}: not a JSON object")
    permissions.register_dataset(_site(context).store, name, document, modality, by, now())
    out.print(f"dataset {name} registered; it needs approval by another person")


@datasets_app.command("approve")
def approve_dataset(context: typer.Context, name: str, by: By) -> None:
    """Approve a dataset for use; not by who registered it."""
    permissions.approve_dataset(_site(context).store, name, by, now())
    out.print(f"dataset {name} approved")


@datasets_app.command("revoke")
def revoke_dataset(context: typer.Context, name: str, by: By) -> None:
    """Take a dataset's approval back; running work stops."""
    permissions.revoke_dataset(_site(context).store, name, by, now())
    out.print(f"dataset {name} may no longer be used")


@tasks_app.command("list")
def list_tasks(context: typer.Context, as_json: Json = False) -> None:
    """Ask the coordinator for its tasks, and show what was decided on each."""
    from site_node import release  # noqa: PLC0415 -- it brings the line, and Flower with it

    site = _site(context)
    identity = site.home.load_identity()
    for document in release.offered_tasks(identity.fleet_address, identity):
        try:
            permissions.keep_task(site.store, document, now())
        except TaskRefused as refusal:
            err.print(f"a task is not accepted here: {refusal}")
    with site.store.connect() as db:
        known = permissions.tasks(db)
    rows = [
        {
            "digest": digest,
            "name": offered.task.name,
            "project": offered.task.project,
            "dataset": offered.dataset,
            "approved": bool(offered.approval and not offered.approval.revoked_at),
        }
        for digest, offered in known.items()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("digest", "name", "project", "dataset", "approved", title="tasks")
    for row in rows:
        table.add_row(*(str(row[key]) for key in row))
    out.print(table)


@tasks_app.command("show")
def show_task(context: typer.Context, digest: str) -> None:
    """Print a task as it will run."""
    with _site(context).store.connect() as db:
        offered = permissions.tasks(db).get(digest)
    if offered is None:
        raise ConfigurationError(f"task {digest} is not known here: run `filmroom-site tasks list`")
    print(offered.task.model_dump_json(indent=2))


@tasks_app.command("diff")
def diff_task(
    context: typer.Context,
    digest: str,
    earlier: Annotated[str | None, typer.Argument(help="Else the version that was approved here last.")] = None,
    as_json: Json = False,
) -> None:
    """Show what is different in a task from an earlier version of it."""
    with _site(context).store.connect() as db:
        _show_changes(db, digest, earlier, as_json=as_json)


@tasks_app.command("approve")
def approve_task(context: typer.Context, digest: str, dataset: str, by: By) -> None:
    """Let the task with exactly this digest train on a dataset; what is new in it is shown first."""
    site = _site(context)
    with site.store.connect() as db:
        _show_changes(db, digest)
    confirm_at_terminal("approve it?")
    permissions.approve_task(site.store, digest, dataset, by, now())
    out.print(f"task {digest[:12]} may run on {dataset}")


def _show_changes(db: sa.Connection, digest: str, earlier: str | None = None, *, as_json: bool = False) -> None:
    before = earlier or permissions.previous_version(db, digest)
    changes = permissions.changes(db, before or digest, digest)
    if as_json:
        print(json.dumps({"before": before, "after": digest, "changes": [asdict(change) for change in changes]}))
        return
    if before is None:
        out.print("no version of this task was approved here before: `filmroom-site tasks show` prints it whole")
        return
    table = Table("key", before[:12], digest[:12], title="what is different")
    for change in changes:
        table.add_row(change.key, change.before, change.after)
    out.print(table)


@tasks_app.command("revoke")
def revoke_task(context: typer.Context, digest: str, by: By) -> None:
    """Take an approval back; running work stops."""
    permissions.revoke_task(_site(context).store, digest, by, now())
    out.print(f"task {digest[:12]} may no longer run here")


@app.command()
def cohort(
    context: typer.Context,
    digest: str,
    as_json: Json = False,
    trace: Annotated[bool, typer.Option("--trace", help="Show what each consent contributed.")] = False,
) -> None:
    """Show why each study is in or out for a task, by pseudonym; stays in the hospital."""
    site = _site(context)
    federation = site.home.load_identity().federation
    gate = Gate(site.store, federation, site.config.minimum_studies, site.config.max_consent_age)
    snapshot = gate.explained(digest, now())
    if isinstance(snapshot, Deny):
        err.print(f"nothing may be used: {snapshot.reason}")
        raise typer.Exit(3)
    _show_verdicts(snapshot.cohort.verdicts, as_json=as_json, trace=trace)
    if isinstance(answer := gate.enough(snapshot), Deny):
        err.print(f"nothing may be used: {answer.reason}")
        raise typer.Exit(3)


def _show_verdicts(verdicts: Mapping[str, Verdict], *, as_json: bool, trace: bool) -> None:
    if as_json:
        rows = [
            {"study": study, "outcome": verdict.outcome.value, "reason": verdict.reason, "trace": verdict.trace}
            for study, verdict in sorted(verdicts.items())
        ]
        print(json.dumps(rows))
        return
    table = Table("study (pseudonym)", "outcome", "reason", title="studies")
    for study, verdict in sorted(verdicts.items(), key=lambda pair: pair[1].outcome.value):
        colour = "green" if verdict.outcome is Outcome.PERMIT else "red"
        why = "\n".join([verdict.reason, *(verdict.trace if trace else ())])
        table.add_row(study[-16:], Text(verdict.outcome.value, colour), Text(why))
    out.print(table)
    out.print(dict(Counter(verdict.outcome.value for verdict in verdicts.values())))


@app.command()
def rounds(context: typer.Context, as_json: Json = False) -> None:
    """Show what this site did in each round, and why; stays in the hospital."""
    with _site(context).store.connect() as db:
        rows = db.execute(sa.select(participation).order_by(participation.c.recorded_at)).mappings()
        found = [_participation(dict(row)) for row in rows]
    if as_json:
        print(json.dumps(found))
        return
    columns = ("run", "round", "kind", "outcome", "reason", "gate_s", "receipt_s", "training_s")
    table = Table(*columns, title="rounds")
    for row in found:
        table.add_row(*(f"{row[c]:.3f}" if c.endswith("_s") else str(row[c]) for c in columns))
    out.print(table)


@app.command("ledger")
def show_ledger(context: typer.Context) -> None:
    """Print the site's ledger, one JSON object a line."""
    with _site(context).store.connect() as db:
        for row in db.execute(sa.select(ledger).order_by(ledger.c.number)):
            entry = {"at": row.at, "entry": row.entry, **json.loads(row.detail)}
            print(json.dumps(entry))


@app.command()
def check(context: typer.Context) -> None:
    """Check configuration, keys and the connection to the coordinator."""
    from site_node import release  # noqa: PLC0415 -- it brings the line, and Flower with it

    site = _site(context)
    identity = site.home.load_identity()
    offered = release.offered_tasks(identity.fleet_address, identity)
    out.print(f"{identity.site} reaches {identity.federation}; it offers {len(offered)} tasks")


@app.command()
def serve(context: typer.Context) -> None:
    """Run the node: take part in the federation's rounds until interrupted."""
    with loading():
        from site_node.service import serve as run_node  # noqa: PLC0415 -- it brings the line, and Flower with it

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    give_up_capability()
    site = _site(context)
    try:
        run_node(site, _say, _progress)
    except KeyboardInterrupt:
        _say("stopped")


def main() -> None:
    """Run the command line; one line for an error, and its own exit code."""
    try:
        app()
    except tuple(kind for kind, _ in EXIT_CODES) as error:
        code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
        err.print(f"filmroom-site: {_line(error)}", soft_wrap=True, markup=False)
        sys.exit(code)


def _line(error: BaseException) -> str:
    if isinstance(error, sa.exc.DBAPIError):  # its own text quotes what was to be written
        return f"site.db: {error.orig}; nothing half-written is kept: mend it and run this again"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; nothing half-written is kept: mend it and run this again"
    return str(error)


def _say(line: str) -> None:
    print(f"{now():%H:%M:%S} {line}", flush=True)


def _progress(done: int, total: int) -> None:
    if sys.stdout.isatty():
        print(f"\r  batch {done}/{total}", end="\n" if done == total else "", flush=True)


def _participation(row: dict[str, Any]) -> dict[str, Any]:
    receipt = row.pop("receipt")
    return {**row, "studies": json.loads(row["studies"]), "receipt": receipt is not None}


def _table(title: str, values: dict[str, Any]) -> Table:
    table = Table("", "", title=title, show_header=False)
    for key, value in values.items():
        for label, count in value.items() if isinstance(value, dict) else [(key, value)]:
            table.add_row(label, str(count))
    return table
