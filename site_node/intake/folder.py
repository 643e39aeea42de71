"""A folder of files taken in: each ends accepted, held or quarantined, on disk and on record.

Only what was de-identified becomes an instance that training may read. Originals that wait for a
person are copied to `review`, unusable ones to `quarantine`; the source folder is never changed.
A run that was killed is simply run again: what is on record is skipped, and what was half done
comes out the same.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from site_node import away
from site_node.deidentify.instance import FACE, PIPELINE
from site_node.deidentify.picture import Box
from site_node.errors import ConfigurationError
from site_node.intake import heads
from site_node.intake.judging import (
    ACCEPTED,
    ALREADY_KNOWN,
    HELD,
    NOT_READ,
    QUARANTINED,
    Job,
    Judge,
    Settings,
    Verdict,
    judge_all,
    source,
)
from site_node.keys import flush_folder
from site_node.reidentification import remember
from site_node.review import treated
from site_node.store import disposition, instance, open_store, reading, treatment
from site_node.stray import known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from site_node.away import Recall
    from site_node.deidentify.profile import Options
    from site_node.deidentify.pseudonym import Pseudonymiser
    from site_node.reidentification import Vault

DUPLICATE = "duplicate-instance-uid"
MAX_BYTES = 16 * 1024**3  # a file is mapped, not held; this bounds the time one may take
_BATCH = 64  # files in one transaction, and one flush of each folder they went to
_OUTCOMES = (ACCEPTED, HELD, QUARANTINED, ALREADY_KNOWN, NOT_READ)
_COUNTED_REASONS = (HELD, QUARANTINED, NOT_READ)


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What became of every file; the five counts add up to `files`."""

    accepted: int
    held: int
    quarantined: int
    already_known: int
    not_read: int  # the operating system would not open them; tried again next time
    reasons: dict[str, int]  # why files were held or quarantined

    @property
    def files(self) -> int:
        """How many files the folder had."""
        return self.accepted + self.held + self.quarantined + self.already_known + self.not_read


@dataclass(frozen=True, slots=True)
class OnRecord:
    """Whether a file is on record already; can be sent to another process."""

    database: Path

    def __call__(self, sha256: str) -> bool:
        """Return whether the file with this SHA-256 has an outcome."""
        query = sa.select(disposition.c.outcome).where(disposition.c.source_sha256 == sha256)
        with _reader(self.database).connect() as db:
            return db.execute(query).first() is not None


@cache
def _reader(database: Path) -> sa.Engine:
    return reading(open_store(database))


@dataclass(frozen=True, slots=True)
class Intake:
    """Where a site takes images in, and by which rules; `root` is the site folder."""

    root: Path
    store: sa.Engine
    pseudonymiser: Pseudonymiser
    options: Options
    vault: Vault
    max_bytes: int = MAX_BYTES
    recall: Recall = away.nowhere

    @property
    def incoming(self) -> Path:
        """Folder of files that are on disk and not yet on record; emptied by the next run."""
        return self.root / "incoming"

    @property
    def settings(self) -> Settings:
        """What a process needs to judge files for this site."""
        known = OnRecord(Path(str(self.store.url.database)))
        return Settings(self.incoming, self.options, self.pseudonymiser, self.max_bytes, known, recall=self.recall)

    def commit(self, batch: Iterable[tuple[Path, Verdict]], at: datetime, *, again: bool = False) -> list[Verdict]:
        """Put the kept forms at their places and record them; return the verdicts as recorded.

        With `again` the files are on record already and their outcome changes. Files go to disk before the transaction
        that records them ends, so a record never names a file that a crash lost; what they replace goes after it.
        """
        touched: set[Path] = set()
        replaced: set[str] = set()
        verdicts = []
        batch = list(batch)
        with self.store.begin() as db:
            # Whoever arrives is looked for by the next search for stray identities.
            known.add(db, (entry for _, judged in batch for entry in judged.patient))
            for path, judged in batch:
                # One by one: two files of a batch may be the same, or claim the same instance.
                verdict = self._settle(db, path, judged, again=again)
                verdicts.append(verdict)
                if verdict.part is not None:
                    replaced |= _kept_as(db, verdict) - {verdict.kept_as}
                    target = self.root / verdict.kept_as
                    target.parent.mkdir(parents=True, exist_ok=True)
                    verdict.part.replace(target)
                    touched.update(_up_to(self.root, target.parent))
                    self._record(db, verdict, at)
            for folder in sorted(touched):
                flush_folder(folder)
        for kept_as in replaced:
            (self.root / kept_as).unlink(missing_ok=True)
        return verdicts

    def _settle(self, db: sa.Connection, path: Path, verdict: Verdict, *, again: bool) -> Verdict:
        """Return the verdict as it stands beside what is on record by now."""
        if verdict.part is None:
            return verdict
        if not again and _kept_as(db, verdict):
            verdict.part.unlink()
            return Verdict(verdict.sha256, ALREADY_KNOWN)
        if verdict.row and _is_known_instance(db, verdict.row["SOPInstanceUID"]):
            verdict.part.unlink()
            with source(path, self.recall) as content:
                return Judge(self.settings).original(content, Verdict(verdict.sha256, QUARANTINED, DUPLICATE))
        return verdict

    def _record(self, db: sa.Connection, verdict: Verdict, at: datetime) -> None:
        values = {
            "source_sha256": verdict.sha256,
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "kept_as": verdict.kept_as,
            "recorded_at": at.isoformat(),
        }
        unchanged = insert(disposition).values(values)
        db.execute(unchanged.on_conflict_do_update(index_elements=["source_sha256"], set_=values))
        if verdict.row is not None:
            db.execute(sa.insert(instance).values(verdict.row))
        if verdict.about is not None:
            treated(db, verdict.sha256, PIPELINE, verdict.boxes, verdict.notes, **verdict.about)
        remember(db, self.vault, verdict.originals)


def ingest(
    folder: Path,
    intake: Intake,
    at: datetime,
    *,
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = None,
) -> IngestSummary:
    """Take in every file below `folder` and return what became of them.

    `progress` hears (done, total) after each file; `processes` is one for each core unless given.
    Raises: ConfigurationError if the site folder lies below `folder`, or another run is under way.
    """
    if intake.root.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError("the site folder lies inside the folder to take in")
    jobs = [Job(path) for path in files_below(folder)]
    processes = processes or os.cpu_count() or 1
    counts: Counter[tuple[str, str]] = Counter()
    batch: list[tuple[Path, Verdict]] = []
    with alone_in(intake.incoming):
        for done, judged in enumerate(judge_all(jobs, intake.settings, processes), 1):
            batch.append(judged)
            if len(batch) == _BATCH or done == len(jobs):
                counts.update((verdict.outcome, verdict.reason) for verdict in intake.commit(batch, at))
                batch.clear()
            if progress is not None:
                progress(done, len(jobs))
        counts += _heads(intake, at, processes)
    return summarise(counts)


def _heads(intake: Intake, at: datetime, processes: int) -> Counter[tuple[str, str]]:
    """Decide about every series with a head that waits; return what changed, as counts to add and to take away."""
    changed: Counter[tuple[str, str]] = Counter()
    for series, sections in _waiting_heads(intake).items():
        jobs = _judged(intake, series, sections)
        if isinstance(jobs, str):
            with intake.store.begin() as db:
                digests = [section.path.name for section in sections]
                db.execute(sa.update(disposition).where(disposition.c.source_sha256.in_(digests)).values(reason=jobs))
            changed.update({(HELD, FACE): -len(sections), (HELD, jobs): len(sections)})
            continue
        judged = list(judge_all(jobs, intake.settings, processes))  # before the transaction, which others wait for
        for verdict in intake.commit(judged, at, again=True):
            changed.update({(HELD, FACE): -1})
            changed.update({(verdict.outcome, verdict.reason): 1})
    return changed


def _waiting_heads(intake: Intake) -> dict[str, list[heads.Section]]:
    """Return the sections that wait to be judged with their series, by series."""
    query = (
        sa.select(treatment.c.SeriesInstanceUID, treatment.c.boxes, disposition.c.kept_as)
        .join_from(treatment, disposition, treatment.c.source_sha256 == disposition.c.source_sha256)
        .where(disposition.c.outcome == HELD, disposition.c.reason == FACE)
        .order_by(treatment.c.SeriesInstanceUID, treatment.c.SOPInstanceUID)
    )
    found: dict[str, list[heads.Section]] = {}
    with intake.store.connect() as db:
        for series, boxes, kept_as in db.execute(query):
            drawn = tuple(Box(*box) for box in json.loads(boxes))
            found.setdefault(series, []).append(heads.Section(intake.root / kept_as, drawn))
    return found


def _judged(intake: Intake, series: str, sections: list[heads.Section]) -> list[Job] | str:
    """Return the jobs that let the sections in, or why a person has to look at them."""
    with intake.store.connect() as db:
        earlier = db.execute(sa.select(instance.c.path).where(instance.c.SeriesInstanceUID == series)).first()
    if earlier is not None:
        return heads.LATE
    return heads.jobs(sections)


def summarise(counts: Counter[tuple[str, str]]) -> IngestSummary:
    """Return the summary of how many files had which outcome and reason."""
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for (outcome, reason), files in counts.items():
        outcomes[outcome] += files
        reasons[reason] += files * (outcome in _COUNTED_REASONS)
    return IngestSummary(
        **{outcome: outcomes[outcome] for outcome in _OUTCOMES}, reasons=dict(sorted((+reasons).items()))
    )


@contextmanager
def alone_in(incoming: Path) -> Iterator[None]:
    """Let no other process write there meanwhile, and clear what a killed one left.

    Raises: ConfigurationError if another one does.
    """
    incoming.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(incoming / ".lock", os.O_CREAT | os.O_RDWR, 0o600)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError("another process takes in files here; wait until it is done") from None
        for part in incoming.glob("*.part"):
            part.unlink()
        yield


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every regular file below `folder`, those that are away included, always in the same order."""
    yield from (path for path in away.below(folder) if path.is_file() or away.is_away(path))


def _kept_as(db: sa.Connection, verdict: Verdict) -> set[str]:
    """Return where the kept form of a file lies by now, if it is on record."""
    return set(db.scalars(sa.select(disposition.c.kept_as).where(disposition.c.source_sha256 == verdict.sha256)))


def _is_known_instance(db: sa.Connection, uid: str | None) -> bool:
    return db.execute(sa.select(instance.c.path).where(instance.c.SOPInstanceUID == uid)).first() is not None


def _up_to(root: Path, folder: Path) -> Iterator[Path]:
    """Yield `folder` and its parents as far as `root`."""
    yield folder
    if folder != root:
        yield from _up_to(root, folder.parent)
