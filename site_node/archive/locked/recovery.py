"""Locked copies back into a folder, byte for byte, whatever was done to them since.

A version is taken only if what is sealed in it is what its name stands for. So an object that was overwritten, hidden
behind a delete marker or encrypted by somebody else comes back from its earlier version, and without the database.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from site_node.archive.locked.sealing import read_members
from site_node.archive.locked.worm import PREFIX
from site_node.away import SCRATCH
from site_node.errors import EndpointRefused, LockedCopyInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import BinaryIO

    from site_node.archive.locked.locks import Version
    from site_node.archive.locked.s3 import Bucket
    from site_node.archive.locked.sealing import Member, Seal


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a recovery: objects and files that came back, those there already, and what did not."""

    objects: int
    files: int
    bytes: int
    lost: tuple[tuple[str, str], ...]  # name and reason


def candidates(bucket: Bucket, as_of: datetime | None, name: str = "") -> dict[str, list[Version]]:
    """Return the versions of every object, newest first, by name; those after `as_of` and delete markers left out.

    With `name`, only of objects whose names begin so.
    """
    found: dict[str, list[Version]] = defaultdict(list)
    for version in bucket.versions(PREFIX + name):
        name = version.name.removeprefix(PREFIX)
        found.setdefault(name, [])
        if not version.is_marker and (as_of is None or version.at <= as_of):
            found[name].append(version)
    for versions in found.values():
        versions.sort(key=lambda version: version.at, reverse=True)
    return found


def names(bucket: Bucket, as_of: datetime | None) -> set[str]:
    """Return the objects that a bucket holds, or held at a moment; those that are hidden now among them."""
    return _named(candidates(bucket, as_of), as_of)


def _named(found: Mapping[str, Sequence[Version]], as_of: datetime | None) -> set[str]:
    return {name for name, versions in found.items() if versions or as_of is None}


def restore(
    bucket: Bucket,
    seal: Seal,
    wanted: Iterable[str] | None,
    target: Path,
    as_of: datetime | None,
    heard: Callable[[int, int], None] = lambda _done, _total: None,
) -> Restored:
    """Bring objects back into `target`; `wanted` are their names, None is all that the bucket holds.

    A file that is there already is left as it is: if it differs, the object counts as not restored.
    Raises: EndpointUnreachable; OSError.
    """
    found = candidates(bucket, as_of)
    chosen = sorted(_named(found, as_of) if wanted is None else wanted)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = size = objects = 0
    lost = []
    for done, name in enumerate(chosen, start=1):
        try:
            members = restore_one(bucket, seal, name, found.get(name, []), target)
        except (LockedCopyInvalid, EndpointRefused) as error:
            lost.append((name, str(error)))
        else:
            objects, files, size = objects + 1, files + len(members), size + sum(one.size for one in members)
        heard(done, len(chosen))
    return Restored(objects, files, size, tuple(lost))


def restore_one(bucket: Bucket, seal: Seal, name: str, versions: Iterable[Version], target: Path) -> list[Member]:
    """Bring the newest good version of one object back into `target`, and return its files.

    Raises: LockedCopyInvalid if there is none, or a file of another content stands in the way; EndpointError; OSError.
    """
    for version in versions:
        part = target / SCRATCH
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        try:
            with (part / "tar").open("w+b") as tar:
                try:
                    seal.open(bucket.read(version.name, version.version_id), tar)
                    tar.seek(0)
                    members = read_members(tar, _Keeper(part / "files"))
                except LockedCopyInvalid:
                    continue
            if seal.name(members) == name:
                _move(part / "files", target, [member.path for member in members])
                return members
        finally:
            shutil.rmtree(part, ignore_errors=True)
    raise LockedCopyInvalid("no version holds what its name stands for")


class _Keeper:
    """Writes the files of a tar below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, path: str, content: BinaryIO) -> None:
        target = self._folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())


def _move(source: Path, target: Path, paths: Iterable[str]) -> None:
    """Give files their places; none that differs is replaced."""
    paths = list(paths)
    for path in paths:
        if (target / path).exists() and not _same(source / path, target / path):
            raise LockedCopyInvalid("a file of its name is there already, and differs")
    for path in paths:
        (target / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (source / path).replace(target / path)


def _same(one: Path, other: Path) -> bool:
    chunk = 1 << 20
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while content := a.read(chunk):
            if content != b.read(chunk):
                return False
    return True
