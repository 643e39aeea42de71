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
from site_node.stray.pieces import PACKED, Fault
from site_node.stray.tables import database, delimited, tree
from site_node.stray.texts import among_numbers, encoding, packed, strings, text, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.stray.pieces import Here, Part

# BMP has four bytes of zero where a text that begins with BMI goes on.
_PICTURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II[*+]\0|MM\0[*+]|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}WEBP|\0\0\0\x0cjP  "
    rb"|\xff\x4f\xff\x51",
    re.DOTALL,
)
_STREAM = re.compile(rb"(?P<gz>\x1f\x8b)|(?P<bz2>BZh[1-9][1\x17])|(?P<xz>\xfd7zXZ\0)")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_TABLES = (".csv", ".tsv", ".tab")
_TREES = (".json", ".ndjson", ".jsonl", ".geojson")
_TREE = re.compile(rb"\{|\[\s*[{\[\"]")
_HTML = re.compile(rb"\s*(?:<!doctype html|<html|<head|<body)", re.IGNORECASE)
_XML = re.compile(rb"\s*<(?:\?xml|[A-Za-z][\w:.-]*[\s>/])")
_NIFTI = (348).to_bytes(4, "little"), (348).to_bytes(4, "big"), (540).to_bytes(4, "little"), (540).to_bytes(4, "big")
_NIFTI_HEAD = 348
_ARRAY = 1024
_HEAD = 1024
# Packed in forms that are not read, by what they begin with, or hold from their fifth byte on (MP4).
_UNREAD = (
    *(
        b"7z\xbc\xaf\x27\x1c",
        b"Rar!\x1a\x07",
        b"\x28\xb5\x2f\xfd",
        b"\x04\x22\x4d\x18",
        b"\x1f\x9d",
        b"MSCF",
        b"OggS",
        b"PAR1",
    ),
    *(b"\x1a\x45\xdf\xa3", b"LUKS\xba\xbe", b"\0\0\1\xba", b"\0\0\1\xb3"),
)
_MP4 = b"ftyp"


def look(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield every part of a file, whatever lies in it."""
    head = bytes(content[:_HEAD])
    if is_dicom(head):
        yield from dicom(content, here)
    elif head.startswith(_ZIP):
        yield from archive_zip(content, here)
    elif stream := _STREAM.match(head):
        yield from compressed(content, here, str(stream.lastgroup))
    elif head[257:262] == b"ustar":
        yield from archive_tar(content, here)
    elif head.startswith(b"%PDF-") or (b"%PDF-" in head and not encoding(content)):
        yield from pdf(content, here)
    elif head.startswith(b"SQLite format 3\0"):
        yield from database(content, here)
    elif _PICTURE.match(head):
        yield from picture(content, here)
    elif coded := encoding(content):
        yield from _textual(content, here, coded, head)
        yield from packed(content, here)  # a text may go on as something else
    else:
        yield from _binary(content, here, head)


def _textual(content: memoryview, here: Here, coded: str, head: bytes) -> Iterator[Part]:
    name, begins = here.name.lower(), head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if name.endswith(_TABLES):
        yield from delimited(content, here, coded)
    elif begins.startswith(b"{\\rtf"):
        yield from rtf(content, here)
    elif name.endswith(_TREES) or _TREE.match(begins):
        yield from tree(content, here, coded)
    elif _HTML.match(head) or name.endswith((".html", ".htm")):
        yield from html(content, here, coded)
    elif _XML.match(begins) or name.endswith((".xml", ".cda", ".svg")):
        yield from xml(content, here)
    else:
        yield from text(content, here, coded)


def _binary(content: memoryview, here: Here, head: bytes) -> Iterator[Part]:
    """Yield what is said in a file of numbers: in the header of tensors and volumes by every letter, else by runs."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < len(content):
        # safetensors: 8 bytes of length, JSON of that length, numbers.
        yield from tree(content[8 : 8 + length], here, "utf-8")
        yield from among_numbers(content[8 + length :], here, "tensors, byte")
    elif head[:4] in _NIFTI:
        yield from strings(content[:_NIFTI_HEAD], here, sort=Sort.PROSE)
        # Extensions of the header, up to where the voxels begin. NIfTI-1, vox_offset.
        begin = _NIFTI_HEAD
        if head[:4] in _NIFTI[:1] and len(head) >= _NIFTI_HEAD:
            offset = struct.unpack("<f", head[108:112])[0]
            begin = int(min(offset, len(content))) if offset > _NIFTI_HEAD else _NIFTI_HEAD
        yield from strings(content[_NIFTI_HEAD:begin], here, "extension, byte", Sort.PROSE)
        yield from among_numbers(content[begin:], here, "voxels, byte")
    elif head.startswith(b"\x93NUMPY"):
        yield from strings(content[:_ARRAY], here)
        yield from among_numbers(content[_ARRAY:], here, "numbers, byte")
    elif head.startswith(_UNREAD) or head.startswith(_MP4, 4):
        yield from among_numbers(content, here)
        yield Fault(here.trail, PACKED)
    else:
        yield from unknown(content, here)
