"""Runs the coordinator: two listeners, and one run at a time.

A run that was interrupted goes on from its last closed round.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from coordinator import members, runs, tasks
from coordinator.api import member_pages, open_door
from coordinator.app import now
from coordinator.errors import ConfigurationError, CoordinatorError
from coordinator.fleet import Fleet
from coordinator.listener import Limited, Listener
from coordinator.provenance import provenance, write_bundle
from coordinator.runs import RunRecord
from coordinator.strategy import ConsentedAveraging, record_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from coordinator.app import Coordinator
    from coordinator.config import CoordinatorConfig, CoordinatorHome
    from coordinator.listener import Arrivals

POLL_S = 0.1
# A task, a join request: nothing through the open door is large.
MAX_DOOR_BYTES = 128 * 2**10


def serve(coordinator: Coordinator, say: Callable[[str], None], stopping: threading.Event) -> None:
    """Listen, and carry out the runs that are requested, until `stopping` is set.

    Raises: ConfigurationError if a port is in use or another coordinator runs in this folder.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)
    home, config, store = coordinator.home, coordinator.config, coordinator.store
    with _alone(home):
        coordinator.authority.statement_signer(config.federation, now())  # made here, before several threads ask
        arrivals = _recorder(home, config)
        fleet = Fleet(
            home.fleet_database,
            (config.host, config.fleet_port),
            coordinator.authority,
            member_pages(
                store,
                config.federation,
                now,
                say,
                lambda: coordinator.authority.statement_signer(config.federation, now()),
                config.witness_addresses,
            ),
            partial(members.admits, store),
            config.hold_s,
            arrivals,
        )
        door = open_door(store, config.federation, coordinator.authority, fleet.register, home.runs, now)
        limited = Limited(door, MAX_DOOR_BYTES, arrivals)
        address = (config.host, config.join_port)
        joining = Listener(limited, address, coordinator.authority, client_certificates=False)
        fleet.start()
        try:
            joining.start()
            say(f"{config.federation} listens on {config.host}, ports {config.fleet_port} and {config.join_port}")
            while not stopping.is_set():
                wanted = runs.next_open(store)
                if wanted is None:
                    stopping.wait(POLL_S)
                else:
                    _carry_out(coordinator, fleet, wanted, say, stopping)
        finally:
            joining.stop()
            fleet.stop()


def _carry_out(
    coordinator: Coordinator,
    fleet: Fleet,
    wanted: tuple[str, str],
    say: Callable[[str], None],
    stopping: threading.Event,
) -> None:
    """Carry out one run and note how it ended, unless a withdrawal ended it meanwhile."""
    name, digest = wanted
    record = RunRecord(coordinator.store, coordinator.home.runs, name)
    task = tasks.find(coordinator.store, digest)

    def unwanted() -> bool:
        return stopping.is_set() or not record.is_open()

    def end(state: str, detail: str) -> None:
        if record.end(state, detail, now()):
            say(f"{name} {state}{': ' if detail else ''}{detail}")
        else:
            say(f"{name} ended: a contribution to it was withdrawn")

    try:
        record.begin(now())
        strategy = ConsentedAveraging(task, record, coordinator.store, coordinator.config, say, unwanted)
        say(f"{name} starts")
        with fleet.open_run(task.name, digest, record.is_open) as grid:
            if record.last_round() is None:
                strategy.initialise(grid)
            strategy.start(grid, record_of(record.model(record.last_round() or 0)), task.rounds)
        document = provenance(coordinator.store, coordinator.config.federation, name, task)
        write_bundle(record, task, document)
    except CoordinatorError as error:
        if not stopping.is_set():
            end("failed", str(error))
        return
    except Exception as error:  # noqa: BLE001 -- the outermost loop: record it, end this run, and go on serving
        if not stopping.is_set():
            end("failed", f"internal error: {type(error).__name__}")
        return
    end("finished", "")


@contextmanager
def _alone(home: CoordinatorHome) -> Iterator[None]:
    with (home.root / "serve.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"another coordinator is running in {home.root}") from None
        yield


def _recorder(home: CoordinatorHome, config: CoordinatorConfig) -> Arrivals | None:
    """Return what keeps every request's body in a folder, for auditors who must see all that arrived."""
    if not config.record_arrivals:
        return None
    folder = home.root / config.record_arrivals
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    numbers = itertools.count()
    started = time.time_ns()

    def record(path: str, body: bytes) -> None:
        name = f"{started}-{next(numbers):08d}-{path.rpartition('/')[2]}"
        (folder / name).write_bytes(body)

    return record
