"""Text hidden in compressed images: found in every place, and honest files pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import MPEG2MPML

from site_node.deidentify.codestream import (
    COMMENT,
    MALFORMED,
    TRAILING_BYTES,
    UNKNOWN,
    finding,
)
from site_node.intake.part10 import quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

JPEG = "SC_rgb_dcmtk_+eb+cr.dcm"
JPEG_LS = "MR_small_jpeg_ls_lossless.dcm"
JPEG_2000 = "MR_small_jp2klossless.dcm"
RLE = "MR_small_RLE.dcm"
NAME = b"QUIXOTE^ANNA"


def segment(marker: int, body: bytes) -> bytes:
    return marker.to_bytes(2) + (len(body) + 2).to_bytes(2) + body


def item(body: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(body).to_bytes(4, "little") + body


def at_the_start(extra: bytes) -> Callable[[bytes], bytes]:
    return lambda frame: frame[:2] + extra + frame[2:]


def before_the_tile_data(extra: bytes) -> Callable[[bytes], bytes]:
    def change(frame: bytes) -> bytes:
        tile, data = frame.index(b"\xff\x90"), frame.index(b"\xff\x93")
        length = int.from_bytes(frame[tile + 6 : tile + 10]) + len(extra)
        head = frame[: tile + 6] + length.to_bytes(4) + frame[tile + 10 : data]
        return head + extra + frame[data:]

    return change


def before_the_end(extra: bytes) -> Callable[[bytes], bytes]:
    def change(frame: bytes) -> bytes:
        end = frame.rindex(b"\xff\xd9")
        return frame[:end] + extra + frame[end:]

    return change


def real(name: str, change: Callable[[bytes], bytes] = bytes) -> Dataset:
    with quiet():
        ds = dcmread(str(get_testdata_file(name)))
        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = encapsulate([change(frame)])
    return ds


def verdict(ds: Dataset) -> str | None:
    return finding(ds, ds.file_meta.TransferSyntaxUID, 1)


@pytest.mark.parametrize("name", [JPEG, JPEG_LS, JPEG_2000, RLE])
def test_an_honest_file_passes(name: str) -> None:
    assert verdict(real(name)) is None


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (JPEG, at_the_start(segment(0xFFFE, NAME)), COMMENT),
        (JPEG, at_the_start(segment(0xFFE1, b"Exif\0\0" + NAME)), COMMENT),
        (JPEG, at_the_start(segment(0xFFED, NAME)), COMMENT),
        (JPEG, at_the_start(segment(0xFFE0, b"JFIF\0" + NAME)), COMMENT),
        (JPEG, before_the_end(segment(0xFFFE, NAME)), COMMENT),
        (JPEG, lambda frame: frame + NAME, TRAILING_BYTES),
        (JPEG, lambda frame: frame[: len(frame) // 2], MALFORMED),
        (JPEG, lambda frame: NAME + frame, MALFORMED),
        (JPEG_LS, at_the_start(segment(0xFFFE, NAME)), COMMENT),
        (JPEG_LS, before_the_end(segment(0xFFFE, NAME)), COMMENT),
        (JPEG_LS, lambda frame: frame + NAME, TRAILING_BYTES),
        (JPEG_2000, at_the_start(segment(0xFF64, b"\0\1" + NAME)), COMMENT),
        (JPEG_2000, at_the_start(segment(0xFF64, b"\0\0" + NAME)), COMMENT),
        (JPEG_2000, before_the_tile_data(segment(0xFF64, b"\0\1" + NAME)), COMMENT),
        (JPEG_2000, lambda frame: frame + NAME, TRAILING_BYTES),
        (JPEG_2000, lambda frame: frame[:200], MALFORMED),
    ],
)
def test_hidden_text_is_found_wherever_it_stands(name: str, change: Callable[[bytes], bytes], reason: str) -> None:
    assert verdict(real(name, change)) == reason


def test_what_an_encoder_says_of_itself_is_no_comment_unless_more_is_said() -> None:
    alone = segment(0xFF64, b"\0\1Created by OpenJPEG version 2.5.0")
    more = segment(0xFF64, b"\0\1Created by OpenJPEG version 2.5.0 for " + NAME)

    assert verdict(real(JPEG_2000, at_the_start(alone))) is None
    assert verdict(real(JPEG_2000, at_the_start(more))) == COMMENT


def test_bytes_in_the_offset_table_or_a_stray_fragment_are_found() -> None:
    stray, table = real(JPEG_LS), real(JPEG_LS)
    stray.PixelData += item(NAME)
    frame = next(generate_frames(table.PixelData, number_of_frames=1))
    table.PixelData = item(bytes(4) + NAME) + item(frame)

    assert verdict(table) == TRAILING_BYTES
    assert verdict(stray) == TRAILING_BYTES


def test_a_codestream_of_an_unlisted_kind_is_unknown() -> None:
    ds = real(JPEG)
    ds.file_meta.TransferSyntaxUID = MPEG2MPML

    assert verdict(ds) == UNKNOWN
