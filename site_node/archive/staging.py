"""The staging folder: what the next snapshot will hold, kept beside the originals and brought up to date.

What lies in it: `lists`. `index.db` beside it remembers of each file what the operating system told of it (size, times,
inode): what has not changed is not read. It is a cache: without it everything is read once. The staged files are
remembered likewise, and a study in which one of them was touched is staged anew.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import sqlalchemy as sa

from site_node.archive import anomaly
from site_node.archive.index import baseline, good, original, staged
from site_node.archive.index import study as study_table
from site_node.archive.lists import (
    INSTANCES,
    MANIFEST,
    PIXELS,
    STATE,
    digest_of,
    read_lines,
    read_lists,
    read_manifest,
    study_line,
    write_changed,
    write_lists,
)
from site_node.away import SCRATCH, SUFFIX
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping

    from site_node.archive.layout import Entry

MARKED = "its mark says that it is away, and [tiers] of site.toml does not know it"
_BATCH = 256
_BATCH_BYTES = 64 << 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class Stat(NamedTuple):
    """What the operating system tells of a file; the change time cannot be set by whoever merely writes files."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Staged:
    """What staging did: files there now, files read for it, files gone, and what could not be staged (path, why)."""

    files: int
    read: int
    gone: int
    problems: tuple[tuple[str, str], ...] = ()
    findings: tuple[anomaly.Finding, ...] = ()


@dataclass(slots=True)
class _Batch:
    entries: list[tuple[Entry, Stat]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, entry: Entry, told: Stat) -> None:
        """Take a staged file in."""
        self.entries.append((entry, told))
        self.size += len(entry.prefix)

    @property
    def is_full(self) -> bool:
        """Whether it is time to write it down."""
        return len(self.entries) >= _BATCH or self.size >= _BATCH_BYTES


def stat_of(path: Path) -> Stat:
    """Return what the operating system tells of a file, or of the symbolic link that lies there."""
    return _stat(path.lstat())


def _stat(told: os.stat_result) -> Stat:
    return Stat(told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)


def walk(roots: Mapping[str, Path]) -> Iterator[tuple[str, Path, Stat]]:
    """Yield every regular file below the roots: its name (that of its root first), its path, what is told of it.

    Raises: ArchiveError if a folder cannot be read.
    """
    for root, top in sorted(roots.items()):
        yield from _walk(root, top)


def _walk(name: str, folder: Path) -> Iterator[tuple[str, Path, Stat]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise ArchiveError(f"a folder of the originals cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != SCRATCH:
                yield from _walk(f"{name}/{entry.name}", folder / entry.name)
        elif entry.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):  # deleted this moment
                yield f"{name}/{entry.name}", folder / entry.name, _stat(entry.stat(follow_symlinks=False))


class Elsewhere(Protocol):
    """The files that lie at the site's locked copies and not in its folder."""

    def proven(self) -> Collection[Path]:
        """Return the files that are away and whose marks are the site's own."""

    def recall(self, path: Path) -> None:
        """Bring a file back.

        Raises: OSError if it cannot be had.
        """


class Staging:
    """A staging folder and its index; `elsewhere` tells, at a site with tiers, which files are away."""

    def __init__(self, folder: Path, index: sa.Engine, elsewhere: Elsewhere | None = None) -> None:
        self.folder = folder
        self._index = index
        self._elsewhere = elsewhere

    def update(
        self,
        roots: Mapping[str, Path],
        watch: anomaly.Watch,
        *,
        read_all: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Staged:
        """Bring the folder up to date with the originals below the roots, and return what was done.

        `watch` hears of each known image that is no longer what it was, as soon as that is seen.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._distrust(read_all=read_all)
        self._recall_unread(roots)
        found, todo, gone, unknown = self._compare(roots)
        watch.look(self._index, _seen(found, todo), gone)
        problems = [(name, MARKED) for name in sorted(unknown)]
        batch = _Batch()
        with closing(self._split({name: found[name][0] for name in todo})) as pieces:
            for done, (name, made) in enumerate(pieces, 1):
                if isinstance(made, str):
                    problems.append((name, made))
                else:
                    batch.add(made, found[name][1])
                if batch.is_full:
                    self._commit(batch, watch)
                    batch = _Batch()
                progress(done, len(todo))
        batch.gone = [name for name in gone if name not in unknown]  # what is staged of these may be all there is
        self._commit(batch, watch)
        self._write_manifest()
        with self._index.connect() as db:
            findings = watch.judge(db)
            files = db.execute(sa.select(sa.func.count()).select_from(original)).scalar_one()
        return Staged(files, len(todo) - len(problems) + len(unknown), len(gone), tuple(problems), findings)

    def _split(self, paths: Mapping[str, Path]) -> Generator[tuple[str, Entry | str]]:
        """Stage files, and yield the name of each with what it is, or why it could not be staged."""
        if not paths:
            return
        # They bring pydicom, which is slow to import; mostly nothing has changed.
        from site_node.archive.decoding import Decoder  # noqa: PLC0415
        from site_node.archive.splitting import split  # noqa: PLC0415

        with Decoder() as decoder:
            for name, path in paths.items():
                try:
                    made: Entry | str = split(path, name, self.folder, decoder)
                except ArchiveError as error:
                    made = str(error)
                except OSError as error:
                    if error.errno in _NO_ROOM:
                        raise
                    made = "cannot be read"  # the system's own words name the path
                yield name, made

    def look(self, roots: Mapping[str, Path], watch: anomaly.Watch) -> tuple[tuple[anomaly.Finding, ...], int]:
        """Return what a quick look at the originals finds, without reading pixels and without staging anything.

        The number is that of files which only a mark speaks for, and no tiers know.
        """
        found, todo, gone, unknown = self._compare(roots)
        return watch.look(self._index, _seen(found, todo), gone), len(unknown)

    def _compare(
        self, roots: Mapping[str, Path]
    ) -> tuple[dict[str, tuple[Path, Stat]], list[str], list[str], frozenset[str]]:
        """Return the files below the roots, which of them are new or changed, and which known ones are gone.

        The last are names with a mark and no file that are not proven to be away: the mark is forged or damaged, or
        `[tiers]` does not name its folder.
        """
        is_away = set(self._away(roots))
        found = {name: (path, told) for name, path, told in walk(roots)}
        marked = {name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX)}
        found = {name: each for name, each in found.items() if not name.endswith(SUFFIX)}
        is_away |= set(self._away(roots))  # files leave and come back meanwhile
        known = self._known()
        todo = [name for name, (_, told) in found.items() if known.get(name) != told]
        gone = [name for name in known if name not in found and name not in is_away]
        return found, todo, gone, frozenset(marked - found.keys() - is_away)

    def _recall_unread(self, roots: Mapping[str, Path]) -> None:
        """Bring back the files that are away and were never staged, or have to be staged anew."""
        known = self._known()
        for name, path in self._away(roots).items():
            if (name not in known or known[name].size < 0) and self._elsewhere is not None:
                try:
                    self._elsewhere.recall(path)
                except OSError as error:
                    if error.errno in _NO_ROOM:
                        raise
                    raise ArchiveError("a file that is away and was not staged cannot be recalled") from error

    def _away(self, roots: Mapping[str, Path]) -> dict[str, Path]:
        """Return the files below the roots that are away, by name."""
        proven = self._elsewhere.proven() if self._elsewhere is not None else ()
        tops = {root: top.resolve() for root, top in roots.items()}
        return {
            f"{root}/{path.relative_to(top)}": path
            for path in proven
            for root, top in tops.items()
            if path.is_relative_to(top)
        }

    def put_state(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Keep the files of the site's state, each if it is another than the one kept, and forget all others."""
        folder = self.folder / STATE
        kept = set()
        for name, content in files:
            target = folder / name
            kept.add(target)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_changed(target, content)
        for path in _files(folder):
            if path not in kept:
                path.unlink()

    def baseline(self) -> str:
        """Return the snapshot that images are compared with; empty if there is none."""
        with self._index.connect() as db:
            return db.execute(sa.select(baseline.c.snapshot)).scalar() or ""

    def accept(self, snapshot: str) -> None:
        """Take what is staged now, and is in this snapshot, for what images have to stay."""
        with self._index.begin() as db:
            db.execute(sa.delete(good))
            db.execute(sa.insert(good).from_select(list(good.c.keys()), anomaly.pairs()))
            _compare_with(db, snapshot)

    def remember(self, snapshot: str, folder: Path) -> None:
        """Take what a snapshot has for what images have to stay; its manifest and lists of pixels lie in `folder`.

        Raises: ArchiveError if the lists are not those of the manifest.
        """
        with self._index.begin() as db:
            db.execute(sa.delete(good))
            for study in read_manifest(folder):
                listed = folder / study["study"] / PIXELS
                if not listed.exists() or digest_of(listed) != study[PIXELS]:
                    raise ArchiveError(
                        "the last good snapshot is damaged: a list of pixels is not the one it was made with"
                    )
                rows = [_good(told) for told in read_lines(listed) if anomaly.is_judged(told)]
                if rows:
                    db.execute(sa.insert(good), rows)
            _compare_with(db, snapshot)

    def _known(self) -> dict[str, Stat]:
        columns = original.c
        query = sa.select(columns.path, columns.size, columns.mtime_ns, columns.ctime_ns, columns.inode)
        with self._index.connect() as db:
            return {row.path: Stat(*row[1:]) for row in db.execute(query)}

    def _distrust(self, *, read_all: bool) -> None:
        """Forget the originals of every study in whose staged files something is not as it was written."""
        with self._index.begin() as db:
            columns = staged.c
            rows = db.execute(sa.select(columns.name, columns.size, columns.mtime_ns, columns.ctime_ns, columns.inode))
            written = {row.name: Stat(*row[1:]) for row in rows}
            here = {str(path.relative_to(self.folder)): path for path in _files(self.folder / "studies")}
            touched = {_study(name) for name in written.keys() - here.keys()}
            for name, path in here.items():
                if written.get(name) != stat_of(path):
                    path.unlink()
                    touched.add(_study(name))
            if read_all:
                touched = {_study(name) for name in written}
            for study in touched:
                for name in (INSTANCES, PIXELS):  # made anew, with all that is read again
                    (self.folder / study / name).unlink(missing_ok=True)
                db.execute(sa.update(original).where(original.c.study == study).values(size=-1))

    def _commit(self, batch: _Batch, watch: anomaly.Watch) -> None:
        """Write the lists of the studies in the batch, and then remember the files."""
        with self._index.begin() as db:
            changed: dict[str, dict[str, Entry | None]] = defaultdict(dict)
            paths = [*batch.gone, *(entry.path for entry, _ in batch.entries)]
            for path in paths:
                row = db.execute(sa.select(original.c.study).where(original.c.path == path)).first()
                if row is not None:
                    changed[row.study][path] = None
            for entry, _ in batch.entries:
                changed[entry.study][entry.path] = entry
            for study, entries in changed.items():
                self._relist(db, study, entries)
            for path in paths:
                db.execute(sa.delete(original).where(original.c.path == path))
            for entry, told in batch.entries:
                db.execute(sa.insert(original).values(_row(entry, told)))
            watch.saw(db, [entry.path for entry, _ in batch.entries])

    def _relist(self, db: sa.Connection, study: str, changed: Mapping[str, Entry | None]) -> None:
        folder = self.folder / study
        entries: dict[str, Entry] = {entry.path: entry for entry in read_lists(folder)} if folder.exists() else {}
        entries |= {path: entry for path, entry in changed.items() if entry is not None}
        entries = {path: entry for path, entry in entries.items() if changed.get(path, entry) is not None}
        kept = {part.name for entry in entries.values() for part in entry.parts}
        db.execute(sa.delete(study_table).where(study_table.c.study == study))
        if entries:
            write_lists(folder, [entries[path] for path in sorted(entries)])
            kept |= {INSTANCES, PIXELS}
            line = study_line(folder, study, entries.values())
            db.execute(sa.insert(study_table).values(study=study, line=line))
        for path in _files(folder):
            if str(path.relative_to(folder)) not in kept:
                path.unlink()
        db.execute(sa.delete(staged).where(staged.c.study == study))
        rows = [
            {"name": str(path.relative_to(self.folder)), "study": study} | stat_of(path)._asdict()
            for path in _files(folder)
        ]
        if rows:
            db.execute(sa.insert(staged), rows)

    def _write_manifest(self) -> None:
        with self._index.connect() as db:
            lines = db.scalars(sa.select(study_table.c.line).order_by(study_table.c.study))
            write_changed(self.folder / MANIFEST, b"".join(lines))


def _seen(found: Mapping[str, tuple[Path, Stat]], names: Iterable[str]) -> dict[str, anomaly.Seen]:
    return {name: anomaly.Seen(found[name][0], found[name][1].inode) for name in names}


def _good(pixels: Mapping[str, Any]) -> dict[str, Any]:
    return {"inode": 0} | {name: pixels[name] for name in ("path", "SOPInstanceUID", "pixels")}


def _compare_with(db: sa.Connection, snapshot: str) -> None:
    db.execute(sa.delete(baseline))
    db.execute(sa.insert(baseline).values(snapshot=snapshot))


def _row(entry: Entry, told: Stat) -> dict[str, Any]:
    return {
        "path": entry.path,
        **told._asdict(),
        "study": entry.study,
        "SOPInstanceUID": entry.SOPInstanceUID,
        "pixels": entry.pixels,
        "is_dicom": entry.is_dicom,
    }


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _study(name: str) -> str:
    return "/".join(name.split("/")[:3])
