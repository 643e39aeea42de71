"""Any history of files, copies, faults and crashes: a file goes only from a folder whose copies have it, locked.

The process dies between any two of its steps: a request, a commit, a change of the file system. What is true is asked
of the buckets and the folder themselves, not of the site's record.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import event

from consent import Deny, Permit
from site_node import away
from site_node.archive.locked import sealing, worm
from site_node.archive.locked.sealing import read_members
from site_node.archive.locked.worm import Copy, Locking
from site_node.archive.tiers import failover
from site_node.archive.tiers.recall import Recalling
from site_node.archive.tiers.tiering import Tiering
from site_node.config import TIER_MODES, LockedCopies, LockedCopy, Tiers
from site_node.errors import ConfigurationError, LockedCopyInvalid
from site_node.store import ledger, locked_copy, locked_object, metadata, tier_object, tier_serving
from tests.site_node.archive.tiers.memory import Killed, Life, MemoryBucket, watch
from tests.site_node.dicom_files import mr_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
DOMAINS = {"basement": "hospital", "cloud": "provider", "partner": "south"}
TABLES = [locked_object, locked_copy, tier_object, tier_serving, ledger]
YEARS = 10
NEEDS: dict[str, Callable[[set[str]], bool]] = {
    "second-copy": lambda _: False,
    "active-archive": lambda has: len(has) >= 2 and bool(has - {"hospital"}),
    "failover": lambda _: False,
    "production-in-cloud": lambda has: len(has) >= 2 and "hospital" in has,
    "complete-cloud": lambda has: len(has - {"hospital"}) >= 2,
}
MODES = sorted(TIER_MODES, key=lambda mode: mode in {"second-copy", "failover"})  # those first in which files leave
STEPS = st.none() | st.integers(0, 40) | st.integers(0, 200)


def content(series: int, number: int, edit: int) -> bytes:
    """Return a file of its own; the study of an even series is old."""
    uid, day = f"1.2.{series}", "20150101" if series % 2 == 0 else "20260530"
    ds = mr_slice(number, SeriesInstanceUID=uid, SOPInstanceUID=f"{uid}.{number}", StudyDate=day, StudyID=str(edit))
    target = io.BytesIO()
    ds.save_as(target, enforce_file_format=True)
    return target.getvalue()


def bar(_what: str) -> nullcontext[Callable[[int, int], None]]:
    return nullcontext(lambda _done, _total: None)


@dataclass
class Truth:
    """What the buckets really hold, opened with the site's key; remembers what it opened."""

    seal: sealing.Seal
    opened: dict[bytes, frozenset[tuple[str, str]]]

    def files(self, sealed: bytes) -> frozenset[tuple[str, str]]:
        """Return path and digest of every file in a sealed object; none if it is damaged."""
        key = hashlib.sha256(sealed).digest()
        if key not in self.opened:
            found: list[tuple[str, str]] = []
            with tempfile.TemporaryFile() as tar, suppress(LockedCopyInvalid):
                self.seal.open([sealed], tar)
                tar.seek(0)
                found = [(one.path, one.sha256) for one in read_members(tar, _pass)]
            self.opened[key] = frozenset(found)
        return self.opened[key]


def _pass(_name: str, file: BinaryIO) -> None:
    while file.read(1 << 20):
        pass


class TiersModel(RuleBasedStateMachine):
    """A site with a folder and three buckets in three domains."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="tiers"))
        self.root, self.folder = self.base / "site", self.base / "pacs"
        self.root.mkdir()
        self.folder.mkdir()
        self.moment, self.life = START, Life()
        sealing.make_keys(self.root)
        self.seal = sealing.open_seal(self.root)
        self.truth = Truth(self.seal, {})
        self.store = self._store()
        self.buckets = {name: MemoryBucket(self.life, self.now, f"https://{name}") for name in DOMAINS}
        self.bad_probes: set[str] = set()
        self.files: dict[str, bytes] = {}  # what the hospital put into the folder, and must have again
        self.removed: list[str] = []
        self.lost = False

    def _store(self) -> sa.Engine:
        engine = sa.create_engine(f"sqlite:///{self.base / 'site.db'}")

        @event.listens_for(engine, "connect")
        def configure(connection: object, _record: object) -> None:
            connection.isolation_level = None  # type: ignore[attr-defined] # of sqlite3
            connection.execute("PRAGMA synchronous=OFF")  # type: ignore[attr-defined] # the process dies here, not the machine

        @event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        event.listen(engine, "commit", lambda _connection: self.life.step())
        metadata.create_all(engine, tables=TABLES)
        return engine

    @initialize(mode=st.sampled_from(MODES), required=st.booleans(), files=st.integers(1, 6))
    def configure(self, mode: str, files: int, *, required: bool) -> None:
        """Choose the mode, and whether every copy must be well; the hospital has some files."""
        copies = tuple(
            LockedCopy(name, f"https://{name}", "images", "file:k", domain, required=required)
            for name, domain in DOMAINS.items()
        )
        self.locked = LockedCopies(years=YEARS, copies=copies, domains=2)
        self.tiers = Tiers(mode, str(self.folder), keep_days=365, rest_days=0)
        for number in range(files):
            self.a_file_comes_or_is_edited(number // 3 * 2, number % 3, 0)

    def now(self) -> datetime:
        """Return a moment that goes on by itself."""
        self.moment += timedelta(seconds=1)
        return self.moment

    # -------------------------------------------------------------- the site's process

    def copies(self) -> list[Copy]:
        """Return every place, whatever its probe says."""
        return [Copy(copy, self.buckets[copy.name]) for copy in self.locked.copies]  # type: ignore[arg-type] # stands for a bucket

    def compliant(self) -> dict[str, Permit | Deny]:
        """Return what the probes say."""
        return {name: Deny("failed") if name in self.bad_probes else Permit() for name in DOMAINS}

    def tiering(self) -> Tiering:
        """Return what a process that just started has."""
        usable = [copy for copy in self.copies() if copy.name not in self.bad_probes]
        locking = Locking(self.store, self.root, self.seal, usable, self.now, _quiet, {})
        return Tiering(
            self.store, self.root, self.folder, self.tiers, self.locked, locking, self.compliant, str, bar, _quiet
        )

    def recalling(self) -> Recalling:
        """Return the way back, as a process that just started has it."""
        return Recalling(self.store, self.root, self.tiers, self.folder, self.seal, self.copies(), self.now, _quiet)

    def live(self, steps: int | None, work: Callable[[], object]) -> None:
        """Do some work in a process that dies after so many steps."""
        self.life.left, self.life.on_remove = steps if steps is not None else 10**9, self._going
        watch(self.life)
        try:
            work()
        except Killed:
            self.store.dispose()
        except (LockedCopyInvalid, FileNotFoundError, ConfigurationError):
            pass  # refused, or no copy could give it: the next step may
        finally:
            watch(None)
            self.life.left = None

    def _going(self, path: str) -> None:
        """Hold a file's removal against what the buckets have at that very moment."""
        file = Path(path)
        if not file.is_relative_to(self.folder) or file.name.endswith((away.SUFFIX, ".filmroom-part")):
            return
        if away.SCRATCH in file.parts:
            return
        key = (file.relative_to(self.folder).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest())
        has = {DOMAINS[name] for name in self.good_copies(key)}
        assert NEEDS[self.tiers.mode](has - {DOMAINS[name] for name in self.bad_probes}), (self.tiers.mode, has)
        assert away.read(file) is not None
        self.removed.append(path)

    def good_copies(self, key: tuple[str, str]) -> Iterator[str]:
        """Yield the buckets that really hold a file, locked until its legal date and held as it must be."""
        year, month, day = (2025, 1, 1) if self._is_old(key[0]) else (2036, 5, 30)
        legal = datetime(year, month, day, tzinfo=UTC)
        with self.store.connect() as db:
            held = {one.key for one in worm.objects(db) if one.hold}
        for name, bucket in self.buckets.items():
            for stored_as, versions in bucket.objects.items():
                if any(
                    key in self.truth.files(one.content)
                    and one.until >= max(legal, self.moment + timedelta(days=90))
                    and one.hold >= (stored_as in held)
                    for one in versions
                ):
                    yield name

    @staticmethod
    def _is_old(path: str) -> bool:
        return int(path.partition("/")[0]) % 2 == 0

    # -------------------------------------------------------------- what happens

    @rule(series=st.integers(0, 4), number=st.integers(0, 2), edit=st.integers(0, 1))
    def a_file_comes_or_is_edited(self, series: int, number: int, edit: int) -> None:
        """Put a file into the folder, unless it is away: who has not the file cannot edit it."""
        path = self.folder / f"{series}/{number}.dcm"
        if not path.exists() and str(path.relative_to(self.folder)) in self.files:
            return
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content(series, number, edit))
        self.files[str(path.relative_to(self.folder))] = path.read_bytes()

    @rule(steps=STEPS)
    def the_tiers_run(self, steps: int | None) -> None:
        """Run, and perhaps die in it."""
        self.live(steps, lambda: self.tiering().run())

    @rule(steps=STEPS)
    def all_is_well_and_the_tiers_run(self, steps: int | None) -> None:
        """Let every bucket answer and every probe pass, so that files leave, and perhaps die in it."""
        for bucket in self.buckets.values():
            bucket.fault = ""
        self.bad_probes.clear()
        self.live(steps, lambda: self.tiering().run())

    @rule(steps=STEPS)
    def all_is_recalled(self, steps: int | None) -> None:
        """Recall everything, and perhaps die in it."""

        def work() -> None:
            for name in self.tiering().recallable():
                self.recalling().object(name)

        self.live(steps, work)

    @rule(data=st.data())
    def a_file_is_opened(self, data: st.DataObject) -> None:
        """Open one file that the hospital has; if a copy can give it, it is what it was."""
        if not self.files:
            return
        path = data.draw(st.sampled_from(sorted(self.files)))
        file = self.folder / path
        self.live(None, lambda: self.recalling().recall(file))
        if not any(bucket.fault == "down" for bucket in self.buckets.values()) and not self.lost:
            assert file.read_bytes() == self.files[path]

    @rule(name=st.sampled_from(sorted(DOMAINS)), fault=st.sampled_from(["", "", "down", "cut", "short"]))
    def a_bucket_changes(self, name: str, fault: str) -> None:
        """Let a bucket fail, or be well again."""
        self.buckets[name].fault = fault

    @rule(data=st.data(), name=st.sampled_from(sorted(DOMAINS)))
    def a_copy_rots(self, data: st.DataObject, name: str) -> None:
        """Flip a bit of one object in one bucket, once in a history: the others must do."""
        stored = [one for versions in self.buckets[name].objects.values() for one in versions]
        if self.lost or not stored:
            return
        one = data.draw(st.sampled_from(stored))
        one.content = bytes([one.content[0] ^ 1]) + one.content[1:]
        self.lost = True

    @rule(name=st.sampled_from(sorted(DOMAINS)))
    def a_domain_burns(self, name: str) -> None:
        """Lose all of one domain, once in a history."""
        if not self.lost:
            self.buckets[name].objects.clear()
            self.lost = True

    @rule(name=st.sampled_from(sorted(DOMAINS)), bad=st.booleans())
    def a_probe_ends(self, name: str, *, bad: bool) -> None:
        """Let an endpoint fail its probe, or pass it."""
        (self.bad_probes.add if bad else self.bad_probes.discard)(name)

    @rule(on=st.booleans(), steps=STEPS)
    def a_hold_is_set(self, on: bool, steps: int | None) -> None:  # noqa: FBT001 -- hypothesis gives it by name
        """Put a legal hold on every object, or lift it."""

        def work() -> None:
            with self.store.connect() as db:
                known = worm.objects(db)
            for one in known:
                self.tiering().locking.hold(one, "ann", "case", on=on)

        self.live(steps, work)

    @rule(days=st.sampled_from([1, 100]))
    def time_passes(self, days: int) -> None:
        """Let what was read back grow old."""
        self.moment += timedelta(days=days)

    @rule(domain=st.sampled_from(sorted(DOMAINS.values())), steps=STEPS)
    def a_domain_takes_over(self, domain: str, steps: int | None) -> None:
        """Fail over, and perhaps die in it."""
        self.live(steps, lambda: failover.fail_over(self.tiering(), domain, "ann", "drill"))

    @rule(steps=STEPS)
    def the_folder_serves_again(self, steps: int | None) -> None:
        """Fail back, and perhaps die in it."""
        with self.store.connect() as db:
            if db.execute(sa.select(tier_serving)).first() is None:
                return
        self.live(steps, lambda: failover.fail_back(self.tiering(), "ann", "drill"))

    # -------------------------------------------------------------- what is always true

    @invariant()
    def every_file_is_here_or_marked_and_held_by_a_copy(self) -> None:
        """Look at the folder and the buckets alone."""
        for path, whole in self.files.items():
            file = self.folder / path
            if file.exists():
                assert file.read_bytes() == whole, path
                continue
            mark = away.read(file)
            assert mark is not None, path
            assert mark.sha256 == hashlib.sha256(whole).hexdigest()
            key = (path, mark.sha256)
            assert any(
                key in self.truth.files(one.content)
                for bucket in self.buckets.values()
                for versions in bucket.objects.values()
                for one in versions
            ), path

    def teardown(self) -> None:
        """Let all be well again: every file comes back, to the byte, and no mark is left."""
        try:
            for bucket in self.buckets.values():
                bucket.fault = ""
            with self.store.begin() as db:
                db.execute(sa.delete(tier_serving))
            for name in self.tiering().recallable():
                self.recalling().object(name)
            for path, whole in self.files.items():
                assert (self.folder / path).read_bytes() == whole, path
            assert not list(away.marked(self.folder))
            assert not [path for path in self.folder.rglob("*") if ".filmroom" in path.name]
        finally:
            self.store.dispose()
            shutil.rmtree(self.base)


def _quiet(_line: str) -> None:
    pass


RELAXED = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
QUICK = settings(max_examples=20, stateful_step_count=18, deadline=None, suppress_health_check=RELAXED)
LONG = settings(max_examples=600, stateful_step_count=40, deadline=None, suppress_health_check=RELAXED)


def test_no_file_leaves_without_its_copies_whatever_happens() -> None:
    run_state_machine_as_test(TiersModel, settings=QUICK)


def test_the_histories_hold_files_that_leave() -> None:
    model = TiersModel()
    model.configure("active-archive", 6, required=True)
    model.the_tiers_run(60)
    model.the_tiers_run(None)
    model.every_file_is_here_or_marked_and_held_by_a_copy()

    assert len(model.removed) >= 6
    model.teardown()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_file_leaves_without_its_copies_in_many_long_histories() -> None:
    run_state_machine_as_test(TiersModel, settings=LONG)
