"""Files judged in processes of their own: each comes back with what became of it and its kept form on disk.

Every core is used, results come in the order of the files, and a file that kills its process is quarantined while the
others go on. Kept forms are written and flushed under temporary names; whoever commits renames them. Records nothing.
"""

from __future__ import annotations

import gc
import hashlib
import mmap
import os
import secrets
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from site_node import away
from site_node.deidentify.instance import About, Accepted, Cleaner, Decision, Held
from site_node.deidentify.transcoding import FAULTS, quiet
from site_node.errors import UnreadableInstance
from site_node.second_look.inspection import inspect
from site_node.second_look.pixels import reader
from site_node.stray import known
from site_node.stray.learning import said_of_patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from site_node.away import Recall
    from site_node.deidentify.picture import Box
    from site_node.deidentify.profile import Options
    from site_node.deidentify.pseudonym import Known, Pseudonymiser
    from site_node.stray.digests import Entry

ACCEPTED, HELD, QUARANTINED = "accepted", "held", "quarantined"
ALREADY_KNOWN, NOT_READ = "already_known", "not_read"
FOLDERS = {ACCEPTED: "deidentified", HELD: "review", QUARANTINED: "quarantine"}
TOO_LARGE = "too-large"
NOT_PARSED = "data set cannot be parsed"
KILLS_ITS_READER = "kills-the-process-that-reads-it"
FOUND_AGAIN = "identity-found-by-second-look"
CREATE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
_READ_WHOLE = 32 * 1024**2  # below, a file is read, so that nobody can shorten it while it is worked on
_FEW = 8  # files that are not worth starting processes for
_AHEAD = 16  # files a process may be ahead of the one that is waited for
_CHUNK = 1024**2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one file: its kept form lies in `part` and belongs at `kept_as`, below the site folder."""

    sha256: str
    outcome: str
    reason: str = ""
    part: Path | None = None
    kept_as: str = ""
    row: Mapping[str, str | None] | None = None  # of table `instance`, when an instance was accepted
    about: Mapping[str, str] | None = None  # SOPInstanceUID, SeriesInstanceUID, Modality: pseudonyms
    boxes: tuple[Box, ...] = ()  # blanked, or proposed to be
    notes: tuple[str, ...] = ()  # what else was done, or stays by policy
    originals: tuple[Known, ...] = ()  # for the sealed identities alone
    patient: tuple[Entry, ...] = ()  # what the file says of its patient, as keyed digests


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process needs to judge files; `incoming` is the folder of temporary names."""

    incoming: Path
    options: Options
    pseudonymiser: Pseudonymiser
    max_bytes: int
    is_known: Callable[[str], bool]
    keep_originals: bool = True  # held and quarantined files are copied
    recall: Recall = away.nowhere


@dataclass(frozen=True, slots=True)
class Job:
    """A file to judge, and what a person or the look at its whole series decided about it."""

    path: Path
    decision: Decision | None = None


def judge_all(jobs: Sequence[Job], settings: Settings, processes: int) -> Iterator[tuple[Path, Verdict]]:
    """Yield every file with its verdict, in the order given; `settings.is_known` must be picklable.

    Raises: ConfigurationError if the second look has nothing to read pixels with.
    """
    reader()
    if processes == 1 or len(jobs) <= _FEW:
        judge = Judge(settings)
        yield from ((job.path, judge(job)) for job in jobs)
        return
    waiting = deque(jobs)
    while waiting:
        try:
            for path, verdict in _in_processes(list(waiting), settings, processes):
                waiting.popleft()
                yield path, verdict
        except BrokenProcessPool:
            # Which file it was is found by taking those under way one at a time.
            for _ in range(min(len(waiting), processes * _AHEAD)):
                job = waiting.popleft()
                yield job.path, _alone(job, settings)


def _in_processes(jobs: Sequence[Job], settings: Settings, processes: int) -> Iterator[tuple[Path, Verdict]]:
    under_way: deque[tuple[Path, Future[Verdict]]] = deque()
    with _pool(processes, settings) as pool:
        try:
            for job in jobs:
                under_way.append((job.path, pool.submit(_judge_here, job)))
                if len(under_way) == processes * _AHEAD:
                    yield _first(under_way)
            while under_way:
                yield _first(under_way)
        finally:
            pool.shutdown(cancel_futures=True)


def _first(under_way: deque[tuple[Path, Future[Verdict]]]) -> tuple[Path, Verdict]:
    path, future = under_way.popleft()
    return path, future.result()


def _alone(job: Job, settings: Settings) -> Verdict:
    try:
        with _pool(1, settings) as pool:
            return pool.submit(_judge_here, job).result()
    except BrokenProcessPool:
        with source(job.path, settings.recall) as content:
            sha256 = hashlib.sha256(content).hexdigest()
            return Judge(settings).original(content, Verdict(sha256, QUARANTINED, KILLS_ITS_READER))


def _pool(processes: int, settings: Settings) -> ProcessPoolExecutor:
    # Not by fork: it would copy locks and open databases of the process that asks.
    return ProcessPoolExecutor(processes, get_context("spawn"), _start, (settings,))


_judge: Judge | None = None


def _start(settings: Settings) -> None:
    global _judge  # noqa: PLW0603 -- the one thing a process of a pool keeps between its files
    _judge = Judge(settings)
    gc.freeze()  # tables and models live as long as the process: nobody need walk them again


def _judge_here(job: Job) -> Verdict:
    if _judge is None:
        raise AssertionError("the process was not started by _start")
    return _judge(job)


class Judge:
    """Judges one file after the other; models are loaded once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cleaner = Cleaner(settings.options, settings.pseudonymiser)
        self._keyer = known.keyer(settings.pseudonymiser)

    def __call__(self, job: Job) -> Verdict:
        """Return the verdict on a file, its kept form written and flushed."""
        try:
            mark = away.read(job.path) if job.decision is None and away.is_away(job.path) else None
            if mark is not None and self._settings.is_known(mark.sha256):
                return Verdict(mark.sha256, ALREADY_KNOWN)
            with source(job.path, self._settings.recall) as content:
                verdict = self._of(content, job.decision)
                if verdict.outcome == ALREADY_KNOWN:
                    return verdict
                return replace(verdict, patient=tuple(said_of_patient(content, self._keyer)))
        except OSError as fault:
            if fault.filename is None:  # not of opening the source: our own disk refuses
                raise
            return Verdict("", NOT_READ, "file-not-readable")

    def _of(self, content: memoryview, decision: Decision | None) -> Verdict:
        sha256 = hashlib.sha256(content).hexdigest()
        if decision is None and self._settings.is_known(sha256):
            return Verdict(sha256, ALREADY_KNOWN)
        if len(content) > self._settings.max_bytes:
            return self.original(content, Verdict(sha256, QUARANTINED, TOO_LARGE))
        try:
            with quiet():
                result = self._cleaner.clean(content, decision or Decision())
                if isinstance(result, Held):
                    return self.original(content, _held(sha256, result.reason, result))
                return self._accept(content, sha256, result, decision or Decision())
        except UnreadableInstance as fault:
            return self.original(content, Verdict(sha256, QUARANTINED, str(fault)))
        except FAULTS as fault:
            if isinstance(fault, OSError):
                raise
            return self.original(content, Verdict(sha256, QUARANTINED, NOT_PARSED))

    def _accept(self, content: memoryview, sha256: str, result: Accepted, decision: Decision) -> Verdict:
        part, written = self._write(result.chunks)
        with source(part) as output:
            hits = inspect(content, output, read_pixels=result.may_show_text)
        reasons = sorted({f"{FOUND_AGAIN}: {hit.place}" for hit in hits} - decision.accept)
        if reasons:
            part.unlink()
            return self.original(content, _held(sha256, reasons[0], result))
        about = asdict(result.about)
        is_instance = all(about.values())
        kept_as = f"{FOLDERS[ACCEPTED]}/{_name(result.about) if is_instance else f'index/{sha256}'}.dcm"
        row = {
            **about,
            "study_date": result.study_date,
            "references_series": result.references_series,
            "path": kept_as,
            "sha256": written,
            "source_sha256": sha256,
        }
        return Verdict(
            sha256,
            ACCEPTED,
            part=part,
            kept_as=kept_as,
            row=row if is_instance else None,
            about=_treated(result.about),
            boxes=result.boxes,
            notes=result.notes,
            originals=result.originals,
        )

    def original(self, content: memoryview, verdict: Verdict) -> Verdict:
        """Return `verdict` with the source itself as its kept form."""
        if not self._settings.keep_originals:
            return verdict
        part, _ = self._write(content[at : at + _CHUNK] for at in range(0, len(content), _CHUNK))
        return replace(verdict, part=part, kept_as=f"{FOLDERS[verdict.outcome]}/{verdict.sha256}")

    def _write(self, chunks: Iterable[bytes | memoryview]) -> tuple[Path, str]:
        """Write a new file of mode 0600, flushed to disk; return its path and SHA-256."""
        part = self._settings.incoming / f"{secrets.token_hex(16)}.part"
        digest = hashlib.sha256()
        try:
            with os.fdopen(os.open(part, CREATE, 0o600), "wb") as out:
                for chunk in chunks:
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part, digest.hexdigest()


def _held(sha256: str, reason: str, result: Held | Accepted) -> Verdict:
    return Verdict(sha256, HELD, reason, about=_treated(result.about), boxes=result.boxes)


def _treated(about: About) -> dict[str, str]:
    return {name: getattr(about, name) for name in ("SOPInstanceUID", "SeriesInstanceUID", "Modality")}


def _name(about: About) -> str:
    return f"{about.StudyInstanceUID}/{about.SeriesInstanceUID}/{about.SOPInstanceUID}"


@contextmanager
def source(path: Path, recall: Recall = away.nowhere) -> Iterator[memoryview]:
    """Give the bytes of a file: read if it is small, mapped if it is large; one that is away is recalled.

    Raises: OSError with the file's name if the operating system will not open or read it, or it cannot be recalled.
    """
    if away.is_away(path):
        recall(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = file.read() if size <= _READ_WHOLE else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as fault:
            raise OSError(fault.errno, fault.strerror, str(path)) from None
    yield memoryview(content)
