"""A folder of files de-identified into another, for a project or a colleague; the originals stay where they are.

What comes out stands under pseudonymous names, and `report.csv` says what became of every file by its SHA-256. What is
held or cannot be used is in the report alone, and so is a second file with the SOPInstanceUID of another. A run that
was killed is run again: what the report has is skipped.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from site_node import away
from site_node.deidentify.instance import FACE
from site_node.errors import ConfigurationError
from site_node.intake import heads
from site_node.intake.folder import DUPLICATE, MAX_BYTES, IngestSummary, alone_in, files_below, summarise
from site_node.intake.judging import (
    ACCEPTED,
    ALREADY_KNOWN,
    FOLDERS,
    NOT_READ,
    QUARANTINED,
    Job,
    Settings,
    Verdict,
    judge_all,
)
from site_node.keys import flush_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from site_node.away import Recall
    from site_node.deidentify.profile import Options
    from site_node.deidentify.pseudonym import Known, Pseudonymiser

REPORT = "report.csv"
_COLUMNS = ("source_sha256", "outcome", "reason", "path")
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Reported:
    """Whether the report has a file already; can be sent to another process."""

    digests: frozenset[str]

    def __call__(self, sha256: str) -> bool:
        """Return whether the file with this SHA-256 has an outcome."""
        return sha256 in self.digests


def export(
    folder: Path,
    target: Path,
    options: Options,
    pseudonymiser: Pseudonymiser,
    keep: Callable[[Iterable[Known]], object],
    *,
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = None,
    max_bytes: int = MAX_BYTES,
    recall: Recall = away.nowhere,
) -> IngestSummary:
    """De-identify every file below `folder` into `target` and return what became of them.

    `keep` seals who stands behind the pseudonyms, before a file that bears them is at its place.
    Raises: ConfigurationError if `target` lies below `folder`, or another run writes there.
    """
    if target.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError("the target lies inside the folder to de-identify")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    jobs = [Job(path) for path in files_below(folder)]
    counts: Counter[tuple[str, str]] = Counter()
    incoming = target / ".incoming"
    with alone_in(incoming):
        reported = _reported(target / REPORT)
        known, taken = Reported(frozenset(reported)), {path for path in reported.values() if path}
        settings = Settings(incoming, options, pseudonymiser, max_bytes, known, keep_originals=False, recall=recall)
        processes = processes or os.cpu_count() or 1
        batch: list[Verdict] = []
        seen: set[str] = set()
        waiting: dict[str, list[tuple[Path, Verdict]]] = {}
        for done, (path, judged) in enumerate(judge_all(jobs, settings, processes), 1):
            verdict = _first_time(judged, seen)
            if verdict.reason == FACE and verdict.about is not None:
                waiting.setdefault(verdict.about["SeriesInstanceUID"], []).append((path, verdict))
            else:
                batch.append(verdict)
            if len(batch) == _BATCH or done == len(jobs):
                counts += _commit(batch, target, taken, keep)
                batch.clear()
            if progress is not None:
                progress(done, len(jobs))
        for members in waiting.values():
            counts += _commit(_heads(members, settings, processes), target, taken, keep)
    return summarise(counts)


def _first_time(verdict: Verdict, seen: set[str]) -> Verdict:
    """Return the verdict, or that the same file came earlier in this run."""
    if verdict.sha256 not in seen:
        seen.add(verdict.sha256)
        return verdict
    if verdict.part is not None:
        verdict.part.unlink()
    return Verdict(verdict.sha256, ALREADY_KNOWN)


def _heads(members: list[tuple[Path, Verdict]], settings: Settings, processes: int) -> list[Verdict]:
    """Return the verdicts on the sections of a series with a head, judged together."""
    jobs = heads.jobs([heads.Section(path, verdict.boxes) for path, verdict in members], settings.recall)
    if isinstance(jobs, str):
        return [replace(verdict, reason=jobs) for _, verdict in members]
    return [verdict for _, verdict in judge_all(jobs, settings, processes)]


def _reported(report: Path) -> dict[str, str]:
    """Return the digests in the report and the path of each output, and cut off a line that a killed run left half."""
    if not report.exists():
        return {}
    content = report.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(report, whole)
    return {row["source_sha256"]: row["path"] for row in csv.DictReader(content[:whole].decode().splitlines())}


def _commit(
    verdicts: list[Verdict], target: Path, taken: set[str], keep: Callable[[Iterable[Known]], object]
) -> Counter[tuple[str, str]]:
    """Put files at their places, then say so in the report; return how many had which outcome and reason.

    `taken` are the paths that other files have already; those of this batch are added.
    """
    batch = [_in_its_own_place(verdict, taken) for verdict in verdicts]
    keep([known for verdict in batch for known in verdict.originals])
    touched: set[Path] = set()
    lines = []
    for verdict in batch:
        path = _place(verdict)
        if verdict.part is not None:
            place = target / path
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            verdict.part.replace(place)
            touched.add(place.parent)
        if verdict.outcome not in {ALREADY_KNOWN, NOT_READ}:
            lines.append((verdict.sha256, verdict.outcome, verdict.reason, path))
    for folder in sorted(touched):
        flush_folder(folder)
    _report(lines, target / REPORT)
    return Counter((verdict.outcome, verdict.reason) for verdict in batch)


def _in_its_own_place(verdict: Verdict, taken: set[str]) -> Verdict:
    """Return the verdict, or that another file has its SOPInstanceUID."""
    if verdict.part is None:
        return verdict
    if _place(verdict) in taken:
        verdict.part.unlink()
        return Verdict(verdict.sha256, QUARANTINED, DUPLICATE)
    taken.add(_place(verdict))
    return verdict


def _place(verdict: Verdict) -> str:
    return verdict.kept_as.removeprefix(f"{FOLDERS[ACCEPTED]}/")


def _report(lines: list[tuple[str, str, str, str]], report: Path) -> None:
    new = not report.exists()
    with os.fdopen(os.open(report, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([_COLUMNS, *lines] if new else lines)
        out.flush()
        os.fsync(out.fileno())
