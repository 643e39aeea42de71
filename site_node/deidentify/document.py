"""Encapsulated documents: rebuilt from what may be kept, or held for a person.

A PDF becomes pages of pixels: each is rendered, its text blanked by the function given, and all are
bound into a new file that has nothing but them. CDA is `cda`'s, surface models `mesh`'s.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pypdfium2 as pdfium
from pydicom import uid

from site_node.deidentify import cda, mesh
from site_node.deidentify.picture import Box
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    View = NDArray[np.uint8]

UNKNOWN = "document-type-not-cleaned"
DAMAGED = "document-cannot-be-read"
TOO_LONG = "document-too-long"
EMBEDDED = "document-embeds-another"
SURFACE = "face-in-surface-model"

_DPI = 150  # a text of 6 points is 12 pixels high: what recognition reads and a person too
_MOST_PAGES, _MOST_BYTES = 300, 256 * 2**20
_LARGEST_PAGE = 40_000_000  # pixels
_MOST_SECONDS = 300.0
_POINTS = 72.0
_MARGIN = 3  # pixels: the library's boxes are those of outlines; what is drawn is softened beyond them


class Word(NamedTuple):
    """A run of text that the page itself declares; half-open, in pixels of the view."""

    box: Box
    text: str


@dataclass(frozen=True, slots=True)
class Tools:
    """What documents are cleaned with; `now` is a monotonic clock in seconds."""

    blank_page: Callable[[View, tuple[Word, ...]], View]
    text: cda.Tools
    now: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The new document."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """A person has to look at the document first; `reason` is safe to show."""

    reason: str


def rebuild(sop_class: str, data: bytes, tools: Tools, *, may_show_head: bool) -> Rebuilt | Held:
    """Return an encapsulated document without persons, or why it cannot be had.

    `may_show_head`: whether the instance's body part is a head, or unnamed (`faces`).

    Source: PS3.3 A.45 (encapsulated PDF and CDA), A.85 (STL, OBJ, MTL).
    """
    if sop_class in _SURFACES and may_show_head:
        return Held(SURFACE)
    try:
        if sop_class == uid.EncapsulatedPDFStorage:
            return pdf(data, tools)
        if sop_class == uid.EncapsulatedCDAStorage:
            document = cda.rebuild(data, tools.text)
            return Held(EMBEDDED) if document is None else Rebuilt(document)
        model = _MODELS.get(sop_class)
        return Held(UNKNOWN) if model is None else Rebuilt(model(data))
    except UnreadableInstance:
        return Held(DAMAGED)


_SURFACES = frozenset({uid.EncapsulatedSTLStorage, uid.EncapsulatedOBJStorage})
_MODELS: dict[str, Callable[[bytes], bytes]] = {
    uid.EncapsulatedSTLStorage: mesh.stl,
    uid.EncapsulatedOBJStorage: mesh.obj,
    uid.EncapsulatedMTLStorage: mesh.mtl,
}


def pdf(data: bytes, tools: Tools) -> Rebuilt | Held:
    """Return a PDF of pages as pixels, each passed through `blank_page`.

    Attachments, forms, scripts, layers, metadata and the text layer are not carried over.
    """
    if len(data) > _MOST_BYTES:
        return Held(TOO_LONG)
    started = tools.now()
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError:  # damaged, or locked with a password
        return Held(DAMAGED)
    pages: list[tuple[bytes, tuple[int, ...], tuple[float, float]]] = []
    try:
        if not 0 < len(document) <= _MOST_PAGES:
            return Held(TOO_LONG if len(document) else DAMAGED)
        for page in document:
            width, height = page.get_size()
            if width * height * (_DPI / _POINTS) ** 2 > _LARGEST_PAGE or tools.now() - started > _MOST_SECONDS:
                return Held(TOO_LONG)
            view = page.render(scale=_DPI / _POINTS, rev_byteorder=True, prefer_bgrx=True).to_numpy()
            view = np.ascontiguousarray(view[..., :3])
            blanked = tools.blank_page(view, tuple(_words(page, view.shape)))
            grey = bool((blanked == blanked[..., :1]).all())
            kept = blanked[..., 0] if grey else blanked
            pages.append((zlib.compress(np.ascontiguousarray(kept).tobytes(), 6), kept.shape, (width, height)))
    except pdfium.PdfiumError:
        return Held(DAMAGED)
    finally:
        document.close()
    return Rebuilt(_bind(pages))


def _words(page: pdfium.PdfPage, shape: tuple[int, ...]) -> Iterator[Word]:
    """Yield the runs of text of a page, where the view shows them."""
    textpage = page.get_textpage()
    x0, y0, x1, y1 = page.get_cropbox()
    turn, scale = page.get_rotation(), _DPI / _POINTS
    try:
        for i in range(textpage.count_rects()):
            left, bottom, right, top = textpage.get_rect(i)
            corners = [(x, y) for x in (left, right) for y in (bottom, top)]
            # PDF counts from the lower left; /Rotate turns clockwise what is shown.
            placed = [
                {0: (x - x0, y1 - y), 90: (y - y0, x - x0), 180: (x1 - x, y - y0), 270: (y1 - y, x1 - x)}[turn]
                for x, y in corners
            ]
            across, down = ([p[k] * scale for p in placed] for k in (0, 1))
            box = Box(
                max(0, int(min(down)) - _MARGIN),
                max(0, int(min(across)) - _MARGIN),
                min(shape[0], int(max(down)) + 1 + _MARGIN),
                min(shape[1], int(max(across)) + 1 + _MARGIN),
            )
            yield Word(box, textpage.get_text_bounded(left, bottom, right, top))
    finally:
        textpage.close()


def _bind(pages: list[tuple[bytes, tuple[int, ...], tuple[float, float]]]) -> bytes:
    """Return a PDF 1.4 of one image a page, the same bytes for the same pages.

    Source: ISO 32000-1 7.5 (file structure), 8.9.5 (image dictionaries).
    """
    out = io.BytesIO()
    places: list[int] = []

    def put(head: str, stream: bytes | None = None) -> None:
        places.append(out.tell())
        out.write(f"{len(places)} 0 obj\n{head}\n".encode())
        if stream is not None:
            out.write(b"stream\n" + stream + b"\nendstream\n")
        out.write(b"endobj\n")

    out.write(b"%PDF-1.4\n")
    put("<< /Type /Catalog /Pages 2 0 R >>")
    kids = " ".join(f"{3 + 3 * i} 0 R" for i in range(len(pages)))
    put(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    for i, (stream, shape, (width, height)) in enumerate(pages):
        drawing = f"{width:.2f} 0 0 {height:.2f} 0 0 cm /P Do".encode()
        put(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:.2f} {height:.2f}] /Contents {4 + 3 * i} 0 R"
            f" /Resources << /XObject << /P {5 + 3 * i} 0 R >> >> >>"
        )
        put(f"<< /Length {len(drawing)} >>", drawing)
        space = "/DeviceGray" if len(shape) == 2 else "/DeviceRGB"  # noqa: PLR2004 -- no colour axis
        put(
            f"<< /Type /XObject /Subtype /Image /Width {shape[1]} /Height {shape[0]} /ColorSpace {space}"
            f" /BitsPerComponent 8 /Filter /FlateDecode /Length {len(stream)} >>",
            stream,
        )
    table = out.tell()
    out.write(f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n".encode())
    out.write(b"".join(f"{place:010} 00000 n \n".encode() for place in places))
    out.write(f"trailer\n<< /Size {len(places) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode())
    return out.getvalue()
