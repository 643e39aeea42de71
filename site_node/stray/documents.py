"""Documents: PDF with its metadata and attachments, and workbooks of which each cell stands under its column's name."""

from __future__ import annotations

import ctypes
import re
import zipfile
from datetime import date, timedelta
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ParseError, fromstring

import numpy as np
import pypdfium2 as pdfium
from pypdfium2 import raw as pdfium_c

from site_node.second_look.pixels import Window
from site_node.stray.finding import Kind, Sort
from site_node.stray.labels import announces
from site_node.stray.markup import xml
from site_node.stray.pieces import DAMAGED, ENCRYPTED, NOT_ALL_SEEN, TOO_LARGE, Fault, LeftOut, Piece, View
from site_node.stray.tables import table
from site_node.stray.texts import among_numbers, packed, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

from site_node.stray.pieces import Here, Part

_MAX_PAGES, _MAX_SEEN = 2000, 20
_SAID_OF_NOTES = (b"T", b"V", b"DV", b"Contents")  # author, value, default, text. Source: ISO 32000-1 12.5.2, 12.7.3
_FEW_LETTERS = 20  # a page with fewer is a picture of a page
_SCALE = 150 / 72
_MAX_SIDE = 3000
_XMP = re.compile(rb"<x:xmpmeta.{0,1000000}?</x:xmpmeta>", re.DOTALL)
_END = re.compile(rb"%%EOF")
_PASSWORD = 4  # FPDF_ERR_PASSWORD
_CELL = re.compile(r"([A-Z]{1,3})\d+")
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_DAY_0 = date(1899, 12, 30)
_MAX_XML = 64 * 1024**2


def pdf(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield what a PDF says on its pages, in notes and fields, and of itself; pages with pictures are looked at."""
    try:
        opened = pdfium.PdfDocument(bytes(content))
    except pdfium.PdfiumError as error:
        locked = getattr(error, "err_code", None) == _PASSWORD or "password" in str(error).lower()
        yield Fault(here.trail, ENCRYPTED if locked else DAMAGED)
        yield from unknown(content, here)
        return
    with opened:
        about = opened.get_metadata_dict().items()
        yield from (Piece(here.at(f"field {name}"), value, name) for name, value in about if value)
        if len(opened) > _MAX_PAGES:
            yield Fault(here.trail, TOO_LARGE)
        opened.init_forms()  # what is filled in is drawn, too
        yield from (Piece(here.at("outline"), entry.get_title()) for entry in opened.get_toc())
        seen = 0
        for number in range(min(len(opened), _MAX_PAGES)):
            at = here.at(f"page {number + 1}")
            try:
                page = opened[number]
                said = page.get_textpage().get_text_range()
                yield from (Piece(at, line.strip()) for line in re.split(r"[\r\n]+", said) if line.strip())
                yield Piece(at, " ".join(said.split()), sort=Sort.TOGETHER)
                yield from (Piece((*at, "note"), note) for note in _notes(page))
                if len(said.strip()) < _FEW_LETTERS or _has_picture(page):
                    seen += 1
                    yield from _drawn(page, at, here, seen)
            except pdfium.PdfiumError:
                yield Fault(at, DAMAGED)
        for index in range(opened.count_attachments()):
            attached = opened.get_attachment(index)
            yield from here.within(attached.get_name() or f"attachment {index + 1}", bytes(attached.get_data()))
    for match in _XMP.finditer(bytes(content)):
        yield from xml(memoryview(match[0]), here)
    # Comments and earlier revisions, and what stands behind the end.
    yield from among_numbers(content, here)
    end = max((match.start() for match in _END.finditer(content)), default=len(content))
    yield from packed(content[end:], here)


def _drawn(page: pdfium.PdfPage, at: tuple[str, ...], here: Here, seen: int) -> Iterator[Part]:
    if not here.looks:
        yield LeftOut("pages of PDF that are pictures")
    elif seen > _MAX_SEEN:
        yield Fault(at, NOT_ALL_SEEN)
    else:
        scale = min(_SCALE, _MAX_SIDE / max(*page.get_size(), 1))
        yield View(at, np.asarray(page.render(scale=scale, grayscale=True).to_pil()))


def _has_picture(page: pdfium.PdfPage) -> bool:
    return next(page.get_objects((pdfium_c.FPDF_PAGEOBJ_IMAGE,)), None) is not None


def _notes(page: pdfium.PdfPage) -> Iterator[str]:
    """Yield what is said in annotations and filled into fields, which is no text of the page."""
    for index in range(pdfium_c.FPDFPage_GetAnnotCount(page)):
        note = pdfium_c.FPDFPage_GetAnnot(page, index)
        try:
            for key in _SAID_OF_NOTES:
                size = pdfium_c.FPDFAnnot_GetStringValue(note, key, None, 0)
                if size > len("\0".encode("utf-16-le")):
                    said = ctypes.create_string_buffer(size)
                    pdfium_c.FPDFAnnot_GetStringValue(
                        note, key, ctypes.cast(said, ctypes.POINTER(pdfium_c.FPDF_WCHAR)), size
                    )
                    yield said.raw.decode("utf-16-le", "replace").rstrip("\0")
        finally:
            pdfium_c.FPDFPage_CloseAnnot(note)


def is_workbook(names: list[str]) -> bool:
    """Return whether the members of a zip are those of a workbook. Source: ECMA-376 part 1, 12.3."""
    return "[Content_Types].xml" in names and "xl/workbook.xml" in names


def workbook(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield the cells of every sheet."""
    try:
        with zipfile.ZipFile(Window(content)) as opened:
            shared = _shared(opened, here)
            for name in opened.namelist():
                if _SHEET.fullmatch(name):
                    inside = here.at(name.rpartition("/")[2].removesuffix(".xml"))
                    root = _parsed(opened, name, here)
                    for piece in table(_rows(root, shared), here):
                        said = _day(piece.text) if announces(piece.label) is Kind.BIRTH_DATE else piece.text
                        yield piece._replace(text=said, trail=(*inside, *piece.trail[len(here.trail) :]))
    except (
        zipfile.BadZipFile,
        ParseError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        RuntimeError,
        NotImplementedError,
    ):
        yield Fault(here.trail, DAMAGED)


def _parsed(opened: zipfile.ZipFile, name: str, here: Here) -> Element:
    with opened.open(name) as member:
        limit = min(_MAX_XML, here.budget.most(opened.getinfo(name).compress_size))
        raw = member.read(limit + 1)
    if len(raw) > limit or b"<!ENTITY" in raw:
        raise ValueError(TOO_LARGE)
    here.budget.spend(len(raw))
    return fromstring(raw)  # noqa: S314 -- it declares no entities


def _shared(opened: zipfile.ZipFile, here: Here) -> list[str]:
    if "xl/sharedStrings.xml" not in opened.namelist():
        return []
    return ["".join(item.itertext()) for item in _parsed(opened, "xl/sharedStrings.xml", here)]


def _rows(root: Element, shared: list[str]) -> Iterator[list[str]]:
    for row in root.iter():
        if row.tag.endswith("}row"):
            cells: dict[int, str] = {}
            for cell in row:
                place = _CELL.match(cell.get("r", ""))
                number = _column(place[1]) if place else len(cells)
                said = "".join(part.text or "" for part in cell.iter() if part.tag.endswith(("}v", "}t")))
                cells[number] = shared[int(said)] if cell.get("t") == "s" and said else said
            yield [cells.get(number, "") for number in range(max(cells, default=-1) + 1)]


def _day(said: str) -> str:
    """Return the day that a number of a workbook stands for. Source: ECMA-376 part 1, 18.17.4.1 (1900 date system)."""
    return str(_DAY_0 + timedelta(int(said))) if re.fullmatch(r"[1-9]\d{3,4}", said) else said


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return min(number, 16384) - 1
