"""The node's handle on the training worker: give it a job, watch over it, stop it.

While a job runs, a watch is asked ten times a second whether it may go on. A worker that does not stop in time is
killed: a withdrawal does not wait for a batch. What a stopped job left on disk is removed.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models import canonical
from models.memory import give_back
from site_node.errors import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from models import Task
    from site_node.cohort import Item
    from site_node.config import SiteConfig, SiteHome

WATCH_S = 0.1
START_S = 120.0

# Thread counts are read when the libraries load; the worker gets them from its environment.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Trained:
    """What the worker made: the weights (absent for an evaluation), metrics, and the layout if asked for."""

    arrays: Mapping[str, NDArray[np.generic]]
    metrics: Mapping[str, float]
    layout: str


class Trainer:
    """One worker process, started again whenever it had to be killed."""

    def __init__(self, home: SiteHome, config: SiteConfig, progress: Callable[[int, int], None]) -> None:
        self._home = home
        self._config = config
        self._progress = progress
        self._process: subprocess.Popen[bytes] | None = None
        self._lines = b""
        self._ready = False

    def start(self) -> None:
        """Start the worker and return at once; it imports its libraries meanwhile."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            shutil.rmtree(self._home.work, ignore_errors=True)  # of a node that was killed
            threads = str(self._config.training_threads)
            self._lines, self._ready = b"", False
            self._process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
                [sys.executable, "-m", "site_node.worker", str(self._home.root), threads],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, threads)},
            )

    def wait_ready(self) -> None:
        """Wait until the worker can take a job.

        Raises: TrainingFailed if it does not come up.
        """
        self.start()
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            answer = self._answer()
            if answer is not None and answer["event"] == "ready":
                self._ready = True
                return
        raise TrainingFailed("the training worker did not start")

    def run(
        self,
        what: Literal["initialise", "train", "evaluate"],
        task: Task,
        may_go_on: Callable[[], bool],
        *,
        round_number: int = 0,
        base: Mapping[str, NDArray[np.generic]] | None = None,
        items: Sequence[Item] = (),
    ) -> Trained | None:
        """Return what the worker made; None if `may_go_on` said no, and then nothing of it remains.

        Raises: TrainingFailed if the worker cannot do it.
        """
        if not self._ready or self._process is None or self._process.poll() is not None:
            self.wait_ready()
        work = self._home.work
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            job = {
                "do": what,
                "task": canonical(task).decode(),
                "round": round_number,
                "base": str(work / "base.safetensors"),
                "out": str(work / "update.safetensors"),
                "items": [asdict(item) for item in items],
            }
            if base is not None:
                _write(work / "base.safetensors", base)
            give_back()  # this process only watches now, and the worker needs the memory
            return self._supervise(job, may_go_on, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def forget(self) -> None:
        """Have the worker keep nothing of what it was given, nor of what came of it."""
        if self._process is not None:
            with suppress(TrainingFailed):  # it has ended, and everything with it
                self._say({"do": "forget"})

    def stop(self) -> None:
        """End the worker, and close the pipes to it."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what it did not read is of no use to anyone
                        pipe.close()
            self._process.wait()
            self._process, self._ready = None, False

    def _supervise(self, job: Mapping[str, Any], may_go_on: Callable[[], bool], work: Path) -> Trained | None:
        self._say(job)
        watch_at = time.monotonic() + WATCH_S
        while True:
            answer = self._answer()
            if time.monotonic() >= watch_at:
                watch_at = time.monotonic() + WATCH_S
                if not may_go_on():
                    self._abort()
                    return None
            if answer is None:
                continue
            if answer["event"] == "progress":
                self._progress(answer["done"], answer["total"])
            elif answer["event"] == "done":
                arrays = _read(work / "update.safetensors") if job["do"] != "evaluate" else {}
                return Trained(arrays, answer["metrics"], answer.get("layout", ""))
            elif answer["event"] == "failed":
                raise TrainingFailed(f"the training worker could not finish: {answer['kind']}")

    def _abort(self) -> None:
        """Stop the job; kill the worker if it does not stop in time."""
        self._say({"do": "abort"})
        end = time.monotonic() + self._config.abort_after_s
        while time.monotonic() < end:
            answer = self._answer()
            if answer is not None and answer["event"] in {"aborted", "done", "failed"}:
                self.forget()
                return
        self.stop()
        self.start()  # it imports its libraries while the answer goes out; the next job waits for it

    def _say(self, message: Mapping[str, Any]) -> None:
        pipe = self._process.stdin if self._process else None
        if pipe is None:
            raise TrainingFailed("the training worker is not running")
        try:
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError as error:
            self.stop()
            raise TrainingFailed("the training worker ended") from error

    def _answer(self) -> dict[str, Any] | None:
        """Return the worker's next answer; None if there is none within WATCH_S.

        Raises: TrainingFailed if the worker ended.
        """
        pipe = self._process.stdout if self._process else None
        if pipe is None:
            raise TrainingFailed("the training worker is not running")
        if b"\n" not in self._lines:
            with selectors.DefaultSelector() as selector:
                selector.register(pipe, selectors.EVENT_READ)
                if not selector.select(WATCH_S):
                    return None
            part = os.read(pipe.fileno(), 2**16)
            if not part:
                self.stop()
                raise TrainingFailed("the training worker ended")
            self._lines += part
        line, newline, rest = self._lines.partition(b"\n")
        if not newline:
            return None
        self._lines = rest
        answer: dict[str, Any] = json.loads(line)
        return answer


def _write(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    try:
        save_file(dict(arrays), path)
    except SafetensorError as error:
        raise TrainingFailed("the base model cannot be written for the worker") from error


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise TrainingFailed("the training worker left no readable update") from error
