"""What the commands of the coordinator share: where they print, and tables that a machine can read too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def show(rows: Sequence[Mapping[str, object]], columns: Sequence[str], title: str, *, as_json: bool) -> None:
    """Print rows as JSON, or these columns of them as a table."""
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row[column] or "") for column in columns))
    out.print(table)
