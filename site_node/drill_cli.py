"""`filmroom-site drill`: recovery, rehearsed and measured."""

from __future__ import annotations

import json
import secrets
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from consent import CheckpointInvalid, parse_verifier
from consent.checkpoint import NOTE
from site_node import claims
from site_node.app import now, open_drills, open_site
from site_node.errors import ArchiveError, ConfigurationError, DrillFailed
from site_node.keys import read_signing_key
from site_node.terminal import Json, err, out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from site_node.app import Site
    from site_node.drills.report import DrillReport

drill_app = typer.Typer(
    no_args_is_help=True, help="Recovery drills: restore, show through a fresh PACS, compare, and sign what came of it."
)

Nonce = Annotated[str, typer.Option(help="An auditor's word: the sample follows from it.")]
RecoveryKey = Annotated[
    Path | None, typer.Option("--recovery-key", help="A copy of the recovery key, to prove that copy; else the site's.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave what was restored, which names patients, for a look.")]


@drill_app.command("sample")
def drill_sample(
    context: typer.Context,
    nonce: Nonce = "",
    recovery_key: RecoveryKey = None,
    keep: Keep = False,
    as_json: Json = False,
) -> None:
    """Prove some studies, drawn at random, and the site itself. Exit code 8: the drill failed."""
    _run(context, "sample", nonce, recovery_key, keep=keep, as_json=as_json)


@drill_app.command("full")
def drill_full(
    context: typer.Context,
    recovery_key: RecoveryKey = None,
    keep: Keep = False,
    as_json: Json = False,
) -> None:
    """Prove every study and the site itself; one that was stopped goes on. Exit code 8: the drill failed."""
    _run(context, "full", "", recovery_key, keep=keep, as_json=as_json)


@drill_app.command("attack")
def drill_attack(context: typer.Context, nonce: Nonce = "", keep: Keep = False, as_json: Json = False) -> None:
    """Attack a copy of some images; the alarm has to sound, and all has to come back. Exit code 8: it did not."""
    _run(context, "attack", nonce, None, keep=keep, as_json=as_json)


@drill_app.command("failover")
def drill_failover(context: typer.Context, nonce: Nonce = "", keep: Keep = False, as_json: Json = False) -> None:
    """Lose a PACS, go on with a second one, and go back without a loss. Exit code 8: something was lost."""
    _run(context, "failover", nonce, None, keep=keep, as_json=as_json)


@drill_app.command("verify")
def verify_report(
    context: typer.Context,
    report: Annotated[Path, typer.Argument(help="A signed report.")],
    key: Annotated[str, typer.Option(help="The site's key as `log-key` prints it; else the keys this site had.")] = "",
    as_json: Json = False,
) -> None:
    """Verify who signed a report, and show it. Exit code 8: it is genuine, and of a drill that failed."""
    from site_node.drills.report import MAX_REPORT_BYTES, ReportInvalid, open_report  # noqa: PLC0415 -- as below

    with report.open("rb") as file:
        envelope = file.read(MAX_REPORT_BYTES + 1)
    reason = "no key is known here"
    for one in _keys(context, key):
        try:
            found = open_report(envelope, one)
        except ReportInvalid as error:
            reason = str(error)
        else:
            _tell(found, as_json=as_json)
            return
    raise ArchiveError(f"{report.name}: not a report that this site signed: {reason}")


@drill_app.command("status")
def show_status(context: typer.Context, as_json: Json = False) -> None:
    """Show when each kind of drill passed last. Exit code 8: one failed, did not end, or is overdue."""
    from site_node.drills import record, schedule  # noqa: PLC0415 -- pydicom and Flower are slow to import

    site = open_site(context.obj)
    with site.store.connect() as db:
        last = record.last(db)
    told = list(schedule.notices(last, record.pauses(site.config.drills), now()))
    rows = [
        {
            "drill": str(mode),
            "last": one.started_at.isoformat() if one.started_at else None,
            "outcome": "passed"
            if one.passed
            else "failed"
            if one.ended_at
            else "runs, or did not end"
            if one.started_at
            else None,
            "passed": one.passed_at.isoformat() if one.passed_at else None,
            "age_h": round((now() - one.passed_at).total_seconds() / 3600, 1) if one.passed_at else None,
        }
        for mode, one in last.items()
    ]
    if as_json:
        print(json.dumps({"drills": rows, "notices": told}))
    else:
        table = Table("drill", "last", "outcome", "last passed", "hours ago", title="recovery drills")
        for row in rows:
            table.add_row(*("never" if value is None else str(value)[:16] for value in row.values()))
        out.print(table)
    if told:
        raise DrillFailed("; ".join(told))


def tell_drills(site: Site) -> None:
    """Print how old the last drill is that passed, and what a person has to look after."""
    from site_node.drills import record, schedule  # noqa: PLC0415 -- as above

    with site.store.connect() as db:
        last = record.last(db)
    passed = [one.passed_at for one in last.values() if one.passed_at]
    age = f"{(now() - max(passed)).total_seconds() / 3600:.1f} h ago" if passed else "never"
    out.print(f"recovery was drilled with success {age}")
    for line in schedule.notices(last, record.pauses(site.config.drills), now()):
        err.print(line, soft_wrap=True)


def _run(
    context: typer.Context, mode: str, nonce: str, recovery_key: Path | None, *, keep: bool, as_json: bool
) -> None:
    from site_node.drills.report import Mode  # noqa: PLC0415 -- it brings pydicom and Flower, which are slow to import

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was restored names patients: it is cleared away
    drills = open_drills(open_site(context.obj))
    with _bar() as heard:
        done = drills.run(
            Mode(mode), nonce or secrets.token_hex(16), recovery_key=recovery_key, keep=keep, progress=heard, say=_say
        )
    if not as_json:
        err.print(f"the signed report: {done.path}", soft_wrap=True)
    _tell(done.report, as_json=as_json)


def _tell(report: DrillReport, *, as_json: bool) -> None:
    """Print a report, and end the command if it is of a drill that failed.

    Raises: DrillFailed.
    """
    if as_json:
        print(report.model_dump_json())
    else:
        table = Table("", "", title=f"drill {report.mode} of {report.started_at:%Y-%m-%d %H:%M}", show_header=False)
        for name, value in _rows(report):
            table.add_row(name, value)
        out.print(table)
        for problem in report.problems:
            err.print(f"  {problem}", soft_wrap=True)
        for digest in report.refused:
            err.print(f"  the PACS cannot read the file with the SHA-256 {digest}", soft_wrap=True)
    if not report.passed:
        raise DrillFailed(f"the drill failed: {report.problems[0]}")


def _rows(report: DrillReport) -> Iterator[tuple[str, str]]:
    files, studies = report.files, report.studies
    yield "outcome", "passed" if report.passed else f"FAILED: {len(report.problems)} problems"
    yield "snapshot", f"{report.snapshot[:12]}, {report.rpo_s / 3600:.1f} h old (RPO)"
    stages = ", ".join(f"{stage.name} {stage.ms / 1000:.1f}" for stage in report.stages)
    yield "RTO of this drill", f"{report.rto_ms / 1000:.1f} s: {stages}"
    yield "studies", f"{studies.drawn} of {studies.total}"
    if report.passed and studies.drawn < studies.total:
        yield "with 95 % confidence lost", f"at most {studies.may_be_lost} of {studies.total}"
    for name in ("proved", "digest_only", "refused", "missing", "bad"):
        yield f"files {name.replace('_', ' ')}", f"{getattr(files, name)} of {files.archived}"
    if report.rebuilt is not None:
        proofs = report.rebuilt.model_dump()
        behind = proofs.pop("records_behind")
        yield "the site, rebuilt", ", ".join(f"{name} {'yes' if ok else 'NO'}" for name, ok in proofs.items())
        yield "consents to load again", str(behind)


def _keys(context: typer.Context, told: str) -> tuple[Ed25519PublicKey, ...]:
    """Return the keys a report may be signed with, the current one first."""
    if told:
        try:
            return (parse_verifier(told, NOTE).key,)
        except CheckpointInvalid as error:
            raise ConfigurationError("--key: not a key as `filmroom-site log-key` prints it") from error
    site = open_site(context.obj)
    current = read_signing_key(site.home.load_identity().receipt_key).public_key()
    with site.store.connect() as db:
        return (current, *reversed(claims.signers(db)))


def _say(line: str) -> None:
    err.print(line, soft_wrap=True)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        files = bar.add_task("proving", total=None)
        yield lambda done, total: bar.update(files, completed=done, total=total)
