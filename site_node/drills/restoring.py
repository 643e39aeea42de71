"""Restores studies of a snapshot into the clean folder, each file built again and compared with its digest.

Files get numbers for names: a path of the originals may name a patient.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from site_node import alarms
from site_node.archive.layout import rebuild
from site_node.archive.lists import INSTANCES, MANIFEST, PIXELS, digest_of, read_lists, read_manifest
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from site_node.archive.layout import Entry
    from site_node.drills.bench import Bench

MISSING, BAD = "missing", "bad"
NOT_OURS = (
    "the newest good snapshot is not on this site's record: somebody else made it, "
    "or the site's database is older than that"
)


class File(NamedTuple):
    """A restored file that has the digest it was archived under."""

    entry: Entry
    path: Path


def locate(bench: Bench) -> tuple[str, list[dict[str, Any]]]:
    """Return the last good snapshot, which a restore would take, and its studies; its manifest is the one on record.

    That a newer one is there as a good one, which this site neither recorded nor began, is told too.
    Raises: ArchiveError if there is none, it is gone or on no record, or its manifest is another.
    """
    notes = bench.notes
    with notes.stage("locate"):
        chosen = bench.archive.chosen()
        good = {one.id: one.at for one in bench.archive.repository.snapshots() if one.is_good}
        newest = next(reversed(good), chosen)
        with bench.running.store.connect() as db:
            recorded, is_ours = alarms.manifest(db, chosen), bool(alarms.manifest(db, newest))
        if not is_ours and not _was_begun(bench, newest):
            notes.bad("snapshot-not-on-record")
            notes.problem(NOT_OURS)
        if not recorded:
            raise ArchiveError("no good snapshot is on this site's record")
        notes.snapshot, notes.manifest = chosen, recorded
        if chosen not in good:
            raise ArchiveError("the last good snapshot is not in the repository any more")
        notes.snapshot_at = good[chosen]
        bench.archive.repository.restore(chosen, bench.scratch, MANIFEST)
        manifest = bench.scratch / MANIFEST
        if not manifest.is_file() or digest_of(manifest) != recorded:
            notes.bad("manifest-differs")
            raise ArchiveError("the snapshot's manifest is not the one on this site's record")
        studies = read_manifest(bench.scratch)
        notes.total = len(studies)
    return chosen, studies


def _was_begun(bench: Bench, snapshot: str) -> bool:
    """Return whether this site began a snapshot and was stopped before it was on the record."""
    folder = bench.scratch / "newest"
    bench.archive.repository.restore(snapshot, folder, MANIFEST)
    with bench.running.store.connect() as db:
        return (folder / MANIFEST).is_file() and alarms.was_begun(db, digest_of(folder / MANIFEST))


def restore(bench: Bench, chosen: str, studies: Sequence[Mapping[str, Any]]) -> list[File]:
    """Restore studies; return the files that came back. What did not is counted as missing or bad."""
    notes, folder = bench.notes, bench.scratch / "restored"
    folder.mkdir(mode=0o700, exist_ok=True)
    with notes.stage("restore"):
        try:
            bench.archive.repository.restore(chosen, folder, *(study["study"] for study in studies))
        except ArchiveError as error:  # restic restores what it can: what is missing is counted below
            notes.problem(str(error))
    with notes.stage("rebuild"), ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = [(folder / study["study"], entry) for study in studies for entry in _listed(bench, folder, study)]
        places = (bench.scratch / "files" / f"{number}.dcm" for number in range(len(entries)))
        (bench.scratch / "files").mkdir(mode=0o700, exist_ok=True)
        work = [(*one, path) for one, path in zip(entries, places, strict=True)]
        built = list(pool.map(partial(_build_one), work))
    came_back = []
    for (_, entry, path), outcome in zip(work, built, strict=True):
        if outcome is None:
            came_back.append(File(entry, path))
            notes.files["size"] += entry.size
        else:
            notes.files[outcome] += 1
            if outcome == BAD:
                notes.bad("file-differs")
    return came_back


def _listed(bench: Bench, folder: Path, study: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield the files of a study; all of them are missing or bad if its lists are not those the manifest names."""
    notes, place = bench.notes, folder / study["study"]
    notes.files["archived"] += study["files"]
    if not all((place / name).is_file() for name in (INSTANCES, PIXELS)):
        notes.files[MISSING] += study["files"]
        return
    if any(digest_of(place / name) != study[name] for name in (INSTANCES, PIXELS)):
        notes.files[BAD] += study["files"]
        notes.bad("list-differs", study["files"])
        return
    entries = read_lists(place)
    notes.files[MISSING] += study["files"] - len(entries)
    yield from entries


def _build_one(work: tuple[Path, Entry, Path]) -> str | None:
    """Build a file again; return what is wrong with it."""
    folder, entry, path = work
    digest = hashlib.sha256()
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as out:
            for chunk in rebuild(entry, folder):
                digest.update(chunk)
                out.write(chunk)
    except ArchiveError:
        path.unlink(missing_ok=True)
        return MISSING
    if digest.hexdigest() == entry.sha256:
        return None
    path.unlink()
    return BAD
