"""A folder of files taken in: each ends accepted, held or quarantined, on disk and on record.

Only what was de-identified becomes an instance that training may read. Originals that wait for a
person are copied to `review`, unusable ones to `quarantine`; the source folder is never changed.
A run that was killed is simply run again: what is on record is skipped, and what was half done
comes out the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from site_node.deidentify.headers import deidentify, original_date
from site_node.deidentify.pixels import KINDS, Clear, Held, screen
from site_node.errors import ConfigurationError, UnreadableInstance
from site_node.intake.part10 import FAULTS, check_pixels, quiet, read_instance
from site_node.store import disposition, instance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from pydicom.dataset import Dataset

    from site_node.deidentify.pseudonym import Pseudonymiser

ACCEPTED, HELD, QUARANTINED = "accepted", "held", "quarantined"
ALREADY_KNOWN, NOT_READ = "already_known", "not_read"
FOLDERS = {ACCEPTED: "deidentified", HELD: "review", QUARANTINED: "quarantine"}
DUPLICATE = "duplicate-instance-uid"
TOO_LARGE = "too-large"
MAX_BYTES = 2 * 1024**3  # a file is held in memory two times while it is de-identified
_BATCH = 64  # files in one transaction, and one flush of each folder they went to
_CREATE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW
_OUTCOMES = (ACCEPTED, HELD, QUARANTINED, ALREADY_KNOWN, NOT_READ)
_COUNTED_REASONS = (HELD, QUARANTINED, NOT_READ)
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")


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
class _Verdict:
    """The outcome for one file, and where its kept form goes below the site folder."""

    outcome: str
    reason: str
    kept_as: str
    content: bytes | None  # None: the source itself, too large to hold in memory
    row: dict[str, str | None] | None = None  # of table `instance`, when accepted


def ingest(  # the site's three belongings, the folder, the moment and the listener
    folder: Path,
    root: Path,
    store: sa.Engine,
    pseudonymiser: Pseudonymiser,
    at: datetime,
    *,
    progress: Callable[[int, int], None] | None = None,
    max_bytes: int = MAX_BYTES,
) -> IngestSummary:
    """Take in every file below `folder` and return what became of them.

    `root` is the site folder. `progress` hears (done, total) after each file. Files go to disk
    before the transaction that records them, so a record never names a file that a crash lost.
    Raises: ConfigurationError if the site folder lies below `folder`.
    """
    if root.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError("the site folder lies inside the folder to take in")
    files = list(_files(folder))
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with quiet():
        for start in range(0, len(files), _BATCH):
            touched: set[Path] = set()
            with store.begin() as db:
                intake = _Intake(root, db, pseudonymiser, at, max_bytes, touched)
                for done, path in enumerate(files[start : start + _BATCH], start + 1):
                    outcome, reason = intake.take(path)
                    outcomes[outcome] += 1
                    reasons[reason] += outcome in _COUNTED_REASONS
                    if progress is not None:
                        progress(done, len(files))
                for touched_folder in sorted(touched):
                    _flush_folder(touched_folder)
    counts = {outcome: outcomes[outcome] for outcome in _OUTCOMES}
    return IngestSummary(**counts, reasons=dict(sorted((+reasons).items())))


@dataclass(frozen=True, slots=True)
class _Intake:
    """One batch: a transaction, and the folders its files went to."""

    root: Path
    db: sa.Connection
    pseudonymiser: Pseudonymiser
    at: datetime
    max_bytes: int
    touched: set[Path]

    def take(self, path: Path) -> tuple[str, str]:
        """Return outcome and reason of one file, which is then on disk and recorded."""
        try:
            content, sha256 = _read(path, self.max_bytes)
        except OSError:
            return NOT_READ, "file-not-readable"
        if self._exists(disposition.c.source_sha256, sha256):
            return ALREADY_KNOWN, ""
        verdict = _judge(content, sha256, self.pseudonymiser)
        if verdict.row and self._exists(instance.c.SOPInstanceUID, verdict.row["SOPInstanceUID"]):
            verdict = _original(QUARANTINED, DUPLICATE, content, sha256)
        self._keep(path, verdict)
        self._record(sha256, verdict)
        return verdict.outcome, verdict.reason

    def _exists(self, column: sa.Column[str], value: str | None) -> bool:
        return self.db.execute(sa.select(column).where(column == value)).first() is not None

    def _keep(self, source: Path, verdict: _Verdict) -> None:
        target = self.root / verdict.kept_as
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        with os.fdopen(os.open(temporary, _CREATE, 0o600), "wb") as out:
            if verdict.content is not None:
                out.write(verdict.content)
            else:
                with source.open("rb") as original:
                    shutil.copyfileobj(original, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
        self.touched.update(_up_to(self.root, target.parent))

    def _record(self, sha256: str, verdict: _Verdict) -> None:
        self.db.execute(
            sa.insert(disposition).values(
                source_sha256=sha256,
                outcome=verdict.outcome,
                reason=verdict.reason,
                kept_as=verdict.kept_as,
                recorded_at=self.at.isoformat(),
            )
        )
        if verdict.row is not None:
            self.db.execute(sa.insert(instance).values(verdict.row))


def _judge(content: bytes | None, sha256: str, pseudonymiser: Pseudonymiser) -> _Verdict:
    if content is None:
        return _original(QUARANTINED, TOO_LARGE, content, sha256)
    try:
        ds = read_instance(content)
        screening = _screen(ds)
        if isinstance(screening, Held):
            return _original(HELD, screening.reason, content, sha256)
        return _accept(ds, sha256, pseudonymiser)
    except UnreadableInstance as fault:
        return _original(QUARANTINED, str(fault), content, sha256)
    except FAULTS:
        return _original(QUARANTINED, "data set cannot be parsed", content, sha256)


def _screen(ds: Dataset) -> Clear | Held:
    if ds.SOPClassUID in KINDS:
        check_pixels(ds)
    return screen(ds)


def _accept(ds: Dataset, sha256: str, pseudonymiser: Pseudonymiser) -> _Verdict:
    clean = deidentify(ds, pseudonymiser)
    if "Modality" not in clean:
        raise UnreadableInstance("Modality: absent or unknown")
    out = BytesIO()
    clean.save_as(out, enforce_file_format=True)
    content = out.getvalue()
    identity = {keyword: str(clean[keyword].value) for keyword in _IDENTITY}
    study, series, sop = (identity[keyword] for keyword in _IDENTITY[:3])
    kept_as = f"{FOLDERS[ACCEPTED]}/{study}/{series}/{sop}.dcm"
    row = identity | {
        "patient": str(clean.PatientID),
        "study_date": original_date(ds),
        "references_series": _referenced_series(clean),
        "path": kept_as,
        "sha256": hashlib.sha256(content).hexdigest(),
        "source_sha256": sha256,
    }
    return _Verdict(ACCEPTED, "", kept_as, content, row)


def _original(outcome: str, reason: str, content: bytes | None, sha256: str) -> _Verdict:
    return _Verdict(outcome, reason, f"{FOLDERS[outcome]}/{sha256}", content)


def _referenced_series(ds: Dataset) -> str | None:
    """Return the one series that a segmentation labels (PS3.3 C.8.20.2), or None."""
    series = list(ds.get("ReferencedSeriesSequence") or []) if ds.Modality == "SEG" else []
    return str(series[0].SeriesInstanceUID) if len(series) == 1 else None


def _files(folder: Path) -> Iterator[Path]:
    """Yield every regular file below `folder`, always in the same order."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(parent, name)).is_file())


def _read(path: Path, max_bytes: int) -> tuple[bytes | None, str]:
    """Return content and SHA-256 of a file; no content if it is too large to be taken in."""
    with path.open("rb") as source:
        content = source.read(max_bytes + 1)
        if len(content) <= max_bytes:
            return content, hashlib.sha256(content).hexdigest()
        source.seek(0)
        return None, hashlib.file_digest(source, "sha256").hexdigest()


def _up_to(root: Path, folder: Path) -> Iterator[Path]:
    """Yield `folder` and its parents as far as `root`."""
    yield folder
    if folder != root:
        yield from _up_to(root, folder.parent)


def _flush_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
