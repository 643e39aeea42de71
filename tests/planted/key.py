"""The answer key: what was planted where, as values that JSON can carry."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    from pydicom.tag import BaseTag

MAX_DEPTH = 80


@dataclass(frozen=True, slots=True)
class Planted:
    """One thing said in one file.

    `bytes_of` are searched in every byte and encoding; `words` only at `at`, a path as `walk` writes it.
    """

    place: str
    kind: str
    bytes_of: tuple[str, ...]
    words: tuple[str, ...] = ()
    at: str = ""


@dataclass(frozen=True, slots=True)
class Burned:
    """Text drawn into pixels: rows and columns of its box, half-open, in every frame or in one."""

    top: int
    left: int
    bottom: int
    right: int
    text: str
    identifying: bool
    ink: str  # base64 of the bits of its pixels of ink, row by row
    frame: int | None = None  # the only frame it stands in

    def inked(self) -> npt.NDArray[np.bool_]:
        """Return which pixels of the box are ink. Shape: (row, column)."""
        rows, columns = self.bottom - self.top, self.right - self.left
        bits = np.unpackbits(np.frombuffer(base64.b64decode(self.ink), np.uint8), count=rows * columns)
        return bits.reshape(rows, columns).astype(bool)


@dataclass(slots=True)
class FileKey:
    """What one file says."""

    name: str
    base: str
    flood: bool
    charset: str
    planted: list[Planted] = field(default_factory=list)
    harmless: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    burned: list[Burned] = field(default_factory=list)
    private_kept: list[tuple[int, int, str]] = field(default_factory=list)


def save(path: Path, seed: int, files: list[FileKey]) -> None:
    """Write the key."""
    path.write_text(json.dumps({"seed": seed, "files": [asdict(file) for file in files]}, ensure_ascii=False, indent=1))


def load(path: Path) -> list[FileKey]:
    """Return the key that `save` wrote."""
    return [_file(entry) for entry in json.loads(path.read_text())["files"]]


def _file(entry: dict[str, Any]) -> FileKey:
    return FileKey(
        entry["name"],
        entry["base"],
        entry["flood"],
        entry["charset"],
        [Planted(p["place"], p["kind"], tuple(p["bytes_of"]), tuple(p["words"]), p["at"]) for p in entry["planted"]],
        [(at, tuple(words)) for at, words in entry["harmless"]],
        [Burned(**burned) for burned in entry["burned"]],
        [(group, low, creator) for group, low, creator in entry["private_kept"]],
    )


def walk(ds: Dataset, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, DataElement]]:
    """Yield every element with its path: eight hexadecimal digits a tag, an item's index in brackets."""
    if depth > MAX_DEPTH:
        return
    for tag in list(ds.keys()):
        element = _readable(ds, tag)
        path = f"{prefix}{int(tag):08X}"
        yield path, element
        if element.VR == "SQ":
            for index, item in enumerate(element.value or ()):
                yield from walk(item, f"{path}[{index}].", depth + 1)


def _readable(ds: Dataset, tag: BaseTag) -> DataElement:
    """Return an element; one whose value does not fit its VR as bytes."""
    raw = ds.get_item(tag)
    try:
        element = ds[tag]
        str(element.value)
    except (ValueError, TypeError, LookupError, NotImplementedError, AttributeError, OverflowError):
        value = raw.value if raw is not None else b""
        return DataElement(tag, "UN", value if isinstance(value, bytes) else b"")
    return element


def strings(element: DataElement) -> list[str]:
    """Return the values of an element as text; bytes have none."""
    value = element.value
    if value is None or isinstance(value, bytes | Dataset) or element.VR == "SQ":
        return []
    many = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    return [str(one) for one in many]
