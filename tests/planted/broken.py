"""Files that are no proper DICOM, each with its fault in its name; every one says a name that must not get out."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

NAME = b"QUIXOTEVANTONGEREN^ANNA "
EXPLICIT, IMPLICIT, DEFLATED, BIG = (b"1.2.840.10008.1.2" + tail for tail in (b".1", b"", b".1.99", b".2"))
JPEG = b"1.2.840.10008.1.2.4.50"
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def _element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Return an explicit little-endian element; `length` may lie."""
    value += b"\0" * (len(value) % 2)
    said = len(value) if length is None else length
    head = struct.pack("<HH2s", group, number, vr)
    return head + (struct.pack("<HI", 0, said) if vr in LONG else struct.pack("<H", said)) + value


def _meta(syntax: bytes) -> bytes:
    body = (
        _element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.7")
        + _element(2, 3, b"UI", b"1.2.3.4.5")
        + _element(2, 0x10, b"UI", syntax)
    )
    return b"\0" * 128 + b"DICM" + _element(2, 0, b"UL", struct.pack("<I", len(body))) + body


def _body(tail: bytes = b"") -> bytes:
    return (
        _element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.7") + _element(8, 0x18, b"UI", b"1.2.3.4.5")
        + _element(0x10, 0x10, b"PN", NAME) + _element(0x10, 0x20, b"LO", b"MRN-7730441")
        + _element(0x20, 0xD, b"UI", b"1.2.3.4")
        + _element(0x20, 0xE, b"UI", b"1.2.3.4.6") + tail
    )  # fmt: skip


def _image(pixels: bytes = b"\0" * 64, rows: int = 8, length: int | None = None, syntax: bytes = EXPLICIT) -> bytes:
    numbers = ((2, 1), (0x10, rows), (0x11, 8), (0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0))
    tail = _element(0x28, 2, b"US", struct.pack("<H", 1)) + _element(0x28, 4, b"CS", b"MONOCHROME2")
    tail += b"".join(_element(0x28, tag, b"US", struct.pack("<H", value)) for tag, value in numbers[1:])
    return _meta(syntax) + _body(tail + _element(0x7FE0, 0x10, b"OB", pixels, length))


def _nested(depth: int, vr: bytes = b"SQ") -> bytes:
    head = struct.pack("<HH2sHI", 0x0040, 0xA730, vr, 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    tail = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return head * depth + _element(0x10, 0x10, b"PN", NAME) + tail * depth


def _item(length: int, value: bytes = b"") -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length) + value


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", b"\0" * 50_000_000)
        archive.writestr("name.txt", NAME)
    return file.getvalue()


def _deflated(plain: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def broken(rng: np.random.Generator) -> dict[str, bytes]:
    """Return the files by name."""
    good, meta, body = _image(), _meta(EXPLICIT), _body()
    sequence = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    noise = rng.bytes(5000)
    return {
        "empty": b"",
        "one-byte": b"\0",
        "a-text-file": b"Patient: " + NAME + b"\n" * 400,
        "only-a-preamble": b"\0" * 128,
        "preamble-and-magic": b"\0" * 128 + b"DICM",
        "noise": noise,
        "noise-behind-magic": b"\0" * 128 + b"DICM" + noise,
        "noise-behind-meta": meta + noise,
        "noise-behind-body": meta + body + noise,
        "half": good[: len(good) // 2],
        "cut-in-meta": good[:150],
        "cut-in-a-tag": meta + body[:-3],
        "cut-in-pixels": good[:-20],
        "last-byte-missing": good[:-1],
        "no-meta": body,
        "no-preamble": meta[128:] + body,
        "no-transfer-syntax": b"\0" * 128 + b"DICM" + _element(2, 0, b"UL", struct.pack("<I", 0)) + body,
        "unknown-transfer-syntax": _meta(b"1.2.3.4.5.6.7") + body,
        "meta-length-lies-long": meta.replace(b"UL\x04\0", b"UL\x04\0\xff\xff", 1)[: len(meta)] + body,
        "says-implicit-is-explicit": _meta(IMPLICIT) + body,
        "says-big-endian-is-little": _meta(BIG) + body,
        "says-deflated-is-not": _meta(DEFLATED) + body,
        "deflate-bomb": _meta(DEFLATED) + _deflated(body + _element(0x7FE0, 0x10, b"OB", b"\0" * 300_000_000)),
        "deflate-cut": (_meta(DEFLATED) + _deflated(body))[:-9],
        "zip-bomb": _zip(),
        "gzip": gzip.compress(good),
        "wrong-vr-letters": meta + body.replace(b"PN", b"??", 1),
        "wrong-vr-zeros": meta + body.replace(b"LO", b"\0\0", 1),
        "text-in-a-number": meta + _body(_element(0x28, 0x10, b"US", NAME)),
        "odd-length": meta + _body(_element(8, 0x1030, b"LO", b"CT", 3) + b"\0\0"),
        "length-of-4-gib": meta + _body(_element(0x10, 0x4000, b"UT", NAME, 0xFFFFFFFE)),
        "pixels-of-4-gib": _image(length=0xFFFFFFFE),
        "undefined-length-of-text": meta + _body(_element(0x10, 0x4000, b"UT", NAME, 0xFFFFFFFF)),
        "endless-sequence": meta + _body(sequence + (_item(0xFFFFFFFF) + _element(0x10, 0x10, b"PN", NAME)) * 400),
        "sequence-without-delimiter": meta + _body(sequence + _item(8, b"\x08\0\x18\0UI\0\0")),
        "sequence-of-no-items": meta + _body(_element(8, 0x1140, b"SQ", NAME)),
        "item-longer-than-sequence": meta + _body(_element(8, 0x1140, b"SQ", _item(5000, b"\x10\0\x10\0PN\x04\0ABCD"))),
        "item-of-4-gib": meta + _body(sequence + _item(0xFFFFFFF0, NAME)),
        "a-million-empty-items": meta + _body(_element(8, 0x1140, b"SQ", _item(0) * 1_000_000)),
        "sequence-65-deep": meta + _body(_nested(65)),
        "sequence-1000-deep": meta + _body(_nested(1000)),
        "unknown-60-deep": meta + _body(_nested(60, b"UN")),
        "tags-out-of-order": meta + body[::1] + _element(8, 0x70, b"LO", NAME) + body,
        "the-same-tag-twice": meta + body + _element(0x10, 0x10, b"PN", NAME),
        "group-2-again-in-the-body": meta + body + _element(2, 0x16, b"AE", NAME[:16]),
        "command-group": meta + _element(0, 0x110, b"US", b"\x01\0") + body,
        "no-patient-id": meta + body.replace(_element(0x10, 0x20, b"LO", b"MRN-7730441"), b""),
        "no-sop-instance": meta + body.replace(_element(8, 0x18, b"UI", b"1.2.3.4.5"), b""),
        "uid-is-a-name": meta + body.replace(_element(8, 0x18, b"UI", b"1.2.3.4.5"), _element(8, 0x18, b"UI", NAME)),
        "uid-of-200-characters": meta
        + body.replace(_element(8, 0x18, b"UI", b"1.2.3.4.5"), _element(8, 0x18, b"UI", b"1.2" * 60)),
        "pixels-too-short": _image(rows=500),
        "rows-zero": _image(rows=0),
        "rows-65535": _image(rows=65535),
        "fragments-without-end": _meta(JPEG)
        + _body(_element(0x7FE0, 0x10, b"OB", _item(0) + _item(8, b"\xff\xd8JOHNDO"), 0xFFFFFFFF)),
        "fragment-longer-than-file": _meta(JPEG)
        + _body(_element(0x7FE0, 0x10, b"OB", _item(0) + _item(90000, b"\xff\xd8"), 0xFFFFFFFF)),
        "unknown-charset": meta + _element(8, 5, b"CS", b"ISO_IR 9999") + body,
        "charset-is-a-name": meta + _element(8, 5, b"CS", b"QUIXOTEVANTONG") + body,
        "bytes-no-charset-has": meta + _body(_element(0x10, 0x4000, b"LT", b"\xff\xfe\x81" + NAME)),
        "date-is-a-name": meta + _body(_element(0x10, 0x30, b"DA", NAME)),
    }


# Faults that a reader may mend: such a file may be taken, if nothing of the name gets out.
MAY_BE_TAKEN = frozenset((
    "no-meta", "no-preamble", "unknown-60-deep", "tags-out-of-order", "the-same-tag-twice", "text-in-a-number",
    "unknown-charset", "charset-is-a-name", "bytes-no-charset-has", "date-is-a-name", "wrong-vr-letters",
    "wrong-vr-zeros", "a-million-empty-items", "uid-of-200-characters", "odd-length", "command-group",
    "group-2-again-in-the-body", "no-transfer-syntax", "says-implicit-is-explicit", "meta-length-lies-long",
    "sequence-of-no-items",
))  # fmt: skip


def write_broken(folder: Path, rng: np.random.Generator) -> list[str]:
    """Write the broken files; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = broken(rng)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return list(files)
