"""Where files to search come from: a folder here, or anything else that lists and opens objects, such as a bucket."""

from __future__ import annotations

import mmap
import os
import pwd
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from site_node import away

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

READ_WHOLE = 32 * 1024**2  # below, a file is read, so that nobody can shorten it while it is looked at
UNREADABLE = "cannot be opened"
NOT_A_FILE = "not a regular file"
LINK = "a link, not followed"
AWAY = "away, at the locked copies"


class NotGiven(OSError):
    """The bytes of a file could not be had now; its text says why, and names neither the file nor what is in it."""


class Item(NamedTuple):
    """A file or object: its path, and a stamp that changes when it does; `trouble` says why it is none.

    `which` tells it from others of the same path, as S3 writes it: versionId=V.
    """

    key: str
    size: int
    stamp: str
    owner: str
    trouble: str = ""
    which: str = ""

    @property
    def suffix(self) -> str:
        """What follows its path where it is told."""
        return f"?{self.which}" if self.which else ""

    @property
    def address(self) -> str:
        """What no other of its place has."""
        return self.key + self.suffix


class Opened(NamedTuple):
    """The bytes of a file, and what is said of it beside them: labels and texts, such as an object's metadata."""

    content: memoryview
    said: tuple[tuple[str, str], ...] = ()


class Origin(Protocol):
    """A place with files; can be sent to another process."""

    @property
    def name(self) -> str:
        """What the place is called by who asks for the search."""

    def items(self) -> Iterator[Item]:
        """Yield every file, always in the same order; what cannot be listed is an item with its trouble."""

    def content(self, item: Item) -> AbstractContextManager[Opened]:
        """Give the bytes of a file.

        Raises: NotGiven, with the reason; OSError if they cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder; links are told and not followed, as is what is away; of `without` nothing is told."""

    root: Path
    without: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    def items(self) -> Iterator[Item]:
        """Yield every file below the folder."""
        troubles: list[OSError] = []
        for parent, folders, names in os.walk(self.root, onerror=troubles.append):
            for trouble in troubles:
                yield Item(os.path.relpath(os.fsdecode(trouble.filename), self.root), 0, "", "", UNREADABLE)
            troubles.clear()
            folders[:] = sorted(name for name in folders if Path(parent, name) not in self.without)
            for name in sorted((*names, *(one for one in folders if Path(parent, one).is_symlink()))):
                yield self._item(Path(parent, name))
        yield from (Item(os.path.relpath(os.fsdecode(t.filename), self.root), 0, "", "", UNREADABLE) for t in troubles)

    def _item(self, path: Path) -> Item:
        key, meant = str(path.relative_to(self.root)), away.meant(path)
        try:
            if meant != path and away.is_away(meant):
                return Item(str(meant.relative_to(self.root)), 0, "", "", AWAY)
            status = path.lstat()
        except OSError:
            return Item(key, 0, "", "", UNREADABLE)
        owner = _owner(status.st_uid)
        if not stat.S_ISREG(status.st_mode):
            return Item(key, 0, "", owner, LINK if stat.S_ISLNK(status.st_mode) else NOT_A_FILE)
        stamp = f"{status.st_dev}.{status.st_ino}.{status.st_mtime_ns}.{status.st_ctime_ns}"
        return Item(key, status.st_size, stamp, owner)

    @contextmanager
    def content(self, item: Item) -> Iterator[Opened]:
        """Give the bytes of a file: read if it is small, mapped if it is large."""
        descriptor = os.open(self.root / item.key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size <= READ_WHOLE:
                yield Opened(memoryview(file.read()))
                return
            yield Opened(memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)))


@lru_cache(maxsize=1024)
def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
