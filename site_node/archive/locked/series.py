"""The series in a folder, as they are locked: which files, whose, from which day, and until when.

Reads headers, and every byte for its digest; changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import pydicom
from pydicom.errors import InvalidDicomError

from site_node.archive.locked.sealing import Member
from site_node.away import below
from site_node.deidentify.transcoding import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from site_node.config import LockedCopies

PART_BYTES = 4 * 2**30  # of files in one object; S3 takes 5 GiB in one request
_TAGS = ["SeriesInstanceUID", "PatientID", "Modality", "StudyDate", "StudyInstanceUID"]
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Series:
    """Files of one series, few enough for one object."""

    SeriesInstanceUID: str
    PatientID: str
    Modality: str
    study_date: date | None
    members: tuple[Member, ...]
    StudyInstanceUID: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds; `passed_over` names, by digest, what cannot be locked, and why."""

    series: tuple[Series, ...]
    passed_over: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Term:
    """Until when a series is locked: by its study date, where it has one, and at its first lock in any case."""

    by_study: datetime | None
    first: datetime


def term(series: Series, settings: LockedCopies, at: datetime) -> Term:
    """Return the dates of a series: so many years from its study date, by its modality.

    Without a study date, or with one to come, the years count from `at`; a first lock is `least_days` long at least.
    """
    years = settings.years_by_modality.get(series.Modality, settings.years)
    least = (at + timedelta(days=settings.least_days)).replace(microsecond=0)
    known = series.study_date if series.study_date and series.study_date <= at.date() else None
    from_now = datetime.combine(_years_later(known or at.date(), years), time(), UTC)
    return Term(from_now if known else None, max(from_now, least))


def find(
    folder: Path,
    heard: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    without: Collection[Path] = (),
) -> Found:
    """Return the series in `folder` and below, in the order of their files; those that are away are no part of it.

    Raises: OSError if a file cannot be read.
    """
    paths = [path for path in below(folder) if path not in without and path.is_file() and not path.is_symlink()]
    members: dict[tuple[str, str], list[Member]] = defaultdict(list)
    facts: dict[tuple[str, str], Mapping[str, str]] = {}
    passed_over = []
    for done, path in enumerate(paths, start=1):
        member = Member(path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path))
        header = _header(path)
        if header is None or member.size > PART_BYTES:
            why = "no DICOM instance of a series" if header is None else "larger than one object may be"
            passed_over.append((member.sha256, why))
        else:
            key = header["SeriesInstanceUID"], header["PatientID"]
            members[key].append(member)
            facts.setdefault(key, header)
        heard(done, len(paths))
    series = [
        Series(*key, facts[key]["Modality"], _day(facts[key]["StudyDate"]), part, facts[key]["StudyInstanceUID"])
        for key, files in members.items()
        for part in _parts(files)
    ]
    return Found(tuple(series), tuple(passed_over))


def _header(path: Path) -> Mapping[str, str] | None:
    """Return what is asked of a header; None if the file is no instance of a series."""
    try:
        with quiet():
            ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            header = {tag: str(ds.get(tag, "") or "").strip("\0 ") for tag in _TAGS}
    except (InvalidDicomError, ValueError, TypeError, LookupError, AttributeError, EOFError, NotImplementedError):
        return None
    return header if header["SeriesInstanceUID"] else None


def _parts(files: Sequence[Member]) -> Iterator[tuple[Member, ...]]:
    part: list[Member] = []
    for member in files:
        if part and sum(one.size for one in part) + member.size > PART_BYTES:
            yield tuple(part)
            part = []
        part.append(member)
    yield tuple(part)


def _day(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _years_later(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return day.replace(year=day.year + years, month=3, day=1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
