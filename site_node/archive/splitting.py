"""Splits an original into the layout of the archive: its header, and its pixels in parts.

Nothing is believed: the file is built again from what was written, and its digest compared with the original's, before
a part counts.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from site_node.archive.anomaly import UNDECODED
from site_node.archive.decoding import FAULTS, native_digest
from site_node.archive.layout import CHUNK, HTJ2K, RAW, ZSTD, Entry, Grid, Part, codecs, rebuild, study_folder, write
from site_node.deidentify.transcoding import quiet
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom import Dataset

_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})  # PS3.5 A.1, A.2
_DEFLATED = "1.2.840.10008.1.2.1.99"  # PS3.5 A.5: the data set is one stream, and has no place for pixels
_MAGIC_AT, _MAGIC = 128, b"DICM"  # PS3.10 7.1
_PIXELS = frozenset({b"\xe0\x7f\x10\x00", b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00"})  # PS3.3 C.7.6.24, C.7.6.25
_UNDEFINED = 0xFFFFFFFF
# Bounds of ours, so that memory stays small whatever a file says; what is larger is kept as bytes.
_MAX_PREFIX = 8 << 20
_MAX_FRAME = 256 << 20
_MAX_TAIL = 1 << 16
_DEFERRED = 1 << 16
_LEAST_FRAME = 1024  # below this the codec's own header costs more than it saves
_ZSTD_LEVEL = 3
_CHANGED = "changed while it was read"


class _Content:
    """The bytes of an open file, read when asked for: a file that is cut off ends whoever has mapped it.

    Raises: ArchiveError if it has become shorter.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, piece: slice) -> bytes:
        start, end, _ = piece.indices(self._size)
        read = os.pread(self._descriptor, end - start, start)
        if len(read) != end - start:
            raise ArchiveError(_CHANGED)
        return read


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says of itself: its pixels begin at `start` and are `length` bytes, None if they are encapsulated."""

    ds: Dataset
    start: int
    length: int | None
    syntax: str


def split(path: Path, name: str, staging: Path, digest_coded: Callable[[Path], str]) -> Entry:
    """Stage the file at `path` under the name `name` and return what it is, proved by building it again.

    `digest_coded` gives the digest of pixels that are not native frames.
    Raises: ArchiveError if the file changed meanwhile, or does not come back as it was; OSError.
    """
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        content = _Content(file.fileno(), before.st_size)
        header = _header(path, content)
        entry = _Splitter(staging, path, name, before, content, digest_coded).stage(header)
        after = os.stat(path)  # noqa: PTH116 -- as fstat beside it
        if (after.st_size, after.st_mtime_ns, after.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino):
            raise ArchiveError(_CHANGED)
    return entry


@dataclass(frozen=True, slots=True)
class _Splitter:
    """One file on its way into the staging folder."""

    staging: Path
    path: Path
    name: str
    status: os.stat_result
    content: _Content
    digest_coded: Callable[[Path], str]

    def stage(self, header: _Header | None) -> Entry:
        """Return the entry, split as far as it proves to be the file again."""
        grid = _grid(header, len(self.content)) if header else None
        entry = self._attempt(header, grid)
        if not _is_same(entry, self.staging):
            # An older part of that name is damaged: it is made again, once, and then the file is kept in one piece.
            self._forget(entry)
            entry = self._attempt(header, grid)
        if not _is_same(entry, self.staging):
            self._forget(entry)
            entry = self._attempt(header, None)
        if not _is_same(entry, self.staging):
            raise ArchiveError("does not come back as it was; the disk may be failing")
        return entry

    def _attempt(self, header: _Header | None, grid: Grid | None) -> Entry:
        ds = header.ds if header else None
        folder = self.staging / study_folder(_text(ds, "StudyInstanceUID"))
        (folder / "px").mkdir(mode=0o700, parents=True, exist_ok=True)
        start = header.start if header else 0
        whole = hashlib.sha256(self.content[:start])
        if header and grid:
            parts, pixels = self._frames(folder, start, (header.length or 0) // grid.size, grid, whole)
        else:
            parts = (self._raw(folder, start, whole),) if start < len(self.content) else ()
            pixels = self._coded_pixels(parts) if header and header.length != 0 and parts else ""
        return Entry(
            self.name,
            int(self.status.st_mtime),
            whole.hexdigest(),
            self.content[:start],
            parts,
            grid,
            _text(ds, "StudyInstanceUID"),
            _text(ds, "SOPInstanceUID"),
            _text(ds, "PatientID"),
            _text(ds, "StudyDate"),
            pixels,
            is_dicom=header is not None,
        )

    def _frames(self, folder: Path, start: int, frames: int, grid: Grid, whole: Any) -> tuple[tuple[Part, ...], str]:  # noqa: ANN401 -- a hash object
        parts = []
        decoded = native_digest(grid.rows, grid.columns, grid.samples)
        end = start + frames * grid.size
        for at in range(start, end, grid.size):
            frame = self.content[at : at + grid.size]
            whole.update(frame)
            decoded.add(grid.array(frame).reshape(-1), grid.bits_stored, planes=grid.planes)
            parts.append(_coded(folder, frame, grid))
        if end < len(self.content):
            parts.append(self._raw(folder, end, whole))
        return tuple(parts), decoded.hexdigest()

    def _coded_pixels(self, parts: tuple[Part, ...]) -> str:
        """Return the digest of the decoded pixels; where they cannot be decoded, that of their bytes, marked so."""
        return self.digest_coded(self.path) or f"{UNDECODED}{parts[0].digest}"

    def _raw(self, folder: Path, start: int, whole: Any) -> Part:  # noqa: ANN401 -- a hash object
        own = hashlib.sha256()
        for at in range(start, len(self.content), CHUNK):
            chunk = self.content[at : at + CHUNK]
            own.update(chunk)
            whole.update(chunk)
        part = Part(RAW, own.hexdigest(), len(self.content) - start)
        target = folder / part.name
        if not target.exists():
            write(target, (self.content[at : at + CHUNK] for at in range(start, len(self.content), CHUNK)))
        return part

    def _forget(self, entry: Entry) -> None:
        for part in entry.parts:
            (self.staging / entry.study / part.name).unlink(missing_ok=True)


def _coded(folder: Path, frame: bytes, grid: Grid) -> Part:
    """Return the part that holds a frame, coded if it is not there yet."""
    digest = hashlib.sha256(repr(tuple(grid)).encode() + frame).hexdigest()
    for kind in (HTJ2K, ZSTD):
        part = Part(kind, digest, len(frame))
        if (folder / part.name).exists():
            return part
    wavelets = bytes(codecs().htj2k_encode(grid.array(frame)))
    # Drawings, screenshots and palettes of few colours are no pictures to a wavelet.
    packed = bytes(codecs().zstd_encode(frame, _ZSTD_LEVEL))
    kind, coded = min((HTJ2K, wavelets), (ZSTD, packed), key=lambda made: len(made[1]))
    part = Part(kind, digest, len(frame))
    write(folder / part.name, (coded,))
    return part


def _is_same(entry: Entry, staging: Path) -> bool:
    digest = hashlib.sha256()
    try:
        for chunk in rebuild(entry, staging / entry.study):
            digest.update(chunk)
    except ArchiveError:
        return False
    return digest.hexdigest() == entry.sha256


def _header(path: Path, content: _Content) -> _Header | None:
    """Return what the file says of itself; None if it is no DICOM file that can be read."""
    if content[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return None
    try:
        with quiet(), path.open("rb") as file:
            syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
            if syntax == _DEFLATED:
                return None
            ds = dcmread(file, stop_before_pixels=True, defer_size=_DEFERRED)
            place = file.tell()
    except FAULTS:
        return None
    start, length = _value(content, place, syntax)
    if start > _MAX_PREFIX:  # nothing is set apart, and the pixels are judged all the same
        start, length = 0, None
    return _Header(ds, start, length, syntax)


def _value(content: _Content, place: int, syntax: str) -> tuple[int, int | None]:
    """Return where the value of Pixel Data begins and its length; without Pixel Data, the place, and 0.

    Source: PS3.5 7.1.2 and 7.1.3.
    """
    head = content[place : place + 12]
    if syntax == "1.2.840.10008.1.2.2":
        return (place, 0) if head[:4] != b"\x7f\xe0\x00\x10" else (place, None)
    if head[:4] not in _PIXELS:
        return place, 0
    implicit = not head[4:6].isalpha()
    size = 8 if implicit else 12
    length = int.from_bytes(head[size - 4 : size], "little")
    return place + size, None if length == _UNDEFINED else length


def _grid(header: _Header, end: int) -> Grid | None:
    """Return how the native frames lie; None where they are not a row of equal frames.

    Behind them may come the byte that makes their length even (PS3.5 8.1.1), and elements such as padding.
    """
    ds = header.ds
    try:
        with quiet():
            grid = Grid(
                int(ds.Rows),
                int(ds.Columns),
                int(ds.get("SamplesPerPixel", 1)),
                bool(ds.get("PlanarConfiguration", 0)),
                int(ds.BitsAllocated),
                int(ds.get("BitsStored", ds.BitsAllocated)),
                bool(ds.get("PixelRepresentation", 0)),
            )
            frames = int(ds.get("NumberOfFrames", None) or 1)
    except (AttributeError, *FAULTS):
        return None
    native = header.syntax in _NATIVE and header.length is not None and end - header.start - header.length <= _MAX_TAIL
    whole = grid.bits_allocated in (8, 16, 32) and 1 <= grid.bits_stored <= grid.bits_allocated
    plausible = grid.samples in (1, 3) and _LEAST_FRAME <= grid.size <= _MAX_FRAME
    if not (native and whole and plausible and header.start + (header.length or 0) <= end):
        return None
    return grid if header.length in (frames * grid.size, frames * grid.size + 1) else None


def _text(ds: Dataset | None, keyword: str) -> str:
    if ds is None:
        return ""
    try:
        with quiet():
            return str(ds.get(keyword) or "").strip()
    except FAULTS:
        return ""
