"""The ransomware alarm: decoded pixels under one SOP Instance UID never change.

Headers are edited, files are compressed, renamed and moved: none of that changes what an image shows. So the first
known image whose pixels are others, or can no longer be read, is an alarm; deletion is one in mass. A quick look comes
first, which reads no pixels: known images that lost the mark of a DICOM file, and many that are gone.

Compares the originals with the last good snapshot. What the site makes of them is not judged: a reviewer may redraw it.
An image that is deleted alone, or whose SOPInstanceUID was changed with its pixels, is missing and no more.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from site_node.archive.index import good, original

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

ORIGINALS = "originals"  # the root whose images never change
UNDECODED = "bytes:"  # before a digest of pixels that no codec here can read
_MAGIC_AT, _MAGIC = 128, b"DICM"  # PS3.10 7.1
_LAST = "\U0010ffff"
_SOME = 500  # paths in one question to the database


class Kind(StrEnum):
    """What happened to an image that the last good snapshot holds."""

    CHANGED = "pixels-changed"
    UNREADABLE = "unreadable"
    MISSING = "missing"


class Finding(NamedTuple):
    """An image that is no longer what the last good snapshot holds; its path stays inside the hospital."""

    kind: Kind
    path: str


class Seen(NamedTuple):
    """A file as the quick look sees it: where it lies, and its inode."""

    path: Path
    inode: int


def is_alarm(findings: Iterable[Finding], known: int, mass_files: int) -> bool:
    """Return whether a person has to look: one image changed or unreadable, or many of the known ones gone."""
    counts = Counter(finding.kind for finding in findings)
    missing = counts[Kind.MISSING]
    return counts.total() > missing or missing >= mass_files or (missing > 1 and missing * 2 > known)


def lacks_magic(path: Path) -> bool:
    """Return whether the file was seen not to begin as a DICOM file does (PS3.10 7.1)."""
    try:
        with path.open("rb") as file:
            file.seek(_MAGIC_AT)
            return file.read(len(_MAGIC)) != _MAGIC
    except OSError:  # nothing was seen; staging tells of a file that cannot be read
        return False


def is_judged(pixels: Mapping[str, Any]) -> bool:
    """Return whether a line of a study's list of pixels is an image that never changes."""
    return bool(pixels["is_dicom"] and pixels["SOPInstanceUID"] and pixels["path"].startswith(f"{ORIGINALS}/"))


def pairs() -> sa.Select[tuple[str, str, str, int]]:
    """Return the query of the images that are staged now, as `good` keeps them."""
    columns = original.c
    return sa.select(columns.path, columns.SOPInstanceUID, columns.pixels, columns.inode).where(
        columns.path > f"{ORIGINALS}/",
        columns.path < f"{ORIGINALS}/{_LAST}",
        columns.is_dicom,
        columns.SOPInstanceUID != "",
    )


class Watch:
    """Compares with the last good snapshot while a new one is staged; `tell` hears at once of findings that alarm."""

    def __init__(self, mass_files: int, tell: Callable[[Sequence[Finding]], None]) -> None:
        self._mass_files = mass_files
        self._tell = tell

    def look(self, index: sa.Engine, new: Mapping[str, Seen], gone: Sequence[str]) -> tuple[Finding, ...]:
        """Return what a quick look at files that are new, changed or gone finds, and tell of it if it is an alarm."""
        if not new and not gone:
            return ()
        with index.connect() as db:
            inodes = {row.path: row.inode for row in db.execute(sa.select(good.c.path, good.c.inode))}
        lost = self._lost(inodes, new, gone)
        arrived = sum(not lacks_magic(new[name].path) for name in new.keys() - inodes.keys())
        encrypted = {finding.path for finding in lost}
        known_gone = [name for name in gone if name in inodes and name not in encrypted]
        # As many images came as went: they may have been moved, which their digests will tell.
        missing = known_gone if arrived < len(known_gone) else []
        found = (*lost, *(Finding(Kind.MISSING, name) for name in missing))
        self._consider(found, len(inodes))
        return found

    def _lost(self, inodes: Mapping[str, int], new: Mapping[str, Seen], gone: Sequence[str]) -> list[Finding]:
        """Return the known images that no longer begin as one, at their place or under a new name."""
        moved = {inodes[name]: name for name in gone if name in inodes}
        suspects = {name: name for name in new if name in inodes}
        suspects |= {name: moved[seen.inode] for name, seen in new.items() if seen.inode in moved}
        return [Finding(Kind.UNREADABLE, known) for name, known in suspects.items() if lacks_magic(new[name].path)]

    def saw(self, db: sa.Connection, paths: Sequence[str]) -> None:
        """Judge the known images at these paths, which were staged just now."""
        for at in range(0, len(paths), _SOME):
            found = [
                finding for finding in _findings(db, good.c.path.in_(paths[at : at + _SOME])) if _is_grave(finding)
            ]
            if found:
                self._consider(found, len(found))

    def judge(self, db: sa.Connection) -> tuple[Finding, ...]:
        """Return everything that is not as the last good snapshot holds it, and tell of it if it is an alarm."""
        found = _findings(db)
        known = db.execute(sa.select(sa.func.count()).select_from(good)).scalar_one()
        self._consider(found, known)
        return found if is_alarm(found, known, self._mass_files) else ()

    def _consider(self, found: Sequence[Finding], known: int) -> None:
        if is_alarm(found, known, self._mass_files):
            self._tell(found)


def _is_grave(finding: Finding) -> bool:
    return finding.kind is not Kind.MISSING


def _findings(db: sa.Connection, *which: sa.ColumnElement[bool]) -> tuple[Finding, ...]:
    """Return the known images whose pixels nobody holds any more under their SOP Instance UID."""
    same = sa.exists().where(
        original.c.SOPInstanceUID == good.c.SOPInstanceUID, original.c.pixels == good.c.pixels, original.c.is_dicom
    )
    lost = sa.select(good.c.path, good.c.SOPInstanceUID).where(sa.not_(same), *which).order_by(good.c.path)
    return tuple(Finding(_kind(db, path, uid), path) for path, uid in db.execute(lost).all())


def _kind(db: sa.Connection, path: str, uid: str) -> Kind:
    columns = original.c
    # The file itself, or it under its name with something added, as encryptors do.
    there = db.execute(
        sa.select(columns.is_dicom).where(columns.path >= path, columns.path < path + _LAST).order_by(columns.path)
    ).scalars()
    held = db.execute(sa.select(columns.pixels).where(columns.SOPInstanceUID == uid, columns.is_dicom)).scalars().all()
    if held:
        readable = any(pixels and not pixels.startswith(UNDECODED) for pixels in held)
        return Kind.CHANGED if readable else Kind.UNREADABLE
    return Kind.UNREADABLE if any(not is_dicom for is_dicom in there) else Kind.MISSING
