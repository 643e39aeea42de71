"""CPU seconds and memory of a consortium's processes.

The kernel's own account of ended children is exact; what still runs is asked while it runs. The memory of several
processes together is their PSS, which counts a shared page once.
"""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EVERY_S = 0.25


class Memory(NamedTuple):
    """PSS of each process, by its id, at a moment (seconds since the epoch)."""

    at: float
    pss_bytes: dict[int, int]


def cpu_of_ended_s() -> float:
    """Return the CPU seconds of all children, and of theirs, that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_of_running_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds that running processes have used so far."""
    used = 0.0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            used += times.user + times.system
    return used


class MemoryMeter:
    """Samples the memory of the processes that `pids` names, as long as the block lasts."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids
        self._samples: list[Memory] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Self:
        """Begin to sample."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def peak(self) -> int:
        """Return the highest sum that was seen, in bytes; 0 if none was taken."""
        return max((sum(sample.pss_bytes.values()) for sample in self._samples), default=0)

    def sum_of_peaks(self, since: float, until: float) -> int:
        """Return the sum of each process's own highest PSS between two moments, in bytes.

        Unlike the sum at a moment, it does not depend on which processes happen to be busy together.
        """
        highest: Counter[int] = Counter()
        for sample in self._samples:
            if since <= sample.at <= until:
                highest |= Counter(sample.pss_bytes)
        return highest.total()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._samples.append(Memory(time.time(), {pid: _pss(pid) for pid in self._pids()}))


def _pss(pid: int) -> int:
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_full_info().pss)
    return 0
