"""XML, CDA and HTML: text and attributes, each under the names of its elements; and RTF without its control words."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from site_node.stray.finding import Sort
from site_node.stray.pieces import DAMAGED, TOO_LARGE, Fault, Piece
from site_node.stray.texts import ELSE_LATIN, lines, text

if TYPE_CHECKING:
    from collections.abc import Iterator

from site_node.stray.pieces import Here, Part

_MAX = 64 * 1024**2
_AS_TEXT = "looked at as text alone"
_ENTITY = re.compile(rb"<!ENTITY", re.IGNORECASE)
# Elements whose text is one text although parts of it stand in elements of their own: office files, CDA, XHTML.
_BLOCKS = frozenset(
    ("p", "h", "si", "is", "paragraph", "td", "th", "li", "caption", "content", "item", "name", "title")
)
_ABOUT = frozenset(
    (
        "patient",
        "patientrole",
        "name",
        "assignedperson",
        "guardian",
        "recordtarget",
        "birthtime",
        "id",
        "telecom",
        "addr",
    )
)
_CELLS = ("td", "th")
_VALUES = frozenset(("value", "extension", "text", "content"))
_ELEMENT = re.compile(r"<(?:[\w.-]{1,99}:)?([\w.-]{1,99})(?: [^<>]{0,999})?>([^<>]{2,999})</")
_RTF = re.compile(
    r"\\'([0-9a-f]{2})|\\u(-?\d+)\s?\??|\\(?:par|line|cell|row|tab)\b ?|\\[a-z]+-?\d* ?|[{}]|\\\*", re.IGNORECASE
)


def xml(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield what an XML document says.

    One that declares entities is looked at as text alone: they may be made to grow without end.
    """
    if len(content) > _MAX:
        yield Fault(here.trail, f"{TOO_LARGE} element by element; {_AS_TEXT}")
        yield from _tagged(content, here)
        return
    raw = bytes(content)
    if _ENTITY.search(raw):
        yield Fault(here.trail, f"declares entities; {_AS_TEXT}")
        yield from _tagged(content, here)
        return
    # Without entities expat resolves nothing and expands nothing.
    parser = XMLParser(target=TreeBuilder(insert_comments=True, insert_pis=True))  # noqa: S314
    try:
        parser.feed(raw)
        root: Element = parser.close()
    except (ParseError, ValueError, LookupError):
        yield from _tagged(content, here)
        return
    yield from elements(root, here.trail)


def _tagged(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield the lines of what is no sound XML, and what stands in each element of one line under its name."""
    yield from text(content, here, "utf-8")
    for number, line in enumerate(lines(content, "utf-8"), 1):
        yield from (Piece(here.at(f"line {number}"), match[2], match[1]) for match in _ELEMENT.finditer(line))


def elements(root: Element, trail: tuple[str, ...]) -> Iterator[Piece]:
    """Yield text and attributes below an element."""
    todo: list[tuple[Element, tuple[str, ...], str]] = [(root, (), "")]
    while todo:
        one, above, whose = todo.pop()
        tag = _local(one.tag)
        at = (*trail, "/".join((*above, tag)))
        for key, value in one.attrib.items():
            name = _local(key)
            yield Piece(at, value, f"{whose} {tag}" if name.lower() in _VALUES else name)
        said = "".join(one.itertext()).strip() if tag.lower() in _BLOCKS else (one.text or "").strip()
        if said:
            yield Piece(at, said, f"{whose} {tag}".strip() if whose or len(one) == 0 else "")
        if (tail := (one.tail or "").strip()) and not (above and above[-1].lower() in _BLOCKS):
            yield Piece(at, tail)
        parts = [(child.text or "").strip() for child in one]
        if sum(map(bool, parts)) > 1:
            yield Piece(at, " ".join(filter(None, parts)), sort=Sort.TOGETHER)
        about = tag if tag.lower() in _ABOUT else whose
        todo += [(child, (*above[-1:], tag), about) for child in reversed(one)]


def _local(tag: object) -> str:
    return str(tag).rpartition("}")[2] if isinstance(tag, str) else "comment"


class _Said(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[int, str, str]] = []
        self._run: list[str] = []
        self._hidden = False
        # Where in a table one is, and what the heads of its columns say.
        self._cell, self._column, self._heads = "", 0, dict[int, str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS or tag in ("div", "br", "tr", "body"):
            self.flush()
        if tag == "tr":
            self._column = 0
        elif tag in _CELLS:
            self._cell, self._column = tag, self._column + 1
        self._hidden = tag in ("script", "style")
        told = dict(attrs)
        for name, value in told.items():
            if value and name in (
                "content",
                "value",
                "alt",
                "title",
                "href",
                "src",
                "placeholder",
                "data-name",
                "data-patient",
            ):
                label = told.get("name") or told.get("id") or "" if name in _VALUES else name
                self.found.append((self.getpos()[0], label, value))

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS or tag in ("div", "tr", "body"):
            self.flush()
        if tag in _CELLS:
            self._cell = ""
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if self._hidden:
            self.found.append((self.getpos()[0], "", data))
        else:
            self._run.append(data)

    def handle_comment(self, data: str) -> None:
        self.found.append((self.getpos()[0], "", data))

    def flush(self) -> None:
        """End a run of text."""
        if said := " ".join("".join(self._run).split()):
            label = self._heads.get(self._column, "") if self._cell == "td" else ""
            self.found.append((self.getpos()[0], label, said))
            if self._cell == "th":
                self._heads[self._column] = said
        self._run.clear()


def html(content: memoryview, here: Here, coded: str) -> Iterator[Part]:
    """Yield what a page says, its comments, scripts and fields too."""
    if len(content) > _MAX:
        yield Fault(here.trail, f"{TOO_LARGE} element by element; {_AS_TEXT}")
        yield from text(content, here, coded)
        return
    parser = _Said()
    try:
        parser.feed(bytes(content).decode(coded, ELSE_LATIN))
        parser.close()
    except AssertionError:
        yield Fault(here.trail, DAMAGED)
        yield from text(content, here, coded)
        return
    parser.flush()
    last = ""
    for line, label, said in parser.found:
        yield Piece(here.at(f"line {line}"), said, label or last)
        # In a form, and in a table of two columns, the label is the text before.
        last = said.strip(" :") if len(said) < 40 and not label else ""  # noqa: PLR2004 -- letters of a label


def rtf(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield what an RTF document says."""
    raw = bytes(content[:_MAX]).decode("cp1252", "replace")
    if "\\pict" in raw or "\\objdata" in raw:
        yield Fault(here.trail, "pictures or objects in RTF are not looked at")
    said = _RTF.sub(_unescaped, raw)
    for number, line in enumerate(said.split("\n"), 1):
        if line.strip():
            yield Piece(here.at(f"paragraph {number}"), line.strip())
    if len(content) > _MAX:
        yield Fault(here.trail, TOO_LARGE)


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        return bytes([int(match[1], 16)]).decode("cp1252", "replace")
    if match[2]:
        return chr(int(match[2]) % 0x10000)
    return "\n" if match[0].strip() in ("\\par", "\\line", "\\cell", "\\row") else ""
