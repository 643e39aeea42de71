"""Documents are rebuilt from what may be kept."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import pypdfium2 as pdfium
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid

from site_node.deidentify import cda, document, mesh
from site_node.deidentify.document import Held, Rebuilt, Word
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable

View = npt.NDArray[np.uint8]
SECRETS = ("Zebedee", "Quorn", "4711-99", "19510203", "Elm Street", "+44", "St Swithin", "9.8.7.6.5", "portrait")


def clean(text: str) -> str:
    """Blank every word that is a secret."""
    return " ".join(word for word in text.split() if not any(s.split()[0] in word for s in SECRETS))


TEXT = cda.Tools(clean, lambda stamp: "1999" + stamp[4:], lambda _: "2.25.1")


def tools(blank_page: Callable[[View, tuple[Word, ...]], View] = lambda view, _: view) -> document.Tools:
    return document.Tools(blank_page, TEXT, lambda: 0.0)


def a_pdf(text: str = "Zebedee Quorn", turn: int = 0) -> bytes:
    """Return a PDF with one line of text, in the smallest form readers accept."""
    drawing = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Rotate %d /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>" % turn,
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Title (Zebedee Quorn) /Author (St Swithin) >>",
    ]
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for i, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (i, body))
    table = out.tell()
    out.write(b"xref\n0 7\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % p for p in places))
    out.write(b"trailer\n<< /Size 7 /Root 1 0 R /Info 6 0 R >>\nstartxref\n%d\n%%%%EOF\n" % table)
    return out.getvalue()


def page_of(data: bytes) -> View:
    pdf = pdfium.PdfDocument(data)
    view: View = pdf[0].render(scale=150 / 72).to_numpy()[..., :3].copy()
    pdf.close()
    return view


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_page_tells_where_its_words_are(turn: int) -> None:
    seen: list[tuple[View, tuple[Word, ...]]] = []

    def look(view: View, words: tuple[Word, ...]) -> View:
        seen.append((view, words))
        blanked = view.copy()
        for word in words:
            blanked[word.box.top : word.box.bottom, word.box.left : word.box.right] = 255
        return blanked

    result = document.pdf(a_pdf(turn=turn), tools(look))

    assert isinstance(result, Rebuilt)
    ((view, words),) = seen
    assert "".join(word.text for word in words) == "Zebedee Quorn"
    assert (view < 128).any()
    assert (page_of(result.data) > 250).all()


def test_a_rebuilt_pdf_has_pictures_alone() -> None:
    result = document.pdf(a_pdf(), tools())

    assert isinstance(result, Rebuilt)
    assert b"Zebedee" not in result.data
    assert b"Swithin" not in result.data
    pdf = pdfium.PdfDocument(result.data)
    assert pdf[0].get_textpage().count_chars() == 0
    assert pdf.get_metadata_dict(skip_empty=True) == {}
    assert pdf[0].get_size() == (595, 842)
    pdf.close()


def test_a_rebuilt_pdf_is_the_same_each_time() -> None:
    assert document.pdf(a_pdf(), tools()) == document.pdf(a_pdf(), tools())


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4 nonsense", a_pdf()[:60]])
def test_a_damaged_pdf_is_held(data: bytes) -> None:
    assert document.pdf(data, tools()) == Held(document.DAMAGED)


def test_a_pdf_that_takes_too_long_is_held() -> None:
    times = iter((0.0, 1e9))

    assert document.pdf(a_pdf(), document.Tools(lambda v, _: v, TEXT, lambda: next(times))) == Held(document.TOO_LONG)


CDA = """<?xml version="1.0"?><?xml-stylesheet href="Zebedee.xsl"?><!-- Zebedee -->
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:x="urn:other">
<typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/><templateId root="2.16.840.1.113883.10.20.6"/>
<id root="9.8.7.6.5" extension="4711-99"/>
<code code="18748-4" codeSystem="2.16.840.1.113883.6.1" displayName="Diagnostic imaging report"/>
<title>CT of Zebedee Quorn</title><effectiveTime value="19510203"/>
<confidentialityCode code="N" codeSystem="2.16.840.1.113883.5.25"/><languageCode code="en-GB"/>
<recordTarget><patientRole><id root="9.8.7.6.5" extension="4711-99"/><addr>Elm Street</addr><telecom value="tel:+44"/>
<patient><name>Zebedee Quorn</name><birthTime value="19510203"/></patient></patientRole></recordTarget>
<author><time value="19510203"/><assignedAuthor><id root="9.8.7.6.5"/></assignedAuthor></author>
<custodian><assignedCustodian><representedCustodianOrganization><name>St Swithin</name>
</representedCustodianOrganization></assignedCustodian></custodian>
<x:note>Zebedee</x:note>
<component><structuredBody><component><section>
<code code="local-4711-99" codeSystem="9.8.7.6.5" displayName="Findings"/>
<title>Findings</title><text>No nodule. <content ID="Quorn1">Seen by Zebedee</content>
<linkHtml href="http://Quorn">x</linkHtml></text>

<entry><observation classCode="OBS" moodCode="EVN"><code code="246120007" codeSystem="2.16.840.1.113883.6.96"/>
<text><reference value="#Quorn1"/></text><effectiveTime><low value="195102031200+0100"/></effectiveTime>
<value xsi:type="PQ" value="13.5" unit="mm"/>
<performer><assignedEntity><id root="9.8.7.6.5"/></assignedEntity></performer>
</observation></entry></section></component></structuredBody></component></ClinicalDocument>"""


def test_a_rebuilt_cda_keeps_findings_and_no_person() -> None:
    result = document.rebuild(uid.EncapsulatedCDAStorage, CDA.encode() + b"\0", tools(), may_show_head=True)

    assert isinstance(result, Rebuilt)
    text = result.data.decode()
    assert [s for s in SECRETS if s in text] == []
    for kept in (
        "18748-4",
        "246120007",
        'value="13.5"',
        'unit="mm"',
        "No nodule.",
        "Findings",
        "199902031200+0100",
        "en-GB",
    ):
        assert kept in text
    root = ET.fromstring(text)  # noqa: S314 -- our own output
    for required in ("recordTarget", "author", "custodian"):
        assert len(root.findall(f"{{{cda.V3}}}{required}")) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "c">]><ClinicalDocument xmlns="urn:hl7-org:v3">&b;</ClinicalDocument>',
        "<ClinicalDocument>",
        "<other/>",
        "<a>" * 200 + "</a>" * 200,
        "",
    ],
)
def test_a_cda_that_is_none_is_held(text: str) -> None:
    assert document.rebuild(uid.EncapsulatedCDAStorage, text.encode(), tools(), may_show_head=False) == Held(
        document.DAMAGED
    )


def test_a_cda_that_embeds_a_file_is_held() -> None:
    text = '<ClinicalDocument xmlns="urn:hl7-org:v3"><component><nonXMLBody/></component></ClinicalDocument>'

    found = document.rebuild(uid.EncapsulatedCDAStorage, text.encode(), tools(), may_show_head=False)

    assert found == Held(document.EMBEDDED)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40))
def test_whatever_stands_in_an_unknown_attribute_of_a_cda_goes(text: str) -> None:
    root = ET.Element(f"{{{cda.V3}}}ClinicalDocument")
    ET.SubElement(root, f"{{{cda.V3}}}title", {"secret": f"portrait{text}", "href": f"portrait{text}"}).text = "CT"

    assert b"portrait" not in (cda.rebuild(ET.tostring(root), TEXT) or b"portrait")


def a_binary_stl() -> bytes:
    facet = struct.pack("<12fH", *range(12), 0x5151)
    return b"Zebedee Quorn".ljust(80) + struct.pack("<I", 2) + 2 * facet + b"Quorn"


def test_a_binary_stl_keeps_its_facets_alone() -> None:
    found = mesh.stl(a_binary_stl())

    assert found[:80] == bytes(80)
    assert len(found) == 84 + 100
    assert found[84:132] == a_binary_stl()[84:132]
    assert found[132:134] == b"\0\0"


def test_an_ascii_stl_loses_its_name() -> None:
    text = b"solid Zebedee\nfacet normal 0 0 1\nouter loop\nvertex 0 0 1e-3\nendloop\nendfacet\nendsolid Zebedee\n"

    assert mesh.stl(text) == text.replace(b" Zebedee", b"")


def test_an_obj_and_its_materials_lose_names_and_comments() -> None:
    assert (
        mesh.obj(b"# Quorn\no Zebedee\nmtllib Quorn.mtl\nv 1 2 3 # Quorn\nf 1/1 2//2 3\n") == b"v 1 2 3\nf 1/1 2//2 3\n"
    )
    assert mesh.mtl(b"newmtl Quorn\nKd 1 0 0\nmap_Kd portrait.png\n") == b"newmtl 1\nKd 1 0 0\n"


@pytest.mark.parametrize("data", [b"solid x\nvertex Zebedee 1 2", b"nothing", b"", b"\0" * 90 + b"x"])
def test_a_model_with_words_for_numbers_is_refused(data: bytes) -> None:
    if data.startswith(b"\0"):
        assert mesh.stl(data) == bytes(84)
    else:
        with pytest.raises(UnreadableInstance):
            mesh.stl(data)


def test_a_surface_that_may_be_a_face_is_held() -> None:
    assert document.rebuild(uid.EncapsulatedSTLStorage, a_binary_stl(), tools(), may_show_head=True) == Held(
        document.SURFACE
    )


def test_a_document_of_another_kind_is_held() -> None:
    assert document.rebuild(uid.RawDataStorage, b"", tools(), may_show_head=False) == Held(document.UNKNOWN)


def test_a_page_keeps_what_was_not_blanked() -> None:
    result = document.pdf(a_pdf("Lung"), tools())

    assert isinstance(result, Rebuilt)
    difference = np.abs(page_of(result.data).astype(int) - page_of(a_pdf("Lung")).astype(int))
    assert Image.fromarray(difference.astype(np.uint8)).getbbox() is None or difference.mean() < 1
