"""Tables and trees of values: CSV, JSON, and SQLite cell by cell; each value with its column or key for a label."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import struct
from contextlib import closing, suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from site_node.stray.finding import Sort
from site_node.stray.pieces import DAMAGED, TOO_LARGE, Fault, Piece
from site_node.stray.texts import ELSE_LATIN, lines, strings, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

from site_node.stray.pieces import Here, Part

_MAX_JSON = 64 * 1024**2
_MAX_CELL = 1 << 20
_SAMPLE = 8192
_DELIMITERS = ",;\t|"
_FILE_HEADER, _MIN_PAGE = 100, 512
_TREE_PAGES = {0x02: 12, 0x05: 12, 0x0A: 8, 0x0D: 8}  # by what they begin with: bytes of their header
_INDEX = re.compile(r"\[\d+\]")


def table(rows: Iterable[Sequence[str]], here: Here) -> Iterator[Piece]:
    """Yield the cells of a table, each under its column's name, and each row as a whole for names in two columns."""
    header: Sequence[str] = ()
    for number, row in enumerate(rows, 1):
        if number == 1:
            yield from (Piece(here.at("row 1"), cell) for cell in row if cell)
            header = row if row and not any(any(map(str.isdigit, cell)) for cell in row) else ()
            continue
        yield from cells(header, row, here.at(f"row {number}"))


def cells(header: Sequence[str], row: Sequence[object], at: tuple[str, ...]) -> Iterator[Piece]:
    """Yield the cells of one row."""
    said = [str(cell).strip() if cell is not None else "" for cell in row]
    for place, cell in enumerate(said):
        if cell:
            label = header[place] if place < len(header) else ""
            yield Piece((*at, f"column {label or place + 1}"), cell, label)
    if sum(map(bool, said)) > 1:
        yield Piece(at, " ".join(filter(None, said))[:_MAX_CELL], sort=Sort.TOGETHER)


def delimited(content: memoryview, here: Here, coded: str) -> Iterator[Part]:
    """Yield what a file of values says, whatever stands between them; as text if nothing does."""
    head = bytes(content[:_SAMPLE]).decode(coded, ELSE_LATIN)
    first = head.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    if delimiter not in first:
        yield from text(content, here, coded)
        return
    read = partial(csv.reader, delimiter=delimiter)
    torn: list[bool] = []
    try:
        yield from table(_noting(read(line + "\n" for line in lines(content, coded)), torn), here)
    except csv.Error:
        torn.append(True)
        yield from text(content, here, coded)
    if torn:
        # Behind a quote that nobody closed, rows lie in one cell: each line that has as many cells as the first is one.
        rows = read(lines(content, coded), quoting=csv.QUOTE_NONE)
        with suppress(csv.Error):
            header = next(rows)
            yield from table(chain((header,), (row if len(row) == len(header) else () for row in rows)), here)


def _noting(rows: Iterable[list[str]], torn: list[bool]) -> Iterator[list[str]]:
    """Yield rows, and note in `torn` when a cell goes over several lines."""
    for row in rows:
        if not torn and any("\n" in cell.rstrip("\n") for cell in row):
            torn.append(True)
        yield row


def tree(content: memoryview, here: Here, coded: str) -> Iterator[Part]:
    """Yield the values of JSON under their keys, or of each line if every line is a document of its own."""
    if len(content) <= _MAX_JSON:
        try:
            document = _loaded(bytes(content).decode(coded, ELSE_LATIN))
        except RecursionError:
            yield Fault(here.trail, DAMAGED)
            yield from text(content, here, coded)
        except ValueError:
            yield from _documents(content, here, coded)
        else:
            yield from _values(document, here.trail)
        return
    yield from _documents(content, here, coded)


def _documents(content: memoryview, here: Here, coded: str) -> Iterator[Part]:
    told = len(content) <= _MAX_JSON
    for number, line in enumerate(lines(content, coded), 1):
        if not line.strip():
            continue
        at = here.at(f"line {number}")
        try:
            yield from _values(_loaded(line), at)
        except (ValueError, RecursionError):
            if not told:
                yield Fault(here.trail, f"{TOO_LARGE} key by key; looked at as text alone")
                told = True
            yield Piece(at, line.strip())


class _Object(list[tuple[str, Any]]):
    """An object of JSON, in which a key may stand twice. Source: RFC 8259 4."""


def _loaded(document: str) -> Any:  # noqa: ANN401 -- any JSON
    return json.loads(document, object_pairs_hook=_Object)


def _values(document: Any, trail: tuple[str, ...]) -> Iterator[Piece]:  # noqa: ANN401 -- any JSON
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, _Object):
            for key, _ in value:
                yield Piece((*trail, path or "keys"), key)
            todo += [(f"{path}.{key}" if path else key, one) for key, one in reversed(value)]
            # Both names of a person stand beside each other nowhere else.
            said = [str(one) for _, one in value if isinstance(one, (str, int))]
            if len(said) > 1:
                yield Piece((*trail, path or "document"), " ".join(said)[:_MAX_CELL], sort=Sort.TOGETHER)
        elif isinstance(value, list):
            todo += [(f"{path}[{place}]", one) for place, one in reversed(list(enumerate(value)))]
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            yield Piece((*trail, path or "value"), str(value), label_of(path))


def label_of(path: str) -> str:
    """Return the label of a value: its key, with the key above where that alone says whose it is (name.family)."""
    *above, last = _INDEX.sub("", path).split(".")
    return f"{above[-1]} {last}" if above and last.lower() in _DEPENDENT else last


_DEPENDENT = frozenset(("family", "given", "text", "value", "extension", "line", "name"))


def database(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield every cell of every table of an SQLite file, which is read in memory and never changed."""
    if len(content) > here.budget.limits.one:
        yield Fault(here.trail, f"{TOO_LARGE} cell by cell; read as bytes")
        yield from strings(content, here)
        return
    copy = bytearray(content)
    # Without its write-ahead log, which is a file of its own. SQLite file format 1.3, bytes 18 and 19.
    copy[18:20] = b"\x01\x01"
    try:
        with closing(sqlite3.connect(":memory:")) as opened:
            opened.deserialize(bytes(copy))
            opened.execute("PRAGMA query_only=ON")
            opened.text_factory = lambda raw: raw.decode("utf-8", ELSE_LATIN)
            made = opened.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
            for sort, name, sql in made:
                yield Piece(here.at("schema"), sql or name)
                if sort == "table":
                    yield from _rows(opened, name, here)
    except sqlite3.Error:
        yield Fault(here.trail, f"{DAMAGED}; read as bytes")
        yield from strings(content, here)
        return
    for start, stop in unused(content):
        yield from strings(content[start:stop], here, f"deleted, from byte {start}, byte", Sort.PROSE)


def unused(content: memoryview) -> Iterator[tuple[int, int]]:
    """Yield where bytes lie that are no cell: there is what was deleted. Pages of overflow are told as a whole.

    Source: SQLite file format 1.3 (header), 1.5 (free list), 1.6 (pages of a tree: 8 or 12 bytes, pointers, cells).
    """
    written = int.from_bytes(content[16:18], "big")
    size = 1 << 16 if written == 1 else written
    if size < _MIN_PAGE:
        return
    free = _free_pages(content, size)
    for start in range(0, len(content), size):
        page = content[start : start + size]
        head = _FILE_HEADER if start == 0 else 0
        if start // size + 1 in free or page[head] not in _TREE_PAGES:
            yield start, start + len(page)
            continue
        first, count, cells = struct.unpack_from(">HHH", page, head + 1)
        pointers = head + _TREE_PAGES[page[head]] + 2 * count
        yield start + pointers, start + (cells or 1 << 16)
        for _ in range(size // 4):
            if not 0 < first <= len(page) - 4:
                break
            after, length = struct.unpack_from(">HH", page, first)
            yield start + first + 4, start + first + length
            first = after


def _free_pages(content: memoryview, size: int) -> set[int]:
    """Return the numbers of pages that hold nothing any more."""
    free: set[int] = set()
    trunk = int.from_bytes(content[32:36], "big")
    while 0 < trunk <= len(content) // size and trunk not in free:
        at = (trunk - 1) * size
        after, count = struct.unpack_from(">II", content, at)
        count = min(count, size // 4 - 2)
        free.update((trunk, *struct.unpack_from(f">{count}I", content, at + 8)))
        trunk = after
    return free


def _rows(opened: sqlite3.Connection, name: str, here: Here) -> Iterator[Part]:
    quoted = '"' + name.replace('"', '""') + '"'
    try:
        found = opened.execute(f"SELECT * FROM {quoted}")  # noqa: S608 -- a table's name, quoted; the database is a copy
    except sqlite3.OperationalError:
        # A virtual table of an extension that is not here; what it holds lies in tables of its own.
        yield Fault(here.at(f"table {name}"), "a virtual table that cannot be read")
        return
    header = [column[0] for column in found.description]
    for number, row in enumerate(found, 1):
        at = here.at(f"table {name}", f"row {number}")
        yield from cells(header, [None if isinstance(cell, bytes) else cell for cell in row], at)
        for column, cell in zip(header, row, strict=True):
            if isinstance(cell, bytes) and len(cell) > 4:  # noqa: PLR2004 -- what says nothing
                yield from here.within(f"table {name}, row {number}, column {column}", cell)
