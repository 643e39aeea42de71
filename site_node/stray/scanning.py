"""A place searched: changed files are looked through in processes of their own, and recorded as they come.

A scan that was killed is run again and goes on: what is on record and unchanged is not read twice. A file that kills
its reader, takes too long, cannot be opened or is too large is on record as not scanned.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from site_node.errors import ConfigurationError
from site_node.stray import known, records, time_limit
from site_node.stray.digests import Keyer
from site_node.stray.finding import Risk
from site_node.stray.inspection import TOO_LONG, Inspector, Report, Settings
from site_node.stray.origin import NotGiven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    import sqlalchemy as sa

    from site_node.stray.origin import Item, Origin
    from site_node.stray.records import Keys

MAX_BYTES = 16 * 1024**3
TOO_LARGE = "too large to look into"
UNREADABLE = "cannot be read"
KILLS_ITS_READER = "kills the process that reads it"
MOST_S = 600.0  # for one file
_BATCH = 128
_AHEAD = 2  # parcels for each process
_FEW = 8
# Small files go to a process in parcels: to hand over each by itself took a seventh of a search of small DICOM files.
_PARCEL, _PARCEL_BYTES = 16, 1 << 22
_MOST_MEMORY = 4 * 1024**3  # bytes that a process takes for a file; what is mapped does not count


@dataclass(frozen=True, slots=True)
class Summary:
    """What a scan saw; `files` of the place, of which `read` were looked through and `unchanged` were not.

    `outdated` of those unchanged were last looked through before some patients were known, or by older rules.
    """

    number: int
    files: int
    read: int
    unchanged: int
    outdated: int
    not_scanned: int
    risks: Mapping[str, int]  # files by their gravest open finding
    faults: Mapping[str, int]  # files by why places in them were not looked into
    left_out: Mapping[str, int]  # files by what in them nobody wanted to be looked into


def scan(
    origin: Origin,
    store: sa.Engine,
    keys: Keys,
    now: Callable[[], datetime],
    *,
    pictures: str = "suspect",
    everything: bool = False,
    renew: bool = True,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
    max_bytes: int = MAX_BYTES,
    most_s: float = MOST_S,
) -> Summary:
    """Search every file of a place that changed since it was searched last, or `everything`.

    Unchanged files are searched again for patients who are known since, unless `renew` is off. With 0 `processes` files
    are looked through in this one, which a file that kills its reader ends.
    Raises: ConfigurationError if another process searches the place.
    """
    keyer = Keyer(keys.digests)
    source = keyer.token("source", origin.name)
    with _alone(store, source):
        with store.connect() as db:
            settings = Settings(keys.digests, known.table(db), pictures, most_s=most_s)
            before = records.stamps(db, source)
        rule = settings.rule
        with store.begin() as db:
            shown = Inspector(settings).shown(origin.name)
            number = records.begin(db, source, shown, now(), everything=everything)
        items = {keyer.token(f"file/{source}", item.address): item for item in origin.items()}
        same = [
            id_
            for id_, item in items.items()
            if (was := before.get(id_)) is not None
            and (item.size, item.stamp) == was[:2]
            and (was[2] == rule or not renew)
            and not item.trouble
            and (not everything or was[3] == number)
        ]
        with store.begin() as db:
            records.seen(db, same, number)
        left = set(same)
        jobs = [_Job(id_, item) for id_, item in items.items() if id_ not in left]
        batch: list[records.Searched] = []
        for done, (job, report) in enumerate(_all(jobs, origin, settings, max_bytes, processes), 1):
            sealed = keys.seal(origin.name, job.item.address)
            # What could not be read now may be readable the next time.
            item = job.item._replace(stamp="") if report.unread else job.item
            batch.append(records.Searched(job.id, sealed, item, report))
            if len(batch) == _BATCH or done == len(jobs):
                with store.begin() as db:
                    records.keep(db, batch, source, number, rule)
                batch.clear()
            if progress is not None:
                progress(done, len(jobs))
        outdated = sum(before[id_][2] != rule for id_ in same)
        counts = {"files": len(items), "read": len(jobs), "unchanged": len(same), "outdated": outdated}
        return _closed(store, number, source, now(), counts)


@contextmanager
def _alone(store: sa.Engine, source: str) -> Iterator[None]:
    """Let no other process search the same place meanwhile; a lock goes with the process that holds it.

    Raises: ConfigurationError if another one does.
    """
    path = Path(str(store.url.database)).with_name(f"stray-{source}.lock")
    with os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError("another process searches this place; wait until it is done") from None
        yield


def _closed(store: sa.Engine, number: int, source: str, at: datetime, counts: dict[str, int]) -> Summary:
    with store.begin() as db:
        faults: Counter[str] = Counter()
        records.end(db, source, number)
        risks = {risk.word: 0 for risk in sorted(Risk, reverse=True)}
        troubled = 0
        for file in records.files(db, source):
            if file.risk is not None:
                risks[file.risk.word] += 1
            troubled += bool(file.faults)
            faults.update({reason for _, reason in file.faults})
        left_out = records.left_out(db, source)
        records.close(db, number, at, {**counts, "not_scanned": troubled, **risks})
    return Summary(number, **counts, not_scanned=troubled, risks=risks, faults=dict(faults), left_out=left_out)


@dataclass(frozen=True, slots=True)
class _Job:
    id: str
    item: Item


@dataclass(frozen=True, slots=True)
class _Reader:
    """Looks through one file of an origin after the other."""

    origin: Origin
    inspector: Inspector
    max_bytes: int

    def __call__(self, item: Item) -> Report:
        if item.trouble or item.size > self.max_bytes:
            return self.fault(item, item.trouble or TOO_LARGE)
        try:
            with self.origin.content(item) as opened:
                return self.inspector.inspect(opened.content, item.key, opened.said)
        except OSError as error:
            reason = str(error) if isinstance(error, NotGiven) else UNREADABLE
            return replace(self.fault(item, reason), unread=True)

    def fault(self, item: Item, reason: str) -> Report:
        """Return that a file was not looked through; its name was."""
        named = self.inspector.inspect(memoryview(b""), item.key)
        return Report(named.shown, named.findings, (("file", reason),))


def _all(
    jobs: list[_Job], origin: Origin, settings: Settings, max_bytes: int, processes: int
) -> Iterator[tuple[_Job, Report]]:
    """Yield every job with its report, in order."""
    if processes == 0:
        reader = _Reader(origin, Inspector(settings), max_bytes)
        yield from ((job, reader(job.item)) for job in jobs)
        return
    processes = processes if len(jobs) > _FEW else 1
    waiting = deque(_parcels(jobs))
    while waiting:
        try:
            for parcel, reports in _in_processes(list(waiting), origin, settings, max_bytes, processes):
                waiting.popleft()
                yield from zip(parcel, reports, strict=True)
        except BrokenProcessPool:
            # Which file it was is found by taking those under way one at a time.
            some = [job for _ in range(min(len(waiting), processes * _AHEAD)) for job in waiting.popleft()]
            yield from _one_by_one(some, origin, settings, max_bytes)


def _parcels(jobs: list[_Job]) -> Iterator[list[_Job]]:
    """Yield files in their order, some small ones or a large one at a time."""
    parcel: list[_Job] = []
    size = 0
    for job in jobs:
        size += job.item.size
        if parcel and (len(parcel) == _PARCEL or size > _PARCEL_BYTES):
            yield parcel
            parcel, size = [], job.item.size
        parcel.append(job)
    if parcel:
        yield parcel


def _in_processes(
    parcels: list[list[_Job]], origin: Origin, settings: Settings, max_bytes: int, processes: int
) -> Iterator[tuple[list[_Job], list[Report]]]:
    under_way: deque[tuple[list[_Job], Future[list[Report]]]] = deque()
    with _pool(processes, origin, settings, max_bytes) as pool:
        try:
            for parcel in parcels:
                under_way.append((parcel, pool.submit(_read_here, [job.item for job in parcel])))
                if len(under_way) == processes * _AHEAD:
                    first, future = under_way.popleft()
                    yield first, future.result()
            while under_way:
                first, future = under_way.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _one_by_one(jobs: list[_Job], origin: Origin, settings: Settings, max_bytes: int) -> Iterator[tuple[_Job, Report]]:
    """Yield every job with its report; a process that dies died of the job it had, and another takes its place."""
    waiting = deque(jobs)
    while waiting:
        with _pool(1, origin, settings, max_bytes) as pool:
            pool.submit(os.getpid).result()  # it has started: what it takes from now on is the file's
            while waiting:
                job, began = waiting.popleft(), time.monotonic()
                try:
                    yield job, pool.submit(_read_here, [job.item]).result()[0]
                except BrokenProcessPool:
                    reason = TOO_LONG if time.monotonic() - began > settings.most_s else KILLS_ITS_READER
                    yield job, _Reader(origin, Inspector(settings), max_bytes).fault(job.item, reason)
                    break


def _pool(processes: int, origin: Origin, settings: Settings, max_bytes: int) -> ProcessPoolExecutor:
    # Not by fork: it would copy locks and open databases of the process that asks.
    return ProcessPoolExecutor(processes, get_context("spawn"), _start, (origin, settings, max_bytes))


_reader: _Reader | None = None


def _start(origin: Origin, settings: Settings, max_bytes: int) -> None:
    global _reader  # noqa: PLW0603 -- the one thing a process of a pool keeps between its files
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _MOST_MEMORY if hard == resource.RLIM_INFINITY else min(_MOST_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    inspector = Inspector(replace(settings, deadly=True))
    inspector.shown("Dr. Anna Huber 1.2.1970")  # loads every table before the first file, whose time it is not
    _reader = _Reader(origin, inspector, max_bytes)
    gc.freeze()  # tables live as long as the process: nobody need walk them again


def _end_with_parent() -> None:
    """End this process with the one that asks: a pool's process whose parent is killed waits for work for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _read_here(items: list[Item]) -> list[Report]:
    if _reader is None:
        raise AssertionError("the process was not started by _start")
    try:
        return [_reader(item) for item in items]
    finally:
        time_limit.rest()
