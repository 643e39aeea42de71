"""DICOM files as elements, and elements as DICOM files: PS3.10 and PS3.5, strict, without copying pixels.

Reads every standard encoding (implicit, explicit, big endian, deflated, encapsulated pixels, defined
and undefined lengths, sequences hidden in UN) from a buffer, which large values go on pointing into,
and writes the same encoding. Knows nothing of what an element means; headers.py does.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from functools import cache
from mmap import mmap
from struct import Struct, pack
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"  # frames are deflated, the data set is not
GE_PRIVATE = "1.2.840.113619.5.2"  # GE's implicit little endian with big endian pixels
PIXEL_DATA = 0x7FE00010

NOT_DICOM = "not-dicom"
_PREAMBLE = 128  # PS3.10 7.1
_UNDEFINED = 0xFFFFFFFF
_MAX_SHORT = 0xFFFE  # PS3.5 7.1.2: the longest even length in 16 bits
# Deeper than any IOD; a limit of ours, so that no file exhausts the stack.
MAX_DEPTH = 64
# A value of this size or more stays where it is in the buffer.
_BULK_BYTES = 1 << 14
# Bounds of ours against deflate bombs: a sparse label map inflates a hundredfold, and no file to more than this.
_MAX_INFLATED = 1 << 30
_FREELY_INFLATED = 128 << 20
_MAX_INFLATION = 200
_CHUNK = 1 << 20

_META_LENGTH = 0x00020000
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = 0xFFFE
# How a sequence is delimited: bits of `Element.undefined`.
_BY_DELIMITER, _ITEMS_BY_DELIMITER = 1, 2

# PS3.5 table 7.1-2: a length of 16 bits; table 7.1-1: of 32 bits behind two reserved bytes.
_SHORT_VRS = (
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "DT",
    "FL",
    "FD",
    "IS",
    "LO",
    "LT",
    "PN",
    "SH",
    "SL",
    "SS",
    "ST",
    "TM",
)
_SHORT = {vr.encode(): vr for vr in (*_SHORT_VRS, "UI", "UL", "US")}
_LONG = {vr.encode(): vr for vr in ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]}
_VR_BYTES = {vr: raw for raw, vr in (_SHORT | _LONG).items()}
_LONG_VRS = frozenset(_LONG.values())
_BULK_VRS = ("OB", "OW", "UN")
TEXT_VRS = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"])
_WIDTH = {"AT": 2, "US": 2, "SS": 2, "OW": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4}
_WIDTH |= {"FD": 8, "OD": 8, "SV": 8, "UV": 8, "OV": 8}


class Element(NamedTuple):
    """A data element; a sequence's value is its items, encapsulated pixels' value their items' bytes.

    `undefined` says that the length is (for sequences: 1 the sequence's, 2 the items', 3 both).
    """

    tag: int
    vr: str
    value: bytes | memoryview | list[DataSet]
    undefined: int = 0


DataSet: TypeAlias = dict[int, Element]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixel data that is made while it is written; `length` is None if fragments come, without their delimiter."""

    tag: int
    vr: str
    length: int | None
    chunks: Iterator[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Part10:
    """A DICOM file: its data sets in the order of their tags, numbers in the byte order of its syntax.

    `records` are the places in the source of the records of a DICOMDIR.
    """

    meta: DataSet
    transfer_syntax: str
    elements: DataSet
    preamble: bytes = bytes(_PREAMBLE)
    records: tuple[int, ...] = field(default=(), compare=False)

    @property
    def big_endian(self) -> bool:
        """Whether numbers have their most significant byte first."""
        return self.transfer_syntax == EXPLICIT_BIG


def read(buffer: bytes | memoryview | mmap) -> Part10:
    """Return the elements of a DICOM file; large values are views of `buffer`.

    Raises: UnreadableInstance with a reason that names a tag, never a value.
    Source: PS3.10 section 7, PS3.5 sections 7 and A.
    """
    data = _whole(buffer)
    if len(data) < _PREAMBLE + 4 or data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise UnreadableInstance(NOT_DICOM)
    start, meta = _meta(_Reader(data))
    syntax = text(meta, 0x00020010)
    if not syntax:
        raise UnreadableInstance("TransferSyntaxUID: absent")
    if not _is_known(syntax):
        raise UnreadableInstance("TransferSyntaxUID: not one of the standard's")
    if syntax == DEFLATED:
        data, start = _inflate(data, start), 0
    syntax = _as_encoded(data, start, syntax)
    reader = _Reader(data, big=syntax == EXPLICIT_BIG)
    parse = reader.implicit if syntax in (IMPLICIT_LITTLE, GE_PRIVATE) else reader.explicit
    elements, _ = parse(start, len(data), 0, closed=False)
    if any(tag >> 16 == _META_LENGTH >> 16 for tag in elements):  # PS3.10 7.1: that group is the file's alone
        raise UnreadableInstance("file meta information within the data set")
    return Part10(meta, syntax, elements, bytes(data[:_PREAMBLE]), tuple(reader.records))


def write(part10: Part10, pixels: Pixels | None = None) -> Iterator[bytes | memoryview]:
    """Yield the file's bytes; large values come as they are, each a chunk of its own.

    `pixels` stand in place of the root's element of their tag.
    """
    yield head(part10)
    chunks = body(part10) if pixels is None else _around(part10, pixels)
    if part10.transfer_syntax == DEFLATED:
        chunks = _deflate(chunks)
    yield from chunks


def head(part10: Part10) -> bytes:
    """Return preamble, prefix and file meta information with its length. Source: PS3.10 7.1."""
    out: list[bytes | memoryview] = []
    rest = {tag: element for tag, element in part10.meta.items() if tag != _META_LENGTH}
    length = _Writer(out, "<").explicit(rest)
    return b"".join([part10.preamble, b"DICM", pack("<HH2sHL", 2, 0, b"UL", 4, length), *out])


def body(part10: Part10) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the data set, not deflated."""
    out: list[bytes | memoryview] = []
    writer = _Writer(out, ">" if part10.big_endian else "<")
    implicit = part10.transfer_syntax in (IMPLICIT_LITTLE, GE_PRIVATE)
    (writer.implicit if implicit else writer.explicit)(part10.elements)
    begin = 0
    for place in writer.bulk:
        yield b"".join(out[begin:place])
        yield out[place]
        begin = place + 1
    yield b"".join(out[begin:])


def _around(part10: Part10, pixels: Pixels) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the data set with `pixels` in their place. Source: PS3.5 7.1, A.4."""
    elements = part10.elements
    yield from body(replace(part10, elements={tag: it for tag, it in elements.items() if tag < pixels.tag}))
    writer = _Writer([], ">" if part10.big_endian else "<")
    tag, odd = (pixels.tag >> 16, pixels.tag & 0xFFFF), (pixels.length or 0) & 1
    length = _UNDEFINED if pixels.length is None else pixels.length + odd
    implicit = part10.transfer_syntax in (IMPLICIT_LITTLE, GE_PRIVATE)
    yield writer.tagged(*tag, length) if implicit else writer.long(*tag, _VR_BYTES[pixels.vr], 0, length)
    yield from pixels.chunks
    yield b"\0" * odd
    if pixels.length is None:
        yield writer.tagged(_SEQUENCE_END >> 16, _SEQUENCE_END & 0xFFFF, 0)
    yield from body(replace(part10, elements={tag: it for tag, it in elements.items() if tag > pixels.tag}))


def places(part10: Part10, tag: int) -> list[int]:
    """Return where in the written file the items of the sequence `tag` begin; only files not deflated have such places.

    Source: PS3.3 F.3.2.2.
    """
    writer = _Writer([], ">" if part10.big_endian else "<")
    size = writer.implicit if part10.transfer_syntax in (IMPLICIT_LITTLE, GE_PRIVATE) else writer.explicit
    header = 12 if size == writer.explicit else 8  # PS3.5 7.1.2, 7.1.3
    place = len(head(part10)) + size({other: it for other, it in part10.elements.items() if other < tag}) + header
    found = []
    element = part10.elements[tag]
    for item in element.value if isinstance(element.value, list) else ():
        found.append(place)
        place += 8 + size(item) + (8 if element.undefined & _ITEMS_BY_DELIMITER else 0)
    return found


def text(ds: DataSet, tag: int) -> str:
    """Return a value of the default repertoire without its padding; "" where there is none."""
    element = ds.get(tag)
    if element is None or isinstance(element.value, list):
        return ""
    return bytes(element.value).decode("ascii", "replace").strip(" \0")


def name(tag: int) -> str:
    """Return a tag as a reason names it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _whole(buffer: bytes | memoryview | mmap) -> bytes | mmap:
    """Return what slices into bytes; a part of a larger buffer is copied."""
    if not isinstance(buffer, memoryview):
        return buffer
    whole = buffer.obj
    if isinstance(whole, bytes | mmap) and len(whole) == buffer.nbytes and buffer.contiguous:
        return whole
    return buffer.tobytes()


@cache
def _is_known(syntax: str) -> bool:
    from pydicom._uid_dict import UID_dictionary  # noqa: PLC0415 -- slow, and a node in its rounds reads no files

    return syntax == GE_PRIVATE or UID_dictionary.get(syntax, ("", ""))[1] == "Transfer Syntax"


def _as_encoded(data: bytes | mmap, start: int, syntax: str) -> str:
    """Return the syntax that the first element really has, where writers are known to err."""
    first = data[start : start + 6]
    if len(first) < 6:  # noqa: PLR2004 -- a tag and a VR
        return syntax
    if syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG):
        return syntax
    if first[4:] not in _VR_BYTES_SET:
        return syntax if syntax == EXPLICIT_BIG else IMPLICIT_LITTLE
    # A group such as 0008, which every data set begins with, has its zero first or last.
    if syntax == EXPLICIT_BIG:
        return EXPLICIT_LITTLE if first[1] == 0 < first[0] else EXPLICIT_BIG
    return EXPLICIT_BIG if first[0] == 0 < first[1] else EXPLICIT_LITTLE


_VR_BYTES_SET = frozenset(_VR_BYTES.values())


def _inflate(data: bytes | mmap, start: int) -> bytes:
    """Return the data set of a deflated file. Source: PS3.5 A.5, RFC 1951."""
    bound = min(_MAX_INFLATED, max(_FREELY_INFLATED, _MAX_INFLATION * (len(data) - start)))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(memoryview(data)[start:], bound)
    except zlib.error:
        raise UnreadableInstance("deflated data set: cannot be inflated") from None
    if not inflater.eof:
        reason = "too large" if inflater.unconsumed_tail or len(inflated) >= bound else "truncated"
        raise UnreadableInstance(f"deflated data set: {reason}")
    return inflated


def _deflate(chunks: Iterator[bytes | memoryview]) -> Iterator[bytes]:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    total = 0
    for chunk in chunks:
        view = memoryview(chunk)
        for begin in range(0, len(view), _CHUNK):
            out = deflater.compress(view[begin : begin + _CHUNK])
            total += len(out)
            yield out
    out = deflater.flush()
    yield out + bytes((total + len(out)) % 2)


def _meta(reader: _Reader) -> tuple[int, DataSet]:
    """Return where the data set begins, and the file meta information."""
    pos, data = _PREAMBLE + 4, reader.data
    meta: DataSet = {}
    while data[pos : pos + 2] == b"\2\0":
        (element,), pos = reader.one(pos)
        meta[element.tag] = element
    return pos, meta


@cache
def _dictionary() -> dict[int, str]:
    """Return the VR of every attribute of PS3.6; where there is a choice, the first that fits implicit VR."""
    from pydicom._dicom_dict import DicomDictionary  # noqa: PLC0415 -- slow, and a node in its rounds reads no files

    vrs = {tag: entry[0] for tag, entry in DicomDictionary.items()}
    choice = {"OB or OW": "OW", "US or OW": "OW", "US or SS": "US", "US or SS or OW": "OW", "NONE": "UN"}
    return {tag: choice.get(vr, vr) for tag, vr in vrs.items()}


def dictionary_vr(tag: int) -> str:
    """Return the VR of an attribute; LO of a private creator, UN of what PS3.6 does not list."""
    vr = _dictionary().get(tag)
    if vr is not None:
        return vr
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"  # noqa: PLR2004 -- PS3.5 7.8.1
    if not tag & 0xFFFF:
        return "UL"
    return _repeating(tag)


@cache
def _repeating_dictionary() -> tuple[tuple[int, int, str], ...]:
    from pydicom._dicom_dict import RepeatersDictionary  # noqa: PLC0415 -- as above

    rows = []
    for mask, entry in RepeatersDictionary.items():
        known = int("".join("0" if digit == "x" else "F" for digit in mask), 16)
        rows.append((known, int(mask.replace("x", "0"), 16), entry[0].split(" or ")[-1]))
    return tuple(rows)


def _repeating(tag: int) -> str:
    rows = _repeating_dictionary()
    return next((vr for known, value, vr in rows if tag & known == value), "UN")


_EMPTY: DataSet = {}


class _Reader:
    """Parses one buffer in one byte order."""

    __slots__ = ("big", "data", "head", "long", "records", "tagged", "view")

    def __init__(self, data: bytes | mmap, *, big: bool = False) -> None:
        order = ">" if big else "<"
        self.data, self.big = data, big
        self.view = memoryview(data)
        self.head = Struct(order + "HH2sH").unpack_from
        self.tagged = Struct(order + "HHL").unpack_from
        self.long = Struct(order + "L").unpack_from
        self.records: list[int] = []

    def one(self, pos: int) -> tuple[list[Element], int]:
        """Return the explicit element at `pos`, and where it ends."""
        data = self.data
        if pos + 8 > len(data):
            raise UnreadableInstance("truncated in the file meta information")
        group, number, raw, length = self.head(data, pos)
        tag = group << 16 | number
        vr = _SHORT.get(raw)
        pos += 8
        if vr is None:
            if raw not in _LONG or pos + 4 > len(data):
                raise UnreadableInstance(f"VR unknown at {name(tag)}")
            vr = _LONG[raw]
            (length,) = self.long(data, pos)
            pos += 4
        if vr == "SQ" or pos + length > len(data):
            raise UnreadableInstance(f"truncated at {name(tag)}")
        return [Element(tag, vr, bytes(data[pos : pos + length]))], pos + length

    # One loop for each encoding, without a call per element: files have thousands of them.
    def explicit(  # noqa: C901, PLR0912 -- as above
        self, pos: int, end: int, depth: int, *, closed: bool
    ) -> tuple[DataSet, int]:
        """Return the explicit data set from `pos`, and where it ends; `closed` by an item delimiter."""
        data, unpack, short = self.data, self.head, _SHORT
        ds: DataSet = {}
        last, ordered = -1, True
        while pos < end:
            if pos + 8 > end:
                self._tail(ds, pos, end, last, depth)
                break
            group, number, raw, length = unpack(data, pos)
            tag = group << 16 | number
            vr = short.get(raw)
            if vr is not None:
                begin = pos + 8
                pos = begin + length
                if pos > end:
                    if self._trails(ds, depth):
                        break
                    raise UnreadableInstance(f"truncated at {name(tag)}")
                value = data[begin:pos] if length < _BULK_BYTES else self.view[begin:pos]
                element = Element(tag, vr, value)
            elif group == _DELIMITERS:
                if tag == _ITEM_END and closed:
                    return _sorted(ds, ordered), pos + 8
                if self._trails(ds, depth):
                    break
                raise UnreadableInstance(f"item delimiter out of place after {name(max(last, 0))}")
            else:
                try:
                    element, pos = self._unusual(tag, raw, pos, end, depth)
                except UnreadableInstance:
                    if self._trails(ds, depth):
                        break
                    raise
            if tag <= last:
                ordered = False
            last = tag
            ds[tag] = element
        else:
            if closed:
                raise UnreadableInstance(f"truncated after {name(max(last, 0))}")
        return _sorted(ds, ordered), end

    def implicit(  # noqa: C901, PLR0912 -- as above
        self, pos: int, end: int, depth: int, *, closed: bool
    ) -> tuple[DataSet, int]:
        """Return the implicit data set from `pos`, and where it ends; `closed` by an item delimiter."""
        data, unpack, vrs = self.data, self.tagged, _dictionary()
        ds: DataSet = {}
        last, ordered = -1, True
        while pos < end:
            if pos + 8 > end:
                self._tail(ds, pos, end, last, depth)
                break
            group, number, length = unpack(data, pos)
            tag = group << 16 | number
            vr = vrs.get(tag) or dictionary_vr(tag)
            if vr != "SQ" and length != _UNDEFINED and group != _DELIMITERS:
                begin = pos + 8
                pos = begin + length
                if pos > end:
                    if self._trails(ds, depth):
                        break
                    raise UnreadableInstance(f"truncated at {name(tag)}")
                value = data[begin:pos] if length < _BULK_BYTES else self.view[begin:pos]
                element = Element(tag, vr, value)
            elif group == _DELIMITERS:
                if tag == _ITEM_END and closed:
                    return _sorted(ds, ordered), pos + 8
                if self._trails(ds, depth):
                    break
                raise UnreadableInstance(f"item delimiter out of place after {name(max(last, 0))}")
            else:
                try:
                    element, pos = self._large(tag, vr, length, pos + 8, end, depth, self.implicit)
                except UnreadableInstance:
                    if self._trails(ds, depth):
                        break
                    raise
            if tag <= last:
                ordered = False
            last = tag
            ds[tag] = element
        else:
            if closed:
                raise UnreadableInstance(f"truncated after {name(max(last, 0))}")
        return _sorted(ds, ordered), end

    def _unusual(self, tag: int, raw: bytes, pos: int, end: int, depth: int) -> tuple[Element, int]:
        """Return an explicit element whose length has 32 bits, or which is implicit in an explicit data set."""
        vr = _LONG.get(raw)
        if vr is None:
            if not (raw.isalpha() and raw.isupper()):
                # Sequences written by software that forgets the VR: read as every toolkit does.
                _, _, length = self.tagged(self.data, pos)
                return self._large(tag, dictionary_vr(tag), length, pos + 8, end, depth, self.explicit)
            vr = "UN"  # PS3.5 6.2 note: a VR of the future has a length of 32 bits
        if pos + 12 > end:
            raise UnreadableInstance(f"truncated at {name(tag)}")
        (length,) = self.long(self.data, pos + 8)
        if vr == "UN":
            return self._unknown(tag, length, pos + 12, end, depth)
        return self._large(tag, vr, length, pos + 12, end, depth, self.explicit)

    def _large(
        self, tag: int, vr: str, length: int, pos: int, end: int, depth: int, parse: Callable[..., tuple[DataSet, int]]
    ) -> tuple[Element, int]:
        """Return an element whose value may be a sequence, encapsulated, or large."""
        if length == _UNDEFINED and vr in _BULK_VRS and (vr != "UN" or tag == PIXEL_DATA):
            stop = self._fragments(tag, pos, end)
            return Element(tag, vr, self.view[pos:stop], 1), stop + 8
        if vr == "SQ" or length == _UNDEFINED:
            if vr not in ("SQ", "UN"):
                raise UnreadableInstance(f"length undefined at {name(tag)}")
            return self.sequence(tag, length, pos, end, depth, parse)
        stop = pos + length
        if stop > end:
            raise UnreadableInstance(f"truncated at {name(tag)}")
        value = self.data[pos:stop] if length < _BULK_BYTES else self.view[pos:stop]
        return Element(tag, vr, value), stop

    def _unknown(self, tag: int, length: int, pos: int, end: int, depth: int) -> tuple[Element, int]:
        """Return an element of VR UN as what its tag says it is. Source: PS3.5 6.2.2."""
        vr = dictionary_vr(tag)
        little = _Reader(self.data) if self.big else self
        if length == _UNDEFINED:
            return little.sequence(tag, length, pos, end, depth, little.implicit)
        stop = pos + length
        if stop > end:
            raise UnreadableInstance(f"truncated at {name(tag)}")
        if vr == "SQ":
            try:
                return little.sequence(tag, length, pos, end, depth, little.implicit)
            except UnreadableInstance:
                vr = "UN"  # what it holds is no sequence; the profile drops it
        value = bytes(self.data[pos:stop]) if length < _BULK_BYTES else self.view[pos:stop]
        if self.big and vr in _WIDTH and length % _WIDTH[vr] == 0:
            value = _swapped(bytes(value), _WIDTH[vr])
        return Element(tag, vr, value), stop

    def sequence(  # noqa: C901 -- each branch is a way in which a sequence can be broken
        self, tag: int, length: int, pos: int, end: int, depth: int, parse: Callable[..., tuple[DataSet, int]]
    ) -> tuple[Element, int]:
        """Return a sequence and where it ends. Source: PS3.5 7.5."""
        if depth >= MAX_DEPTH:
            raise UnreadableInstance(f"more than {MAX_DEPTH} sequences in each other at {name(tag)}")
        form = _BY_DELIMITER if length == _UNDEFINED else 0
        stop = end if form else pos + length
        if stop > end:
            raise UnreadableInstance(f"truncated at {name(tag)}")
        items: list[DataSet] = []
        data, unpack = self.data, self.tagged
        while pos < stop:
            if pos + 8 > stop:
                raise UnreadableInstance(f"truncated at {name(tag)}")
            group, number, size = unpack(data, pos)
            marker = group << 16 | number
            if tag == 0x00041220:  # noqa: PLR2004 -- DirectoryRecordSequence: its records are found by their place
                self.records.append(pos)
            pos += 8
            if marker == _SEQUENCE_END and form:
                return Element(tag, "SQ", items, form), pos
            if marker != _ITEM:
                raise UnreadableInstance(f"no item where one is due at {name(tag)}")
            if not size:
                # One object stands for all empty items: a file of nothing else has a million of them.
                item = _EMPTY
            elif size == _UNDEFINED:
                form |= _ITEMS_BY_DELIMITER
                item, pos = parse(pos, stop, depth + 1, closed=True)
            else:
                if pos + size > stop:
                    raise UnreadableInstance(f"truncated at {name(tag)}")
                item, pos = parse(pos, pos + size, depth + 1, closed=False)
            items.append(item)
        if form & _BY_DELIMITER:
            raise UnreadableInstance(f"truncated at {name(tag)}")
        return Element(tag, "SQ", items, form), stop

    def _fragments(self, tag: int, pos: int, end: int) -> int:
        """Return where the delimiter of encapsulated frames stands. Source: PS3.5 A.4."""
        data, unpack = self.data, self.tagged
        while pos + 8 <= end:
            group, number, size = unpack(data, pos)
            marker = group << 16 | number
            if marker == _SEQUENCE_END:
                return pos
            if marker != _ITEM or size == _UNDEFINED:
                raise UnreadableInstance(f"no item where one is due at {name(tag)}")
            pos += 8 + size
        raise UnreadableInstance(f"truncated at {name(tag)}")

    def _trails(self, ds: DataSet, depth: int) -> bool:
        """Whether what cannot be read comes after the pixels, where nothing is kept."""
        return depth == 0 and PIXEL_DATA in ds

    def _tail(self, ds: DataSet, pos: int, end: int, last: int, depth: int) -> None:
        if depth or (PIXEL_DATA not in ds and any(self.data[pos:end])):
            raise UnreadableInstance(f"truncated after {name(max(last, 0))}")


def _sorted(ds: DataSet, ordered: bool) -> DataSet:  # noqa: FBT001 -- a fact that the caller has found
    return ds if ordered else dict(sorted(ds.items()))


def _swapped(value: bytes, width: int) -> bytes:
    out = bytearray(len(value))
    for place in range(width):
        out[place::width] = value[width - 1 - place :: width]
    return bytes(out)


class _Writer:
    """Appends the bytes of data sets to `out`; `bulk` are the places of what stays a chunk of its own."""

    __slots__ = ("bulk", "long", "order", "out", "short", "tagged")

    def __init__(self, out: list[bytes | memoryview], order: str) -> None:
        self.out, self.order = out, order
        self.bulk: list[int] = []
        self.short = Struct(order + "HH2sH").pack
        self.long = Struct(order + "HH2sHL").pack
        self.tagged = Struct(order + "HHL").pack

    def explicit(self, ds: DataSet) -> int:
        """Append an explicit data set and return its length."""
        out, short, raw = self.out, self.short, _VR_BYTES
        append, total = out.append, 0
        for tag, vr, value, undefined in ds.values():
            if vr == "SQ" or isinstance(value, list):
                total += 12 + self._sequence(tag, value, undefined, 12, self.explicit)
                continue
            length = len(value)
            if vr in _LONG_VRS or length > _MAX_SHORT:
                total += self._large(tag, vr, value, undefined)
                continue
            odd = length & 1
            append(short(tag >> 16, tag & 0xFFFF, raw[vr], length + odd))
            append(value)
            if odd:
                append(b" " if vr in TEXT_VRS else b"\0")
            total += 8 + length + odd
        return total

    def implicit(self, ds: DataSet) -> int:
        """Append an implicit data set and return its length."""
        out, tagged = self.out, self.tagged
        append, total = out.append, 0
        for tag, vr, value, undefined in ds.values():
            if vr == "SQ" or isinstance(value, list):
                total += 8 + self._sequence(tag, value, undefined, 8, self.implicit)
                continue
            length = len(value)
            odd = length & 1
            append(tagged(tag >> 16, tag & 0xFFFF, _UNDEFINED if undefined else length + odd))
            self._append(value)
            if undefined:
                append(tagged(_SEQUENCE_END >> 16, _SEQUENCE_END & 0xFFFF, 0))
                total += 8
            elif odd:
                append(b" " if vr in TEXT_VRS else b"\0")
            total += 8 + length + odd
        return total

    def _append(self, value: bytes | memoryview) -> None:
        if len(value) >= _BULK_BYTES:
            self.bulk.append(len(self.out))
        self.out.append(value)

    def _large(self, tag: int, vr: str, value: bytes | memoryview, undefined: int) -> int:
        length = len(value)
        odd = length & 1
        # PS3.5 6.2.2: a value too long for its VR is written as UN.
        raw = _VR_BYTES[vr] if vr in _LONG_VRS else b"UN"
        self.out.append(self.long(tag >> 16, tag & 0xFFFF, raw, 0, _UNDEFINED if undefined else length + odd))
        self._append(value)
        if undefined:
            self.out.append(self.tagged(_SEQUENCE_END >> 16, _SEQUENCE_END & 0xFFFF, 0))
            return 20 + length
        if odd:
            self.out.append(b" " if vr in TEXT_VRS else b"\0")
        return 12 + length + odd

    def _sequence(
        self,
        tag: int,
        items: bytes | memoryview | list[DataSet],
        form: int,
        header: int,
        write_items: Callable[[DataSet], int],
    ) -> int:
        """Append a sequence, headers last as they hold lengths, and return the length of its value."""
        out, tagged = self.out, self.tagged
        if not isinstance(items, list):
            items = []  # a sequence without items has an empty value
        place, total = len(out), 0
        out.append(b"")
        empty = tagged(_ITEM >> 16, _ITEM & 0xFFFF, 0)
        for item in items:
            if not item and not form & _ITEMS_BY_DELIMITER:
                out.append(empty)
                total += 8
                continue
            begin = len(out)
            out.append(b"")
            length = write_items(item)
            total += 8 + length
            if form & _ITEMS_BY_DELIMITER:
                out[begin] = tagged(_ITEM >> 16, _ITEM & 0xFFFF, _UNDEFINED)
                out.append(tagged(_ITEM_END >> 16, _ITEM_END & 0xFFFF, 0))
                total += 8
            else:
                out[begin] = tagged(_ITEM >> 16, _ITEM & 0xFFFF, length)
        size = _UNDEFINED if form & _BY_DELIMITER else total
        if form & _BY_DELIMITER:
            out.append(tagged(_SEQUENCE_END >> 16, _SEQUENCE_END & 0xFFFF, 0))
            total += 8
        if header == 12:  # noqa: PLR2004 -- tag, VR, two reserved bytes, length
            out[place] = self.long(tag >> 16, tag & 0xFFFF, b"SQ", 0, size)
        else:
            out[place] = tagged(tag >> 16, tag & 0xFFFF, size)
        return total
