"""`filmroom-site stray`: identities where none should be; what is found, and what a person decides about it.

Prints kinds, rules, masked places and digests; never a value.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from site_node import ledger, reidentification
from site_node.app import now, open_site, open_vault
from site_node.errors import ConfigurationError
from site_node.stray import actions, known, records
from site_node.stray.finding import Confidence, Risk
from site_node.terminal import By, Json, err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from site_node.app import Site
    from site_node.archive.bucket import Objects
    from site_node.deidentify.pseudonym import Known
    from site_node.stray.origin import Origin
    from site_node.stray.records import File
    from site_node.stray.scanning import Summary

stray_app = typer.Typer(no_args_is_help=True, help="Identities of patients where none should be.")

_SHOWN_DIGITS = 12
# Whether identities of medium or high risk are open, and whether something was not looked at.
_CODES = {(False, False): 0, (True, False): 7, (False, True): 8, (True, True): 9}
# Below a site's folder: what must hold no identity.
_CLEAN = ("deidentified", "outbox", "work")


class Pictures(StrEnum):
    """Which pictures are read."""

    none = "none"
    suspect = "suspect"
    all = "all"


Name = Annotated[str, typer.Argument(help="The file's id, or how it begins (6 digits or more).")]

Credentials = Annotated[
    Path | None, typer.Option(help="A file (mode 0600) in the form of AWS's, by which this site reads the bucket.")
]
Authority = Annotated[Path | None, typer.Option(help="Certificates (PEM) to trust at the bucket's endpoint.")]
Region = Annotated[str, typer.Option(help="The region that requests to the bucket are signed for.")]

Reason = Annotated[str, typer.Option(help="Why; others read it, so name no patient.")]


@stray_app.command("learn")
def learn_patients(
    context: typer.Context,
    source: Annotated[
        list[Path], typer.Argument(help="Folders of DICOM and CSV, or CSV files, with the patients' values.")
    ],
    anew: Annotated[
        bool, typer.Option("--anew", help="Forget those known before, also those who came with images or consents.")
    ] = False,
) -> None:
    """Learn who the hospital's patients are, as keyed digests alone; files are then searched for them anew.

    Patients of images and consents that are taken in are learnt without this.
    """
    from site_node.stray.dictionary import entries  # noqa: PLC0415 -- it brings pydicom, which is slow to import
    from site_node.stray.learning import patients  # noqa: PLC0415 -- as above

    site = open_site(context.obj)
    keyer = known.keyer(site.pseudonymiser)
    said = []
    for path in source:
        of_path = [entry for one in patients(path) for entry in entries(one, keyer)]
        if not of_path:
            raise ConfigurationError(
                f"{path}: no patient was found in it; DICOM, and CSV with names of columns, is read"
            )
        said += of_path
    with site.store.begin() as db:
        if anew:
            known.forget(db)
        new = known.add(db, said)
        ledger.write(db, now(), "site:stray:learnt", digests=new)
    out.print(f"{new} digests are new; no value was kept")


@stray_app.command("scan")
def scan_places(
    context: typer.Context,
    folder: Annotated[
        list[Path] | None, typer.Argument(help="Without one or a bucket, the site's own folders that must be clean.")
    ] = None,
    bucket: Annotated[
        str | None, typer.Option(help="s3://NAME or s3://NAME/PREFIX, or a name in [[locked.copies]] of site.toml.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="The bucket's S3 address; without it, Amazon's.")] = None,
    credentials: Credentials = None,
    authority: Authority = None,
    region: Region = "us-east-1",
    full: Annotated[bool, typer.Option("--full", help="Read unchanged files too.")] = False,
    renew: Annotated[
        bool, typer.Option(help="Read unchanged files again for patients who are known since; else they are counted.")
    ] = True,
    pictures: Annotated[
        Pictures, typer.Option(help="Which pictures are read for text burned into them.")
    ] = Pictures.suspect,
    processes: Annotated[
        int | None, typer.Option(help="How many at once; one for each core unless given.", min=1)
    ] = None,
    most_s: Annotated[float, typer.Option("--seconds", help="How long one file may take.", min=1)] = 600,
    as_json: Json = False,
) -> None:
    """Search folders or a bucket; what did not change since is not read again, and a scan that was killed goes on.

    Of a bucket every version of each object is searched, old ones and hidden ones too.

    Exit codes: 0 no identity of medium or high risk is open, and everything was looked at; 7 some are open; 8 none is,
    but not everything was looked at; 9 both.
    """
    from site_node.stray.origin import Folder  # noqa: PLC0415 -- as above
    from site_node.stray.scanning import scan  # noqa: PLC0415

    if bucket is None and (endpoint or credentials or authority):
        raise typer.BadParameter("--endpoint, --credentials and --authority go with --bucket")
    site = open_site(context.obj)
    keys = records.Keys.of(site.pseudonymiser)
    own = folder is None and bucket is None
    roots = [path for name in _CLEAN if (path := site.home.root / name).is_dir()] if own else folder or []
    if absent := [path for path in roots if not path.is_dir()]:
        raise ConfigurationError(f"{absent[0]} is not a folder")
    without = (site.home.root.resolve() / "stray",)
    places: list[tuple[str, Origin]] = [
        (root.name if own else "the folder", Folder(root.resolve(), without)) for root in roots
    ]
    if bucket is not None:
        places.append(("the bucket", _bucket(site, bucket, endpoint, credentials, authority, region)))
    found = []
    for _, origin in places:
        with _bar("searching") as heard:
            found.append(
                scan(
                    origin,
                    site.store,
                    keys,
                    now,
                    pictures=pictures.value,
                    everything=full,
                    renew=renew,
                    processes=processes or os.cpu_count() or 1,
                    most_s=most_s,
                    progress=heard,
                )
            )
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        for (place, _), summary in zip(places, found, strict=True):
            _tell(place, summary)
    open_ = any(one.risks["high"] or one.risks["medium"] for one in found)
    raise typer.Exit(_CODES[open_, any(one.not_scanned or one.outdated for one in found)])


def _bucket(
    site: Site,
    name: str,
    endpoint: str | None,
    credentials: Path | None,
    authority: Path | None,
    region: str,
) -> Objects:
    from site_node.archive import bucket  # noqa: PLC0415 -- botocore is slow to import
    from site_node.archive.locked.places import Places  # noqa: PLC0415 -- as above

    (site.home.root / "work").mkdir(mode=0o700, exist_ok=True)
    places = Places(site.home.root, site.config.locked, site.store)
    return bucket.named(places, name, endpoint, bucket.Login(credentials, authority, region))


def _tell(place: str, summary: Summary) -> None:
    out.print(
        f"scan {summary.number} of {place}: {summary.files} files, {summary.read} read, {summary.unchanged} unchanged"
    )
    for word, count in summary.risks.items():
        out.print(f"  {word} risk: {count} files")
    for reason, count in summary.faults.items():
        out.print(f"  not looked at, wholly or in part, because: {reason}, in {count} files")
    if summary.outdated:
        out.print(f"  unchanged and not looked at for patients and rules known since: {summary.outdated} files")
    for what, count in summary.left_out.items():
        out.print(f"  left out as asked: {what}, in {count} files")
    out.print("`filmroom-site stray list` shows them; `stray report FILE.html` draws them")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        files = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(files, completed=done, total=total)


@stray_app.command("list")
def list_files(
    context: typer.Context,
    risk: Annotated[str, typer.Option(help="The least: low, medium or high.")] = "low",
    not_scanned: Annotated[bool, typer.Option("--not-scanned", help="What could not be looked at instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show files with open findings, gravest first."""
    least = _risk(risk)
    with open_site(context.obj).store.connect() as db:
        found = list(records.files(db))
        for place, began_at in records.cut_off(db):
            err.print(f"{place}: the search that began at {began_at[:16]} did not end; run it again")
        if not records.scans(db):
            err.print("no search has ended yet")
    if not_scanned:
        unread = [(one.id[:_SHOWN_DIGITS], place, reason, one.shown) for one in found for place, reason in one.faults]
        _print("not looked at", ("id", "place", "why", "file"), unread, as_json)
        return
    rows = [
        (
            one.id[:_SHOWN_DIGITS],
            one.risk.word,
            str(one.persons),
            ", ".join(sorted({o.kind for o in one.open})),
            one.owner,
            one.shown,
        )
        for one in found
        if one.risk is not None and one.risk >= least
    ]
    _print("stray identities", ("id", "risk", "known patients", "kinds", "owner", "file"), rows, as_json)


def _risk(word: str) -> Risk:
    try:
        return Risk[word.upper()]
    except KeyError:
        raise typer.BadParameter("risk is low, medium or high") from None


@stray_app.command("show")
def show_file(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show what was found in one file, and where; never the value."""
    with open_site(context.obj).store.connect() as db:
        file = records.find(db, name)
    rows = [
        (
            Risk(one.risk).word,
            one.kind,
            one.rule,
            Confidence(one.confidence).name.lower(),
            one.place,
            str(one.times),
            one.digest,
        )
        for one in file.findings
    ]
    if not as_json:
        out.print(_headline(file))
    _print("findings", ("risk", "kind", "rule", "confidence", "first at", "times", "digest"), rows, as_json)


def _headline(file: File) -> str:
    left = len(file.open)
    more = f", {file.more} more" if file.more else ""
    return f"{file.id}: {file.shown}, owner {file.owner}, {left} of {len(file.findings)} findings open{more}"


def _print(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], as_json: bool) -> None:  # noqa: FBT001 -- an option, passed on
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    out.print(table)


@stray_app.command("report")
def write_report(
    context: typer.Context, target: Annotated[Path, typer.Argument(help="A new HTML file, mode 0600.")]
) -> None:
    """Write the report as one page: by risk, owner and place, with pictures and the trend; it holds no value."""
    from site_node.stray.report import page  # noqa: PLC0415 -- it brings the templates

    site = open_site(context.obj)
    with site.store.connect() as db:
        drawn = page(db, site.config.name, now())
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{target} is there already") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(drawn)
    out.print(f"{target} is written")


@stray_app.command("accept")
def accept_file(context: typer.Context, name: Name, by: By, reason: Reason) -> None:
    """Accept what was found in a file, as it is now: a change of the file ends it."""
    site, file = _found(context, name)
    count = actions.accept(site.store, file, by, reason, now())
    out.print(f"{count} findings of {file.id} are accepted, as long as the file stays as it is")


@stray_app.command("quarantine")
def quarantine_file(
    context: typer.Context,
    name: Name,
    by: By,
    reason: Reason,
    credentials: Credentials = None,
    authority: Authority = None,
    region: Region = "us-east-1",
) -> None:
    """Move a file into the site's folder `stray`; `stray restore` moves it back.

    A version of an object is copied there, and then deleted in its bucket for good; one that is locked stays.
    """
    site, file = _found(context, name)
    keys = records.Keys.of(site.pseudonymiser)
    bucket = _bucket_of(site, keys, file, credentials, authority, region)
    held = actions.quarantine(site.store, site.home.root, keys, file, by, reason, now(), bucket)
    if bucket is None:
        out.print(f"{file.id} is in quarantine; `filmroom-site stray restore {file.id[:_SHOWN_DIGITS]}` moves it back")
    else:
        out.print(f"{file.id} is in quarantine, and deleted in its bucket; its bytes are {held}", soft_wrap=True)


def _bucket_of(
    site: Site, keys: records.Keys, file: File, credentials: Path | None, authority: Path | None, region: str
) -> Objects | None:
    """Return the bucket an object lies in; None for a file of a folder."""
    source = keys.open(file.sealed)[0]
    if not source.startswith("s3://"):
        return None
    from site_node.archive import bucket  # noqa: PLC0415 -- botocore is slow to import
    from site_node.archive.locked.places import Places  # noqa: PLC0415 -- as above

    places = Places(site.home.root, site.config.locked, site.store)
    return bucket.searched(places, source, bucket.Login(credentials, authority, region))


@stray_app.command("restore")
def restore_file(context: typer.Context, name: Name, by: By, reason: Reason) -> None:
    """Move a file from quarantine back to where it was; nothing is written over."""
    site = _settled(context)
    keys = records.Keys.of(site.pseudonymiser)
    back = actions.restore(site.store, site.home.root, keys, name, by, reason, now())
    out.print(f"{back} is back at its place")


@stray_app.command("deidentify")
def deidentify_file(
    context: typer.Context,
    name: Name,
    target: Annotated[Path, typer.Argument(help="The folder for the de-identified copy.")],
    by: By,
    reason: Reason,
    credentials: Credentials = None,
    authority: Authority = None,
    region: Region = "us-east-1",
) -> None:
    """De-identify a DICOM file into another folder, as `filmroom-site deidentify` does; the original stays."""
    from site_node.intake.export import export  # noqa: PLC0415 -- it brings pydicom

    site, file = _found(context, name)
    vault = open_vault(site, site.pseudonymiser)

    def keep(originals: Iterable[Known]) -> None:
        with site.store.begin() as db:
            reidentification.remember(db, vault, originals)

    def export_one(folder: Path) -> str:
        made = export(folder, target, site.config.deidentify, site.pseudonymiser, keep, processes=1)
        told = {word: getattr(made, word) for word in ("accepted", "held", "quarantined", "already_known", "not_read")}
        return ", ".join((*(word for word, count in told.items() if count), *made.reasons))

    keys = records.Keys.of(site.pseudonymiser)
    bucket = _bucket_of(site, keys, file, credentials, authority, region)
    root, at = site.home.root, now()
    out.print(f"{file.id}: {actions.deidentify(site.store, root, keys, file, by, reason, at, export_one, bucket)}")


@stray_app.command("decisions")
def list_decisions(context: typer.Context, as_json: Json = False) -> None:
    """Show what was decided, latest first."""
    with _settled(context).store.connect() as db:
        rows = [
            (str(one.number), one.at[:16], one.file[:_SHOWN_DIGITS], one.verdict, one.state, one.by, one.reason)
            for one in actions.decisions(db)
        ]
    _print("decisions", ("number", "at", "id", "what", "state", "by", "why"), rows, as_json)


def _settled(context: typer.Context) -> Site:
    """Open the site, and tell of moves that a crash cut off."""
    site = open_site(context.obj)
    for line in actions.settle(site.store, site.home.root, records.Keys.of(site.pseudonymiser)):
        err.print(line)
    return site


def _found(context: typer.Context, name: str) -> tuple[Site, File]:
    site = _settled(context)
    with site.store.connect() as db:
        return site, records.find(db, name)
