"""What a person decides about a file: accepted as it is, moved away and back, or de-identified into another folder.

A move is on record before it is made and after, so a crash in between is found and told by `settle`. Nothing is ever
written over; a file that changed since it was searched is not moved. An object of a bucket is copied here, and deleted
there once the copy is what was searched; nothing is ever sent to a bucket.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from site_node import ledger
from site_node.errors import ConfigurationError, EndpointRefused
from site_node.keys import flush_folder
from site_node.store import stray_decision, stray_file
from site_node.stray.digests import Keyer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from site_node.stray.records import File, Keys

ACCEPTED, QUARANTINED, RESTORED, DEIDENTIFIED = "accepted", "quarantined", "restored", "de-identified"
BEGUN, DONE, UNDONE = "begun", "done", "undone"
FOLDER = "stray"
_EARLIER = "an earlier content of it is in quarantine; restore or remove that"
_CHUNK = 1 << 20


class Bucket(Protocol):
    """Where objects lie that were searched; what it raises says how each of these failed."""

    def fetch(self, address: str, target: Path) -> str:
        """Write the bytes of an object to a file; return what they are known by in `delete`."""

    def kept_by(self, address: str, at: datetime) -> str:
        """Return what keeps an object from being deleted; nothing if nothing does."""

    def delete(self, address: str, etag: str) -> None:
        """Delete what was fetched, for good."""


def accept(store: sa.Engine, file: File, by: str, reason: str, at: datetime) -> int:
    """Accept the open findings of a file as it is now; return how many. A change of the file ends it.

    Raises: ConfigurationError if nothing is open, or no reason or name is given.
    """
    _check(by, reason)
    if not file.open:
        raise ConfigurationError(f"{file.id}: nothing is open")
    covers = json.dumps([[one.kind, one.rule, one.digest] for one in file.open])
    with store.begin() as db:
        _record(db, file, ACCEPTED, DONE, by, reason, at, covers=covers)
    return len(file.open)


def quarantine(
    store: sa.Engine,
    root: Path,
    keys: Keys,
    file: File,
    by: str,
    reason: str,
    at: datetime,
    bucket: Bucket | None = None,
) -> Path:
    """Move a file, or an object of `bucket`, to the site's folder `stray`, where its id is its name; return its path.

    Raises: ConfigurationError if it is not there any more, is not what was searched, or is locked; EndpointError.
    """
    _check(by, reason)
    target = root / FOLDER / file.id
    target.parent.mkdir(mode=0o700, exist_ok=True)
    if bucket is None:
        move = partial(_move, _unchanged(keys, file), target)
        if target.exists():
            raise ConfigurationError(f"{file.id}: {_EARLIER}")
    else:
        move = partial(_take, keys, file, bucket, target)
        if kept := bucket.kept_by(keys.open(file.sealed)[1], at):
            raise ConfigurationError(f"{file.id}: stays where it is, {kept}")
    with store.begin() as db:
        number = _record(db, file, QUARANTINED, BEGUN, by, reason, at)
    try:
        move()
    except (ConfigurationError, EndpointRefused):
        with store.begin() as db:
            _set(db, number, UNDONE)
        raise
    with store.begin() as db:
        _set(db, number, DONE)
        db.execute(sa.delete(stray_file).where(stray_file.c.id == file.id))
    return target


def restore(store: sa.Engine, root: Path, keys: Keys, name: str, by: str, reason: str, at: datetime) -> str:
    """Move a file from quarantine back to where it was; return its id.

    Raises: ConfigurationError if it is not in quarantine, or another file has its place.
    """
    _check(by, reason)
    with store.connect() as db:
        held = [row for row in in_quarantine(db) if row.file.startswith(name.lower())]
    if len(held) != 1:
        raise ConfigurationError("no such file in quarantine: name it by its id, or how it begins")
    row = held[0]
    source, key = keys.open(row.sealed)
    if not Path(source).is_absolute():
        raise ConfigurationError(f"{row.file}: was an object of a bucket; what identifies is not sent out, so it stays")
    target = Path(source, key)
    if target.exists():
        raise ConfigurationError(f"{row.file}: another file has its place")
    if not target.parent.is_dir():
        raise ConfigurationError(f"{row.file}: the folder it was in is gone; make it again")
    values = {column: getattr(row, column) for column in ("file", "content", "sealed", "shown")}
    with store.begin() as db:
        number = _insert(db, values, RESTORED, BEGUN, by, reason, at)
    _move(root / FOLDER / row.file, target)
    with store.begin() as db:
        _set(db, number, DONE)
    return str(row.file)


def deidentify(
    store: sa.Engine,
    root: Path,
    keys: Keys,
    file: File,
    by: str,
    reason: str,
    at: datetime,
    export: Callable[[Path], str],
    bucket: Bucket | None = None,
) -> str:
    """Give a copy of a file to de-identification and return what became of it; the file stays where it is.

    `export` takes a folder that holds the copy alone; it lies with the files in quarantine, where a crash may leave it.
    Raises: ConfigurationError, EndpointError as `quarantine`.
    """
    _check(by, reason)
    held = root / FOLDER
    held.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=held) as folder:
        if bucket is None:
            shutil.copyfile(_unchanged(keys, file), Path(folder, file.id))
        else:
            _fetch(keys, file, bucket, Path(folder, file.id))
        outcome = export(Path(folder))
    with store.begin() as db:
        _record(db, file, DEIDENTIFIED, DONE, by, f"{reason} ({outcome})", at)
    return outcome


def in_quarantine(db: sa.Connection) -> list[sa.Row[tuple[str, ...]]]:
    """Return the decisions by which files are in quarantine now."""
    moves = sa.select(stray_decision).where(
        stray_decision.c.verdict.in_((QUARANTINED, RESTORED)), stray_decision.c.state == DONE
    )
    last = {row.file: row for row in db.execute(moves.order_by(stray_decision.c.number))}
    return [row for row in last.values() if row.verdict == QUARANTINED]


def decisions(db: sa.Connection) -> list[sa.Row[tuple[str, ...]]]:
    """Return every decision, latest first."""
    return list(db.execute(sa.select(stray_decision).order_by(stray_decision.c.number.desc())))


def settle(store: sa.Engine, root: Path, keys: Keys) -> list[str]:
    """Finish the record of moves that a crash cut off, by where each file is now; return one line for each."""
    lines = []
    with store.begin() as db:
        for row in db.execute(sa.select(stray_decision).where(stray_decision.c.state == BEGUN)).all():
            held, (source, key) = root / FOLDER / row.file, keys.open(row.sealed)
            held.with_name(_part(held)).unlink(missing_ok=True)
            if Path(source).is_absolute():
                moved = _moved(keys, row, held, Path(source, key))
                told = "done" if moved else "not done"
            else:
                moved = held.exists()
                told = "it is here; whether it is gone there, the next scan tells" if moved else "not done"
            _set(db, row.number, DONE if moved else UNDONE)
            lines.append(f"{row.file}: was being {row.verdict} when the work was cut off: {told}")
    return lines


def _moved(keys: Keys, row: sa.Row[tuple[str, ...]], held: Path, place: Path) -> bool:
    """Return whether a move that was cut off is made, and take the old name from a file that has both."""
    source, target = (place, held) if row.verdict == QUARANTINED else (held, place)
    if target.exists() and source.exists() and _same(keys, row.content, source, target):
        source.unlink()  # the one file had both names, or was copied
    return target.exists() and not source.exists()


def _check(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise ConfigurationError("who decides, and why, goes on the record: --by and --reason")


def _unchanged(keys: Keys, file: File) -> Path:
    source, key = keys.open(file.sealed)
    if not Path(source).is_absolute():
        raise ConfigurationError(f"{file.id}: lies in no folder of this machine; see to it where it lies")
    path = Path(source, key)
    try:
        content = _content(keys, path)
    except OSError:
        raise ConfigurationError(f"{file.id}: is not at its place any more; scan again") from None
    _require(file, content)
    return path


def _require(file: File, content: str) -> None:
    if not file.content:
        raise ConfigurationError(f"{file.id}: its content was not looked through; see to it where it lies")
    if content != file.content:
        raise ConfigurationError(f"{file.id}: changed since it was searched; scan again")


def _same(keys: Keys, content: str, *paths: Path) -> bool:
    """Return whether paths are names of one file, or each of a file with this content."""
    return paths[0].samefile(paths[1]) or all(_content(keys, path) == content for path in paths)


def _content(keys: Keys, path: Path) -> str:
    """Return the keyed digest of what a file holds."""
    digest = hashlib.sha256()
    with _opened(path) as content:
        while block := os.read(content, _CHUNK):
            digest.update(block)
    return Keyer(keys.digests).token("content", digest.hexdigest())


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _move(source: Path, target: Path) -> None:
    """Move a file so that its name is at one place or at both, never at none, and nothing is written over."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        if target.exists():
            raise
        _copy(source, target)
    flush_folder(target.parent)
    source.unlink()
    flush_folder(source.parent)


def _take(keys: Keys, file: File, bucket: Bucket, target: Path) -> None:
    """Have an object here, whole and on the disk, and only then delete it in its bucket."""
    part = target.with_name(_part(target))
    try:
        etag = _fetch(keys, file, bucket, part)
        is_new = not target.exists()
        if is_new:
            os.link(part, target)
            flush_folder(target.parent)
        elif _content(keys, target) != file.content:
            raise ConfigurationError(f"{file.id}: {_EARLIER}")
    finally:
        part.unlink(missing_ok=True)
    try:
        bucket.delete(keys.open(file.sealed)[1], etag)
    except (ConfigurationError, EndpointRefused):
        if is_new:
            target.unlink()
        raise


def _fetch(keys: Keys, file: File, bucket: Bucket, target: Path) -> str:
    etag = bucket.fetch(keys.open(file.sealed)[1], target)
    _require(file, _content(keys, target))
    return etag


def _part(target: Path) -> str:
    return f".{target.name}.part"


def _copy(source: Path, target: Path) -> None:
    """Copy a file to another file system under a name of its own, and then give it its name."""
    part = target.with_name(_part(target))
    shutil.copy2(source, part, follow_symlinks=False)
    with part.open("rb") as copied:
        os.fsync(copied.fileno())
    os.link(part, target)
    part.unlink()


def _record(
    db: sa.Connection, file: File, verdict: str, state: str, by: str, reason: str, at: datetime, covers: str = "[]"
) -> int:
    values: dict[str, str | bytes] = {"file": file.id, "content": file.content, "sealed": file.sealed}
    return _insert(db, {**values, "shown": file.shown}, verdict, state, by, reason, at, covers)


def _insert(
    db: sa.Connection,
    values: dict[str, str | bytes],
    verdict: str,
    state: str,
    by: str,
    reason: str,
    at: datetime,
    covers: str = "[]",
) -> int:
    told = {"verdict": verdict, "state": state, "by": by, "reason": reason, "at": at.isoformat(), "covers": covers}
    made = db.execute(sa.insert(stray_decision).values(values | told))
    ledger.write(db, at, f"site:stray:{verdict}", file=str(values["file"]), by=by, reason=reason)
    return int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0


def _set(db: sa.Connection, number: int, state: str) -> None:
    db.execute(sa.update(stray_decision).where(stray_decision.c.number == number).values(state=state))
