"""What a consortium of three hospitals costs beside the same training in one plain process.

Every part is a real process, started by the public commands, with TLS, gate and receipts on. The plain training runs
before and after, so that a busy machine is busy for both. Exit code 0 however the figures turn out; 1 if a run fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.figures import Figure, show, store
from benchmarks.inputs import CONSENTS, IMAGES, ROUNDS, SITES, TASK, make_images, write_site
from benchmarks.meter import MemoryMeter, cpu_of_ended_s, cpu_of_running_s
from demo.consortium import CommandFailed, Consortium

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
DATASET: Final = "disks"
TERMS: Final = {"permission": "DUO:0000006", "modifiers": []}
# Memory is compared between these rounds; in the first, caches still fill.
SETTLED, LAST = 2, ROUNDS
MEGABYTE: Final = 1e6
RUN_LIMIT_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One consortium from start to stop, as its own records and the kernel tell it."""

    cpu_s: float
    run_cpu_s: float
    submitted_at: float
    run: Mapping[str, Any]
    site_rounds: Mapping[str, Sequence[Mapping[str, Any]]]
    memory: MemoryMeter


def main() -> int:
    """Measure, print the table and store the figures; return the exit code."""
    os.environ.update(ONE_THREAD)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is compiled once, not at each start
    with tempfile.TemporaryDirectory(prefix="filmroom-bench-") as folder:
        root = Path(folder)
        try:
            figures = measure(root)
        except CommandFailed as error:
            print(error, file=sys.stderr)
            return 1
    show("federation", figures)
    print(f"stored in {store('federation', figures)}")
    return 0


def measure(root: Path) -> dict[str, Figure]:
    """Return all figures; everything is written below `root`.

    Raises: CommandFailed.
    """
    _say(f"images and {CONSENTS} consents for each of {len(SITES)} sites")
    _write_inputs(root / "inputs")
    with Consortium(root / "consortium", "bench", SITES) as consortium:
        digest = set_up(consortium, root / "inputs")
        _say("plain training, before")
        plain_s = [plain_cpu_s(root / "inputs")]
        _say(f"the consortium: {ROUNDS} rounds")
        measured = run(consortium, digest)
    _say("plain training, after")
    plain_s.append(plain_cpu_s(root / "inputs"))
    return figures_of(measured, plain_s)


def set_up(consortium: Consortium, inputs: Path) -> str:
    """Make the folders, let the sites join, take data and consents in, and approve; return the task's digest.

    Raises: CommandFailed.
    """
    consortium.root.mkdir()
    task, terms, access = (consortium.root / f"{name}.json" for name in ("task", "terms", "access"))
    task.write_text(json.dumps(TASK))
    terms.write_text(json.dumps(TERMS))
    consortium.set_up_coordinator({"minimum_count": 16})
    consortium.start("coordinator", until="listens")
    consortium.coordinator("partners", "add", "partner", "--to", str(access))
    digest = consortium.coordinator("tasks", "submit", str(task), "--access", str(access)).strip()
    for name in SITES:
        _say(f"{name} joins and takes in its data")
        _set_up_site(consortium, name, inputs / name, terms, digest)
    consortium.stop()
    return digest


def run(consortium: Consortium, digest: str) -> Measured:
    """Start every process, train, stop; return what it took.

    Raises: CommandFailed if a process or the run fails.
    """
    before = cpu_of_ended_s()
    with MemoryMeter(lambda: _pids(consortium)) as memory:
        consortium.start("coordinator", until="listens")
        for name in SITES:
            consortium.start(name, until="connected")
        started_s, submitted_at = cpu_of_running_s(_pids(consortium)), time.time()
        run_name = consortium.coordinator("runs", "start", digest).strip()
        _wait_until_ended(consortium, run_name)
        run_cpu_s = cpu_of_running_s(_pids(consortium)) - started_s
        consortium.stop()
    return Measured(
        cpu_s=cpu_of_ended_s() - before,
        run_cpu_s=run_cpu_s,
        submitted_at=submitted_at,
        run=json.loads(consortium.coordinator("runs", "show", run_name)),
        site_rounds={name: json.loads(consortium.site(name, "rounds", "--json")) for name in SITES},
        memory=memory,
    )


def plain_cpu_s(inputs: Path) -> float:
    """Return the CPU seconds of the plain training, imports included.

    Raises: CommandFailed.
    """
    before = cpu_of_ended_s()
    command = [sys.executable, "-m", "benchmarks.plain", str(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailed(command, done.returncode, done.stderr)
    return cpu_of_ended_s() - before


def figures_of(measured: Measured, plain_s: Sequence[float]) -> dict[str, Figure]:
    """Return every figure beside its bar."""
    rounds = {int(row["round"]): row for row in measured.run["rounds"]}
    gaps = [rounds[n]["first_byte_at"] - rounds[n]["last_reply_at"] for n in range(1, ROUNDS)]
    lengths = [rounds[n]["closed_at"] - rounds[n]["opened_at"] for n in range(1, ROUNDS + 1)]
    guards = [row["gate_s"] + row["receipt_s"] for rows in measured.site_rounds.values() for row in rows]
    plain = float(np.mean(plain_s))
    used = {n: measured.memory.sum_of_peaks(rounds[n]["opened_at"], rounds[n]["closed_at"]) for n in (SETTLED, LAST)}
    return {
        "CPU: consortium / plain": Figure(measured.cpu_s / plain, 1.5, "ratio"),
        "CPU: consortium, start to stop": Figure(measured.cpu_s, None, "s"),
        "CPU: consortium, submit to finished": Figure(measured.run_cpu_s, None, "s"),
        "CPU: plain, before": Figure(plain_s[0], None, "s"),
        "CPU: plain, after": Figure(plain_s[1], None, "s"),
        "submit to round 1": Figure(rounds[1]["opened_at"] - measured.submitted_at, 6.0, "s"),
        "last reply to next first byte, longest": Figure(max(gaps), 0.3, "s"),
        "last reply to next first byte, median": Figure(float(np.median(gaps)), 0.3, "s"),
        "last release to next first byte, longest": Figure(_longest_from_release(measured, rounds), None, "s"),
        "round, median": Figure(float(np.median(lengths)), None, "s"),
        "gate and receipt, longest": Figure(max(guards), 0.2, "s"),
        "memory of all processes, peak": Figure(measured.memory.peak() / MEGABYTE, 2500.0, "MB"),
        f"memory, round {LAST} over round {SETTLED}": Figure((used[LAST] - used[SETTLED]) / MEGABYTE, 30.0, "MB"),
    }


def _longest_from_release(measured: Measured, rounds: Mapping[int, Mapping[str, Any]]) -> float:
    """Return the longest time from the last site's committed release, not yet sent, to the next round's first byte."""
    committed = dict.fromkeys(range(1, ROUNDS), 0.0)
    for rows in measured.site_rounds.values():
        for row in rows:
            if row["kind"] == "train" and row["round"] in committed:
                at = datetime.fromisoformat(row["recorded_at"]).timestamp()
                committed[row["round"]] = max(committed[row["round"]], at)
    return max(float(rounds[number]["first_byte_at"]) - at for number, at in committed.items())


def _write_inputs(folder: Path) -> None:
    since = f"{datetime.now(UTC) - timedelta(days=60):%Y-%m-%dT%H:%M:%SZ}"
    for place, name in enumerate(SITES):
        images = make_images(place)
        write_site(name, images, folder / name, since)
        np.savez(folder / f"{name}.npz", images=images.images, labels=images.labels)


def _set_up_site(consortium: Consortium, name: str, inputs: Path, terms: Path, digest: str) -> None:
    consortium.set_up_site(name, {"training_threads": 1})
    taken = json.loads(consortium.site(name, "ingest", str(inputs / "dicom"), "--json"))
    until = f"{datetime.now(UTC) + timedelta(days=365):%Y-%m-%d}"
    for command in (
        ("labels", str(inputs / "labels.csv")),
        ("consents", "load", str(inputs / "consents.ndjson")),
        ("datasets", "register", DATASET, "--terms", str(terms), "--by", "steward"),
        ("datasets", "approve", DATASET, "--by", "manager"),
        ("tasks", "list"),
        ("requests", "draft", DATASET, "--task", digest, "--by", "applicant", "--submit"),
        ("requests", "approve", "1", "--by", "manager", "--until", until),
        ("requests", "confirm", "1", "--by", "director"),
        ("tasks", "approve", digest, DATASET, "--by", "manager"),
    ):
        consortium.site(name, *command)
    studies = json.loads(consortium.site(name, "cohort", digest, "--json"))
    permitted = sum(study["outcome"] == "permit" for study in studies)
    if permitted != IMAGES:
        raise CommandFailed(["cohort"], 1, f"{name}: {permitted} of {IMAGES} studies are permitted; intake: {taken}")


def _wait_until_ended(consortium: Consortium, run_name: str) -> None:
    """Watch the coordinator's log: asking by a command would cost CPU of its own."""
    end = time.monotonic() + RUN_LIMIT_S
    while f"{run_name} finished" not in (log := consortium.log("coordinator")):
        if f"{run_name} failed" in log or time.monotonic() > end:
            raise CommandFailed(["runs", "start"], 1, "".join([log, *map(consortium.log, SITES)]))
        time.sleep(0.1)


def _pids(consortium: Consortium) -> list[int]:
    return [pid for pids in consortium.pids().values() for pid in pids]


def _say(line: str) -> None:
    print(f"· {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
