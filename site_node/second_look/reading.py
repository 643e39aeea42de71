"""What a DICOM file says, attribute by attribute: a small reader of its own, of PS3.5 and PS3.10.

Reads text only, and lets the pixels and other large values lie where they are. Lenient where readers differ, so that
it sees at least what they see; what it cannot follow at all is refused.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEAKING = frozenset(
    ("AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT", "DS", "IS")
)
_SINGLE = frozenset(("LT", "ST", "UT", "UR"))
_NARROW = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARSET, _SYNTAX, _PIXELS = 0x00080005, 0x00020010, 0x7FE00010
_PADDING = " \0\r\n"
_UNDEFINED = 0xFFFFFFFF
_PREAMBLE = 132
_MAX_DEPTH = 200
MAX_VALUE = 1 << 22  # bytes of text that are decoded; every byte is scanned besides
MAX_INFLATED = 1 << 30
_WINDOW = 1 << 20


_SHORT_HEADS = {order: struct.Struct(order + "HH2sH").unpack_from for order in "<>"}
_LENGTHS = {order: struct.Struct(order + "I").unpack_from for order in "<>"}
_TAGS = {order: struct.Struct(order + "HHI").unpack_from for order in "<>"}
_VRS = {
    vr.encode(): vr
    for vr in (
        *SPEAKING,
        "AT",
        "FD",
        "FL",
        "OB",
        "OD",
        "OF",
        "OL",
        "OV",
        "OW",
        "SL",
        "SQ",
        "SS",
        "SV",
        "UL",
        "UN",
        "US",
        "UV",
    )
}

_SHORT = {raw: vr for raw, vr in _VRS.items() if raw not in _LONG}


class Spoken(NamedTuple):
    """One attribute and its values as text; `parents` are the sequences it stands in, from the outside."""

    path: str
    keyword: str
    vr: str
    values: tuple[str, ...]
    parents: tuple[str, ...]


class Extent(NamedTuple):
    """Where the value of an attribute of the root lies in the file."""

    start: int
    keyword: str
    vr: str


@dataclass(frozen=True, slots=True)
class File:
    """What a file says; where its root attributes lie, and where its pixels begin and end, if it has any."""

    spoken: tuple[Spoken, ...]
    extents: tuple[Extent, ...]
    pixels: tuple[int, int]
    syntax: str

    @property
    def deflated(self) -> bool:
        """Return whether the data set lies deflated in its file, where no place can be named."""
        return self.syntax == DeflatedExplicitVRLittleEndian

    def place(self, at: int) -> tuple[str, str]:
        """Return the keyword and VR of the attribute of the root that a byte lies in."""
        if self.deflated:
            return "a compressed stream", "UN"
        index = bisect_right(self.extents, at, key=lambda extent: extent.start) - 1
        return (self.extents[index].keyword, self.extents[index].vr) if index >= 0 else ("preamble", "UN")


def read(buffer: memoryview) -> File:
    """Return what a file says.

    Raises: UnreadableInstance if its structure cannot be followed.
    """
    try:
        file = _Walk(buffer).file()
    except (struct.error, IndexError, OverflowError, zlib.error) as error:
        raise UnreadableInstance("the second look cannot follow the file") from error
    if not file.spoken:
        raise UnreadableInstance("the second look finds nothing said in the file")
    return file


def inflated(buffer: memoryview, start: int) -> Iterator[bytes]:
    """Yield a deflated data set in windows that overlap."""
    yield from inflate(buffer[start:], -zlib.MAX_WBITS)


def inflate(buffer: memoryview, bits: int) -> Iterator[bytes]:
    """Yield a compressed stream in windows that overlap by 256 bytes, as far as it inflates.

    Raises: UnreadableInstance if it is larger than 1 GiB.
    """
    machine, total, tail = zlib.decompressobj(bits), 0, b""
    pending: bytes | memoryview = buffer
    while pending and not machine.eof:
        try:
            window = machine.decompress(pending, _WINDOW)
        except zlib.error:
            return
        if not window:
            return
        total += len(window)
        if total > MAX_INFLATED:
            raise UnreadableInstance("a compressed stream is too large to look through")
        yield tail + window
        tail, pending = window[-256:], machine.unconsumed_tail


@cache
def _dictionary() -> dict[int, tuple[str, str]]:
    """Return VR and keyword by tag. Source: PS3.6, by pydicom."""
    return {tag: (entry[0], entry[4]) for tag, entry in DicomDictionary.items()}


def _unlisted(tag: int) -> tuple[str, str]:
    """Return VR and keyword of a tag that is not in the dictionary. Source: PS3.5 7.8.1 (private creators)."""
    vr = "LO" if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF else "UN"  # noqa: PLR2004 -- the numbers of creators
    return vr, f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _Walk:
    """One pass over a file."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self.plain = _plain(buffer)
        self.known = _dictionary()
        self.spoken: list[Spoken] = []
        self.extents: list[Extent] = []
        self.pixels = (len(buffer), len(buffer))
        self.implicit, self.order = False, "<"

    def file(self) -> File:
        has_meta = bytes(self.buffer[128:_PREAMBLE]) == b"DICM"
        at = self._meta(_PREAMBLE if has_meta else 0)
        syntax = next((one.values[0] for one in self.spoken if one.keyword == "TransferSyntaxUID"), "")
        self.order = ">" if syntax == ExplicitVRBigEndian else "<"
        self.implicit = syntax == ImplicitVRLittleEndian
        extents = self.extents
        if syntax == DeflatedExplicitVRLittleEndian:
            # Places inside mean nothing in the file; what is said does.
            self.buffer, start, at = memoryview(b"".join(_joined(self.buffer, at))), at, 0
            self.plain = _plain(self.buffer)
            self.extents = []
            self._data_set(at, len(self.buffer), "", (), ("iso8859",), 0)
            return File(tuple(self.spoken), (*extents, Extent(start, "a compressed stream", "UN")), (0, 0), syntax)
        self._look_at(bytes(self.buffer[at : at + 6]), syntax)
        try:
            self._data_set(at, len(self.buffer), "", (), ("iso8859",), 0)
        except UnreadableInstance:
            # Bytes that somebody left behind the pixels are no attribute; they are scanned as bytes.
            if not self.extents or self.extents[-1].start < self.pixels[1]:
                raise
            self.extents = [extent for extent in self.extents if extent.start < self.pixels[1]]
        return File(tuple(self.spoken), tuple(self.extents), self.pixels, syntax)

    def _look_at(self, first: bytes, syntax: str) -> None:
        """Take the encoding from the first element where it is another than the file says."""
        if not syntax:
            self.implicit = not first[4:].isalpha()
        elif first[4:] in _VRS:
            self.implicit = False
            # Groups as low as 0008, which data sets begin with, have their zero first or last.
            if 0 in first[:2] and any(first[:2]):
                self.order = ">" if first[0] == 0 else "<"

    def _meta(self, at: int) -> int:
        """Read group 2, explicit and little-endian whatever follows. Source: PS3.10 7.1."""
        while at + 8 <= len(self.buffer) and int.from_bytes(self.buffer[at : at + 2], "little") == 2:  # noqa: PLR2004 -- the group
            at = self._element(at, len(self.buffer), "", (), ("iso8859",), 0)
        return at

    def _data_set(
        self, at: int, end: int, prefix: str, parents: tuple[str, ...], charset: tuple[str, ...], depth: int
    ) -> int:
        """Read elements until `end` or the end of an item; return where the next thing begins."""
        if depth > _MAX_DEPTH:
            raise UnreadableInstance("sequences are nested too deep")
        unpack, buffer, plain, known = _SHORT_HEADS[self.order], self.buffer, self.plain, self.known
        short = {} if self.implicit else _SHORT
        while at + 8 <= end:
            group, element, written, length = unpack(buffer, at)
            tag = group << 16 | element
            vr = short.get(written)
            # Nearly all elements are of this kind; the others are read by `_element`, which reads these too.
            if vr is not None and tag not in (_CHARSET, _PIXELS) and (stop := at + 8 + length) <= end:
                if depth == 0 or vr in SPEAKING:
                    keyword = (known.get(tag) or _unlisted(tag))[1]
                    if depth == 0:
                        self.extents.append(Extent(at, keyword, vr))
                    if length and vr in SPEAKING:
                        values = _text(bytes(plain[at + 8 : stop]), vr, charset)
                        if values:
                            self.spoken.append(Spoken(prefix + keyword, keyword, vr, values, parents))
                at = stop
            elif tag == _ITEM_END:
                return at + 8
            elif tag == _CHARSET:
                at, charset = self._charset(at, end, prefix, parents, charset, depth)
            else:
                at = self._element(at, end, prefix, parents, charset, depth)
        return end

    def _charset(
        self, at: int, end: int, prefix: str, parents: tuple[str, ...], charset: tuple[str, ...], depth: int
    ) -> tuple[int, tuple[str, ...]]:
        before = len(self.spoken)
        at = self._element(at, end, prefix, parents, charset, depth)
        values = self.spoken[before].values if len(self.spoken) > before else ()
        return at, _encodings(values)

    def _element(  # noqa: C901 -- each kind of element is a case of its own
        self, at: int, end: int, prefix: str, parents: tuple[str, ...], charset: tuple[str, ...], depth: int
    ) -> int:
        """Read one element; return where the next begins."""
        group, number, written, length = _SHORT_HEADS[self.order](self.buffer, at)
        tag = group << 16 | number
        vr, keyword = self.known.get(tag) or _unlisted(tag)
        start = at + 8
        if (group != 2 and self.implicit) or not (written.isalpha() and written.isupper()):  # noqa: PLR2004 -- group 2 is explicit always
            length, written = _LENGTHS[self.order](self.buffer, at + 4)[0], b""
        else:
            own = _VRS.get(written, "UN")
            vr = own if own != "UN" or vr not in SPEAKING else vr
            if written in _LONG:
                length, start = _LENGTHS[self.order](self.buffer, at + 8)[0], at + 12
        if depth == 0:
            self.extents.append(Extent(at, keyword, vr))
        if length == _UNDEFINED:
            if tag == _PIXELS and vr != "SQ":
                return self._fragments(at, start, end, depth)
            return self._sequence(
                start, end, f"{prefix}{keyword}", (*parents, keyword), charset, depth, unknown=written == b"UN"
            )
        stop = start + length
        if stop > end:
            raise UnreadableInstance(f"{keyword}: longer than what holds it")
        if tag == _PIXELS and depth == 0:
            self.pixels = (start, stop)
        elif vr == "SQ" or (vr == "UN" and self._begins_item(start, stop)):
            self._try_sequence(
                start,
                stop,
                f"{prefix}{keyword}",
                (*parents, keyword),
                charset,
                depth,
                unknown=vr == "UN" or written == b"UN",
            )
        elif vr in SPEAKING and 0 < length < MAX_VALUE:
            values = _text(bytes(self.buffer[start:stop]), vr, charset)
            if values:
                self.spoken.append(Spoken(prefix + keyword, keyword, vr, values, parents))
        return int(stop)

    def _begins_item(self, start: int, stop: int) -> bool:
        return stop - start >= 8 and bytes(self.buffer[start : start + 4]) in (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # noqa: PLR2004

    def _try_sequence(
        self,
        start: int,
        stop: int,
        path: str,
        parents: tuple[str, ...],
        charset: tuple[str, ...],
        depth: int,
        *,
        unknown: bool,
    ) -> None:
        """Read a sequence of known length; what is unknown may be none, and is then left to the scan of bytes."""
        if not unknown:
            self._sequence(start, stop, path, parents, charset, depth, unknown=False)
            return
        count = len(self.spoken)
        try:
            self._sequence(start, stop, path, parents, charset, depth, unknown=True)
        except (UnreadableInstance, struct.error):
            del self.spoken[count:]

    def _sequence(
        self,
        at: int,
        end: int,
        path: str,
        parents: tuple[str, ...],
        charset: tuple[str, ...],
        depth: int,
        *,
        unknown: bool,
    ) -> int:
        """Read items until `end` or the end of the sequence. Source: PS3.5 7.5, 6.2.2 note 4."""
        was = self.implicit, self.order
        if unknown:
            self.implicit, self.order = True, "<"
        index, unpack = 0, _TAGS[self.order]
        try:
            while at + 8 <= end:
                group, number, length = unpack(self.buffer, at)
                tag = group << 16 | number
                if tag == _SEQUENCE_END:
                    return at + 8
                if tag != _ITEM:
                    raise UnreadableInstance("a sequence holds something else than items")
                if not length:
                    at, index = at + 8, index + 1
                    continue
                stop = end if length == _UNDEFINED else at + 8 + length
                if stop > end:
                    raise UnreadableInstance("an item is longer than its sequence")
                at = self._data_set(at + 8, stop, f"{path}[{index}].", parents, charset, depth + 1)
                index += 1
            return end
        finally:
            self.implicit, self.order = was

    def _fragments(self, at: int, start: int, end: int, depth: int) -> int:
        """Step over encapsulated pixels. Source: PS3.5 A.4."""
        del at
        here = start
        while here + 8 <= end:
            group, number, length = struct.unpack_from("<HHI", self.buffer, here)
            here += 8
            if group << 16 | number == _SEQUENCE_END:
                break
            here += length
        else:
            raise UnreadableInstance("PixelData: no end")
        if depth == 0:
            self.pixels = (start, here)
        return here


def _plain(buffer: memoryview) -> bytes | memoryview:
    """Return the bytes that a buffer is a view of, which give parts of themselves faster; else the buffer."""
    whole = buffer.obj
    return whole if isinstance(whole, bytes) and len(whole) == buffer.nbytes and buffer.c_contiguous else buffer


def _joined(buffer: memoryview, start: int) -> Iterator[bytes]:
    machine, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    pending: bytes | memoryview = buffer[start:]
    while pending and not machine.eof:
        window = machine.decompress(pending, _WINDOW)
        if not window:
            return
        total += len(window)
        if total > MAX_INFLATED:
            raise UnreadableInstance("the deflated data set is too large to look through")
        yield window
        pending = machine.unconsumed_tail


def _encodings(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return Python's names of the repertoires of SpecificCharacterSet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tuple(convert_encodings(list(values)))
        except (LookupError, ValueError):
            return ("iso8859",)


def _text(raw: bytes, vr: str, charset: tuple[str, ...]) -> tuple[str, ...]:
    if vr in _NARROW or (raw.isascii() and b"\x1b" not in raw):
        text = raw.decode("latin-1")
    else:
        text = _decoded(raw, vr, charset)
    if "\\" not in text or vr in _SINGLE:
        text = text.strip(_PADDING)
        return (text,) if text else ()
    found = tuple([part.strip(_PADDING) for part in text.split("\\")])
    return found if any(found) else ()


def _decoded(raw: bytes, vr: str, charset: tuple[str, ...]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return decode_bytes(raw, charset, PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS)
        except (LookupError, ValueError):
            return raw.decode("latin-1")
