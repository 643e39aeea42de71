"""I2 with the real worker and real images: the work ends, and nothing of it is left on disk or in the worker."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from models import canonical
from site_node import permissions
from site_node.jobs import Jobs, TrainingAborted
from site_node.store import participation
from site_node.training import WATCH_S
from tests.site_node.hospital import NOON, Hospital
from tests.site_node.test_dataset import labelled_series
from tests.site_node.test_training import ABORT_S, ENDLESS, TASK, Workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from models import Task
    from site_node.training import Trained

BATCHES = 3  # done when the patient withdraws


class Training:
    """The real trainer; the studies of the catalogue stand for real series, over and over, so that it does not end."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.watched: Callable[[], None] = lambda: None

    def forget(self) -> None:
        """Have the worker forget."""
        self.workshop.trainer.forget()

    def run(self, what: Any, task: Task, may_go_on: Callable[[], bool], **work: Any) -> Trained | None:
        """Train on the series."""

        def watch() -> bool:
            self.watched()
            return may_go_on()

        items = self.workshop.items * 20
        return self.workshop.trainer.run(what, task, watch, **{**work, "items": items})


@pytest.fixture
def site(hospital: Hospital) -> Iterator[tuple[Hospital, Training]]:
    """Yield a hospital with a real worker, and a task that does not end by itself."""
    workshop = Workshop(hospital.home.root)
    training = Training(workshop)
    hospital.task = permissions.keep_task(hospital.store, canonical(ENDLESS), NOON)
    permissions.approve_task(hospital.store, hospital.task, "brain-mr", "manager", NOON)
    hospital.base = dict(workshop.initialise(ENDLESS))  # type: ignore[arg-type] # its arrays are of other kinds too
    workshop.progress.clear()
    hospital.trainer = training  # type: ignore[assignment] # the real one
    hospital.restart()
    yield hospital, training
    workshop.trainer.stop()


def files(hospital: Hospital) -> set[Path]:
    """Return all files and folders of the site."""
    return set(hospital.home.root.rglob("*")) - {hospital.home.work}


def test_I2_a_withdrawal_ends_the_training_in_time_and_leaves_no_file_and_nothing_in_the_worker(
    site: tuple[Hospital, Training],
) -> None:
    hospital, training = site
    before, progress = files(hospital), training.workshop.progress
    withdrawn: list[tuple[float, int]] = []
    meanwhile: set[Path] = set()

    def watched() -> None:
        meanwhile.update(files(hospital))
        if len(progress) >= BATCHES and not withdrawn:
            hospital.withdraw("N0")
            withdrawn.append((time.monotonic(), len(progress)))

    training.watched = watched
    worker = training.workshop.process().pid

    assert hospital.ask() == "abstain"

    ((at, done),) = withdrawn
    assert time.monotonic() - at < ABORT_S + 10 * WATCH_S
    assert done <= len(progress) < progress[-1][1]
    assert {path.name for path in meanwhile - before} >= {"base.safetensors"}
    assert files(hospital) == before
    assert [row["outcome"] for row in hospital.rows(participation)] == ["abstained"]

    # The worker is the same one, and reads every image anew: with the files gone it has none.
    training.watched = lambda: None
    for path in hospital.home.root.glob("1.2.826*"):
        path.unlink()
    assert hospital.ask("m2", nonce="nonce-2", round=2) == "abstain"
    assert hospital.said[-1] == "abstained: the training worker could not finish: UnreadableInstance"
    assert training.workshop.process().pid == worker


def test_I2_no_batch_begins_once_the_worker_is_told(tmp_path: Path) -> None:
    jobs, done = Jobs(tmp_path, threads=1), list[int]()
    base, series = str(tmp_path / "base.safetensors"), labelled_series(tmp_path)
    job = {"task": canonical(TASK).decode(), "round": 1, "base": base, "out": base}
    jobs.do({**job, "do": "initialise"}, lambda: False, lambda *_: None)
    items = [asdict(replace(series, patient=f"P{n}", SeriesInstanceUID=f"s{n}")) for n in range(40)]
    train = {**job, "do": "train", "out": str(tmp_path / "update.safetensors"), "items": items}

    with pytest.raises(TrainingAborted):
        jobs.do(train, lambda: len(done) == BATCHES, lambda number, _: done.append(number))

    assert done == list(range(1, BATCHES + 1))
    assert not (tmp_path / "update.safetensors").exists()


def test_I2_what_a_killed_node_left_of_its_work_is_gone_when_the_next_one_starts(hospital: Hospital) -> None:
    workshop = Workshop(hospital.home.root)
    left = [hospital.home.work / "update.safetensors", hospital.home.outbox / "m0.safetensors"]
    for path in left:
        path.write_bytes(b"an update")

    hospital.rounds.tidy()
    workshop.trainer.start()
    workshop.trainer.stop()

    assert [path.exists() for path in left] == [False, False]
