"""What lies deep, beyond a limit or in a form that is not read: it is found, or the file is told as not looked at."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import sqlite3
import struct
import tarfile
import time
import zipfile
import zlib
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from site_node.stray import tables
from site_node.stray.dictionary import Patient, Table, entries
from site_node.stray.digests import Keyer
from site_node.stray.finding import Kind, Risk
from site_node.stray.inspection import TOO_LONG, Inspector, Settings
from site_node.stray.pieces import DAMAGED, NOT_ALL_SEEN, PACKED, TOO_LARGE, Limits
from site_node.stray.tables import unused
from tests.site_node.second_look.files import cleaned, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from site_node.stray.inspection import Report

KEY = bytes(range(32))
KNOWN = Table.of((one.digest, one.person) for one in entries(Patient("77304412", ("Huber^Anna",)), Keyer(KEY)))
SAID = b"Patient: Huber, Anna, MRN 77304412"
MANY = 3 << 20
NOISE = random.Random(1).randbytes  # noqa: S311 -- bytes without any redundancy


def _report(raw: bytes, key: str = "file", pictures: str = "none", **settings: object) -> Report:
    limits = settings.pop("limits", Limits())
    assert isinstance(limits, Limits)
    return Inspector(Settings(KEY, KNOWN, pictures, limits, **settings)).inspect(memoryview(raw), key)  # type: ignore[arg-type]


def _found(report: Report) -> bool:
    return any(one.risk is Risk.HIGH for one in report.findings)


def _reasons(report: Report) -> set[str]:
    return {reason for _, reason in report.faults}


def _amid(middle: bytes, around: Callable[[int], bytes]) -> bytes:
    return around(MANY // 2) + middle + around(MANY // 2)


def _database(tmp_path: Path, undo: str) -> bytes:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA secure_delete=OFF")
        for table in ("kept", "gone"):
            db.execute(f"CREATE TABLE {table} (note TEXT)")
            db.executemany(f"INSERT INTO {table} VALUES (?)", [(f"visit {number}",) for number in range(50)])  # noqa: S608
        db.execute("INSERT INTO gone VALUES (?)", (SAID.decode(),))
        db.commit()
        db.execute(undo)
        db.commit()
    return path.read_bytes()


@pytest.mark.parametrize("undo", ["DROP TABLE gone", "DELETE FROM gone", "DELETE FROM gone WHERE note LIKE 'Pat%'"])
def test_what_was_deleted_from_a_database_is_found(tmp_path: Path, undo: str) -> None:
    raw = _database(tmp_path, undo)

    assert SAID in raw
    assert _found(_report(raw))


def test_cells_that_are_there_lie_in_no_unused_place(tmp_path: Path) -> None:
    raw = _database(tmp_path, "DELETE FROM kept WHERE note = 'visit 7'")

    assert all(SAID not in raw[start:stop] for start, stop in unused(memoryview(raw)))


def test_a_database_too_large_for_cells_is_read_as_bytes_and_told(tmp_path: Path) -> None:
    report = _report(_database(tmp_path, "DROP TABLE kept"), limits=Limits(one=1024))

    assert _found(report)
    assert any(reason.startswith(TOO_LARGE) for reason in _reasons(report))


def test_letters_are_found_wherever_they_lie_in_bytes() -> None:
    raw = b"\x01" + _amid(SAID, bytes)

    assert _found(_report(raw))
    assert not _report(raw).faults


def test_bytes_without_redundancy_are_told_and_small_or_plain_ones_are_not() -> None:
    report = _report(NOISE(1 << 18) + b"\0" + SAID + b"\0" + NOISE(1 << 18))

    assert _reasons(report) == {PACKED}
    assert _found(report)
    assert not _report(np.random.default_rng(1).normal(size=1 << 16).astype(np.float32).tobytes()).faults
    assert not _report(bytes(range(256)) * 64).faults


@pytest.mark.parametrize(
    "magic", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\1\0", b"\0\0\0\x20ftypisom", b"PAR1", b"\x28\xb5\x2f\xfd"]
)
def test_a_form_that_is_not_read_is_told(magic: bytes) -> None:
    assert _reasons(_report(magic + bytes(range(256)))) == {PACKED}


def test_a_text_that_goes_on_as_packed_bytes_is_told() -> None:
    assert _reasons(_report(b"#!/bin/sh\n# unpacks itself\n" * 999 + NOISE(1 << 16))) == {PACKED}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_document_in_dicom_is_looked_into(syntax: UID) -> None:
    ds = cleaned(EncapsulatedDocument=gzip.compress(SAID * 3))
    ds.file_meta.TransferSyntaxUID = syntax

    assert _found(_report(written(ds)))


def test_names_in_tensors_and_voxels_are_found() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("model/data.pkl", b"\x80\x02}.")
        made.writestr("model/data/0", bytes(100) + SAID + bytes(100))
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    array = io.BytesIO()
    np.save(array, np.frombuffer(bytes(4000) + SAID + bytes(40), np.uint8))

    assert _found(_report(archive.getvalue()))
    assert _found(_report(struct.pack("<Q", len(header)) + header + bytes(99) + SAID))
    assert _found(_report((348).to_bytes(4, "little") + bytes(1000) + SAID + bytes(9)))
    assert _found(_report(array.getvalue()))


def test_a_number_with_a_check_digit_says_nothing_among_the_bytes_of_numbers() -> None:
    voxels = (348).to_bytes(4, "little") + bytes(1000) + b"DE89370400440532013000" + bytes(9)

    assert not _report(voxels).findings
    assert _found(_report(b"\1\0" + b"DE89370400440532013000" + bytes(9)))


def test_long_values_of_dicom_are_read_whole() -> None:
    ds = cleaned(EncapsulatedDocument=b"")
    ds.add_new(0x00091010, "OB", _amid(SAID, bytes))

    assert _found(_report(written(ds)))


def test_bytes_nested_in_a_sequence_are_read_in_every_encoding() -> None:
    item = Dataset()
    item.add_new(0x00091010, "OB", bytes(99) + SAID + bytes(9))
    for syntax in (None, ImplicitVRLittleEndian):
        ds = cleaned(ProcedureCodeSequence=[item])
        if syntax:
            ds.file_meta.TransferSyntaxUID = syntax
        assert _found(_report(written(ds)))


def test_bytes_behind_pixels_are_read_however_many_come_before() -> None:
    assert _found(_report(written(cleaned()) + b"\xff" * (2 << 20) + SAID))


def test_what_is_left_out_as_asked_is_told_and_what_is_beyond_a_limit_too() -> None:
    ds = cleaned(Modality="US", Rows=8, Columns=8, NumberOfFrames=2, PixelData=bytes(128))

    assert _report(written(ds)).left_out == ("pixels",)
    assert not _report(written(ds)).faults
    assert NOT_ALL_SEEN in _reasons(_report(written(ds), pictures="all", limits=Limits(pictures=1)))


def _png(chunk: bytes) -> bytes:
    """Return a picture with a chunk of another's amid much noise. Source: PNG 5.3."""
    plain = io.BytesIO()
    Image.new("L", (8, 8)).save(plain, "png")
    raw = plain.getvalue()
    body = b"noTe" + chunk
    return raw[:33] + struct.pack(">I", len(chunk)) + body + struct.pack(">I", zlib.crc32(body)) + raw[33:]


def test_the_middle_of_a_large_picture_is_read() -> None:
    assert _found(_report(_png(_amid(b"\0" + SAID + b"\0", NOISE))))


def test_pictures_beyond_those_looked_at_are_told() -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 9)]
    out = io.BytesIO()
    frames[0].save(out, "tiff", save_all=True, append_images=frames[1:])

    assert _reasons(_report(out.getvalue(), pictures="all", limits=Limits(pictures=1))) == {NOT_ALL_SEEN}
    assert _report(out.getvalue()).left_out == ("pictures",)


PACKED_TEXT = gzip.compress(SAID * 3)


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("a.json", json.dumps({"data": base64.b64encode(PACKED_TEXT + bytes(40)).decode()}).encode()),
        ("a.eml", b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(SAID * 3) + b"\n--\n"),
        ("a.html", b"<html><img src='data:text/plain;base64," + base64.b64encode(SAID * 3) + b"'></html>"),
        ("b.html", b"<html><script>var a = '" + SAID + b"';</script></html>"),
        ("a.xml", b"<a><!-- " + SAID + b" --></a>"),
        ("b.xml", b"<a>one<b/>" + SAID + b"</a>"),
    ],
)
def test_what_hides_in_texts_is_found(key: str, raw: bytes) -> None:
    assert _found(_report(raw, key))


def test_a_note_on_a_page_is_found() -> None:
    raw = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Annots[4 0 R]>>endobj\n"
        b"4 0 obj<</Type/Annot/Subtype/Text/Rect[0 0 9 9]/Contents<"
        + SAID.hex().encode()
        + b">>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    )

    assert SAID not in raw
    assert _found(_report(raw))


def test_comments_and_links_of_archives_are_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("a", b"")
        made.getinfo("a").comment = SAID

    assert _found(_report(out.getvalue()))
    named = io.BytesIO()
    with gzip.GzipFile("Patient Huber, Anna 77304412", "wb", fileobj=named) as packed:
        packed.write(b"nothing")
    assert _found(_report(named.getvalue()))


# A callback of the garbage collector may be what hears it first, and swallows it: it is told again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_takes_too_long_is_told_with_what_was_found_by_then() -> None:
    report = _report(SAID + b"\n" + b"".join(b"visit %d of A\n" % number for number in range(500_000)), most_s=1)

    assert _reasons(report) == {TOO_LONG}
    assert _found(report)


def test_more_distinct_findings_than_are_held_are_counted() -> None:
    rows = b"mrn,x\n" + b"".join(b"A-%07d,\n" % number for number in range(300))

    report = _report(rows, "a.csv")

    assert (len(report.findings), report.more) == (256, 44)


def _archive(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, raw in members:
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            made.addfile(member, io.BytesIO(raw))
    return out.getvalue()


def _picture(form: str) -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, form)
    return out.getvalue()


def _zipped(raw: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", raw)
    return out.getvalue()


def test_a_tar_file_behind_the_end_of_another_is_read() -> None:
    raw = _archive(("a", b"nothing")) + _archive(("b", PACKED_TEXT))

    assert _found(_report(raw))
    assert not _report(raw).faults


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_tar_file_that_is_damaged_in_its_middle_is_told(pack: Callable[[bytes], bytes]) -> None:
    raw = bytearray(_archive(("a", b"nothing"), ("b", PACKED_TEXT), ("c", PACKED_TEXT)))
    raw[1024:1044] = b"\xff" * 20

    report = _report(pack(bytes(raw)))

    assert _reasons(report) == {DAMAGED}
    assert _found(report)  # in the member behind the damage
    assert _reasons(_report(pack(bytes(raw[:1100])))) == {DAMAGED}


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_bytes_behind_a_compressed_stream_are_told(pack: Callable[[bytes], bytes]) -> None:
    assert not any(_report(pack(bytes(count))).faults for count in range(1, 40))
    assert not _report(pack(b"one") + pack(b"two")).faults
    assert _reasons(_report(pack(b"nothing") + PACKED_TEXT)) == {DAMAGED}


@pytest.mark.parametrize(
    "before",
    [
        *map(_picture, ("jpeg", "png", "gif", "tiff", "bmp")),
        b"MZ" + bytes(500),
        b"a line of text\n" * 9,
        b"%PDF-1.4\n%%EOF\n",
    ],
    ids=["jpeg", "png", "gif", "tiff", "bmp", "program", "text", "pdf"],
)
def test_an_archive_behind_something_else_is_looked_into(before: bytes) -> None:
    assert _found(_report(before + _zipped(SAID * 3)))
    assert _found(_report(before + PACKED_TEXT))


def test_a_video_behind_a_photograph_is_told() -> None:
    assert _reasons(_report(_picture("jpeg") + b"\0\0\0\x20ftypisom" + bytes(99))) == {PACKED}


def test_an_archive_in_private_bytes_of_dicom_and_behind_its_pixels_is_looked_into() -> None:
    ds = cleaned()
    ds.add_new(0x00091010, "OB", b"\0\0\0\x09" + PACKED_TEXT + bytes(len(PACKED_TEXT) % 2))

    assert _found(_report(written(ds)))
    assert _found(_report(written(cleaned()) + PACKED_TEXT))


@pytest.mark.parametrize("key", ["a", "a.csv"])
@pytest.mark.parametrize("begin", [b"BMI;last_name", b"made %PDF-;last_name"])
def test_a_text_that_begins_as_a_picture_or_names_another_form_is_read_as_text(key: str, begin: bytes) -> None:
    report = _report(begin + b"\n22;" + SAID + b"\n", key)

    assert not report.faults
    assert _found(report)


@pytest.mark.parametrize("coded", ["utf-32", "utf-16", "utf-16-be"])
def test_texts_in_wide_encodings_are_read(coded: str) -> None:
    assert _found(_report((SAID.decode() + "\n").encode(coded) * 9))


@pytest.mark.parametrize(
    "raw",
    [b"a line\n" * 9999 + "x Großmüller Zoë y".encode("latin-1"), b"\xff\n" + "x Großmüller Zoë y".encode()],
    ids=["latin", "utf-8"],
)
def test_a_text_that_changes_its_encoding_on_the_way_is_read(raw: bytes) -> None:
    known = Table.of((one.digest, one.person) for one in entries(Patient("", ("Großmüller^Zoë",)), Keyer(KEY)))

    assert Inspector(Settings(KEY, known, "none")).inspect(memoryview(raw), "a").persons == 1


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("a", '[{"last_name": "Brandywine"}]'),
        ("a.json", '{"last_name": "Brandywine", "last_name": "x"}'),
        ("a.log", '10:00 INFO got {"last_name": "Brandywine"}'),
        ("a.log", "10:00 INFO got {'PatientName': 'Brandywine', 'x': 1}"),
        ("a.log", "(0010,0010) Patient's Name                      PN: 'Brandywine'"),
        ("a.log", "I: (0010,0010) PN [Brandywine]     #  10, 1 PatientName"),
        ("a.hl7", "MSH|^~\\&|A|B\rPID|1||8812345^^^H^MR||Brandywine||19610417|F\r"),
        ("a.csv", 'last_name,note\nx,"5 tall\n' + "Brandywine,ok\n" * 9999),
        ("a.csv", 'last_name,note\nx,"5 tall\n' + "Brandywine,ok\n" * 9),
        ("a.xml", "<a><PatientName>Brandywine</PatientName><b></a>"),
        ("a.xml", "<r><last_name>Brandywine</last_name></r>\n<r/>"),
        ("a.html", "<table><tr><th>no<th>last name<tr><td>Q<td>Brandywine</table>"),
        (
            "a.html",
            "<table><tr><th>last name</th></tr><tr><td><p>Q</p></td></tr><tr><td><p>Brandywine</p></td></tr></table>",
        ),
    ],
)
def test_a_label_announces_a_stranger_in_every_writing_of_values(key: str, said: str) -> None:
    found = {one.digest for one in _report(said.encode(), key).findings if one.kind is Kind.NAME}

    assert Keyer(KEY).token("name", "brandywine") in found


def test_json_is_read_line_by_line_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_JSON", 99)
    line = f'{{"last_name": "Brandywine", "a": "{"x" * 99}"}}\n'

    report = _report(line.encode() * 3, "a.ndjson")
    torn = _report(line.replace(",", ",\n").encode(), "a.json")

    assert _found(report)
    assert not report.faults
    assert any(reason.startswith(TOO_LARGE) for reason in _reasons(torn))


def test_a_birth_date_that_a_workbook_holds_as_a_number_is_found() -> None:
    cells = "".join(f"<x:row><x:c><x:v>{said}</x:v></x:c></x:row>" for said in ("dob", 22388))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("[Content_Types].xml", "<a/>")
        made.writestr("xl/workbook.xml", "<a/>")
        made.writestr("xl/worksheets/s.xml", f'<x:w xmlns:x="urn:x">{cells}</x:w>')

    found = {one.digest for one in _report(out.getvalue()).findings}

    assert Keyer(KEY).token("birth-date", "1961-04-17") in found


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("brändywine_xannü", "Patient: Brändywine, Xannü"),
        ("kim_li", "Patient: Kim, Li"),
        ("IM8812345", "mrn: 8812345"),
        ("xbrandywine1", "Patient: Brandywine, A"),
    ],
)
def test_a_path_shows_nothing_that_the_file_says_of_a_person(key: str, said: str) -> None:
    assert set(_report(said.encode(), f"{key}.txt").shown.removesuffix(".txt")) <= set("▒_")


def test_a_path_shows_no_letter_that_a_terminal_obeys() -> None:
    assert _report(b"", "a\x1b[2J\n\udcffb").shown == "a?[2J??b"


def test_a_long_value_takes_no_longer_than_its_letters() -> None:
    raw = json.dumps({"t": "Seen by Dr. Huber on 1.2.1970, MRN 1234567. " * 5000}).encode()

    began = time.process_time()
    report = _report(raw, "a.json")

    assert report.findings
    assert time.process_time() - began < 5
