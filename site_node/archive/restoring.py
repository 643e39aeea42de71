"""A restore: files are built again one by one and compared with the digest they were archived under.

What is missing is told, and never passed over. A restore that was cut off goes on where it stopped: its folder has a
mark until it is whole, and what lies there with its digest is not fetched again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from site_node.archive.layout import rebuild, write
from site_node.archive.lists import INSTANCES, MANIFEST, PIXELS, digest_of, read_lists, read_manifest
from site_node.errors import ArchiveError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from site_node.archive.layout import Entry

    Fetch = Callable[..., None]
    Study = Mapping[str, Any]

_SCRATCH, _MARK, _FETCHED, _UNFINISHED = ".restoring", "snapshot", "fetched", "unfinished"
_MORE_THREADS = 2  # than processors: some wait for the disk


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back: files, their bytes, how many are missing or are not what was archived, and restic's complaint."""

    files: int
    size: int
    missing: int
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which studies to restore; nothing chosen means all."""

    StudyInstanceUID: str = ""
    PatientID: str = ""
    StudyDate: str = ""

    def takes(self, study: Study) -> bool:
        """Return whether a study of the manifest may hold what is wanted."""
        return (
            self.StudyInstanceUID in ("", study["StudyInstanceUID"])
            and (not self.PatientID or self.PatientID in study["PatientID"])
            and (not self.StudyDate or self.StudyDate in study["StudyDate"])
        )

    def takes_entry(self, entry: Entry) -> bool:
        """Return whether a file is wanted."""
        return self.PatientID in ("", entry.PatientID) and self.StudyDate in ("", entry.StudyDate)


class Place:
    """The folder that a restore goes to."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.fetched = target / _SCRATCH / _FETCHED
        self._unfinished = target / _SCRATCH / _UNFINISHED
        self._mark = target / _SCRATCH / _MARK
        self._ready: Path | None = None

    def begin(self, choose: Callable[[], str], snapshot: str) -> tuple[str, bool]:
        """Return the snapshot to restore, and whether a restore of it was cut off here; `choose` names it if not.

        Raises: ConfigurationError if something else lies here, or another snapshot than `snapshot` was begun with.
        """
        is_begun = self._mark.exists()
        if not is_begun and self.target.exists() and any(self.target.iterdir()):
            raise ConfigurationError(f"{self.target} is not empty; a restore goes to a clean place")
        chosen = self._mark.read_text() if is_begun else choose()
        if not chosen.startswith(snapshot):
            raise ConfigurationError(f"{self.target} holds part of another snapshot, {chosen[:12]}")
        for folder in (self.fetched, self._unfinished):
            shutil.rmtree(folder, ignore_errors=True)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.target, self.target / _SCRATCH, self.fetched, self._unfinished):
            folder.mkdir(mode=0o700, exist_ok=True)
        write(self._mark, (chosen.encode(),))
        return chosen, is_begun

    def end(self) -> None:
        """Take the mark away: all that was wanted is here, on the disk itself."""
        os.sync()  # once for all files: one by one takes longer
        shutil.rmtree(self.target / _SCRATCH)

    def put(self, folder: Path, entry: Entry) -> bool:
        """Write one file, built from what was fetched of its study, to its place, if it is what was archived."""
        path = self.target / entry.path
        if not self._is_ready(path.parent):
            return False
        unfinished = self._unfinished / hashlib.sha256(os.fsencode(entry.path)).hexdigest()
        digest = hashlib.sha256()
        try:
            with unfinished.open("wb") as out:
                os.fchmod(out.fileno(), 0o600)
                for chunk in rebuild(entry, folder):
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the disk begins, while others are built
        except ArchiveError:
            return False
        if digest.hexdigest() != entry.sha256:
            return False
        os.utime(unfinished, (entry.mtime, entry.mtime))
        unfinished.replace(path)
        return True

    def _is_ready(self, folder: Path) -> bool:
        """Return whether a folder lies in the target, and is there, made if need be."""
        if folder != self._ready:  # the files of a study mostly lie together
            if not folder.resolve().is_relative_to(self.target.resolve()):
                return False
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._ready = folder
        return True

    def holds(self, entry: Entry) -> bool:
        """Return whether a file is in its place already."""
        path = self.target / entry.path
        return path.is_file() and not path.is_symlink() and digest_of(path) == entry.sha256


def restore(
    place: Place, wanted: Wanted, fetch: Fetch, progress: Callable[[int, int], None], *, is_begun: bool, manifest: str
) -> Restored:
    """Restore what is wanted; `fetch` gets files and folders of the snapshot by their names, or all without a name.

    `manifest` is the digest that the site's record has of the snapshot's manifest; empty if it has none.
    Raises: ArchiveError if the snapshot holds nothing of what is wanted, or not even a manifest.
    """
    everything = wanted == Wanted() and not is_begun
    complaints: list[str] = []
    attempt = partial(_attempt, fetch, complaints)
    attempt(*(() if everything else (MANIFEST,)))
    if manifest and (place.fetched / MANIFEST).exists() and digest_of(place.fetched / MANIFEST) != manifest:
        raise ArchiveError("the snapshot's manifest is not the one on this site's record")
    try:
        studies = [study for study in read_manifest(place.fetched) if wanted.takes(study)]
    except ArchiveError as error:
        raise ArchiveError(complaints[-1] if complaints else str(error)) from error
    if not studies:
        raise ArchiveError("the snapshot holds nothing of what is wanted")
    whole: set[str] = set()
    if is_begun:
        attempt(*(f"{study['study']}/*.jsonl" for study in studies))
        whole = {study["study"] for study in studies if _is_whole(place, study, wanted)}
    left = [study["study"] for study in studies if study["study"] not in whole]
    if left and not everything:
        attempt(*left)
    restored = _rebuild_all(place, studies, whole, wanted, progress)
    return replace(restored, complaint=complaints[-1]) if restored.missing and complaints else restored


def _attempt(fetch: Fetch, complaints: list[str], *names: str) -> None:
    """Fetch, and go on with what could be had: each file is compared with its digest."""
    try:
        fetch(*names)
    except ArchiveError as error:
        complaints.append(str(error))


def _is_whole(place: Place, study: Study, wanted: Wanted) -> bool:
    listed = _listed(place.fetched / study["study"], study)
    return len(listed) == study["files"] and all(place.holds(entry) for entry in listed if wanted.takes_entry(entry))


def _rebuild_all(
    place: Place,
    studies: Sequence[Study],
    whole: Collection[str],
    wanted: Wanted,
    progress: Callable[[int, int], None],
) -> Restored:
    total = sum(study["files"] for study in studies)
    files = size = missing = done = 0
    threads = (os.cpu_count() or 1) + _MORE_THREADS
    with ThreadPoolExecutor(threads) as pool:  # codecs, digests and the disk leave the interpreter to others
        for study in studies:
            folder = place.fetched / study["study"]
            listed = _listed(folder, study)
            entries = [entry for entry in listed if wanted.takes_entry(entry)]
            missing += study["files"] - len(listed)
            done += study["files"] - len(entries)
            bring = _is_there if study["study"] in whole else partial(place.put, folder)
            for entry, came_back in zip(entries, pool.map(bring, entries), strict=True):
                files, size, missing = files + came_back, size + came_back * entry.size, missing + (not came_back)
                done += 1
                progress(done, total)
            shutil.rmtree(folder, ignore_errors=True)
    return Restored(files, size, missing)


def _is_there(_entry: Entry) -> bool:
    return True


def _listed(folder: Path, study: Study) -> list[Entry]:
    """Return the files of a study; none if its lists are not those that the manifest names."""
    try:
        if any(digest_of(folder / name) != study[name] for name in (INSTANCES, PIXELS)):
            return []
        return read_lists(folder)
    except (OSError, ArchiveError):
        return []
