"""Files judged in processes of their own: in order, and one that kills its process stops no other."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from site_node.deidentify.profile import Options
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.intake.judging import ACCEPTED, ALREADY_KNOWN, KILLS_ITS_READER, QUARANTINED, Job, Settings, judge_all
from site_node.second_look.pixels import reader
from tests.site_node.dicom_files import KEY, file_bytes, mr_slice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class KilledBy:
    """Ends the process that asks about one file, as a codec's fault would."""

    marked: str

    def __call__(self, sha256: str) -> bool:
        """Return that it is not known, or nothing any more."""
        if sha256 == self.marked:
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def never(sha256: str) -> bool:
    """Return that nothing is known."""
    return not sha256


def settings(folder: Path, is_known: Callable[[str], bool]) -> Settings:
    incoming = folder / "incoming"
    incoming.mkdir()
    return Settings(incoming, Options(), Pseudonymiser(KEY), 10**9, is_known)


def files(folder: Path, count: int) -> list[Job]:
    for number in range(count):
        (folder / f"{number:02}").write_bytes(file_bytes(mr_slice(number)))
    return [Job(folder / f"{number:02}") for number in range(count)]


def test_verdicts_of_several_processes_come_in_the_order_of_the_files(inbox: Path, tmp_path: Path) -> None:
    jobs = files(inbox, 12)

    verdicts = list(judge_all(jobs, settings(tmp_path, never), 2))

    assert [path for path, _ in verdicts] == [job.path for job in jobs]
    assert {verdict.outcome for _, verdict in verdicts} == {ACCEPTED}
    assert all(verdict.part is not None and verdict.part.stat().st_mode & 0o077 == 0 for _, verdict in verdicts)


def test_a_file_that_kills_its_process_is_quarantined_and_the_others_are_taken(inbox: Path, tmp_path: Path) -> None:
    jobs = files(inbox, 12)
    marked = hashlib.sha256(jobs[5].path.read_bytes()).hexdigest()

    verdicts = [verdict for _, verdict in judge_all(jobs, settings(tmp_path, KilledBy(marked)), 2)]

    assert [verdict.outcome for verdict in verdicts] == [QUARANTINED if n == 5 else ACCEPTED for n in range(12)]
    assert verdicts[5].reason == KILLS_ITS_READER
    assert verdicts[5].part is not None
    assert verdicts[5].part.read_bytes() == jobs[5].path.read_bytes()


def test_what_is_known_is_not_judged_again(inbox: Path, tmp_path: Path) -> None:
    jobs = files(inbox, 1)
    known = settings(tmp_path, bool)

    ((_, verdict),) = judge_all(jobs, known, 1)

    assert (verdict.outcome, verdict.part) == (ALREADY_KNOWN, None)
    assert list(known.incoming.iterdir()) == []


def test_without_a_second_reader_nothing_is_judged(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    reader.cache_clear()

    with pytest.raises(ConfigurationError, match="tesseract"):
        list(judge_all(files(inbox, 1), settings(tmp_path, never), 1))
    reader.cache_clear()
