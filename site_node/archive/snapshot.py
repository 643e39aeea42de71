"""Snapshots of what a site took in, and of the site itself: taken, listed, restored, checked, thinned out.

A snapshot counts when restic ended well, its list shows it, and nothing was left out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from site_node import alarms, ledger
from site_node.archive import state
from site_node.archive.anomaly import ORIGINALS, Finding, Watch
from site_node.archive.index import open_index
from site_node.archive.lists import MANIFEST, PIXELS, STATE, digest_of, read_manifest
from site_node.archive.locked.clock import Clock
from site_node.archive.locked.places import Places
from site_node.archive.locked.rolling import extend
from site_node.archive.repository import GOOD, SUSPECT, Repository
from site_node.archive.restoring import Place, Restored, Wanted, restore
from site_node.archive.staging import MARKED, Staging
from site_node.archive.stores import store_of
from site_node.config import LOCKED, OWN_FOLDERS, SiteHome
from site_node.errors import ArchiveAlarm, ArchiveError, ConfigurationError
from site_node.keys import make_file, read_secret
from site_node.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    import sqlalchemy as sa

    from site_node.archive.locked.rolling import Extended
    from site_node.archive.staging import Elsewhere
    from site_node.config import LockedCopy, SiteConfig

_PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was taken: its id, and what staging did for it; not good if an alarm is open.

    `lost` is the last good snapshot before it, if the repository does not have that any more.
    """

    id: str
    files: int
    read: int
    gone: int
    is_good: bool
    lost: str = ""


class Archive:
    """The archive of one site; with `as_of` its repository is read as it was then, and nothing is written to it.

    `elsewhere` is asked by what compares with the originals alone: tiers that cannot be used are in no restore's way.
    """

    def __init__(
        self,
        home: SiteHome,
        config: SiteConfig,
        store: sa.Engine,
        clock: Callable[[], datetime],
        as_of: datetime | None = None,
        elsewhere: Callable[[], Elsewhere | None] = lambda: None,
    ) -> None:
        self._home = home
        self._elsewhere = elsewhere
        self._config = config.archive
        self._store = store
        self._clock = clock
        self._as_of = as_of
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
        complain: Callable[[str], None] = lambda _words: None,
    ) -> Taken:
        """Take a snapshot of everything and return it; if an alarm is open, it is taken beside the good ones.

        `staging` hears of files (done, total), `storing` of the part that is stored, `complain` of restic's troubles.
        Raises: ArchiveError if something could not be staged or stored: no snapshot counts then.
        """
        with self._alone() as repository, self._index() as index:
            read_secret(self.repository.password_file)
            stage = Staging(self.staging, index, self._elsewhere())
            self._recall(stage)
            state.stage(self._home, stage, self.recovery_key())
            done = stage.update(self._roots(), self._watch(), read_all=read_all, progress=staging)
            if done.problems:
                name, why = done.problems[0]
                place = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
                raise ArchiveError(f"{len(done.problems)} files could not be staged; the first ({place}): {why}")
            manifest = digest_of(self.staging / MANIFEST)
            with self._store.begin() as db:
                is_good = alarms.open_alarm(db) is None and not done.findings
                if is_good:
                    alarms.begin(db, manifest)
            short = repository.backup(self.staging, GOOD if is_good else SUSPECT, storing, complain)
            listed = [one.id for one in repository.snapshots()]
            made = next((one for one in listed if short and one.startswith(short)), None)
            if made is None:
                raise ArchiveError("restic made a snapshot that its list does not show")
            with self._store.begin() as db:
                last = alarms.last_good(db)
                lost = "" if last in listed else last
                if lost:
                    ledger.write(db, self._clock(), "site:archive:snapshot-gone", snapshot=lost)
                alarms.record(db, made, done.files, manifest, self._clock(), is_good=is_good)
            if is_good:
                stage.accept(made)
            return Taken(made, done.files, done.read, done.gone, is_good, lost)

    def _recall(self, stage: Staging) -> None:
        """See to it that images are compared with the last good snapshot, reading it if the index does not know it.

        One that the repository has no more is passed over; the snapshot that is taken next tells of it.
        Raises: ArchiveError if it cannot be read.
        """
        with self._store.connect() as db:
            last = alarms.last_good(db)
            manifest = alarms.manifest(db, last)
        if not last or stage.baseline() == last or last not in {one.id for one in self.repository.snapshots()}:
            return
        with tempfile.TemporaryDirectory(prefix="recalled-", dir=self._root) as scratch:
            self.repository.restore(last, Path(scratch), MANIFEST, f"studies/*/*/{PIXELS}")
            if digest_of(Path(scratch) / MANIFEST) != manifest:
                raise ArchiveError("the last good snapshot is not the one on the record")
            stage.remember(last, Path(scratch))

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
        """Take the quick look at the originals, which reads no pixels, and sound the alarm if it is one.

        Raises: ArchiveError if it is none, and files are away as their marks say, which no tiers know.
        """
        with self._alone(), self._index() as index:
            stage = Staging(self.staging, index, self._elsewhere())
            self._recall(stage)
            found, unknown = stage.look(self._roots(), self._watch())
        with self._store.connect() as db:
            if unknown and alarms.open_alarm(db) is None:
                raise ArchiveError(f"{unknown} files are not there: {MARKED}")
        return found

    def findings(self) -> tuple[Finding, ...]:
        """Return which images are not as the last good snapshot holds them, as they were staged last."""
        with self._index() as index, index.connect() as db:
            return Watch(self._config.mass_files, lambda _found: None).judge(db)

    def clear(self, by: str, reason: str, *, accept: bool) -> int:
        """Clear the open alarm; with `accept` images may be as they are now, else they have to be what they were."""
        with self._alone(), self._index() as index:
            with self._store.begin() as db:
                number = alarms.clear(db, by, reason, self._clock())
                last = alarms.last_good(db)
            if accept:
                Staging(self.staging, index).accept(last)
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
        """Restore what is wanted into a folder that is empty, not there, or where a restore was cut off.

        Raises: ArchiveError if the snapshot is not there or holds nothing of what is wanted.
        """
        read_secret(self.repository.password_file)
        place = Place(target)
        chosen, is_begun = place.begin(partial(self.chosen, snapshot), snapshot)
        with self._store.connect() as db:
            manifest = alarms.manifest(db, chosen)
        fetch = partial(self.repository.restore, chosen, place.fetched)
        restored = restore(place, wanted, fetch, progress, is_begun=is_begun, manifest=manifest)
        if with_state:
            if not (place.fetched / STATE).exists():
                fetch(STATE)
            state.restore(place.fetched, target / "site", self.recovery_key())
            self._record_in(SiteHome(target / "site"), chosen, place.fetched)
        if not restored.missing:
            place.end()
        with self._store.begin() as db:
            counts = {"files": restored.files, "missing": restored.missing}
            ledger.write(db, self._clock(), "site:archive:restored", snapshot=chosen, **counts)
        return restored

    def _record_in(self, home: SiteHome, snapshot: str, fetched: Path) -> None:
        """Put the snapshot that a site is rebuilt from on the rebuilt record, which was made before it was taken."""
        listed = next(one for one in self.repository.snapshots() if one.id == snapshot)
        files = sum(study["files"] for study in read_manifest(fetched))
        store = open_store(home.database)
        with store.begin() as db:
            manifest = digest_of(fetched / MANIFEST)
            alarms.record(db, snapshot, files, manifest, listed.at.astimezone(UTC), is_good=listed.is_good)
        store.dispose()

    def check(self, subset: str = "") -> None:
        """Verify the repository, reading its data.

        Raises: ArchiveError.
        """
        try:
            self.repository.check(subset)
        except ArchiveError:
            with self._store.begin() as db:
                ledger.write(db, self._clock(), "site:archive:check-failed", subset=subset)
            raise
        with self._store.begin() as db:
            ledger.write(db, self._clock(), "site:archive:checked", subset=subset)

    def rebuild_index(self) -> None:
        """Make the repository's index anew from its packs.

        Raises: ArchiveError.
        """
        with self._alone() as repository:
            repository.rebuild_index()
            with self._store.begin() as db:
                ledger.write(db, self._clock(), "site:archive:index-rebuilt")

    def forget(self) -> None:
        """Forget snapshots beyond the schedule; those that an alarm of its days named as the last good one stay.

        Raises: ArchiveAlarm while an alarm is open: the good snapshots may be all there is.
        """
        with self._alone() as repository:
            keep = {name: getattr(self._config, f"keep_{name}") for name in ("daily", "weekly", "monthly", "yearly")}
            with self._store.connect() as db:
                alarm = alarms.open_alarm(db)
                named = alarms.named_since(db, self._clock() - timedelta(days=keep["daily"] or 1))
            if alarm is not None:
                raise ArchiveAlarm("an alarm is open: no snapshot is forgotten until a person has cleared it")
            repository.forget(keep, named)
            with self._store.begin() as db:
                ledger.write(db, self._clock(), "site:archive:thinned", **keep)

    def chosen(self, snapshot: str = "") -> str:
        """Return the id of the snapshot that begins so; else of the last good one, on the record or in the list.

        Where the repository is read as of a moment, it is the last good one of then.
        Raises: ArchiveError if there is none; ConfigurationError if there are several.
        """
        with self._store.connect() as db:
            last = alarms.last_good(db, self._as_of)
        if last and not snapshot:
            return last
        fits = [
            one.id for one in self.repository.snapshots() if one.id.startswith(snapshot) and (snapshot or one.is_good)
        ]
        if not fits:
            raise ArchiveError(f"no snapshot {snapshot}" if snapshot else "there is no good snapshot")
        if snapshot and len(fits) > 1:
            raise ConfigurationError(f"{snapshot} begins the ids of {len(fits)} snapshots")
        return fits[-1]

    def _watch(self) -> Watch:
        return Watch(self._config.mass_files, self._sound)

    @contextmanager
    def _index(self) -> Iterator[sa.Engine]:
        index = open_index(self._root / "index.db")
        try:
            yield index
        finally:
            index.dispose()

    def _sound(self, findings: Sequence[Finding]) -> None:
        with self._store.begin() as db:
            alarms.sound(db, [finding.kind for finding in findings], self._clock())

    def _roots(self) -> dict[str, Path]:
        roots = {name: self._home.root / name for name in OWN_FOLDERS if (self._home.root / name).is_dir()}
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

    def recovery_key(self, copy: Path | None = None) -> bytes:
        """Return the key that wraps the site's keys, from its place or from a copy of the file.

        Raises: ConfigurationError if it is missing, not kept as a secret, or none.
        """
        path = copy or self._recovery_file()
        try:
            key = bytes.fromhex(read_secret(path).decode("ascii", "replace"))
        except ValueError:
            key = b""
        if len(key) != state.RECOVERY_KEY_BYTES:
            raise ConfigurationError(f"{path}: a recovery key has {state.RECOVERY_KEY_BYTES} bytes in hexadecimal")
        return key

    @contextmanager
    def _alone(self) -> Iterator[Repository]:
        """Let no other process of this site work on the archive meanwhile; give the repository to work on.

        A restic whose parent was killed still holds the lock.
        Raises: ConfigurationError if one does.
        """
        if not self._root.is_dir():
            raise ConfigurationError("the archive is not set up: run `filmroom-site archive init`")
        with (self._root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError("another process works on the archive; wait until it is done") from None
            yield replace(self.repository, held=(lock.fileno(),))
