"""The end of a demo run on the terminal: the scores, the times, and every invariant."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from rich.table import Table

from demo.report import FEDERATED, POOLED, final_dice

if TYPE_CHECKING:
    from rich.console import Console

    from demo.results import Results


def print_summary(console: Console, results: Results) -> None:
    """Print the tables."""
    console.print(_checks(results))
    console.print(_scores(results))
    console.print(_times(results))
    console.print(f"{results.wall_s:.0f} s in all; the consortium's own processes used {results.cpu_s:.0f} CPU s")


def _checks(results: Results) -> Table:
    table = Table("", "invariant", "how it was checked", title="invariants")
    for check in results.checks:
        table.add_row("[green]✓[/]" if check.held else "[red]✗[/]", check.invariant, check.how)
    return table


def _scores(results: Results) -> Table:
    places = [hospital.name for hospital in results.hospitals]
    table = Table("trained on", *places, "all", title="Dice on held-out patients of …")
    for model in (*places, POOLED, FEDERATED):
        last = {c.held_out_at: c.scores[-1].dice for c in results.curves if c.trained_on == model and c.scores}
        mean = final_dice(results, model)
        cells = [f"{last[place]:.3f}" if place in last else "n/a" for place in places]
        name = f"[bold]{model}[/]" if model == FEDERATED else f"{model} alone" if model in places else model
        table.add_row(name, *cells, "n/a" if mean is None else f"{mean:.3f}")
    return table


def _times(results: Results) -> Table:
    table = Table("round", "seconds", "CPU s", "training s", "gate ms", "receipt ms", title="rounds")
    for row in results.times:
        table.add_row(
            str(row.round), f"{row.wall_s:.1f}", f"{row.cpu_s:.1f}", f"{row.training_s:.1f}",
            f"{row.gate_ms:.0f}", f"{row.receipt_ms:.0f}",
        )  # fmt: skip
    if results.times:
        table.add_section()
        table.add_row(
            "mean",
            f"{fmean(r.wall_s for r in results.times):.1f}",
            f"{fmean(r.cpu_s for r in results.times):.1f}",
        )
    return table
