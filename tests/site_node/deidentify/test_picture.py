"""Frames come out as their header means them, and are seen as a person would see them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels.utils import pixel_array
from pydicom.uid import MPEG2MPML, JPEGExtended12Bit

from site_node.deidentify.picture import DEFLATED_FRAMES, ENCAPSULATED_NATIVE, UNKNOWN_SYNTAX, VIDEO, picture, refusal
from site_node.deidentify.transcoding import quiet
from site_node.errors import UnreadableInstance
from tests.site_node.deidentify.pictures import header, jpeg, native, wrapped

FILES = [
    "693_J2KI.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "ExplVR_BigEnd.dcm",
    "examples_palette.dcm",
    "examples_ybr_color.dcm",
    "image_dfl.dcm",
    "liver_1frame.dcm",
    "liver_expb_1frame.dcm",
    "rtdose.dcm",
    "rtdose_expb.dcm",
    "rtdose_rle.dcm",
    "examples_jpeg2k.dcm",
]
TEXT, TISSUE, AIR = 4000, 1000, 0


@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_what_another_reader_reads(name: str) -> None:
    with quiet():
        ds = dcmread(str(get_testdata_file(name)))
        found = picture(ds, memoryview(ds.PixelData))

        for index in range(found.frames):
            assert np.array_equal(found.decode(index), pixel_array(ds, raw=True, index=index))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_native_values_come_out_whatever_their_type_and_order(data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])))
    colours = data.draw(st.booleans()) and dtype.kind != "f"
    shape = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)), *([3] if colours else []))
    count = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    frames = [rng.integers(0, 200, shape).astype(dtype) for _ in range(count)]
    planar = {"PlanarConfiguration": data.draw(st.integers(0, 1))} if colours else {}

    found = native(frames, "RGB" if colours else "MONOCHROME2", big=data.draw(st.booleans()), **planar)

    for index, frame in enumerate(frames):
        assert np.array_equal(found.decode(index), frame)
        assert found.view(index).shape[:2] == shape[:2]
        assert found.view(index).dtype == np.uint8


def test_bits_that_are_not_the_samples_are_left_out_and_a_sign_is_kept() -> None:
    stored = np.array([[0x0FFF, 0xF800, 0x8001]], np.uint16)

    unsigned = native([stored], BitsStored=12, HighBit=11)
    signed = native([stored.view(np.int16)], BitsStored=12, HighBit=11)

    assert unsigned.decode(0).tolist() == [[0xFFF, 0x800, 0x001]]
    assert signed.decode(0).tolist() == [[-1, -2048, 1]]


def test_samples_in_the_upper_bits_are_found_there() -> None:
    found = native([np.array([[0x7FF3, 0x800F]], np.uint16)], BitsStored=12, HighBit=15)

    assert found.decode(0).tolist() == [[0x7FF, 0x800]]


def test_frames_of_single_bits_follow_each_other_without_a_gap() -> None:
    frames = [np.array([[1, 0, 1], [1, 1, 0]], np.uint8), np.array([[0, 1, 1], [0, 0, 1]], np.uint8)]
    ds = header(frames[0], "1.2.840.10008.1.2.1", "MONOCHROME2", BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.NumberOfFrames = 2
    stored = np.packbits(np.concatenate([frame.reshape(-1) for frame in frames]), bitorder="little").tobytes()

    found = picture(ds, memoryview(stored))

    assert [found.decode(index).tolist() for index in (0, 1)] == [frame.tolist() for frame in frames]
    assert found.view(0).tolist() == [[255, 0, 255], [255, 255, 0]]


def test_bytes_in_big_endian_words_come_out_in_order_across_frames() -> None:
    frames = [np.arange(9, dtype=np.uint8).reshape(3, 3), np.arange(9, 18, dtype=np.uint8).reshape(3, 3)]
    ds = header(frames[0], "1.2.840.10008.1.2.2", "MONOCHROME2", NumberOfFrames=2)
    swapped = np.arange(18, dtype=np.uint8).view("<u2").astype(">u2").tobytes()

    found = picture(ds, memoryview(swapped), words=True)

    assert np.array_equal(found.decode(0), frames[0])
    assert np.array_equal(found.decode(1), frames[1])


@pytest.mark.parametrize("syntax", [ENCAPSULATED_NATIVE, DEFLATED_FRAMES])
def test_native_frames_in_fragments_are_read(syntax: str) -> None:
    frame = np.arange(40, dtype=np.uint16).reshape(5, 8)
    deflate = zlib.compressobj(wbits=-15)
    deflated = deflate.compress(frame.tobytes()) + deflate.flush()

    found = wrapped([deflated if syntax == DEFLATED_FRAMES else frame.tobytes()], frame, syntax)

    assert np.array_equal(found.decode(0), frame)


def test_a_deflated_bomb_is_not_inflated_beyond_its_frame() -> None:
    deflate = zlib.compressobj(wbits=-15)
    bomb = deflate.compress(bytes(1 << 24)) + deflate.flush()

    found = wrapped([bomb], np.zeros((4, 4), np.uint8), DEFLATED_FRAMES)

    assert found.decode(0).shape == (4, 4)


def test_progressive_frames_of_old_archives_are_read() -> None:
    frame = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))

    found = wrapped([jpeg(frame, progressive=True)], frame, "1.2.840.10008.1.2.4.55")

    assert np.abs(found.decode(0).astype(int) - frame).max() < 8


def test_eight_bits_in_a_frame_said_to_have_sixteen_are_read() -> None:
    frame = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))

    found = wrapped([jpeg(frame)], frame.astype(np.uint16), JPEGExtended12Bit, BitsStored=8, HighBit=7)

    assert found.decode(0).dtype == np.uint16
    assert np.abs(found.decode(0).astype(int) - frame).max() < 8


# What a person sees.


def scan() -> np.ndarray:
    """Return tissue with letters far brighter, and others a little brighter than it."""
    frame = np.full((64, 64), TISSUE, np.uint16)
    frame[:, :8] = AIR
    frame[10:14, 20:40] = TEXT
    frame[40:44, 20:40] = TISSUE + 60
    return frame


@pytest.mark.parametrize("window", [None, (1030, 80), (2500, 300), (20, 40)])
def test_text_is_seen_inside_and_outside_of_the_window(window: tuple[int, int] | None) -> None:
    attributes: dict[str, Any] = {} if window is None else {"WindowCenter": window[0], "WindowWidth": window[1]}
    seen = native([scan()], **attributes).view(0).astype(int)

    assert seen[12, 30] > seen[20, 30] + 20
    assert seen[20, 30] > seen[20, 2]


def test_letters_close_to_tissue_are_seen_through_the_window_of_the_file() -> None:
    seen = native([scan()], WindowCenter=1030, WindowWidth=80).view(0).astype(int)

    assert seen[42, 30] > seen[20, 30] + 60


def test_low_values_are_bright_where_the_header_says_so() -> None:
    frame = np.array([[0, 100], [200, 255]], np.uint8)

    assert native([frame], "MONOCHROME1").view(0)[0, 0] > native([frame], "MONOCHROME1").view(0)[1, 1]
    assert native([frame], PresentationLUTShape="INVERSE").view(0)[0, 0] == 255
    assert native([frame], RescaleSlope=-1, RescaleIntercept=0).view(0)[0, 0] == 255


def test_padding_does_not_darken_what_is_seen() -> None:
    frame = np.full((64, 64), -30000, np.int16)
    frame[16:48, 16:48] = np.arange(32)
    seen = native([frame], PixelPaddingValue=-30000).view(0)

    assert int(seen[20, 47]) - int(seen[20, 16]) > 100


def test_palette_entries_are_seen_in_their_colour() -> None:
    frame = np.array([[1, 0]], np.uint8)
    attributes: dict[str, Any] = {}
    for colour, data in (("Red", b"\x00\xff"), ("Green", b"\x00\x80"), ("Blue", b"\x00\x00")):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        attributes[f"{colour}PaletteColorLookupTableData"] = data

    assert native([frame], "PALETTE COLOR", **attributes).view(0).tolist() == [[[255, 128, 0], [0, 0, 0]]]


def test_colour_differences_are_seen_as_colour() -> None:
    frame = np.array([[[76, 85, 255]]], np.uint8)  # BT.601's red

    red, green, blue = native([frame], "YBR_FULL").view(0)[0, 0].tolist()

    assert (red, green, blue) == pytest.approx((255, 0, 0), abs=2)


def test_a_constant_frame_and_one_of_no_numbers_can_be_seen() -> None:
    assert native([np.full((4, 4), 7, np.uint16)]).view(0).shape == (4, 4)
    assert native([np.full((4, 4), np.nan, np.float32)]).view(0).shape == (4, 4)


def test_an_icon_is_a_picture_of_its_own() -> None:
    item = header(np.zeros((2, 2), np.uint8), "1.2.840.10008.1.2.1", "MONOCHROME2")
    del item.file_meta

    found = picture(item, memoryview(bytes((0, 60, 120, 255))), transfer_syntax="1.2.840.10008.1.2.1")

    assert found.view(0).tolist() == [[0, 60, 120, 255][:2], [120, 255]]
    with pytest.raises(UnreadableInstance, match=UNKNOWN_SYNTAX):
        picture(item, memoryview(bytes(4)))


# What cannot be read.


def test_video_waits_for_a_person_and_other_syntaxes_are_unknown() -> None:
    assert refusal(MPEG2MPML) == VIDEO
    assert refusal("1.2.3") == UNKNOWN_SYNTAX
    with pytest.raises(UnreadableInstance, match=VIDEO):
        wrapped([b"\0\0"], np.zeros((2, 2), np.uint8), MPEG2MPML)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"Rows": 0}, "Rows"),
        ({"Columns": 900}, "PixelData"),
        ({"NumberOfFrames": -1}, "NumberOfFrames"),
        ({"SamplesPerPixel": 4}, "SamplesPerPixel"),
        ({"BitsAllocated": 12}, "BitsAllocated"),
        ({"BitsStored": 9}, "BitsStored"),
        ({"HighBit": 3}, "HighBit"),
        ({"PixelRepresentation": 2}, "PixelRepresentation"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "RedPaletteColorLookupTableData"),
    ],
)
def test_a_header_that_describes_no_image_is_refused_by_the_name_of_its_fault(
    attributes: dict[str, object], named: str
) -> None:
    ds = header(np.zeros((4, 4), np.uint8), "1.2.840.10008.1.2.1", "MONOCHROME2")
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)

    with pytest.raises(UnreadableInstance, match=named):
        picture(ds, memoryview(bytes(16)))


def test_a_frame_that_claims_another_size_is_refused_before_it_is_decoded() -> None:
    frame = np.zeros((16, 16), np.uint8)
    bomb = jpeg(frame).replace(b"\x08\x00\x10\x00\x10", b"\x08\xff\xff\xff\xff")

    with pytest.raises(UnreadableInstance, match="Rows"):
        wrapped([bomb], frame, "1.2.840.10008.1.2.4.50").decode(0)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"])
def test_a_damaged_frame_is_refused_without_a_word_of_the_codec(syntax: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnreadableInstance, match="PixelData: cannot be decoded"):
        wrapped([b"QUIXOTE^ANNA"], np.zeros((16, 16), np.uint8), syntax).decode(0)
    assert not caplog.records


def test_all_the_readers_own_files_are_read_or_refused() -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    refused = set()
    for path in sorted(folder.glob("*.dcm")):
        with quiet():
            ds = dcmread(path, force=True)
            if "PixelData" not in ds or "TransferSyntaxUID" not in ds.get("file_meta", ds.file_meta):
                continue
            try:
                picture(ds, memoryview(ds.PixelData)).view(0)
            except UnreadableInstance:
                refused.add(path.name)

    assert refused == {
        "JPEG-lossy.dcm",  # its scan names the wrong coefficients
        "JPEG2000-embedded-sequence-delimiter.dcm",  # its frame is cut off
        "MR_truncated.dcm",
        "badVR.dcm",  # NumberOfFrames is no number
        "nested_priv_SQ.dcm",  # no image
    }
