"""The running node drills by itself: each kind when it is due, in a process that yields to everything else."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from site_node import alarms
from site_node.drills import record
from site_node.drills.schedule import due

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

    from site_node.drills.rebuilt import Running
    from site_node.drills.report import Mode

LOOK_S = 30.0
STOP_S = 20.0
_NICE = ("nice", "-n", "10")


def keep(running: Running, clock: Callable[[], datetime], ended: threading.Event, say: Callable[[str], None]) -> None:
    """Run what is due, one drill at a time, until the event; one in progress is stopped then, and has failed."""
    pauses = record.pauses(running.config.drills)
    while not ended.wait(LOOK_S):
        mode = _due(running, pauses, clock())
        if mode is not None:
            say(f"drill {mode} begins")
            code = _run(running, mode, ended)
            say(f"drill {mode} {'passed' if code == 0 else 'FAILED: `filmroom-site drill status` says why'}")


def _due(running: Running, pauses: Mapping[Mode, timedelta], at: datetime) -> Mode | None:
    with running.store.connect() as db:
        return due(record.last(db), pauses, at) if alarms.last_good(db) else None


def _run(running: Running, mode: Mode, ended: threading.Event) -> int:
    """Run a drill and return its exit code."""
    command = [*_NICE, sys.executable, "-m", "site_node", "--home", str(running.home.root), "drill", str(mode)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as child:  # noqa: S603 -- our own program
        while child.poll() is None:
            if ended.wait(1.0):
                child.terminate()
                try:
                    child.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    child.kill()
        return child.returncode
