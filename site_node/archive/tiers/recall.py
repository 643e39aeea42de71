"""Files that are away back into the folder, byte for byte, when somebody needs them.

A whole object comes back at once: one series, or a part of it. What comes is taken only if it is what the object's name
stands for, from the first copy that can give it; the marks go after the files are on disk.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node import away, ledger
from site_node.archive.locked import recovery
from site_node.archive.locked.sealing import Member
from site_node.archive.tiers import placement
from site_node.errors import EndpointRefused, EndpointUnreachable, LockedCopyInvalid
from site_node.store import tier_object, tier_serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from site_node.archive.locked.sealing import Seal
    from site_node.archive.locked.worm import Copy
    from site_node.config import Tiers

_LOCK = "tiers.lock"


def serving(db: sa.Connection) -> str:
    """Return the domain that stands in for the folder; empty where none does."""
    return str(db.scalar(sa.select(tier_serving.c.domain)) or "")


@contextmanager
def alone(root: Path, name: str = _LOCK, *, wait: bool = True) -> Iterator[None]:
    """Let no other process of the site move files meanwhile.

    Raises: BlockingIOError if another one does, and `wait` is false.
    """
    with os.fdopen(os.open(root / name, os.O_CREAT | os.O_RDWR, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


@dataclass(slots=True)
class Recalling:
    """The site's way back from its copies; a copy that gives no answer is not asked again (`down`)."""

    store: sa.Engine
    root: Path
    tiers: Tiers
    folder: Path
    seal: Seal
    copies: Sequence[Copy]
    now: Callable[[], datetime]
    say: Callable[[str], None]
    down: set[str] = field(default_factory=set)

    def proven(self) -> set[Path]:
        """Return the files that are away by marks that nobody else can make: their object's keyed name fits."""
        groups: dict[str, list[tuple[Path, Member]]] = defaultdict(list)
        for path in away.marked(self.folder):
            mark = away.read(path)
            if mark is not None:
                member = Member(path.relative_to(self.folder).as_posix(), mark.size, mark.sha256)
                groups[mark.object].append((path, member))
        return {
            self.folder.resolve() / member.path
            for name, group in groups.items()
            if self.seal.name([member for _, member in group]) == name
            for path, member in group
            if not path.exists()
        }

    def recall(self, path: Path) -> None:
        """Bring a file that is away back to its place, and all of its object with it.

        Raises: OSError, with the file's name, if it cannot be had.
        """
        if path.exists():
            return
        mark = away.read(path)
        if mark is None:
            raise FileNotFoundError(2, "is gone, or its mark is damaged", str(path))
        try:
            self.object(mark.object)
        except LockedCopyInvalid as error:
            raise FileNotFoundError(2, f"is away: {error}", str(path)) from error
        if not path.exists():
            raise FileNotFoundError(2, "is away, and its mark names an object that does not have it", str(path))

    def object(self, name: str) -> list[Member]:
        """Bring the files of an object back, and return them; those that are here already stay.

        Raises: LockedCopyInvalid if no copy can give it; OSError if the folder cannot take it.
        """
        with alone(self.root):
            for copy in self._in_order():
                members = self._from(copy, name)
                if members is None:
                    continue
                paths = [self.folder / member.path for member in members]
                away.flush({above for path in paths for above in _up_to(self.folder, path.parent)})
                self._note(name, copy)
                away.remove(path for path in paths if getattr(away.read(path), "object", "") == name)
                return members
        raise LockedCopyInvalid(f"{name[:16]}: no copy gave it back")

    def _in_order(self) -> list[Copy]:
        with self.store.connect() as db:
            stands_in = serving(db)
        by_name = {copy.name: copy for copy in self.copies}
        names = placement.reads(self.tiers, [copy.settings for copy in self.copies], stands_in)
        return [by_name[name] for name in names if name not in self.down]

    def _from(self, copy: Copy, name: str) -> list[Member] | None:
        """Restore an object from one copy; None, and a line, if it cannot."""
        try:
            versions = recovery.candidates(copy.bucket, None, name).get(name, [])
            return recovery.restore_one(copy.bucket, self.seal, name, versions, self.folder)
        except EndpointUnreachable as error:
            self.down.add(copy.name)
            self.say(f"{copy.name}: {error}")
        except (EndpointRefused, LockedCopyInvalid) as error:
            self.say(f"{copy.name}: {name[:16]}: {error}")
        return None

    def _note(self, name: str, copy: Copy) -> None:
        at = self.now()
        with self.store.begin() as db:
            db.execute(sa.update(tier_object).where(tier_object.c.name == name).values(came_at=at.isoformat()))
            ledger.write(db, at, "site:tiers:recalled", object=name, copy=copy.name)


def _up_to(root: Path, folder: Path) -> Iterator[Path]:
    yield folder
    if folder != root:
        yield from _up_to(root, folder.parent)
