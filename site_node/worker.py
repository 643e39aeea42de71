"""The process that trains: long-lived, started by the hospital, fed by lines of JSON.

It has no line out and no keys. It ends when its standard input ends, so it never outlives the node. What a job does is
written in `site_node.jobs`, which is imported only here, after the frameworks were loaded the lean way.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from models.learning.frameworks import load_frameworks
from models.memory import give_back, keep_large_blocks, loading, share_one_arena

if TYPE_CHECKING:
    from site_node.jobs import Job


class Desk:
    """Where jobs arrive and answers leave; an abort overtakes the jobs."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.aborted = threading.Event()
        threading.Thread(target=self._read, name="jobs", daemon=True).start()

    def say(self, event: str, **detail: object) -> None:
        """Write one answer."""
        sys.stdout.write(json.dumps({"event": event, **detail}) + "\n")
        sys.stdout.flush()

    def progress(self, done: int, total: int) -> None:
        """Say how many batches of a job are done."""
        self.say("progress", done=done, total=total)

    def _read(self) -> None:
        for line in sys.stdin:
            job = json.loads(line)
            if job["do"] == "abort":
                self.aborted.set()
            else:
                self.jobs.put(job)
        os._exit(0)  # the node is gone; whatever is being computed is void


def main() -> None:
    """Serve jobs until the node closes the desk."""
    root, threads = Path(sys.argv[1]), int(sys.argv[2])
    share_one_arena()
    keep_large_blocks()
    with loading():
        load_frameworks()
        work = import_module("site_node.jobs")
    desk, jobs = Desk(), work.Jobs(root, threads)
    desk.say("ready")
    while True:
        job = desk.jobs.get()
        if job["do"] == "forget":
            jobs.forget()
            give_back()
            continue
        desk.aborted.clear()
        try:
            desk.say("done", **jobs.do(job, desk.aborted.is_set, desk.progress))
        except work.TrainingAborted:
            desk.say("aborted")
        except work.FAILURES as error:
            desk.say("failed", kind=type(error).__name__)
        give_back()


if __name__ == "__main__":
    main()
