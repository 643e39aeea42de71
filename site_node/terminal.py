"""What every command prints with, and the options that many share."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

# No markup: names and ids from outside are printed as they are.
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
By = Annotated[str, typer.Option(help="Who decides this; goes on the record.")]
