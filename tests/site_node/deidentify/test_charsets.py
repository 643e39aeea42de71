"""Text of every repertoire is decoded."""

from __future__ import annotations

import pytest

from site_node.deidentify.charsets import codec, decode


# PS3.5 annexes H, I, J and K, and PS3.3 C.12.1.1.2.
@pytest.mark.parametrize(
    ("specific", "raw", "text"),
    [
        (b"", b"Doe^John", "Doe^John"),
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO_IR 144", b"\xb8\xd2\xd0\xdd", "Иван"),
        (b"ISO_IR 192", "Müller=李".encode(), "Müller=李"),
        (b"GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (b"ISO_IR 13", b"\xd4\xcf\xc0\xde", "ﾔﾏﾀﾞ"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (b"\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong=洪^吉洞"),
        (b"\\ISO 2022 IR 58", b"Wang=\x1b$)A\xcd\xf5", "Wang=王"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\xfc\x1b-L\xb8", "üИ"),
        (b"NO SUCH", b"M\xfcller", "Müller"),
        (b"", "Müller".encode(), "Müller"),
    ],
)
def test_text_of_a_repertoire(specific: bytes, raw: bytes, text: str) -> None:
    assert decode(raw, codec(specific)) == text


def test_what_cannot_be_decoded_is_marked() -> None:
    assert "\ufffd" in decode(b"\xff\xfe\x81", codec(b"GB18030"))
    assert decode(b"\x1b$B\xff\xff", codec(b""))
