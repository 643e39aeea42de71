"""DICOM files are read strictly, without copying pixels, and written as they were."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import pack

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID

from site_node.deidentify import stream
from site_node.deidentify.stream import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, PIXEL_DATA, Part10
from site_node.errors import UnreadableInstance
from tests.site_node.dicom_files import file_bytes, masks, mr_series, mr_slice, segmentation

FILES = sorted(Path(pydicom.__file__).parent.joinpath("data", "test_files").rglob("*.dcm"))
# Written by software that errs, or by ours otherwise: the same elements, but not the same bytes.
NORMALISED = {
    "J2K_pixelrep_mismatch.dcm",
    "SC_rgb_jpeg.dcm",
    "UN_sequence.dcm",
    "bad_sequence.dcm",
    "explicit_VR-UN.dcm",
    "image_dfl.dcm",
    "nested_priv_SQ.dcm",
    "no_meta_group_length.dcm",
    "rtdose_rle.dcm",
    "rtdose_rle_1frame.dcm",
}
UNREADABLE = {
    "ExplVR_BigEndNoMeta.dcm": "not-dicom",
    "ExplVR_LitEndNoMeta.dcm": "not-dicom",
    "MR_truncated.dcm": "truncated at (7FE0,0010)",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "truncated at (7FE0,0010)",
    "meta_missing_tsyntax.dcm": "TransferSyntaxUID: absent",
    "no_meta.dcm": "not-dicom",
    "rtplan_truncated.dcm": "truncated at (300A,00B0)",
    "rtstruct.dcm": "not-dicom",
}


def written(part10: Part10) -> bytes:
    return b"".join(stream.write(part10))


def file_of(body: bytes, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """Return a file whose data set is `body`."""
    uid = syntax.encode() + bytes(len(syntax) % 2)
    element = pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    return bytes(128) + b"DICM" + pack("<HH2sHL", 2, 0, b"UL", 4, len(element)) + element + body


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def nested(depth: int) -> bytes:
    body = element(0x00080104, b"LO", b"deep")
    for _ in range(depth):
        item = pack("<HHL", 0xFFFE, 0xE000, len(body)) + body
        body = pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, len(item)) + item
    return body


def test_empty_items_are_many_without_a_dictionary_each() -> None:
    empty = pack("<HHL", 0xFFFE, 0xE000, 0)
    body = pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 8 * 50_000) + empty * 50_000

    part10 = stream.read(file_of(body))

    items = part10.elements[0x00081140].value
    assert len(items) == 50_000
    assert all(item is items[0] for item in items)
    assert written(part10) == file_of(body)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_comes_out_as_it_went_in(path: Path) -> None:
    source = path.read_bytes()
    if path.name in UNREADABLE or source[128:132] != b"DICM":
        with pytest.raises(UnreadableInstance) as refusal:
            stream.read(source)
        assert str(refusal.value) == UNREADABLE.get(path.name, "not-dicom")
        return

    part10 = stream.read(source)
    out = written(part10)

    assert (out == source) is (path.name not in NORMALISED)
    assert written(stream.read(out)) == out
    assert stream.read(out).elements.keys() == part10.elements.keys()


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_another_reader_finds_the_same_values(syntax: str) -> None:
    source = segmentation(mr_series(), masks())
    buffer = BytesIO()
    source.file_meta.TransferSyntaxUID = UID(syntax)
    little = syntax != EXPLICIT_BIG
    source.save_as(buffer, enforce_file_format=True, implicit_vr=syntax == IMPLICIT_LITTLE, little_endian=little)

    out = pydicom.dcmread(BytesIO(written(stream.read(buffer.getvalue()))))

    assert out == pydicom.dcmread(BytesIO(buffer.getvalue()))


def test_pixels_are_neither_copied_on_reading_nor_on_writing() -> None:
    pixels = bytes(100_000)
    source = file_bytes(mr_slice(PixelData=pixels))

    part10 = stream.read(source)
    chunks = list(stream.write(part10))

    value = part10.elements[PIXEL_DATA].value
    assert isinstance(value, memoryview)
    assert value.obj is source
    assert any(chunk is value for chunk in chunks)


def test_a_mapped_file_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(file_bytes(mr_slice(PixelData=bytes(100_000))))

    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
        out = written(stream.read(mapped))

    assert out == path.read_bytes()


def test_a_deflated_file_stays_deflated() -> None:
    body = element(0x00080060, b"CS", b"MR") + element(0x00100020, b"LO", b"P1") * 50
    deflater = zlib.compressobj(wbits=-15)
    source = file_of(deflater.compress(body) + deflater.flush(), DEFLATED)

    out = written(stream.read(source))

    assert stream.read(out).elements == stream.read(source).elements
    assert len(out) < len(body)
    assert len(out) % 2 == 0


def test_a_deflate_bomb_is_refused() -> None:
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(bytes(200 << 20)) + deflater.flush()

    with pytest.raises(UnreadableInstance, match=r"^deflated data set: too large$"):
        stream.read(file_of(bomb, DEFLATED))


def test_sequences_nest_to_a_bound() -> None:
    deep = stream.read(file_of(nested(stream.MAX_DEPTH)))

    assert written(deep) == file_of(nested(stream.MAX_DEPTH))
    with pytest.raises(UnreadableInstance, match=r"^more than 64 sequences in each other at \(0040,A730\)$"):
        stream.read(file_of(nested(stream.MAX_DEPTH + 1)))
    with pytest.raises(UnreadableInstance, match=r"^more than 64"):
        stream.read(file_of(nested(3000)))


def test_what_is_unknown_is_read_by_its_tag() -> None:
    item = pack("<HHL", 0x0010, 0x0020, 2) + b"P2"
    items = pack("<HHL", 0xFFFE, 0xE000, len(item)) + item
    body = pack("<HH2sHL", 0x0010, 0x0020, b"UN", 0, 2) + b"P1"
    body += pack("<HH2sHL", 0x0010, 0x1002, b"UN", 0, len(items)) + items

    elements = stream.read(file_of(body)).elements

    assert elements[0x00100020][:3] == (0x00100020, "LO", b"P1")
    (inner,) = elements[0x00101002].value
    assert inner == {0x00100020: stream.Element(0x00100020, "LO", b"P2")}


def test_numbers_of_unknown_vr_take_the_byte_order_of_the_file() -> None:
    body = pack(">HH2sHL", 0x0028, 0x0010, b"UN", 0, 2) + b"\1\0"

    elements = stream.read(file_of(body, EXPLICIT_BIG)).elements

    assert elements[0x00280010][:3] == (0x00280010, "US", b"\0\1")


def test_bytes_behind_the_pixels_are_left_out() -> None:
    source = file_bytes(mr_slice())

    assert written(stream.read(source + b"JOHN^DOE")) == source


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x10\0", r"truncated after \(0000,0000\)"),
        (element(0x00100020, b"LO", b"P1")[:-1], r"truncated at \(0010,0020\)"),
        (pack("<HH2sHL", 0x0010, 0x4000, b"UT", 0, 0xFFFFFFFE), r"truncated at \(0010,4000\)"),
        (pack("<HH2sHL", 0x0010, 0x4000, b"UT", 0, 0xFFFFFFFF), r"length undefined at \(0010,4000\)"),
        (pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF), r"truncated at \(0008,1140\)"),
        (pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 8) + bytes(8), r"no item where one is due at \(0008,1140\)"),
        (pack("<HHL", 0xFFFE, 0xE00D, 0) + bytes(8), r"item delimiter out of place after \(0000,0000\)"),
    ],
)
def test_what_cannot_be_is_refused_by_its_tag(body: bytes, reason: str) -> None:
    with pytest.raises(UnreadableInstance, match=f"^{reason}$"):
        stream.read(file_of(element(0x00080060, b"CS", b"MR")[:0] + body))


def test_an_unknown_transfer_syntax_is_refused() -> None:
    with pytest.raises(UnreadableInstance, match=r"^TransferSyntaxUID: not one of the standard's$"):
        stream.read(file_of(b"", "1.2.3.4"))


def test_the_files_own_group_within_the_data_set_is_refused() -> None:
    stray = struct.pack("<HH2sH", 0x0002, 0x0013, b"SH", 2) + b"A "
    ours = struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 2) + b"MR"

    with pytest.raises(UnreadableInstance, match="within the data set"):
        stream.read(file_of(ours + stray, EXPLICIT_LITTLE))


SMALL = file_bytes(segmentation(mr_series(), masks()))


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_done_to_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    broken = bytearray(SMALL)
    for place in data.draw(st.lists(st.integers(132, len(SMALL) - 1), min_size=1, max_size=8)):
        broken[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(SMALL)))

    for content in (bytes(broken), bytes(broken[:cut])):
        try:
            out = written(stream.read(content))
        except UnreadableInstance:
            continue
        assert written(stream.read(out)) == out


@given(st.binary(max_size=300), st.sampled_from([IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED]))
@settings(deadline=None)
def test_noise_is_read_or_refused(noise: bytes, syntax: str) -> None:
    with suppress(UnreadableInstance):
        stream.read(file_of(noise, syntax))


def test_items_are_found_where_they_are_written() -> None:
    ds = Dataset()
    ds.CodeMeaning = "x"
    part10 = stream.read(file_bytes(mr_slice(ReferencedImageSequence=[ds, ds])))

    places = stream.places(part10, 0x00081140)

    out = written(part10)
    assert [out[place : place + 4] for place in places] == [b"\xfe\xff\x00\xe0"] * 2
