"""Planted texts and pixels are found in every form and at every byte, and nothing else is."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.searches import Hit, pixel_hits, planted_hits

NEEDLE = "Wöllenquist^Perilisande"
NOISE = np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes()

FORMS = {
    "utf-8": NEEDLE.encode(),
    "latin-1": NEEDLE.encode("latin-1"),
    "utf-16-le": NEEDLE.encode("utf-16-le"),
    "json": json.dumps(NEEDLE)[1:-1].encode(),
    "hex": NEEDLE.encode().hex().upper().encode(),
}


def image() -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    return np.random.default_rng(1).integers(0, 4096, (3, 20, 96)).astype(np.uint16)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", range(8))
def test_a_text_is_found_in_each_form_at_each_byte(form: str, shift: int) -> None:
    body = NOISE[: 1000 + shift] + FORMS[form] + NOISE[1000:]

    assert Hit(0, 1000 + shift, 0, form) in planted_hits([body], [NEEDLE])


@pytest.mark.parametrize("change", [str.lower, str.upper, str.swapcase])
def test_a_text_is_found_in_any_case_of_its_ascii_letters(change: object) -> None:
    assert callable(change)
    body = b"x" + change("NG-Marrowgarth Odolisande").encode() + b"x"

    assert [hit.offset for hit in planted_hits([body], ["NG-Marrowgarth Odolisande"])] == [1]


@given(before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_a_text_is_found_in_base64_whatever_stands_around_it(before: bytes, after: bytes) -> None:
    body = base64.b64encode(before + NEEDLE.encode() + after)

    assert any(hit.form == "base64" for hit in planted_hits([body], [NEEDLE]))


@given(st.binary(max_size=200))
def test_a_body_without_the_text_has_no_hit(body: bytes) -> None:
    assert planted_hits([body], [NEEDLE]) == []


def test_a_hit_names_its_body_and_its_needle() -> None:
    found = planted_hits([NOISE, b"", b"short", NOISE + b"EM-00087585"], ["NG-00000001", "EM-00087585"])

    assert found == [Hit(3, len(NOISE), 1, "utf-8")]


def test_almost_the_text_is_not_the_text() -> None:
    assert planted_hits([NEEDLE[:-1].encode() + b"?"], [NEEDLE]) == []


def test_a_text_that_is_too_short_is_refused_and_not_named() -> None:
    with pytest.raises(ValueError, match="at least 8") as refusal:
        planted_hits([b""], ["Odo"])

    assert "Odo" not in str(refusal.value)


@pytest.mark.parametrize("shift", range(8))
@pytest.mark.parametrize("form", ["as stored", "bytes", "float32"])
def test_part_of_one_row_is_found_in_each_form_at_each_byte(form: str, shift: int) -> None:
    pixels = image()
    low, high = int(pixels.min()), int(pixels.max())
    rows = {
        "as stored": pixels.astype("<u2"),
        "bytes": np.round((pixels.astype(float) - low) * 255 / (high - low)).astype(np.uint8),
        "float32": pixels.astype("<f4"),
    }
    row = rows[form][2, 7, 11:60].tobytes()
    body = NOISE[: 1000 + shift] + row + NOISE[1000:]

    found = pixel_hits([b"", body], [image()[:2], pixels])

    assert [(hit.body, hit.needle, hit.form) for hit in found] == [(1, 1, form)]
    # A run begins a little earlier where the noise before it happens to be the row's as well.
    assert 1000 + shift - 4 < found[0].offset <= 1000 + shift


@given(start=st.integers(0, 80), length=st.integers(8, 96))
def test_a_run_counts_from_sixteen_bytes_on(start: int, length: int) -> None:
    row = image()[0, 0, start : start + length].tobytes()
    body = bytes(32) + row + bytes(32)

    assert bool(pixel_hits([body], [image()])) == (len(row) >= 16)


def test_fifteen_bytes_of_a_row_are_no_hit() -> None:
    row = image()[0, 0].tobytes()

    assert pixel_hits([b"\xff" * 32 + row[8:23] + b"\xff" * 32], [image()]) == []


def test_a_whole_image_gives_one_hit_for_each_row_and_no_more() -> None:
    slices = image()[:1]

    assert len(pixel_hits([slices.tobytes()], [slices])) == slices.shape[1]


def test_background_and_other_data_are_no_hits() -> None:
    flat = np.zeros((4, 96), np.uint16)
    flat[:, 48:] = 7
    weights = np.random.default_rng(2).normal(0, 0.1, 50_000).astype("<f4").tobytes()

    assert pixel_hits([flat.tobytes(), bytes(1000)], [flat]) == []
    assert pixel_hits([weights, NOISE], [image()]) == []


def test_nothing_looked_for_is_nothing_found() -> None:
    assert planted_hits([NOISE], []) == []
    assert pixel_hits([NOISE], []) == []
