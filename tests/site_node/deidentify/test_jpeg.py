"""Blocks are replaced in streams of every layout, also where the stream has no code for them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from site_node.deidentify.jpeg import redact
from site_node.deidentify.picture import Box
from site_node.errors import UnreadableInstance
from tests.site_node.deidentify.pictures import jpeg, wrapped

ROWS, COLUMNS = 37, 51
BOX = Box(9, 17, 20, 33)


def decoded(stream: bytes) -> np.ndarray:
    colours = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    return wrapped([stream], colours, "1.2.840.10008.1.2.4.50", "YBR_FULL").decode(0)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def scan_by_scan(halved: int) -> bytes:
    """Return a stream whose components stand in a scan each, colour halved both ways or not."""
    rng = np.random.default_rng(7)
    sizes = [(ROWS, COLUMNS)] + [(-(-ROWS // halved), -(-COLUMNS // halved))] * 2
    streams = [jpeg(rng.integers(0, 256, size).astype(np.uint8)) for size in sizes]
    start, scan = streams[0].index(b"\xff\xc0"), b"\xff\xda"
    tables = streams[0][streams[0].index(b"\xff\xc4") : streams[0].index(scan)]
    frame = b"\x08" + ROWS.to_bytes(2) + COLUMNS.to_bytes(2) + b"\3"
    frame += bytes((1, halved << 4 | halved, 0, 2, 0x11, 0, 3, 0x11, 0))
    out = streams[0][:start] + segment(0xC0, frame) + tables
    for index, stream in enumerate(streams, 1):
        at = stream.index(scan)
        out += segment(0xDA, bytes((1, index, 0, 0, 63, 0))) + stream[at + 10 : -2]
    return out + b"\xff\xd9"


@pytest.mark.parametrize("halved", [1, 2])
def test_components_in_scans_of_their_own_are_blanked_too(halved: int) -> None:
    stream = scan_by_scan(halved)

    old, new = decoded(stream), decoded(redact(stream, [BOX], bright=False, ybr=True))

    far = np.ones((ROWS, COLUMNS), bool)
    far[max(0, BOX.top - 16) : BOX.bottom + 16, max(0, BOX.left - 16) : BOX.right + 16] = False
    assert np.array_equal(old[far], new[far])
    within = new[BOX.top : BOX.bottom, BOX.left : BOX.right]
    assert (within[..., 0] == 0).all()
    assert (within[1:-1, 1:-1, 1:] == 128).all()


def test_codes_that_a_stream_lacks_are_added_and_its_own_stay() -> None:
    # One value everywhere: the stream's own tables hold hardly a code.
    frame = np.full((64, 64), 200, np.uint8)
    frame[:8, :8] = 190
    stream = jpeg(frame, optimize=True)

    redacted = redact(stream, [Box(24, 24, 32, 40)], bright=False, ybr=False)

    expected = np.array(Image.open(BytesIO(stream)))
    expected[24:32, 24:40] = 0
    assert np.array_equal(np.array(Image.open(BytesIO(redacted))), expected)
    assert len(redacted) < len(stream) + 60


def test_the_whole_image_can_be_blanked() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (40, 40)).astype(np.uint8)

    redacted = redact(jpeg(frame), [Box(0, 0, 40, 40)], bright=True, ybr=False)

    assert (np.array(Image.open(BytesIO(redacted))) == 255).all()


def test_red_green_and_blue_are_told_by_the_stream() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
    stream = jpeg(frame, keep_rgb=True, subsampling=0)

    redacted = redact(stream, [BOX], bright=False, ybr=True)

    assert (decoded(redacted)[BOX.top : BOX.bottom, BOX.left : BOX.right] == 0).all()


@pytest.mark.parametrize("cut", [30, 200, 500, 700])
def test_a_damaged_stream_is_refused(cut: int) -> None:
    stream = jpeg(np.random.default_rng(1).integers(0, 256, (40, 40)).astype(np.uint8))

    with pytest.raises(UnreadableInstance, match="blocks"):
        redact(stream[:cut] + b"\xff\xd9", [Box(30, 30, 40, 40)], bright=False, ybr=False)


def test_a_progressive_stream_is_refused() -> None:
    stream = jpeg(np.zeros((40, 40), np.uint8), progressive=True)

    with pytest.raises(UnreadableInstance, match="blocks"):
        redact(stream, [BOX], bright=False, ybr=False)
