"""A series is locked from its study date for the years of its modality; what is none is told by its digest."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from site_node.archive.locked import series
from site_node.archive.locked.sealing import Member
from site_node.archive.locked.series import Series
from site_node.config import LockedCopies

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SETTINGS = LockedCopies(years=10, years_by_modality={"MG": 20}, least_days=30)


@pytest.mark.parametrize(
    ("modality", "day", "by_study", "first"),
    [
        ("CT", date(2026, 5, 1), "2036-05-01", "2036-05-01"),
        ("MG", date(2026, 5, 1), "2046-05-01", "2046-05-01"),
        ("CT", date(2024, 2, 29), "2034-03-01", "2034-03-01"),
        ("CT", date(1999, 1, 1), "2009-01-01", "2026-07-01"),  # long over: the least
        ("CT", None, None, "2036-06-01"),
        ("CT", date(9999, 1, 1), None, "2036-06-01"),  # a slip of the pen locks nothing for ages
    ],
)
def test_the_legal_date(modality: str, day: date | None, by_study: str | None, first: str) -> None:
    term = series.term(Series("1.2", "p", modality, day, ()), SETTINGS, NOW)

    assert term.first.date().isoformat() == first
    assert (term.by_study.date().isoformat() if term.by_study else None) == by_study


def test_a_folder_is_grouped_by_series_and_patient_and_nothing_is_passed_over_in_silence(tmp_path: Path) -> None:
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm")):
        content = Path(str(get_testdata_file(name))).read_bytes()
        for copy in range(2):
            path = tmp_path / f"{copy}" / f"{number}.dcm"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    (tmp_path / "notes.txt").write_bytes(b"notes")
    heard: list[tuple[int, int]] = []

    found = series.find(tmp_path, lambda *progress: heard.append(progress))

    assert sorted((one.Modality, len(one.members)) for one in found.series) == [("CT", 2), ("MR", 2)]
    assert {member.path for one in found.series for member in one.members} == {
        "0/0.dcm",
        "0/1.dcm",
        "1/0.dcm",
        "1/1.dcm",
    }
    assert found.passed_over == ((hashlib.sha256(b"notes").hexdigest(), "no DICOM instance of a series"),)
    assert heard[-1] == (5, 5)


def test_a_series_too_large_for_one_object_becomes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [Member(str(number), 400, "0" * 64) for number in range(5)]
    monkeypatch.setattr(series, "PART_BYTES", 1000)

    assert [len(part) for part in series._parts(files)] == [2, 2, 1]  # noqa: SLF001 -- four gigabytes are too many here
