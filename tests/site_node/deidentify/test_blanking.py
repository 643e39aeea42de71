"""Only the boxes change: in every syntax, at every depth, on the frames they are meant for."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array

from site_node.deidentify import lossless_jpeg, transcoding
from site_node.deidentify.blanking import (
    STORED_LOSSLESS,
    STORED_PLAIN,
    TRAILING_BYTES,
    UNUSED_BITS,
    blank,
    strip,
)
from site_node.deidentify.codestream import COMMENT
from site_node.deidentify.codestream import TRAILING_BYTES as TRAILING_IN_FRAME
from site_node.deidentify.picture import DEFLATED_FRAMES, ENCAPSULATED_NATIVE, Box, Picture, picture
from site_node.deidentify.transcoding import Layout, quiet
from site_node.errors import UnreadableInstance
from tests.site_node.deidentify.pictures import again, header, jpeg, native, wrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOX = Box(5, 9, 21, 30)
ROWS, COLUMNS = 40, 46
NAME = b"QUIXOTE^ANNA"
EDGE = 16  # how far around a box the blocks of a lossy JPEG may change


def inside(rows: int = ROWS, columns: int = COLUMNS, box: Box = BOX, edge: int = 0) -> NDArray[np.bool_]:
    mask = np.zeros((rows, columns), bool)
    mask[max(0, box.top - edge) : box.bottom + edge, max(0, box.left - edge) : box.right + edge] = True
    return mask


def noise(dtype: str, *, colours: bool = False, bits: int = 8, seed: int = 1) -> NDArray[Any]:
    lowest = -(1 << bits >> 1) if dtype.startswith("i") else 0
    shape = (ROWS, COLUMNS, 3) if colours else (ROWS, COLUMNS)
    return np.random.default_rng(seed).integers(lowest, lowest + (1 << bits), shape).astype(dtype)


def smooth(*, colours: bool = False, seed: int = 1) -> NDArray[np.uint8]:
    """Return a frame that a lossy codec can do something with."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3) if colours else (6, 6))
    large = np.kron(small, np.ones((10, 10, 1) if colours else (10, 10)))[:ROWS, :COLUMNS]
    return np.clip(large + rng.normal(0, 12, large.shape), 0, 255).astype(np.uint8)


def check(before: Picture, after: Picture, index: int = 0) -> None:
    """Check that outside of the box nothing changed, and that inside of it all is one value."""
    old, new = before.decode(index), after.decode(index)
    within = inside(*old.shape[:2])
    assert np.array_equal(old[~within], new[~within])
    assert np.ptp(new[within].reshape(within.sum(), -1).astype(float), axis=0).max() == 0


NATIVE = {
    "unsigned bytes": (noise("u1"), "MONOCHROME2", {}, 0),
    "inverted words": (noise("u2", bits=12), "MONOCHROME1", {"BitsStored": 12, "HighBit": 11}, None),
    "signed words": (noise("i2", bits=12), "MONOCHROME2", {"BitsStored": 12, "HighBit": 11}, None),
    "upper bits": (noise("u2", bits=12) << 4, "MONOCHROME2", {"BitsStored": 12, "HighBit": 15}, None),
    "long words": (noise("u4", bits=31), "MONOCHROME2", {}, None),
    "floating": (noise("u2").astype("f4") / 7, "MONOCHROME2", {}, None),
    "red, green, blue": (noise("u1", colours=True), "RGB", {}, 0),
    "planes of colour": (noise("u1", colours=True), "RGB", {"PlanarConfiguration": 1}, 0),
    "deep colour": (noise("u2", colours=True, bits=16), "RGB", {}, 0),
    "luminance": (noise("u1", colours=True), "YBR_FULL", {}, None),
}


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", NATIVE)
def test_native_boxes_change_and_nothing_else(kind: str, *, big: bool) -> None:
    frame, photometric, attributes, value = NATIVE[kind]
    before = native([frame, frame], photometric, big=big, **attributes)

    blanked = blank(before, [BOX])
    after = again(before, blanked)

    check(before, after)
    check(before, after, 1)
    assert not blanked.notes
    assert not blanked.changes
    assert value is None or (after.decode(1)[inside()] == value).all()


def test_a_blanked_pixel_is_black_in_what_is_seen() -> None:
    for photometric, frame in (
        ("MONOCHROME1", noise("u1")),
        ("MONOCHROME2", noise("i2", bits=12)),
        ("RGB", noise("u1", colours=True)),
        ("YBR_FULL", noise("u1", colours=True)),
    ):
        before = native([frame], photometric)

        assert (again(before, blank(before, [BOX])).view(0)[inside()] == 0).all(), photometric


def test_grey_is_blanked_with_a_value_that_the_frame_has() -> None:
    frame = noise("i2", bits=8) + np.int16(500)
    before = native([frame])

    assert (again(before, blank(before, [BOX])).decode(0)[inside()] == frame.min()).all()


def test_the_darkest_entry_of_a_palette_is_taken() -> None:
    attributes: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        attributes[f"{colour}PaletteColorLookupTableData"] = b"\xff\x80\x01\x90"
    before = native([noise("u1", bits=2)], "PALETTE COLOR", **attributes)

    after = again(before, blank(before, [BOX]))

    assert (after.decode(0)[inside()] == 2).all()


def test_colour_shared_by_two_pixels_goes_with_either() -> None:
    rng = np.random.default_rng(3)
    stored = rng.integers(0, 256, ROWS * COLUMNS * 2).astype(np.uint8)
    ds = header(np.zeros((ROWS, COLUMNS, 3), np.uint8), uid.ExplicitVRLittleEndian, "YBR_FULL_422")
    before = picture(ds, memoryview(stored.tobytes()))

    after = again(before, blank(before, [BOX]))

    old, new = before.decode(0), after.decode(0)
    assert np.array_equal(old[~inside()][:, 0], new[~inside()][:, 0])
    assert (new[inside()] == [0, 128, 128]).all()
    paired = inside(box=Box(BOX.top, BOX.left - 1, BOX.bottom, BOX.right))
    assert np.array_equal(old[~paired], new[~paired])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_single_bits_change_in_the_boxes_of_their_frame_alone(data: st.DataObject) -> None:
    rows, columns, count = (data.draw(st.integers(1, 9)) for _ in range(3))
    frames = np.random.default_rng(count).integers(0, 2, (count, rows, columns)).astype(np.uint8)
    ds = header(frames[0], uid.ExplicitVRLittleEndian, "MONOCHROME2", BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.NumberOfFrames = count
    before = picture(ds, memoryview(np.packbits(frames.reshape(-1), bitorder="little").tobytes()))
    chosen = data.draw(st.integers(0, count - 1))
    box = Box(0, 0, data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns)))

    after = again(before, blank(before, {chosen: [box]}))

    expected = frames.copy()
    expected[chosen, : box.bottom, : box.right] = 0
    assert all(np.array_equal(after.decode(index), expected[index]) for index in range(count))


def test_bytes_in_big_endian_words_are_blanked_across_odd_frames() -> None:
    frames = [noise("u1", seed=seed)[:3, :3] for seed in (1, 2, 3)]
    ds = header(frames[0], uid.ExplicitVRBigEndian, "MONOCHROME2", NumberOfFrames=3)
    plain = np.concatenate([frame.reshape(-1) for frame in frames] + [np.zeros(1, np.uint8)])
    before = picture(ds, memoryview(plain.view("<u2").astype(">u2").tobytes()), words=True)

    after = again(before, blank(before, {1: [Box(0, 0, 2, 2)]}))

    expected = frames[1].copy()
    expected[:2, :2] = expected.min()
    assert [after.decode(index).tolist() for index in range(3)] == [
        frames[0].tolist(),
        expected.tolist(),
        frames[2].tolist(),
    ]


def test_boxes_beyond_the_image_are_cut_and_empty_ones_do_nothing() -> None:
    before = native([noise("u1")])

    beyond = again(before, blank(before, [Box(-5, -5, 3, 400)]))
    nothing = blank(before, [Box(4, 4, 4, 9), Box(ROWS, 0, ROWS + 9, 5)])

    assert np.array_equal(beyond.decode(0)[3:], before.decode(0)[3:])
    assert (beyond.decode(0)[:3] == beyond.decode(0)[0, 0]).all()
    assert not nothing.touched
    assert [bytes(chunk) for chunk in nothing.chunks] == [bytes(before.stored)]


def test_untouched_native_pixels_are_handed_on_without_a_copy() -> None:
    before = native([noise("u2", bits=16)])

    (chunk,) = blank(before, []).chunks

    assert isinstance(chunk, memoryview)
    assert chunk.obj is before.stored.obj


# Compressed without loss.


def coded(frame: NDArray[Any], syntax: str, photometric: str, bits: int) -> bytes:
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return lossless_jpeg.encode(frame, bits)
    target = {uid.JPEG2000: uid.JPEG2000Lossless, uid.JPEGLSNearLossless: uid.JPEGLSLossless}.get(UID(syntax), syntax)
    samples = frame.shape[2] if frame.ndim > 2 else 1
    signed = int(frame.dtype.kind == "i")
    allocated = 8 * frame.dtype.itemsize
    bits = allocated if syntax == uid.RLELossless else bits
    return transcoding.encode(frame, Layout(target, ROWS, COLUMNS, samples, allocated, bits, signed, photometric))


UID = uid.UID
LOSSLESS = [
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
]
KINDS = {
    "bytes": ("u1", 8, False, "MONOCHROME2"),
    "inverted": ("u1", 8, False, "MONOCHROME1"),
    "twelve bits": ("u2", 12, False, "MONOCHROME2"),
    "bytes in words": ("u2", 8, False, "MONOCHROME2"),
    "sixteen bits": ("u2", 16, False, "MONOCHROME2"),
    "signed": ("i2", 16, False, "MONOCHROME2"),
    "signed twelve": ("i2", 12, False, "MONOCHROME2"),
    "colour": ("u1", 8, True, "RGB"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_lossless_syntax_stays_and_only_the_box_changes(syntax: str, kind: str) -> None:
    dtype, bits, colours, photometric = KINDS[kind]
    frames = [noise(dtype, bits=bits, colours=colours, seed=seed) for seed in (1, 2, 3)]
    streams = [coded(frame, syntax, photometric, bits) for frame in frames]
    before = wrapped(streams, frames[0], syntax, photometric, BitsStored=bits, HighBit=bits - 1)
    assert np.array_equal(before.decode(1), frames[1])

    blanked = blank(before, {1: [BOX]})
    after = again(before, blanked)

    check(before, after, 1)
    assert all(np.array_equal(after.decode(index), frames[index]) for index in (0, 2))
    assert after.transfer_syntax == syntax
    assert [bytes(after.coded(index)).rstrip(b"\0") for index in (0, 2)] == [
        streams[index].rstrip(b"\0") for index in (0, 2)
    ]


def test_colour_transformed_with_loss_is_stored_losslessly_in_its_own_syntax() -> None:
    with quiet():
        ds = dcmread(str(get_testdata_file("US1_J2KI.dcm")))
        before = picture(ds, memoryview(ds.PixelData))

        blanked = blank(before, [BOX])
        after = again(before, blanked)

        assert after.transfer_syntax == uid.JPEG2000
        assert after.photometric == "YBR_RCT"
        assert blanked.notes == (STORED_LOSSLESS,)
        assert not blanked.lossy_again
        outside = ~inside(before.rows, before.columns)
        assert np.array_equal(before.decode(0)[outside], after.decode(0)[outside])


def test_what_no_encoder_writes_is_stored_plain_and_said_so() -> None:
    before = wrapped([jpeg(smooth(), progressive=True)], smooth(), "1.2.840.10008.1.2.4.55")

    blanked = blank(before, [BOX])

    check(before, again(before, blanked))
    assert blanked.transfer_syntax == uid.ExplicitVRLittleEndian
    assert blanked.notes == (STORED_PLAIN,)


def test_a_caller_can_ask_for_plain_storage() -> None:
    before = wrapped([jpeg(smooth(colours=True))], smooth(colours=True), uid.JPEGBaseline8Bit, "YBR_FULL_422")

    blanked = blank(before, [BOX], plain=True)
    after = again(before, blanked)

    check(before, after)
    assert after.photometric == "YBR_FULL"
    assert blanked.changes[0x00282110] == "01"


def test_single_bits_in_fragments_can_be_stored_plain() -> None:
    frames = [noise("u1", bits=1, seed=seed)[:3, :3] for seed in (1, 2)]
    attributes: dict[str, Any] = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    raw = [np.packbits(frame.reshape(-1), bitorder="little").tobytes() for frame in frames]
    before = wrapped(raw, frames[0], ENCAPSULATED_NATIVE, **attributes)

    after = again(before, blank(before, {0: [Box(0, 0, 1, 3)]}, plain=True))

    assert after.decode(0).tolist() == [[0, 0, 0], *frames[0][1:].tolist()]
    assert np.array_equal(after.decode(1), frames[1])


@pytest.mark.parametrize("syntax", [ENCAPSULATED_NATIVE, DEFLATED_FRAMES])
def test_native_frames_in_fragments_stay_there(syntax: str) -> None:
    frame = noise("u2", bits=16)
    deflate = zlib.compressobj(wbits=-15)
    raw = deflate.compress(frame.tobytes()) + deflate.flush() if syntax == DEFLATED_FRAMES else frame.tobytes()
    before = wrapped([raw, raw], frame, syntax)

    after = again(before, blank(before, {1: [BOX]}))

    assert after.transfer_syntax == syntax
    check(before, after, 1)
    assert np.array_equal(after.decode(0), frame)


# Lossy JPEG.

PILLOW: dict[str, dict[str, Any]] = {
    "grey": {},
    "tables of its own": {"optimize": True},
    "best": {"quality": 100},
    "worst": {"quality": 5, "optimize": True},
    "restarts": {"restart_marker_blocks": 3},
    "restarts by row": {"restart_marker_rows": 1, "optimize": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "4:2:0, tables of its own": {"subsampling": 2, "optimize": True, "quality": 95},
    "4:2:0, restarts": {"subsampling": 2, "restart_marker_blocks": 2},
}


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(PILLOW)), st.integers(0, 9), st.data())
def test_blocks_of_a_lossy_jpeg_are_replaced_and_all_else_is_the_same_to_the_bit(
    kind: str, seed: int, data: st.DataObject
) -> None:
    colours = "subsampling" in PILLOW[kind]
    frame = smooth(colours=colours, seed=seed) if seed % 2 else noise("u1", colours=colours, seed=seed)
    top, left = data.draw(st.integers(0, ROWS - 1)), data.draw(st.integers(0, COLUMNS - 1))
    box = Box(top, left, data.draw(st.integers(top + 1, ROWS)), data.draw(st.integers(left + 1, COLUMNS)))
    before = wrapped(
        [jpeg(frame, **PILLOW[kind])], frame, uid.JPEGBaseline8Bit, "YBR_FULL_422" if colours else "MONOCHROME2"
    )

    blanked = blank(before, [box])
    after = again(before, blanked)

    assert after.transfer_syntax == uid.JPEGBaseline8Bit
    assert not blanked.notes
    far = ~inside(box=box, edge=EDGE)
    old, new = before.decode(0), after.decode(0)
    assert np.array_equal(old[far], new[far])
    luma = new[..., 0] if colours else new
    assert (luma[inside(box=box)] == 0).all()


def test_a_lossy_jpeg_of_low_values_that_are_bright_gets_high_ones() -> None:
    before = wrapped([jpeg(smooth())], smooth(), uid.JPEGBaseline8Bit, "MONOCHROME1")

    assert (again(before, blank(before, [BOX])).decode(0)[inside()] == 255).all()


def test_the_twelve_bit_process_is_replaced_in_place_too() -> None:
    with quiet():
        ds = dcmread(str(get_testdata_file("JPGExtended.dcm")))
        before = picture(ds, memoryview(ds.PixelData))

        after = again(before, blank(before, [BOX]))

        assert after.transfer_syntax == uid.JPEGExtended12Bit
        far = ~inside(before.rows, before.columns, edge=EDGE)
        assert np.array_equal(before.decode(0)[far], after.decode(0)[far])
        assert (after.decode(0)[inside(before.rows, before.columns)] == 0).all()


def test_a_cine_is_blanked_frame_by_frame_and_frames_without_a_box_are_copied() -> None:
    with quiet():
        ds = dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
        before = picture(ds, memoryview(ds.PixelData))

        after = again(before, blank(before, {3: [BOX], 7: [Box(0, 0, 20, 20)]}))

        changed = [index for index in range(before.frames) if bytes(before.coded(index)) != bytes(after.coded(index))]
        assert changed == [3, 7]


# Hidden text.


def test_nothing_is_done_where_nothing_is_hidden() -> None:
    assert strip(native([noise("u2", bits=16)])) is None
    assert strip(wrapped([jpeg(smooth())], smooth(), uid.JPEGBaseline8Bit)) is None


def test_a_plane_of_graphics_above_the_samples_is_cleared_and_noted() -> None:
    frame = noise("u2", bits=12)
    plane = (noise("u2", bits=1, seed=5) << 12).astype(np.uint16)
    before = native([frame, frame | plane], BitsStored=12, HighBit=11)

    stripped = strip(before)

    assert stripped is not None
    assert stripped.notes == (UNUSED_BITS,)
    assert b"".join(stripped.chunks) == frame.tobytes() * 2


def test_signs_and_padding_above_the_samples_are_no_plane() -> None:
    signed = noise("i2", bits=12)
    padded = noise("u2", bits=12)
    padded[0, 0] = 63536

    assert strip(native([signed], BitsStored=12, HighBit=11)) is None
    assert strip(native([padded], BitsStored=12, HighBit=11, PixelPaddingValue=63536)) is None


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
def test_a_declared_plane_goes_from_coded_samples(syntax: str) -> None:
    frame = noise("u2", bits=12)
    plane = (noise("u2", bits=1, seed=5) << 12).astype(np.uint16)
    stream = coded(frame | plane, syntax, "MONOCHROME2", 16)
    ds = header(frame, syntax, "MONOCHROME2", BitsStored=12, HighBit=11)
    ds.add_new(0x60000010, "US", ROWS)
    before = picture(ds, memoryview(encapsulate([stream])))

    stripped = strip(before)

    assert stripped is not None
    assert UNUSED_BITS in stripped.notes
    after = again(before, stripped)
    bare = wrapped([bytes(after.coded(0))], frame, syntax)
    assert np.array_equal(bare.decode(0), frame)


def test_bytes_after_the_last_frame_are_dropped() -> None:
    frame = noise("u1")
    ds = header(frame, uid.ExplicitVRLittleEndian, "MONOCHROME2")

    stripped = strip(picture(ds, memoryview(frame.tobytes() + NAME)))

    assert stripped is not None
    assert stripped.notes == (TRAILING_BYTES,)
    assert b"".join(stripped.chunks) == frame.tobytes()


def test_a_stray_fragment_and_a_false_table_are_dropped_and_the_table_is_right() -> None:
    streams = [coded(noise("u1", seed=seed), uid.JPEGLSLossless, "MONOCHROME2", 8) for seed in (1, 2)]
    fragments = encapsulate(streams, has_bot=False)
    stray = b"\xfe\xff\x00\xe0" + len(NAME).to_bytes(4, "little") + NAME
    ds = header(noise("u1"), uid.JPEGLSLossless, "MONOCHROME2", NumberOfFrames=2)
    before = picture(ds, memoryview(fragments + stray))

    stripped = strip(before)

    assert stripped is not None
    assert stripped.notes == (TRAILING_IN_FRAME,)
    assert b"".join(stripped.chunks) == encapsulate(streams)


@pytest.mark.parametrize("syntax", [ENCAPSULATED_NATIVE, DEFLATED_FRAMES])
def test_bytes_after_a_native_frame_in_a_fragment_are_dropped(syntax: str) -> None:
    frame = noise("u1")
    deflate = zlib.compressobj(wbits=-15)
    raw = deflate.compress(frame.tobytes()) + deflate.flush() if syntax == DEFLATED_FRAMES else frame.tobytes()
    before = wrapped([raw + NAME], frame, syntax)

    stripped = strip(before)

    assert stripped is not None
    assert stripped.notes == (TRAILING_IN_FRAME,)
    value = b"".join(stripped.chunks)
    assert NAME not in value
    assert np.array_equal(wrapped([raw], frame, syntax).decode(0), frame)


def test_comments_go_from_touched_and_untouched_frames_alike() -> None:
    comment = b"\xff\xfe" + (len(NAME) + 2).to_bytes(2) + NAME
    stream = jpeg(smooth())
    marked = stream[:2] + comment + stream[2:]
    before = wrapped([marked, marked], smooth(), uid.JPEGBaseline8Bit)

    blanked = blank(before, {0: [BOX]})
    value = b"".join(blanked.chunks)

    assert blanked.notes == (COMMENT,)
    assert NAME not in value
    assert stream in value


# All of a reader's own files.

LARGE = 400_000  # bytes; what is larger shows nothing more and takes long


def test_in_every_file_of_another_reader_only_the_box_changes() -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    rng = np.random.default_rng(20)
    seen = 0
    for path in sorted(folder.glob("*.dcm")):
        with quiet():
            ds = dcmread(path, force=True)
            if path.stat().st_size > LARGE or not {"PixelData", "Rows"} <= set(ds.dir()) or not ds.file_meta:
                continue
            try:
                before = picture(ds, memoryview(ds.PixelData))
                old = before.decode(0)
            except UnreadableInstance:
                continue
            top, left = int(rng.integers(before.rows)), int(rng.integers(before.columns))
            left -= left % 2  # two pixels of 4:2:2 share their colour
            box = Box(top, left, top + 1 + int(rng.integers(40)), left + 2 * int(rng.integers(1, 20)))
            blanked = blank(before, {0: [box]})
            new = again(before, blanked).decode(0)
        lossy = blanked.transfer_syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
        outside = ~inside(before.rows, before.columns, box, EDGE if lossy else 0)
        assert np.array_equal(old[outside], new[outside]), path.name
        within = new[inside(before.rows, before.columns, box)]
        grey = within[:, 0] if lossy and within.ndim > 1 else within
        assert np.ptp(grey, axis=0).max() == 0, path.name
        seen += 1
    assert seen > 50


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "SC_rgb_dcmtk_+eb+cr.dcm"]), st.data())
def test_a_damaged_frame_is_blanked_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    with quiet():
        ds = dcmread(str(get_testdata_file(name)))
        stored = bytearray(ds.PixelData)
        for _ in range(data.draw(st.integers(1, 4))):
            stored[data.draw(st.integers(16, min(len(stored), 700) - 1))] = data.draw(st.integers(0, 255))
        with suppress(UnreadableInstance):
            before = picture(ds, memoryview(bytes(stored)))
            check(before, again(before, blank(before, [BOX], plain=True)))


# Other readers.


def file_of(before: Picture, after: Picture, value: bytes, path: Path) -> None:
    ds = header(before.decode(0), after.transfer_syntax, before.photometric, NumberOfFrames=before.frames)
    ds.SOPClassUID, ds.SOPInstanceUID = uid.MultiFrameTrueColorSecondaryCaptureImageStorage, "1.2.3"
    ds.StudyInstanceUID = ds.SeriesInstanceUID = "1.2.3.4"
    ds.PixelData = value
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("tool", "syntax", "options"),
    [
        ("dcmdjpeg", uid.JPEGBaseline8Bit, {"subsampling": 2, "optimize": True}),
        ("dcmdjpeg", uid.JPEGBaseline8Bit, {"subsampling": 1, "restart_marker_blocks": 2}),
        ("dcmdjpeg", uid.JPEGLosslessSV1, None),
        ("dcmdjpls", uid.JPEGLSLossless, None),
        ("dcmdrle", uid.RLELossless, None),
    ],
)
def test_other_readers_read_what_is_written(
    tool: str, syntax: str, options: dict[str, Any] | None, tmp_path: Path
) -> None:
    if shutil.which(tool) is None:
        pytest.skip("DCMTK is not installed")
    frames = [smooth(colours=True, seed=seed) for seed in (1, 2)]
    photometric = "RGB" if options is None else "YBR_FULL_422"
    streams = [coded(frame, syntax, photometric, 8) if options is None else jpeg(frame, **options) for frame in frames]
    before = wrapped(streams, frames[0], syntax, photometric)
    value = b"".join(blank(before, {1: [BOX]}).chunks)
    after = again(before, blank(before, {1: [BOX]}))
    file_of(before, after, value, tmp_path / "in.dcm")
    keep_colours = ["+cn"] if tool == "dcmdjpeg" else []

    subprocess.run([tool, *keep_colours, tmp_path / "in.dcm", tmp_path / "out.dcm"], check=True, capture_output=True)

    plain = dcmread(tmp_path / "out.dcm")
    seen = pixel_array(plain, raw=True)
    far = ~inside(edge=EDGE)
    if options is None:
        check(before, native(list(seen), photometric), 1)
    else:
        assert np.abs(seen[1][far].astype(int) - before.decode(1)[far]).max() <= 3
        assert (seen[1][inside()][:, 0] <= 1).all()
