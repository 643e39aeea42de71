"""What every command prints with, and the options that many share."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

# No markup: names and ids from outside are printed as they are.
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
By = Annotated[str, typer.Option(help="Who decides this; goes on the record.")]


def confirm_at_terminal(question: str) -> None:
    """Ask a person who sits at a terminal, and end the command on no; a script has decided already."""
    if sys.stdin.isatty():
        typer.confirm(question, abort=True)


def ask_patient() -> str:
    """Ask for a PatientID, hidden at a terminal, so that no shell and no screen keeps it."""
    patient_id: str = typer.prompt("PatientID", hide_input=sys.stdin.isatty(), err=True).strip()
    if not patient_id:
        raise typer.BadParameter("a PatientID is needed")
    return patient_id
