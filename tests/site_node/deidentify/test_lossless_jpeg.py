"""What is coded comes back to the bit from a reader that is not ours."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEGLosslessSV1

from site_node.deidentify.lossless_jpeg import encode
from tests.site_node.deidentify.pictures import wrapped


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 16), st.booleans(), st.integers(0, 4), st.integers(0, 99))
def test_samples_of_any_depth_come_back(
    rows: int,
    columns: int,
    bits: int,
    colours: bool,  # noqa: FBT001 -- drawn
    spread: int,
    seed: int,
) -> None:
    shape = (rows, columns, 3) if colours else (rows, columns)
    rng = np.random.default_rng(seed)
    # From nearly flat to noise: tables of one code and of all.
    frame = (rng.integers(0, 1 << bits, shape) >> (spread * bits // 5)).astype(np.uint8 if bits <= 8 else np.uint16)
    photometric = "RGB" if colours else "MONOCHROME2"

    found = wrapped([encode(frame, bits)], frame, JPEGLosslessSV1, photometric, BitsStored=bits, HighBit=bits - 1)

    assert np.array_equal(found.decode(0), frame)


def test_the_largest_difference_of_all_comes_back() -> None:
    frame = np.array([[0, 32768, 0, 65535, 0, 1]], np.uint16)

    assert np.array_equal(wrapped([encode(frame, 16)], frame, JPEGLosslessSV1).decode(0), frame)


def test_rare_differences_have_codes_that_are_not_too_long() -> None:
    # Each size of difference half as frequent as the last: codes would grow beyond 16 bits.
    sizes = np.repeat(np.arange(16), [1 << 18 >> size for size in range(16)])
    steps = np.where(np.arange(len(sizes)) % 2, 1, -1) * (1 << sizes >> 1)
    frame = (np.cumsum(steps) % 65536).astype(np.uint16)[: 700 * 700].reshape(700, 700)

    assert np.array_equal(wrapped([encode(frame, 16)], frame, JPEGLosslessSV1).decode(0), frame)


def test_smooth_frames_become_small() -> None:
    frame = np.add.outer(np.arange(256), np.arange(256)).astype(np.uint16)

    assert len(encode(frame, 16)) < frame.nbytes / 7
