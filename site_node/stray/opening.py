"""Which reader a file is given to, by what it begins with and not by its name; a name decides only among texts."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from site_node.stray.archives import archive_tar, archive_zip, compressed
from site_node.stray.dicom import dicom, is_dicom
from site_node.stray.documents import pdf
from site_node.stray.finding import Sort
from site_node.stray.markup import html, rtf, xml
from site_node.stray.pictures import picture
from site_node.stray.tables import database, delimited, tree
from site_node.stray.texts import encoding, strings, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.stray.pieces import Here, Part

_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8", b"BM")
_STREAMS = ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz"))
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_TABLES = (".csv", ".tsv", ".tab")
_TREES = (".json", ".ndjson", ".jsonl", ".geojson")
_HTML = re.compile(rb"\s*(?:<!doctype html|<html|<head|<body)", re.IGNORECASE)
_XML = re.compile(rb"\s*<(?:\?xml|[A-Za-z][\w:.-]*[\s>/])")
_NIFTI = (348).to_bytes(4, "little"), (348).to_bytes(4, "big"), (540).to_bytes(4, "little"), (540).to_bytes(4, "big")
_NIFTI_HEAD = 348
_ARRAY = 1024
_MAX_STRINGS = 64 * 1024**2
_HEAD = 1024


def look(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield every part of a file, whatever lies in it."""
    head = bytes(content[:_HEAD])
    if is_dicom(head):
        yield from dicom(content, here, here.pictures)
    elif head.startswith(_ZIP):
        yield from archive_zip(content, here)
    elif how := next((how for magic, how in _STREAMS if head.startswith(magic)), ""):
        yield from compressed(content, here, how)
    elif head[257:262] == b"ustar":
        yield from archive_tar(content, here)
    elif b"%PDF-" in head:
        yield from pdf(content, here, look=here.pictures != "none")
    elif head.startswith(b"SQLite format 3\0"):
        yield from database(content, here)
    elif head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        yield from picture(content, here, look=here.pictures != "none")
    elif coded := encoding(content):
        yield from _textual(content, here, coded, head)
    else:
        yield from _binary(content, here, head)


def _textual(content: memoryview, here: Here, coded: str, head: bytes) -> Iterator[Part]:
    name, begins = here.name.lower(), head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if name.endswith(_TABLES):
        yield from delimited(content, here, coded)
    elif begins.startswith(b"{\\rtf"):
        yield from rtf(content, here)
    elif name.endswith(_TREES) or begins[:1] == b"{":
        yield from tree(content, here, coded)
    elif _HTML.match(head) or name.endswith((".html", ".htm")):
        yield from html(content, here, coded)
    elif _XML.match(begins) or name.endswith((".xml", ".cda", ".svg")):
        yield from xml(content, here)
    else:
        yield from text(content, here, coded)


def _binary(content: memoryview, here: Here, head: bytes) -> Iterator[Part]:
    """Yield what is said in a file of numbers: in the header of tensors and volumes alone, elsewhere in every byte."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < len(content):
        # safetensors: 8 bytes of length, JSON of that length, numbers.
        yield from tree(content[8 : 8 + length], here, "utf-8")
    elif head[:4] in _NIFTI:
        yield from strings(content[:_NIFTI_HEAD], here, sort=Sort.PROSE)
        # Extensions of the header, up to where the voxels begin. NIfTI-1, vox_offset.
        if head[:4] in _NIFTI[:1]:
            begin = int(min(max(_NIFTI_HEAD, *struct.unpack("<f", head[108:112])), len(content)))
            yield from strings(content[_NIFTI_HEAD:begin], here, "extension, byte", Sort.PROSE)
    elif head.startswith(b"\x93NUMPY"):
        yield from strings(content[:_ARRAY], here)
    else:
        yield from strings(content[:_MAX_STRINGS], here)
