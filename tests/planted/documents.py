"""A PDF and a CDA document that say a name, written by hand."""

from __future__ import annotations

import zlib


def pdf(lines: list[str], author: str) -> bytes:
    """Return a PDF of one page: its text in a compressed stream, an information dictionary and XMP."""
    shown = b"BT /F1 12 Tf 50 750 Td 16 TL " + b" ".join(f"({line}) Tj T*".encode() for line in lines) + b" ET"
    stream = zlib.compress(shown)
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><dc:creator>{author}</dc:creator></x:xmpmeta>".encode()
    bodies = [
        b"<</Type/Catalog/Pages 2 0 R/Metadata 7 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n" % len(stream) + stream + b"\nendstream",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        f"<</Author({author})/Title(Report)>>".encode(),
        b"<</Type/Metadata/Subtype/XML/Length %d>>stream\n" % len(xmp) + xmp + b"\nendstream",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += b"%d 0 obj" % number + body + b"endobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"trailer<</Size %d/Root 1 0 R/Info 6 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, start)


def cda(family: str, given: str, number: str, sentence: str, harmless: str) -> bytes:
    """Return a CDA document in UTF-8."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ClinicalDocument xmlns="urn:hl7-org:v3">'
        f"<!-- {family} --><title>Report</title><recordTarget><patientRole><id extension='{number}' root='1.2.3'/>"
        f"<patient><name><given>{given}</given><family>{family}</family></name></patient></patientRole></recordTarget>"
        f"<component><structuredBody><component><section><text>{harmless}. {sentence}</text></section></component>"
        "</structuredBody></component></ClinicalDocument>"
    ).encode()
