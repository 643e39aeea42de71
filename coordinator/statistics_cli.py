"""`filmroom-coordinator statistics`: what consents permit for a task, hospital by hospital."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coordinator import statistics, tasks
from coordinator.app import open_coordinator


def show_statistics(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="The task's digest.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show what each member told of the consents for a task, in ranges, and what they come to together."""
    store = open_coordinator(context.obj).store
    tasks.find(store, task)
    found = statistics.told(store, task)
    sums = statistics.total(found)
    if as_json:
        print(json.dumps({"sites": [asdict(one) for one in found], "total": sums}))
        return
    names = [name.replace("_", " ") for name in statistics.OUTCOMES]
    table = Table("site", "dataset", "modality", "as of", *names, title="studies, by what consents say")
    for one in found:
        table.add_row(one.site, one.dataset, one.modality, one.as_of, *one.studies.values())
    table.add_section()
    table.add_row("together", "", "", "", *(f"{low}-{high}" for low, high in sums.values()))
    Console(highlight=False, markup=False).print(table)
