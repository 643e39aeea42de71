"""CPU seconds of a consortium's processes, sampled while they live: a killed process takes its count with it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from demo.consortium import Consortium

EVERY_S = 0.5


class Meter:
    """Adds up the CPU seconds (user and system) of every process that ever ran."""

    def __init__(self, consortium: Consortium) -> None:
        self._consortium = consortium
        self._seen: dict[tuple[int, float], float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin to sample."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Sample a last time and stop."""
        self._stop.set()
        self._thread.join()

    def total(self) -> float:
        """Return the CPU seconds until now."""
        with self._lock:
            self._sample()
            return sum(self._seen.values())

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.total()

    def _sample(self) -> None:
        for pids in self._consortium.pids().values():
            for pid in pids:
                with suppress(psutil.Error):
                    process = psutil.Process(pid)
                    times = process.cpu_times()
                    self._seen[pid, process.create_time()] = times.user + times.system
