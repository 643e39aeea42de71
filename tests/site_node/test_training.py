"""The training worker, a real process: it trains, it can be stopped, and nothing of stopped work remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from models import Task, canonical, parse_layout, task_digest, unpack
from models.task import Component
from site_node.config import SiteConfig, SiteHome
from site_node.errors import TrainingFailed, UnreadableInstance
from site_node.jobs import Examples, Jobs, TrainingAborted
from site_node.training import Trainer
from tests.site_node.hospital import TASK_DOCUMENT
from tests.site_node.test_dataset import labelled_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from site_node.cohort import Item

ABORT_S = 1.0


def small_task(**changes: object) -> Task:
    """Return the demo's task with a network that fits images of 8 by 6 pixels."""
    task = Task.model_validate_json(TASK_DOCUMENT)
    arguments = task.network.arguments | {"channels": [4, 8], "strides": [2], "num_res_units": 0}
    network = Component(name="UNet", arguments=arguments)
    return task.model_copy(update={"network": network, "local_epochs": 1, "validation_fraction": 0.5, **changes})


TASK = small_task()
ENDLESS = small_task(local_epochs=100, batch_size=2)


class Workshop:
    """A trainer with a site's folder, four patients' series, and what it said about its progress."""

    def __init__(self, root: Path) -> None:
        self.progress: list[tuple[int, int]] = []
        series = labelled_series(root)
        self.items: tuple[Item, ...] = tuple(
            replace(series, patient=f"P{number}", SeriesInstanceUID=f"s{number}") for number in range(8)
        )
        self.home = SiteHome(root)
        self.trainer = Trainer(
            self.home, SiteConfig("north", abort_after_s=ABORT_S), lambda *step: self.progress.append(step)
        )

    def process(self) -> psutil.Process:
        """Return the worker."""
        (worker,) = (child for child in psutil.Process().children() if "site_node.worker" in " ".join(child.cmdline()))
        return worker

    def initialise(self, task: Task = TASK) -> Mapping[str, NDArray[np.generic]]:
        """Return the untrained weights."""
        made = self.trainer.run("initialise", task, lambda: True)
        assert made is not None
        return made.arrays

    def stop_when(self, asked: Callable[[], None]) -> float:
        """Train without end, take the permission back after the first batch; return how long stopping took."""
        base = self.initialise(ENDLESS)
        self.progress.clear()
        refused_at: list[float] = []

        def may_go_on() -> bool:
            if not self.progress:
                return True
            asked()
            refused_at.append(time.monotonic())
            return False

        assert self.trainer.run("train", ENDLESS, may_go_on, base=base, items=self.items * 20) is None
        return time.monotonic() - refused_at[0]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Yield a workshop; its worker is kept from test to test, as a node keeps it."""
    made = Workshop(tmp_path_factory.mktemp("site"))
    yield made
    made.trainer.stop()


def test_the_untrained_model_follows_from_the_task_alone(workshop: Workshop) -> None:
    first = workshop.trainer.run("initialise", TASK, lambda: True)
    second = workshop.trainer.run("initialise", TASK, lambda: True)

    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.arrays["float32"], second.arrays["float32"])
    assert len(unpack(first.arrays, parse_layout(first.layout.encode()))) > 4
    assert not workshop.home.work.exists()


def test_training_moves_the_weights_reports_metrics_and_leaves_no_file(workshop: Workshop) -> None:
    base = workshop.initialise()

    made = workshop.trainer.run("train", TASK, lambda: True, round_number=1, base=base, items=workshop.items)

    assert made is not None
    assert made.arrays["float32"].shape == base["float32"].shape
    assert not np.array_equal(made.arrays["float32"], base["float32"])
    assert set(made.metrics) == {"train_loss", "validation_loss", "dice", "dice_1", "dice_2"}
    assert workshop.progress[-1][0] == workshop.progress[-1][1]
    assert not workshop.home.work.exists()


def test_the_same_round_gives_the_same_bits(workshop: Workshop) -> None:
    base = workshop.initialise()

    first, second = (
        workshop.trainer.run("train", TASK, lambda: True, round_number=2, base=base, items=workshop.items)
        for _ in range(2)
    )

    assert first is not None
    assert second is not None
    assert first.arrays["float32"].tobytes() == second.arrays["float32"].tobytes()


def test_an_evaluation_makes_metrics_and_no_weights(workshop: Workshop) -> None:
    base = workshop.initialise()

    made = workshop.trainer.run("evaluate", TASK, lambda: True, base=base, items=workshop.items)

    assert made is not None
    assert made.arrays == {}
    assert set(made.metrics) == {"validation_loss", "dice", "dice_1", "dice_2"}


def test_what_is_no_longer_permitted_stops_in_time_and_leaves_nothing(workshop: Workshop) -> None:
    worker = workshop.trainer.run("initialise", TASK, lambda: True) and workshop.process().pid

    took = workshop.stop_when(lambda: None)

    assert took < ABORT_S + 0.5
    assert not workshop.home.work.exists()
    assert workshop.process().pid == worker  # it stopped by itself and is kept warm


def test_a_stuck_worker_is_killed_in_time_and_the_next_job_has_a_new_one(workshop: Workshop) -> None:
    workshop.initialise()
    worker = workshop.process()

    took = workshop.stop_when(lambda: worker.send_signal(signal.SIGSTOP))

    assert took < ABORT_S + 1.0
    assert not psutil.pid_exists(worker.pid)
    assert not workshop.home.work.exists()
    assert workshop.initialise()
    assert workshop.process().pid != worker.pid


def test_a_worker_that_died_between_two_jobs_is_replaced(workshop: Workshop) -> None:
    workshop.initialise()
    worker = workshop.process()
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # it is gone, and nobody has asked for it yet

    assert workshop.initialise()


def test_a_worker_that_dies_in_the_middle_is_a_failure_and_replaced(workshop: Workshop) -> None:
    base = workshop.initialise(ENDLESS)
    worker = workshop.process()
    workshop.progress.clear()

    def may_go_on() -> bool:
        if workshop.progress:
            worker.kill()
        return True

    with pytest.raises(TrainingFailed):
        workshop.trainer.run("train", ENDLESS, may_go_on, base=base, items=workshop.items * 20)

    assert not workshop.home.work.exists()
    assert workshop.initialise()


def test_an_altered_image_is_a_failure_that_names_no_file(workshop: Workshop) -> None:
    base = workshop.initialise()
    series = workshop.items[0]
    altered = replace(series, instances=tuple(replace(one, sha256="0" * 64) for one in series.instances))  # type: ignore[union-attr, arg-type] # a series

    with pytest.raises(TrainingFailed, match=r"could not finish: UnreadableInstance$"):
        workshop.trainer.run("train", TASK, lambda: True, base=base, items=(altered,) * 8)


def test_what_is_forgotten_is_built_and_read_anew_and_comes_out_the_same(workshop: Workshop) -> None:
    base = workshop.initialise()
    first = workshop.trainer.run("train", TASK, lambda: True, base=base, items=workshop.items)
    worker = workshop.process().pid

    workshop.trainer.forget()
    again = workshop.trainer.run("train", TASK, lambda: True, base=base, items=workshop.items)

    assert first is not None
    assert again is not None
    assert again.arrays["float32"].tobytes() == first.arrays["float32"].tobytes()
    assert workshop.process().pid == worker


def test_a_job_that_is_stopped_leaves_no_examples(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, threads=1)
    base, out = str(tmp_path / "base.safetensors"), str(tmp_path / "out.safetensors")
    job = {"task": canonical(TASK).decode(), "round": 1, "base": base, "out": base}
    jobs.do({**job, "do": "initialise"}, lambda: False, lambda *_: None)
    series = labelled_series(tmp_path)
    items = [asdict(replace(series, patient=f"P{number}", SeriesInstanceUID=f"s{number}")) for number in range(8)]
    train = {**job, "do": "train", "out": out, "items": items}
    jobs.do(train, lambda: False, lambda *_: None)
    for instance in series.instances:
        (tmp_path / instance.path).unlink()
    jobs.do(train, lambda: False, lambda *_: None)  # from memory

    with pytest.raises(TrainingAborted):
        jobs.do(train, lambda: True, lambda *_: None)

    with pytest.raises(UnreadableInstance):
        jobs.do(train, lambda: False, lambda *_: None)


def test_a_worker_that_has_just_ended_has_forgotten(workshop: Workshop) -> None:
    workshop.initialise()
    worker = workshop.process()
    worker.kill()
    worker.wait(10)

    workshop.trainer.forget()

    assert workshop.initialise()


def test_examples_are_read_again_for_a_task_that_reads_them_otherwise(tmp_path: Path) -> None:
    grey, white = TASK.labels
    swapped = (grey.model_copy(update={"code": white.code}), white.model_copy(update={"code": grey.code}))
    other = small_task(labels=swapped)
    assert task_digest(other) != task_digest(TASK)
    series = labelled_series(tmp_path)
    examples = Examples(tmp_path)

    before, after = (np.stack([np.asarray(e["label"]) for e in examples.of([series], t)]) for t in (TASK, other))

    np.testing.assert_array_equal(after, np.choose(before, [0, 2, 1]))


def test_the_worker_ends_when_its_node_is_killed(tmp_path: Path) -> None:
    node = """
import sys, time
from pathlib import Path
from site_node.config import SiteConfig, SiteHome
from site_node.training import Trainer
trainer = Trainer(SiteHome(Path(sys.argv[1])), SiteConfig("north"), print)
trainer.wait_ready()
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", node, str(tmp_path)], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (worker,) = psutil.Process(process.pid).children()

        process.kill()

        worker.wait(10)
    assert not worker.is_running()
