"""Fragments are found and grouped into frames by table, by count or by their ends."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, generate_fragments

from site_node.deidentify import encapsulation
from site_node.deidentify.encapsulation import fragments, frames, item, offset_table
from site_node.errors import UnreadableInstance

END = b"\xff\xd9"


def one(body: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(body).to_bytes(4, "little") + body


def parts(stored: bytes, count: int, offsets: tuple[int, ...] = ()) -> list[list[bytes]]:
    return [[stored[a:b] for a, b in spans] for spans in frames(memoryview(stored), count, offsets)]


@given(st.lists(st.binary(min_size=2, max_size=9), min_size=1, max_size=5), st.booleans())
def test_frames_of_one_fragment_each_come_out_as_they_went_in(bodies: list[bytes], has_table: bool) -> None:  # noqa: FBT001 -- drawn
    stored = encapsulate(bodies, has_bot=has_table)

    found = parts(stored, len(bodies))

    assert [b"".join(frame)[: len(body)] for frame, body in zip(found, bodies, strict=True)] == bodies


def test_one_frame_takes_all_fragments() -> None:
    assert parts(one(b"") + one(b"ab") + one(b"cd"), 1) == [[b"ab", b"cd"]]


def test_the_table_says_where_a_frame_begins() -> None:
    stored = one(struct.pack("<2I", 0, 20)) + one(b"ab") + one(b"cd") + one(b"ef")

    assert parts(stored, 2) == [[b"ab", b"cd"], [b"ef"]]


def test_the_extended_table_says_so_too() -> None:
    assert parts(one(b"") + one(b"ab") + one(b"cd") + one(b"ef"), 2, (0, 10)) == [[b"ab"], [b"cd", b"ef"]]


@pytest.mark.parametrize("table", [b"", struct.pack("<2I", 0, 7), struct.pack("<2I", 10, 0)])
def test_without_a_table_that_fits_a_frame_ends_with_its_image(table: bytes) -> None:
    stored = one(table) + one(b"abcd") + one(b"ab" + END) + one(b"ef" + END)

    assert parts(stored, 2) == [[b"abcd", b"ab" + END], [b"ef" + END]]


def test_what_comes_after_the_delimiter_is_not_read() -> None:
    stored = one(b"") + one(b"ab") + b"\xfe\xff\xdd\xe0" + bytes(4) + one(b"QUIXOTE^ANNA")

    assert parts(stored, 1) == [[b"ab"]]


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"QUIXOTE^ANNA",
        one(b"") + b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
        one(b"") + one(b"ab")[:-1],
        one(b"") + one(b"ab") + one(b"cd") + one(b"ef"),
    ],
)
def test_fragments_that_make_no_frames_are_refused(stored: bytes) -> None:
    with pytest.raises(UnreadableInstance, match="PixelData"):
        frames(memoryview(stored), 2)


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=5))
def test_what_is_put_together_is_what_another_writer_writes(bodies: list[bytes]) -> None:
    stored = offset_table(map(len, bodies)) + b"".join(b"".join(item((body[:1], body[1:]))) for body in bodies)

    table, *found = generate_fragments(stored)

    assert [part[: len(body)] for part, body in zip(found, bodies, strict=True)] == bodies
    assert parts(stored, len(bodies))[-1] == [found[-1]]
    assert len(table) == 4 * len(bodies)
    assert fragments(memoryview(stored))[0] == (8, 8 + len(table))


def test_offsets_beyond_32_bits_leave_the_table_empty() -> None:
    assert offset_table([1 << 31, 1 << 31, 9]) == one(b"")
    assert encapsulation.offset_table([]) == one(b"")
