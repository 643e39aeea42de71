"""The fast search finds what a slow one finds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from site_node.second_look.scan import Found, Pattern, Scanner

words = st.lists(st.text("abcdefgh019", min_size=4, max_size=12), min_size=1, max_size=8, unique=True)


@settings(deadline=None)
@given(words, st.binary(max_size=400), st.data())
def test_everything_that_a_slow_search_finds_is_found(found: list[str], noise: bytes, data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(found)).encode()
    at = data.draw(st.integers(0, len(noise)))
    buffer = noise[:at] + data.draw(st.sampled_from((word, word.upper(), word.title()))) + noise[at:]
    scanner = Scanner([Pattern(one.encode(), "name") for one in found], ())
    low = buffer.lower()
    slow = {i for i in range(len(low)) for one in found if low.startswith(one.encode(), i)}
    assert {one.at for one in scanner.find(memoryview(buffer))} == slow
    assert at in slow


def test_a_pattern_across_windows_is_found_once() -> None:
    buffer = bytearray(3 << 20)
    buffer[(1 << 20) - 3 : (1 << 20) + 4] = b"Abcdefg"
    assert list(Scanner([Pattern(b"abcdefg", "name")], ()).find(memoryview(buffer))) == [Found((1 << 20) - 3, "name")]


def test_a_uid_is_found_whole_and_not_as_a_part_of_a_longer_one() -> None:
    scanner = Scanner((), ["1.2.826.0.1.99.5"])
    assert [one.kind for one in scanner.find(memoryview(b"xx1.2.826.0.1.99.5\0"))] == ["uid"]
    assert list(scanner.find(memoryview(b"xx1.2.826.0.1.99.55\0"))) == []
    assert list(scanner.find(memoryview(b"xx9.1.2.826.0.1.99.5\0"))) == []


def test_a_number_within_a_number_is_another() -> None:
    scanner = Scanner([Pattern(b"7730441", "identifier", frozenset(b"0123456789."))], ())
    assert list(scanner.find(memoryview(b"2.25.177304412"))) == []
    assert len(list(scanner.find(memoryview(b"no 7730441 x")))) == 1
