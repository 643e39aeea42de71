"""`filmroom-site audit-events`: the gate's decisions for the hospital's audit repository."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 -- typer reads it at run time
from typing import TYPE_CHECKING, Annotated

import typer

from consent import audit_event
from site_node import audit_events
from site_node.app import open_site
from site_node.store import reading
from site_node.terminal import ask_patient, err

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


def write_audit_events(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, help="Go on after this opening, as the last reading told it.")] = 0,
    since: Annotated[datetime | None, typer.Option(help="Only what was decided from then on (UTC).")] = None,
    run: Annotated[str | None, typer.Option(help="Only decisions for this run.")] = None,
    patient: Annotated[bool, typer.Option("--patient", help="Only one patient's; the PatientID is asked for.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="A new file (mode 0600); else standard output.")] = None,
) -> None:
    """Print every decision of the gate on a study as a FHIR R4 AuditEvent, one a line; stays in the hospital."""
    site = open_site(context.obj)
    identity = site.home.load_identity()
    whose = site.pseudonymiser.patient(ask_patient()) if patient else None
    moment = since.replace(tzinfo=UTC) if since else None
    written, last = 0, after
    with _lines(to) as lines, reading(site.store).connect() as db:
        for opening, decided in audit_events.decisions(db, identity, after, moment, run, whose):
            lines.write(json.dumps(audit_event(decided)) + "\n")
            written, last = written + 1, opening
    err.print(f"{written} events; the next reading goes on with --after {last}")


@contextmanager
def _lines(to: Path | None) -> Iterator[TextIO]:
    if to is None:
        yield sys.stdout
        return
    with os.fdopen(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
