"""Text hidden in compressed images: found in every place, and honest files pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from site_node.deidentify import encapsulation
from site_node.deidentify.codestream import (
    COMMENT,
    MALFORMED,
    TRAILING_BYTES,
    UNKNOWN,
    clean,
)
from site_node.deidentify.picture import picture
from site_node.deidentify.transcoding import quiet

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


def at_the_main_header(extra: bytes) -> Callable[[bytes], bytes]:
    def change(frame: bytes) -> bytes:
        tile = frame.index(b"\xff\x90")
        return frame[:tile] + extra + frame[tile:]

    return change


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


FRAMES = {name: next(generate_frames(real(name).PixelData, number_of_frames=1)) for name in (JPEG, JPEG_2000, RLE)}
SYNTAXES = {JPEG: JPEGBaseline8Bit, JPEG_2000: JPEG2000Lossless, RLE: RLELossless}


def verdict(ds: Dataset) -> str | None:
    """Return the first thing found in the one frame, or that there are bytes of no frame."""
    stored = memoryview(ds.PixelData)
    (spans,) = encapsulation.frames(stored, 1)
    table, parts = encapsulation.fragments(stored)
    frame = memoryview(b"".join(stored[start:stop] for start, stop in spans))
    if found := clean(frame, ds.file_meta.TransferSyntaxUID, int(ds.Rows) * int(ds.Columns)).found:
        return found[0]
    # PS3.5 A.4: the offset table is empty or has 4 bytes a frame; each fragment is of a frame.
    return TRAILING_BYTES if len(spans) != len(parts) or table[1] - table[0] not in (0, 4) else None


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


# Taking it out.


def samples(ds: Dataset) -> np.ndarray:
    with quiet():
        return picture(ds, memoryview(ds.PixelData)).decode(0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (JPEG, at_the_start(segment(0xFFFE, NAME))),
        (JPEG, at_the_start(segment(0xFFE1, b"Exif\0\0" + NAME))),
        (JPEG, at_the_start(segment(0xFFE0, b"JFIF\0\1\2\0\0\1\0\1\4\4" + NAME * 4))),
        (JPEG, at_the_start(segment(0xFFE2, b"ICC_PROFILE\0" + NAME))),
        (JPEG, before_the_end(segment(0xFFFE, NAME))),
        (JPEG, lambda frame: frame + NAME),
        (JPEG, lambda frame: NAME + frame),
        (JPEG, lambda frame: frame[:2] + NAME + frame[2:]),
        (JPEG_LS, at_the_start(segment(0xFFFE, NAME))),
        (JPEG_LS, at_the_start(segment(0xFFE8, b"SPIFF\0" + NAME))),
        (JPEG_LS, before_the_end(segment(0xFFFE, NAME))),
        (JPEG_LS, lambda frame: frame + NAME),
        (JPEG_2000, at_the_main_header(segment(0xFF64, b"\0\1" + NAME))),
        (JPEG_2000, at_the_main_header(segment(0xFF64, b"\0\1Kakadu-v5.2.1 " + NAME))),
        (JPEG_2000, before_the_tile_data(segment(0xFF64, b"\0\1" + NAME))),
        (JPEG_2000, lambda frame: frame + NAME),
        (JPEG_2000, lambda frame: b"\0\0\0\x0cjP  \r\n\x87\n" + NAME + b"\0\0\0\0jp2c" + frame),
        (RLE, lambda frame: frame[:12] + NAME[:4] + frame[16:]),
        (RLE, lambda frame: frame + NAME),
    ],
)
def test_hidden_text_is_taken_out_and_no_sample_changes(name: str, change: Callable[[bytes], bytes]) -> None:
    honest, hidden = real(name), real(name, change)
    frame = next(generate_frames(hidden.PixelData, number_of_frames=1))

    cleaned = clean(memoryview(frame), hidden.file_meta.TransferSyntaxUID, hidden.Rows * hidden.Columns)

    assert cleaned.found
    rest = b"".join(cleaned.pieces)
    assert NAME[:4] not in rest
    hidden.PixelData = encapsulate([rest])
    assert np.array_equal(samples(hidden), samples(honest))
    again = clean(memoryview(rest), hidden.file_meta.TransferSyntaxUID, hidden.Rows * hidden.Columns)
    assert not again.found


@pytest.mark.parametrize("name", [JPEG, JPEG_LS, JPEG_2000, RLE])
def test_an_honest_frame_is_handed_on_without_a_copy(name: str) -> None:
    ds = real(name)
    frame = memoryview(next(generate_frames(ds.PixelData, number_of_frames=1)))

    (piece,) = clean(frame, ds.file_meta.TransferSyntaxUID, ds.Rows * ds.Columns).pieces

    assert piece is frame


def test_lengths_of_tile_parts_stay_right_where_a_header_lists_them() -> None:
    ds = real(JPEG_2000)
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    at = frame.index(b"\xff\x90")
    comment = segment(0xFF64, b"\0\1" + NAME)
    longer = before_the_tile_data(comment)(frame)
    length = longer[at + 6 : at + 10]
    listed = longer[:at] + segment(0xFF55, b"\0\x50\0" + length) + longer[at:]

    cleaned = clean(memoryview(listed), ds.file_meta.TransferSyntaxUID, 64 * 64)

    shorter = int.from_bytes(length) - len(comment)
    assert b"".join(cleaned.pieces) == frame[:at] + segment(0xFF55, b"\0\x50\0" + shorter.to_bytes(4)) + frame[at:]


@given(st.binary(max_size=400), st.sampled_from([JPEG, JPEG_2000, RLE]), st.integers(0, 400), st.integers(0, 30))
def test_damage_anywhere_is_survived(junk: bytes, name: str, at: int, gone: int) -> None:
    frame = FRAMES[name]
    damaged = frame[:at] + junk + frame[at + gone :]

    pieces = clean(memoryview(damaged), SYNTAXES[name], 64 * 64).pieces

    assert sum(map(len, pieces)) <= len(damaged) + 64
