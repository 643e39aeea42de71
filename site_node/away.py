"""What stands beside the place of a file that has left its folder: where its bytes are now, and what they must be.

A mark is `NAME.filmroom-away`, written before the file goes and taken away after it has come back. So a name that has a
mark and no file is a file that is away; one that has both is here. Knows nothing of copies and their endpoints.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Recall = Callable[[Path], None]

SUFFIX = ".filmroom-away"
SCRATCH = ".filmroom-restore"  # a folder in which files that come back are made whole
_PART = ".filmroom-part"
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """The locked object that has the file, and the file's size and SHA-256."""

    object: str
    size: int
    sha256: str


def nowhere(path: Path) -> None:
    """Recall nothing: of a site without tiers."""
    raise FileNotFoundError(2, "is away, and this site has no tiers", str(path))


def mark_of(path: Path) -> Path:
    """Return where the mark of a file stands."""
    return path.with_name(path.name + SUFFIX)


def meant(path: Path) -> Path:
    """Return the file that a mark stands for; any other path is its own."""
    return path.with_name(path.name.removesuffix(SUFFIX)) if path.name != SUFFIX else path


def read(path: Path) -> Mark | None:
    """Return the mark of the file `path`; None if there is none, or it is damaged."""
    try:
        with mark_of(path).open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
        mark = Mark(**document)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    is_one = isinstance(mark.object, str) and type(mark.size) is int and isinstance(mark.sha256, str)
    return mark if is_one else None


def is_away(path: Path) -> bool:
    """Return whether a file has a mark and is not at its place."""
    return not path.exists() and mark_of(path).exists()


def put(marks: Iterable[tuple[Path, Mark]]) -> None:
    """Set marks, whole and flushed; where one stands already it is replaced.

    Raises: OSError.
    """
    folders = set()
    for path, mark in marks:
        part = path.with_name(path.name + _PART)
        with os.fdopen(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(json.dumps(asdict(mark)).encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(mark_of(path))
        folders.add(path.parent)
    flush(folders)


def remove(paths: Iterable[Path]) -> None:
    """Take the marks of files away."""
    for path in paths:
        mark_of(path).unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Take away what a killed process left half done: files that came back and have no place yet, and half a mark."""
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(_PART):
                Path(parent, name).unlink()


def below(folder: Path) -> Iterator[Path]:
    """Yield every file of `folder` and below, those that are away included, always in the same order.

    Marks, symbolic links to folders and what a killed run left are passed over.
    Raises: OSError if a folder cannot be read: nobody shall take the rest for all.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(set(folders) - {SCRATCH})
        files = {name.removesuffix(SUFFIX) for name in names if not name.endswith(_PART)}
        yield from (Path(parent, name) for name in sorted(files))


def marked(folder: Path) -> Iterator[Path]:
    """Yield every file of `folder` and below that has a mark, here or away.

    Raises: OSError as `below`.
    """
    for parent, _, names in os.walk(folder, onerror=_raise):
        yield from (Path(parent, name.removesuffix(SUFFIX)) for name in sorted(names) if name.endswith(SUFFIX))


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # it went this moment
        raise error


def flush(folders: Iterable[Path]) -> None:
    """Make the names in folders survive a power cut."""
    for folder in sorted(folders):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
