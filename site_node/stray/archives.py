"""Archives and compressed files: each member looked into like a file of its own, within the budget of the outermost."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from contextlib import closing
from dataclasses import replace
from io import BufferedReader, RawIOBase
from typing import IO, TYPE_CHECKING, Any

from site_node.second_look.pixels import Window
from site_node.stray.documents import is_workbook, workbook
from site_node.stray.pieces import BOMB, DAMAGED, ENCRYPTED, Fault, Piece, Refused
from site_node.stray.texts import ELSE_LATIN, among_numbers, mixed, strings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from _typeshed import WriteableBuffer

    from site_node.stray.pieces import Here, Part

_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    KeyError,
)
_TENSOR = re.compile(r".*/data/\d+")
_ENCRYPTED = 1  # APPNOTE 4.4.4, bit 0
_BLOCK = 512
_BZ2_END = 0x177245385090


def archive_zip(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield the parts of every member of a zip file, office documents and model archives among them."""
    try:
        with zipfile.ZipFile(Window(content)) as opened:
            members = opened.infolist()
            names = [member.filename for member in members]
            if is_workbook(names):
                yield from workbook(content, here)
            if opened.comment:
                yield Piece(here.at("comment"), opened.comment.decode("utf-8", ELSE_LATIN))
            for member in members:
                if member.comment:
                    yield Piece(here.at("comment"), member.comment.decode("utf-8", ELSE_LATIN))
                yield from _zipped(opened, member, here)
    except Refused as refusal:
        yield Fault(here.trail, str(refusal))
    except _FAULTS:
        yield Fault(here.trail, DAMAGED)
        yield from mixed(content, here)


def _zipped(opened: zipfile.ZipFile, member: zipfile.ZipInfo, here: Here) -> Iterator[Part]:
    here.budget.member()
    yield from _called(member.filename, here)
    if member.is_dir():
        return
    if member.flag_bits & _ENCRYPTED:
        yield Fault(here.at(member.filename), ENCRYPTED)
        return
    most = here.budget.most(member.compress_size)
    try:
        with opened.open(member) as file:
            raw = file.read(most + 1) if member.file_size <= most else None
    except _FAULTS:
        yield Fault(here.at(member.filename), DAMAGED)
        return
    yield from _inside(raw, most, member.filename, here)


def _inside(raw: bytes | None, most: int, name: str, here: Here) -> Iterator[Part]:
    if raw is None or len(raw) > most:
        yield Fault(here.at(name), BOMB)
        return
    here.budget.spend(len(raw))
    if _TENSOR.fullmatch(name):
        yield from among_numbers(memoryview(raw), replace(here, trail=here.at(name)))
    else:
        yield from here.within(name, raw)


def _called(name: str, here: Here) -> Iterator[Piece]:
    """Yield the name of a member, which may be a patient's."""
    yield Piece(here.at("name of a member"), re.sub(r"[/\\_.]+", " ", name))


def archive_tar(content: memoryview, here: Here) -> Iterator[Part]:
    """Yield the parts of every member of a tar file."""
    yield from _members(Window(content), "r:", len(content), here)


def _members(file: IO[bytes] | RawIOBase, mode: str, packed: int, here: Here) -> Iterator[Part]:
    damaged: list[bytes] = []
    try:
        # Zeros end a tar file, and another may follow; a header that is none ends it for the library without a word.
        with tarfile.open(fileobj=file, mode=mode, ignore_zeros=True, tarinfo=_noting(damaged)) as opened:  # type: ignore[call-overload] # a mode in a variable
            for member in opened:
                here.budget.member()
                yield from _called(member.name, here)
                for said in filter(None, (member.linkname, member.uname, *member.pax_headers.values())):
                    yield Piece(here.at("field of a member"), said)
                if member.isfile():
                    most = min(here.budget.limits.one, here.budget.most(packed))
                    member_file = opened.extractfile(member) if member.size <= most else None
                    raw = member_file.read(most + 1) if member_file is not None else None
                    yield from _inside(raw, most, member.name, here)
        if damaged:
            yield Fault(here.trail, DAMAGED)
    except Refused as refusal:
        yield Fault(here.trail, str(refusal))
    except _FAULTS:
        yield Fault(here.trail, DAMAGED)


def _noting(damaged: list[bytes]) -> type[tarfile.TarInfo]:
    """Return a kind of member that notes the first header that is none."""

    class Member(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            try:
                return super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError:
                damaged[:] = [bytes(buf)] if any(buf) else damaged
                raise

    return Member


_OPENERS: dict[str, Callable[[Any], Any]] = {
    "gz": lambda raw: gzip.GzipFile(fileobj=raw),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


class _Limited(RawIOBase):
    """What comes out of a compressed stream, until it is more than may come."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._left = stream, most

    def readable(self) -> bool:
        return True

    def readinto(self, into: WriteableBuffer) -> int:
        out = memoryview(into).cast("B")
        part = self._stream.read(min(len(out), self._left + 1))
        self._left -= len(part)
        if self._left < 0:
            raise Refused(BOMB)
        out[: len(part)] = part
        return len(part)


def _ends(content: memoryview, how: str) -> bool:
    """Return whether nothing stands behind a compressed stream, which the libraries of bzip2 and xz would pass over.

    Source: bzip2's footer, 48 bits of a constant and 32 of a checksum, padded to a byte; xz file format 2.1.2.4, 2.2.
    """
    if how == "bz2":
        tail = int.from_bytes(content[-11:])
        return any(tail >> (32 + padding) & 0xFFFF_FFFF_FFFF == _BZ2_END for padding in range(8))
    return how != "xz" or bytes(content[-_BLOCK:]).rstrip(b"\0").endswith(b"YZ")


def compressed(content: memoryview, here: Here, how: str) -> Iterator[Part]:
    """Yield the parts of what a compressed file holds; a tar file in it is read as it comes out, never held whole."""
    limits = here.budget.limits
    if not _ends(content, how):
        yield Fault(here.trail, DAMAGED)
    try:
        # The name of the file, and a comment. Source: RFC 1952 2.3.
        yield from strings(content[:_BLOCK], here, "header, byte")
        with closing(_OPENERS[how](Window(content))) as stream:
            head = stream.read(_BLOCK)
        if head[257:262] == b"ustar":
            most = min(limits.total, max(limits.floor, len(content) * limits.ratio))
            with closing(_OPENERS[how](Window(content))) as stream:
                yield from _members(BufferedReader(_Limited(stream, most)), "r|", len(content), here)
            return
        most = here.budget.most(len(content))
        with closing(_OPENERS[how](Window(content))) as stream:
            raw = stream.read(most + 1)
    except _FAULTS:
        yield Fault(here.trail, DAMAGED)
        return
    inner = re.sub(r"\.(?:gz|bz2|xz|tgz)$", "", here.name, flags=re.IGNORECASE) or "content"
    yield from _inside(raw, most, inner.rpartition("/")[2], here)
