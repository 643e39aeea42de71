"""ICC profiles keep their colours and lose their words."""

from __future__ import annotations

import io
import struct
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from site_node.deidentify.icc import without_words

PUBLISHED = (files("highdicom") / "_icc_profiles" / "sRGB_v4_ICC_preference.icc").read_bytes()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def colours(profile: bytes) -> bytes:
    image = Image.new("RGB", (16, 16))
    image.putdata([(x * 16, y * 16, (x + y) * 8) for y in range(16) for x in range(16)])
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(source, lab, "RGB", "LAB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted.tobytes()


@pytest.mark.parametrize("profile", [PUBLISHED, SRGB])
def test_colours_are_the_same_and_words_are_gone(profile: bytes) -> None:
    rebuilt = without_words(profile)

    assert rebuilt is not None
    assert colours(rebuilt) == colours(profile)
    for word in ("ICC", "Copyright", "sRGB", "Little", "International"):
        assert word.encode() not in rebuilt[128:]
        assert word.encode("utf-16-be") not in rebuilt


@pytest.mark.parametrize("profile", [PUBLISHED, SRGB])
def test_a_rebuilt_profile_stays_as_it_is(profile: bytes) -> None:
    rebuilt = without_words(profile)

    assert rebuilt is not None
    assert without_words(rebuilt) == rebuilt


def test_the_header_names_nobody() -> None:
    named = bytearray(SRGB)
    named[4:8], named[48:56], named[80:84], named[100:110] = b"JOHN", b"SMITHSMI", b"ANNA", b"1962-03-14"

    rebuilt = without_words(bytes(named))

    assert rebuilt is not None
    assert not [name for name in (b"JOHN", b"SMITH", b"ANNA", b"1962") if name in rebuilt]


def test_text_in_a_tag_nobody_knows_is_left_out() -> None:
    entries = struct.unpack_from(">I", SRGB, 128)[0]
    end = 132 + entries * 12
    text = b"text\0\0\0\0JOHN SMITH\0"
    moved = bytearray(SRGB[:end] + struct.pack(">4sII", b"priv", len(SRGB) + 12, len(text)) + SRGB[end:] + text)
    struct.pack_into(">I", moved, 128, entries + 1)
    for index in range(entries):
        place = 132 + index * 12 + 4
        struct.pack_into(">I", moved, place, struct.unpack_from(">I", moved, place)[0] + 12)

    rebuilt = without_words(bytes(moved))

    assert rebuilt is not None
    assert b"SMITH" not in rebuilt
    assert colours(rebuilt) == colours(SRGB)


@given(st.binary(max_size=400))
def test_what_is_no_profile_is_given_up(data: bytes) -> None:
    assert without_words(data) is None


@given(st.integers(0, len(SRGB) - 1), st.integers(0, 255))
def test_a_broken_profile_is_given_up_or_read(place: int, value: int) -> None:
    broken = bytearray(SRGB)
    broken[place] = value

    rebuilt = without_words(bytes(broken))

    assert rebuilt is None or len(rebuilt) <= len(SRGB) + 400
