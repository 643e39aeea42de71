"""Measured values beside their bars: printed as a table, stored as JSON.

`python -m benchmarks.figures deidentify` prints what is stored as Markdown, for the documents.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RESULTS: Final = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value beside its bar; `sense` says whether the bar is a maximum or a minimum."""

    value: float
    bar: float | None
    unit: str
    sense: Literal["max", "min"] = "max"

    @property
    def met(self) -> bool | None:
        """Whether the bar was met; None where there is none."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.sense == "max" else self.value >= self.bar


def show(title: str, figures: Mapping[str, Figure]) -> None:
    """Print the figures, each beside its bar."""
    table = Table("figure", "value", "unit", "bar", "", title=title)
    for column in (1, 3):
        table.columns[column].justify = "right"
    for name, figure in figures.items():
        table.add_row(*_row(name, figure))
    Console().print(table)


def store(name: str, figures: Mapping[str, Figure], **more: object) -> Path:
    """Write the figures, and whatever else is said, into results/`name`.json; return where that is."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"figures": {name: asdict(figure) for name, figure in figures.items()}, **more}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def markdown(document: Mapping[str, Any]) -> str:
    """Return what `store` wrote as tables of Markdown: the figures, and the peers' where there are any."""
    lines = ["| figure | value | unit | bar | |", "|---|--:|---|--:|---|"]
    lines += [_line(_row(name, Figure(**figure))) for name, figure in document["figures"].items()]
    peers: Mapping[str, Mapping[str, float]] = document.get("peers", {})
    names = dict.fromkeys(name for row in peers.values() for name in row)
    if names:
        lines += ["", _line(("tool", *names)), "|---|" + "--:|" * len(names)]
        lines += [
            _line((tool, *(f"{row[name]:,.1f}" if name in row else "" for name in names)))
            for tool, row in peers.items()
        ]
    return "\n".join(lines)


def _row(name: str, figure: Figure) -> tuple[str, ...]:
    bar = "" if figure.bar is None else f"{'≤' if figure.sense == 'max' else '≥'} {figure.bar:g}"
    return name, f"{figure.value:,.2f}", figure.unit, bar, {None: "", True: "✓", False: "✗"}[figure.met]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(markdown(json.loads((RESULTS / f"{sys.argv[1]}.json").read_text())))
