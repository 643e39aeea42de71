"""The few pieces of HTML the report is made of; every text given to them is escaped here."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Cell(NamedTuple):
    """A table cell: its text, its class in the style sheet, and a remark below the text."""

    text: str
    kind: str = ""
    remark: str = ""


Row: TypeAlias = "Sequence[str | Cell]"


def number(value: float, digits: int = 0) -> Cell:
    """Give a cell with a number, aligned to the right."""
    return Cell(f"{value:,.{digits}f}", "number")


def verdict(*, held: bool) -> Cell:
    """Give a cell that says yes or no, by sign and word."""
    return Cell("✓ yes", "yes") if held else Cell("✗ no", "no")


def table(caption: str, heads: Sequence[str | Cell], rows: Iterable[Row]) -> str:
    """Give a table whose first column names its rows."""
    head = "".join(_cell(each, "th", ' scope="col"') for each in heads)
    body = "\n".join(_row(row) for row in rows)
    return (
        f'<div class="scroll"><table>\n<caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def section(name: str, title: str, *parts: str) -> str:
    """Give a section under a heading that can be linked to."""
    return "\n".join(
        (
            f'<section aria-labelledby="{name}">',
            f'<h2 id="{name}">{escape(title)}</h2>',
            *parts,
            "</section>",
        )
    )


def paragraph(text: str, kind: str = "") -> str:
    """Give a paragraph."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def heading(text: str) -> str:
    """Give a heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def figure(url: str, alt: str, caption: str, kind: str = "") -> str:
    """Give an image that is told in words as well."""
    return (
        f'<figure{_class(kind)}><img src="{url}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _row(cells: Row) -> str:
    first, *others = cells
    named = _cell(first, "th", ' scope="row"')
    return f"<tr>{named}{''.join(_cell(each, 'td') for each in others)}</tr>"


def _cell(cell: str | Cell, tag: str, scope: str = "") -> str:
    text, kind, remark = Cell(cell) if isinstance(cell, str) else cell
    below = f"<small>{escape(remark)}</small>" if remark else ""
    return f"<{tag}{scope}{_class(kind)}>{escape(text)}{below}</{tag}>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
