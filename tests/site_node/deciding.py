"""What processes of their own do with requests: decide at once with others, or go on until they are killed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from consent import RequestForm, ResearchKind, ResearchPurpose
from site_node import access_requests
from site_node.store import open_store

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
END = AT + timedelta(days=30)


def decide_at_once(path: Path, act: str, count: int, barrier: Barrier, results: Queue[tuple[int, str, bool]]) -> None:
    """Try one act on each of the first `count` requests, each at the same moment as another process."""
    store = open_store(path)
    acts = {
        "approve": lambda number: access_requests.approve(store, number, "manager", AT, END),
        "approve too": lambda number: access_requests.approve(store, number, "director", AT, END),
        "reject": lambda number: access_requests.reject(store, number, "no", "director", AT),
        "confirm": lambda number: access_requests.confirm(store, number, "director", AT),
        "give back": lambda number: access_requests.give_back(store, number, "more please", "dean", AT),
    }
    for number in range(1, count + 1):
        barrier.wait()
        results.put((number, act, isinstance(acts[act](number), access_requests.Numbered)))
    store.dispose()


def decide_for_ever(path: Path) -> None:
    """Grant and revoke, and print after each that it was done."""
    store = open_store(path)
    form = RequestForm("mr", "tissue", ResearchPurpose(ResearchKind.HEALTH, methods_development=True))
    print("busy", flush=True)  # noqa: T201 -- the other process waits for it
    while True:
        made = access_requests.draft(store, form, "applicant", AT)
        if isinstance(made, access_requests.Numbered):
            access_requests.submit(store, made.number, "applicant", AT)
            access_requests.approve(store, made.number, "manager", AT, END)
            access_requests.confirm(store, made.number, "director", AT)
            access_requests.revoke(store, made.number, "over", "director", AT)
            print(made.number, flush=True)  # noqa: T201 -- as above


if __name__ == "__main__":
    decide_for_ever(Path(sys.argv[1]))
