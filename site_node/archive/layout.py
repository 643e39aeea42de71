"""The DICOM-aware layout of the archive: a file as its header, and its pixels under the digest of what they are.

A file is its prefix (all before the value of Pixel Data) and its parts; together they are the file to the byte. A part
is a native frame, compressed, or bytes kept as they are: pixels that were compressed before, what comes behind pixels,
and the whole of a file that is not DICOM. A header that is edited leaves the parts alone.

What builds a file again needs no reader of DICOM, which takes longer to load than a study to restore.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from site_node.errors import ArchiveError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Buffer = bytes | memoryview[int]

HTJ2K, ZSTD, RAW = "jph", "zst", "raw"
CHUNK = 1 << 20


class Part(NamedTuple):
    """A staged file: how it is coded, the digest in its name, and how many bytes of the original it stands for."""

    kind: str
    digest: str
    size: int

    @property
    def name(self) -> str:
        """Its path in the folder of its study."""
        return f"px/{self.digest}.{self.kind}"


class Grid(NamedTuple):
    """How a native frame lies in the file; `planes` says that each sample has a plane of its own."""

    rows: int
    columns: int
    samples: int
    planes: bool
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8

    def array(self, frame: bytes) -> NDArray[Any]:
        """Return the samples as a codec takes them.

        Shape:  (row, column), planes one below the other, or (row, column, sample).
        """
        flat = np.frombuffer(frame, f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")
        if self.planes or self.samples == 1:
            return flat.reshape(self.rows * self.samples, self.columns)
        return flat.reshape(self.rows, self.columns, self.samples)


@dataclass(frozen=True, slots=True)
class Entry:
    """One original as it is staged; `path` is relative and begins with the name of its root, `mtime` is in seconds."""

    path: str
    mtime: int
    sha256: str
    prefix: bytes
    parts: tuple[Part, ...]
    grid: Grid | None = None
    StudyInstanceUID: str = ""
    SOPInstanceUID: str = ""
    PatientID: str = ""
    StudyDate: str = ""
    pixels: str = ""
    """Digest of the decoded pixels; empty where there are none."""
    is_dicom: bool = False

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.prefix) + sum(part.size for part in self.parts)

    @property
    def study(self) -> str:
        """The folder of its study, below the staging folder."""
        return study_folder(self.StudyInstanceUID)


def study_folder(uid: str) -> str:
    """Return the folder of a study: a digest, since a path is seen where a UID should not be."""
    digest = hashlib.sha256(uid.encode()).hexdigest()
    return f"studies/{digest[:2]}/{digest}"


def rebuild(entry: Entry, folder: Path) -> Iterator[Buffer]:
    """Yield the bytes of the original from what is staged in the folder of its study.

    Raises: ArchiveError if a part is missing, damaged or of another size.
    """
    yield entry.prefix
    for part in entry.parts:
        yield from _read(part, folder / part.name)


def _read(part: Part, path: Path) -> Iterator[Buffer]:
    try:
        if part.kind == RAW:
            yield from _chunks(path)
            return
        coded = path.read_bytes()
    except FileNotFoundError:
        raise ArchiveError(f"{part.digest[:16]}: the part is missing") from None
    try:
        decode = codecs().htj2k_decode if part.kind == HTJ2K else codecs().zstd_decode
        decoded = memoryview(decode(coded)).cast("B")
    except (RuntimeError, ValueError, TypeError) as error:
        raise ArchiveError(f"{part.digest[:16]}: the part is damaged") from error
    if decoded.nbytes != part.size:
        raise ArchiveError(f"{part.digest[:16]}: the part has another size")
    yield decoded


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def write(path: Path, chunks: Iterator[bytes] | tuple[bytes, ...]) -> None:
    """Write a file of mode 0600, so that it is there whole or not at all."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as out:
            for chunk in chunks:
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def codecs() -> Any:  # noqa: ANN401 -- a module
    """Return imagecodecs.

    Raises: ConfigurationError if it is not installed.
    """
    try:
        import imagecodecs  # noqa: PLC0415 -- only a site with an archive has it
    except ImportError:
        raise ConfigurationError("the archive is not installed: pip install 'filmroom[archive]'") from None
    return imagecodecs
