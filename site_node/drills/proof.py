"""Whether an instance that came out of a PACS is the one that was archived: its header and its decoded pixels.

Compared with what the snapshot's lists say, and never with the restored file. A PACS may write the same header in
another way: lengths of sequences, group lengths and padding are its own business (PS3.5 7.5, 7.2, 6.2), values are not.
"""

from __future__ import annotations

import hashlib
import io
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

from site_node.archive.decoding import FAULTS
from site_node.deidentify.transcoding import quiet
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataelem import DataElement
    from pydicom.tag import BaseTag

    from site_node.archive.layout import Entry

_PIXELS = Tag(0x7FE0, 0x0000)  # from here on it is pixels, their offsets, and what comes behind them
_PADDING = b"\0 "
_IMPLICIT_HEAD = 8  # tag and length (PS3.5 7.1.3)


class Verdict(StrEnum):
    """What came of one instance."""

    PROVED = "proved"
    OTHER_HEADER = "header-differs"
    OTHER_PIXELS = "pixels-differ"


class Header(NamedTuple):
    """A header by which two spellings of the same values are equal."""

    SOPInstanceUID: str
    digest: str


def header_of(source: Path | bytes) -> Header:
    """Return the header of a file, or of the bytes before its pixels.

    Raises: ArchiveError if it is none.
    """
    try:
        with quiet():
            ds = dcmread(io.BytesIO(source) if isinstance(source, bytes) else source, stop_before_pixels=True)
            digest = hashlib.sha256()
            _add(ds, digest.update, little_endian=ds.original_encoding[1] is not False)
            return Header(str(ds.get("SOPInstanceUID", "")).strip(), digest.hexdigest())
    except (*FAULTS, InvalidDicomError) as error:
        raise ArchiveError("a header cannot be read") from error


def judge(entry: Entry, received: Path, decode: Callable[[Path], str]) -> Verdict:
    """Return whether a received file is the archived instance; `decode` gives the digest of its pixels."""
    if header_of(received) != header_of(entry.prefix):
        return Verdict.OTHER_HEADER
    if entry.pixels and decode(received) != entry.pixels:
        return Verdict.OTHER_PIXELS
    return Verdict.PROVED


def _add(ds: Dataset, take: Callable[[bytes], None], *, little_endian: bool) -> None:
    for tag in sorted(ds.keys()):
        if tag >= _PIXELS:
            break
        if tag.element == 0:  # a group length
            continue
        value = _value(ds, tag, little_endian=little_endian)
        if isinstance(value, bytes):
            take(f"{tag:08x} {len(value)} ".encode() + value)
        else:
            take(f"{tag:08x} [{len(value)}".encode())
            for item in value:
                _add(item, take, little_endian=little_endian)
                take(b";")
            take(b"]")


def _value(ds: Dataset, tag: BaseTag, *, little_endian: bool) -> bytes | Items:
    """Return the items of a sequence, else the bytes of the value, as they stand in the file."""
    element: DataElement | RawDataElement = ds.get_item(tag)
    if isinstance(element, RawDataElement):
        vr = element.VR or _known_vr(tag)
        if vr != "SQ":
            return (element.value or b"").rstrip(_PADDING)
        element = ds[tag]
    value = element.value
    if isinstance(value, Items):
        return value
    written = DicomBytesIO()  # pydicom decodes some values as it reads, and others not
    written.is_implicit_VR, written.is_little_endian = True, little_endian
    write_data_element(written, element)
    return written.getvalue()[_IMPLICIT_HEAD:].rstrip(_PADDING)


def _known_vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""
