"""Snapshots of what a site took in, and of the site itself: taken, listed, restored, checked, thinned out.

A snapshot counts when restic ended well, its list shows it, and nothing was left out. Restored files are built again
one by one and compared with the digest they were archived under; what is missing is told, and never passed over.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from site_node import alarms, ledger
from site_node.archive import state
from site_node.archive.anomaly import ORIGINALS, Finding, Watch
from site_node.archive.index import open_index
from site_node.archive.layout import rebuild
from site_node.archive.locked.clock import Clock
from site_node.archive.locked.places import Places
from site_node.archive.locked.rolling import extend
from site_node.archive.repository import GOOD, SUSPECT, Repository, Snapshot
from site_node.archive.staging import INSTANCES, MANIFEST, PIXELS, Staging, digest_of, read_lists, read_manifest
from site_node.archive.stores import store_of
from site_node.config import LOCKED
from site_node.errors import ArchiveAlarm, ArchiveError, ConfigurationError
from site_node.keys import make_file, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from site_node.archive.layout import Entry
    from site_node.archive.locked.rolling import Extended
    from site_node.archive.staging import Elsewhere
    from site_node.config import LockedCopy, SiteConfig, SiteHome

# What a site keeps of images below its own folder, beside the originals that the hospital keeps.
_OWN_FOLDERS = ("deidentified", "review", "quarantine", "outbox")
_PASSWORD_BYTES = 32
_STUDIES_AT_ONCE = 500  # so that a command line stays within the system's bounds


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was taken: its id, and what staging did for it; not good if an alarm is open."""

    id: str
    files: int
    read: int
    gone: int
    is_good: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back: files, their bytes, and how many are missing or are not what was archived."""

    files: int
    size: int
    missing: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which studies to restore; nothing chosen means all."""

    StudyInstanceUID: str = ""
    PatientID: str = ""
    StudyDate: str = ""

    def takes(self, study: Mapping[str, Any]) -> bool:
        """Return whether a study of the manifest may hold what is wanted."""
        return (
            self.StudyInstanceUID in ("", study["StudyInstanceUID"])
            and (not self.PatientID or self.PatientID in study["PatientID"])
            and (not self.StudyDate or self.StudyDate in study["StudyDate"])
        )

    def takes_entry(self, entry: Entry) -> bool:
        """Return whether a file is wanted."""
        return self.PatientID in ("", entry.PatientID) and self.StudyDate in ("", entry.StudyDate)


class Archive:
    """The archive of one site; with `as_of` its repository is read as it was then, and nothing is written to it."""

    def __init__(
        self,
        home: SiteHome,
        config: SiteConfig,
        store: sa.Engine,
        clock: Callable[[], datetime],
        as_of: datetime | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._home = home
        self._elsewhere = elsewhere
        self._config = config.archive
        self._store = store
        self._clock = clock
        self._root = home.root / "archive"
        if not self._config.repository:
            raise ConfigurationError("no archive: name its repository in [archive] of site.toml")
        self._places = Places(home.root, config.locked, store)
        lies = store_of(home.root, self._config, self._places, as_of)
        self.repository = Repository(lies, home.root / self._config.password_file, self._root / "cache", config.name)

    @property
    def staging(self) -> Path:
        """The staging folder."""
        return self._root / "staging"

    @property
    def _locked_copy(self) -> LockedCopy | None:
        """The locked copy that the repository lies in, if it does."""
        name = self._config.repository.removeprefix(LOCKED)
        return None if name == self._config.repository else self._places.chosen(name)[0]

    def create(self) -> None:
        """Make the password, the recovery key and the repository; what is there already is used.

        Raises: NotCompliant if the repository is to lie in a locked copy that may not be called one; ArchiveError.
        """
        if self._locked_copy is not None:  # restic would make a bucket that is missing, without Object Lock
            self._places.require(self._locked_copy, Clock(self._store).now())
        self._root.mkdir(mode=0o700, exist_ok=True)
        password = self.repository.password_file
        if not password.exists():
            make_file(password, os.urandom(_PASSWORD_BYTES).hex().encode() + b"\n")
        recovery = self._recovery_file()
        if not recovery.exists():
            make_file(recovery, os.urandom(state.RECOVERY_KEY_BYTES).hex().encode() + b"\n")
        read_secret(password)
        self.repository.create()
        with self._store.begin() as db:
            ledger.write(db, self._clock(), "site:archive:created")

    def take(
        self,
        *,
        read_all: bool = False,
        staging: Callable[[int, int], None] = lambda _done, _total: None,
        storing: Callable[[float], None] = lambda _part: None,
    ) -> Taken:
        """Take a snapshot of everything and return it.

        Raises: ArchiveError if something could not be staged or stored; no snapshot counts then. ArchiveAlarm if images
            changed as none may: the snapshot was taken beside the good ones, and training is paused.
        """
        read_secret(self.repository.password_file)
        with self._alone():
            index = open_index(self._root / "index.db")
            try:
                return self._take(index, read_all=read_all, progress=staging, storing=storing)
            finally:
                index.dispose()

    def _take(
        self,
        index: sa.Engine,
        *,
        read_all: bool,
        progress: Callable[[int, int], None],
        storing: Callable[[float], None],
    ) -> Taken:
        stage = Staging(self.staging, index, self._elsewhere)
        self.staging.mkdir(mode=0o700, exist_ok=True)
        state.stage(self._home, stage, self._recovery_key())
        done = stage.update(
            self._roots(), Watch(self._config.mass_files, self._sound), read_all=read_all, progress=progress
        )
        if done.problems:
            name, why = done.problems[0]
            place = hashlib.sha256(name.encode()).hexdigest()[:16]
            raise ArchiveError(f"{len(done.problems)} files could not be staged; the first ({place}): {why}")
        with self._store.connect() as db:
            alarm = alarms.open_alarm(db)
        is_good = alarm is None and not done.findings
        self.repository.unlock()
        made = self.repository.backup(self.staging, GOOD if is_good else SUSPECT, storing)
        manifest = digest_of(self.staging / MANIFEST)
        with self._store.begin() as db:
            alarms.record(db, made, done.files, manifest, self._clock(), is_good=is_good)
        if is_good:
            stage.accept()
        return Taken(made, done.files, done.read, done.gone, is_good)

    def lock(self, heard: Callable[[int, int], None] = lambda _done, _total: None) -> Extended | None:
        """Push the locks of the repository forward, where it lies in a locked copy; None where it does not.

        Raises: NotCompliant if nothing there may be called locked; ClockRefused; EndpointError.
        """
        copy = self._locked_copy
        if copy is None:
            return None
        at = Clock(self._store).now()
        self._places.require(copy, at)
        return extend(self._places.bucket(copy), at, timedelta(days=copy.rolling_days), heard)

    def look(self) -> tuple[Finding, ...]:
        """Take the quick look at the originals, which reads no pixels, and sound the alarm if it is one."""
        with self._alone():
            index = open_index(self._root / "index.db")
            try:
                return Staging(self.staging, index, self._elsewhere).look(
                    self._roots(), Watch(self._config.mass_files, self._sound)
                )
            finally:
                index.dispose()

    def findings(self) -> tuple[Finding, ...]:
        """Return which images are not as the last good snapshot holds them, as they were staged last."""
        index = open_index(self._root / "index.db")
        try:
            with index.connect() as db:
                return Watch(self._config.mass_files, lambda _found: None).judge(db)
        finally:
            index.dispose()

    def clear(self, by: str, reason: str, *, accept: bool) -> int:
        """Clear the open alarm; with `accept` images may be as they are now, else they have to be what they were."""
        with self._alone():
            with self._store.begin() as db:
                number = alarms.clear(db, by, reason, self._clock())
            if accept:
                index = open_index(self._root / "index.db")
                Staging(self.staging, index, self._elsewhere).accept()
                index.dispose()
        return number

    def restore(
        self,
        target: Path,
        wanted: Wanted,
        snapshot: str = "",
        *,
        with_state: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Restored:
        """Restore what is wanted into a folder that is empty or not there; return what came back.

        Raises: ArchiveError if the snapshot is not there or holds nothing of what is wanted.
        """
        read_secret(self.repository.password_file)
        if target.exists() and any(target.iterdir()):
            raise ConfigurationError(f"{target} is not empty; a restore goes to a clean place")
        chosen = self._chosen(snapshot)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".restoring-", dir=target) as scratch:
            everything, top = wanted == Wanted(), Path(scratch)
            self.repository.restore(chosen, top, *(() if everything else (MANIFEST,)))
            studies = [study for study in read_manifest(top) if wanted.takes(study)]
            if not studies:
                raise ArchiveError("the snapshot holds nothing of what is wanted")
            if not everything:
                for at in range(0, len(studies), _STUDIES_AT_ONCE):
                    names = [study["study"] for study in studies[at : at + _STUDIES_AT_ONCE]]
                    self.repository.restore(chosen, top, *names)
            if with_state:
                if not everything:
                    self.repository.restore(chosen, top, state.STATE)
                state.restore(top, target / "site", self._recovery_key())
            restored = _rebuild_all(top, studies, wanted, target, progress)
        with self._store.begin() as db:
            counts = {"files": restored.files, "missing": restored.missing}
            ledger.write(db, self._clock(), "site:archive:restored", snapshot=chosen.id, **counts)
        return restored

    def check(self, subset: str = "") -> None:
        """Verify the repository, reading its data.

        Raises: ArchiveError.
        """
        self.repository.unlock()
        try:
            self.repository.check(subset)
        except ArchiveError:
            with self._store.begin() as db:
                ledger.write(db, self._clock(), "site:archive:check-failed", subset=subset)
            raise
        with self._store.begin() as db:
            ledger.write(db, self._clock(), "site:archive:checked", subset=subset)

    def forget(self) -> None:
        """Forget snapshots beyond the schedule.

        Raises: ArchiveAlarm while an alarm is open: the good snapshots may be all there is.
        """
        with self._alone():
            with self._store.connect() as db:
                alarm = alarms.open_alarm(db)
            if alarm is not None:
                raise ArchiveAlarm("an alarm is open: no snapshot is forgotten until a person has cleared it")
            keep = {name: getattr(self._config, f"keep_{name}") for name in ("daily", "weekly", "monthly", "yearly")}
            self.repository.unlock()
            self.repository.forget(keep)
            with self._store.begin() as db:
                ledger.write(db, self._clock(), "site:archive:thinned", **keep)

    def _chosen(self, snapshot: str) -> Snapshot:
        listed = self.repository.snapshots()
        fits = [one for one in listed if one.id.startswith(snapshot) and (snapshot or one.is_good)]
        if not fits:
            raise ArchiveError(f"no snapshot {snapshot}" if snapshot else "there is no good snapshot")
        if snapshot and len(fits) > 1:
            raise ConfigurationError(f"{snapshot} begins the ids of {len(fits)} snapshots")
        return fits[-1]

    def _sound(self, findings: Sequence[Finding]) -> None:
        with self._store.begin() as db:
            alarms.sound(db, [finding.kind for finding in findings], self._clock())

    def _roots(self) -> dict[str, Path]:
        roots = {name: self._home.root / name for name in _OWN_FOLDERS if (self._home.root / name).is_dir()}
        if self._config.originals:
            originals = (self._home.root / self._config.originals).resolve()
            if self._home.root.resolve().is_relative_to(originals):
                raise ConfigurationError("archive.originals: the site's folder lies inside")
            if not originals.is_dir():
                raise ConfigurationError("archive.originals: no folder is there; is it mounted?")
            roots[ORIGINALS] = originals
        return roots

    def _recovery_file(self) -> Path:
        return self._home.root / self._config.recovery_key_file

    def _recovery_key(self) -> bytes:
        path = self._recovery_file()
        try:
            key = bytes.fromhex(read_secret(path).decode("ascii", "replace"))
        except ValueError:
            key = b""
        if len(key) != state.RECOVERY_KEY_BYTES:
            raise ConfigurationError(f"{path}: a recovery key has {state.RECOVERY_KEY_BYTES} bytes in hexadecimal")
        return key

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process of this site work on the archive meanwhile.

        Raises: ConfigurationError if one does.
        """
        if not self._root.is_dir():
            raise ConfigurationError("the archive is not set up: run `filmroom-site archive init`")
        with (self._root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError("another process works on the archive; wait until it is done") from None
            yield


def _rebuild_all(
    top: Path,
    studies: Sequence[Mapping[str, Any]],
    wanted: Wanted,
    target: Path,
    progress: Callable[[int, int], None],
) -> Restored:
    total = sum(study["files"] for study in studies)
    files = size = missing = done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # codecs and digests leave the interpreter to others
        for study in studies:
            folder = top / study["study"]
            listed = _listed(folder, study)
            entries = [entry for entry in listed if wanted.takes_entry(entry)]
            missing += study["files"] - len(listed)
            done += study["files"] - len(entries)
            for entry, came_back in zip(entries, pool.map(partial(_rebuild, folder, target), entries), strict=True):
                files, size, missing = files + came_back, size + came_back * entry.size, missing + (not came_back)
                done += 1
                progress(done, total)
            shutil.rmtree(folder, ignore_errors=True)
    return Restored(files, size, missing)


def _listed(folder: Path, study: Mapping[str, Any]) -> list[Entry]:
    """Return the files of a study; none if its lists are not those that the manifest names."""
    try:
        if any(digest_of(folder / name) != study[name] for name in (INSTANCES, PIXELS)):
            return []
        return read_lists(folder)
    except (OSError, ArchiveError):
        return []


def _rebuild(folder: Path, target: Path, entry: Entry) -> bool:
    """Write one file to its place, if it is the one that was archived."""
    path = target / entry.path
    if not path.resolve().is_relative_to(target.resolve()):
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    digest = hashlib.sha256()
    try:
        with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
            for chunk in rebuild(entry, folder):
                digest.update(chunk)
                out.write(chunk)
    except ArchiveError:
        unfinished.unlink(missing_ok=True)
        return False
    if digest.hexdigest() != entry.sha256:
        unfinished.unlink()
        return False
    os.utime(unfinished, (entry.mtime, entry.mtime))
    unfinished.replace(path)
    return True
