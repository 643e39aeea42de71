"""What consents cost at scale: loading them, freezing a cohort, and asking again before a release.

A freeze goes from the task's digest to the permitted items, with a verdict for every study asked about; a trace is made
of a verdict when it is read. Each size has a database of its own, made by the commands' own code; the gate is asked in
a process of its own, whose peak memory the kernel tells. Sizes are numbers of consents: the default is 10,000.

`python -m benchmarks.consent [--folder DIR] [SIZE ...]`; a database that is in DIR already is used again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from benchmarks.figures import Figure, show, store
from benchmarks.inputs import TASK
from benchmarks.population import (
    ASKED_MODALITY,
    CONSENTS_PER_PATIENT,
    NOW,
    add_catalogue,
    first_consents,
    ndjson,
    newer_versions,
    patient_id,
)
from consent import Deny, RequestForm
from models import parse_task
from site_node import access_requests, consents, permissions, sources
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.gate import Gate, Snapshot, research_purpose
from site_node.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import sqlalchemy as sa

_Answer = TypeVar("_Answer")
PSEUDONYMS: Final = Pseudonymiser(bytes(range(32)))
A_FILE: Final = 5000  # patients
FULL: Final = 1_000_000
DOCUMENT: Final = json.dumps(
    TASK | {"input": TASK["input"] | {"modality": ASKED_MODALITY}, "purpose": TASK["purpose"] | {"outside_gdpr": False}}
).encode()


def main() -> int:
    """Measure every size, print the table and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000])
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="filmroom-bench-") as passing:
        figures: dict[str, Figure] = {}
        for size in asked.sizes:
            figures |= measure(asked.folder or Path(passing), size)
    show("consent", figures)
    print(f"stored in {store('consent', figures)}")
    return 0


def measure(folder: Path, size: int) -> dict[str, Figure]:
    """Return the figures of a site with about `size` consents; its database is made below `folder` if need be."""
    path = folder / f"{size}.db"
    figures = {} if path.exists() else build(path, size)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as serving:
        measured = serving.submit(ask, path).result()
    full = size >= FULL
    bars = {"freeze": 2.0, "re-check, nothing changed": 0.5, "peak memory": 500.0} if full else {}
    figures |= {
        f"{size:,}: {name}": Figure(value, bars.get(name.removesuffix(", CPU")), unit)
        for name, (value, unit) in measured.items()
    }
    return figures


def build(path: Path, size: int) -> dict[str, Figure]:
    """Make the database of a site; return what loading took."""
    site = open_store(path)
    patients = range(round(size / CONSENTS_PER_PATIENT))
    taken, used = 0, 0.0
    for versions in (first_consents, newer_versions):
        for start in range(0, patients.stop, A_FILE):
            document = ndjson(versions(range(start, min(start + A_FILE, patients.stop))))
            before = time.process_time()
            taken += consents.load(site, document, PSEUDONYMS, NOW).records
            used += time.process_time() - before
    for number in range(0, patients.stop, 200):
        consents.withdraw(site, PSEUDONYMS.patient(patient_id(number)), NOW)
    sources.note(site, "file", NOW, NOW)
    studies = add_catalogue(site, PSEUDONYMS, patients)
    _approve(site)
    site.dispose()
    return {
        f"{size:,}: consents taken": Figure(taken, None, "records"),
        f"{size:,}: studies": Figure(studies, None, "studies"),
        f"{size:,}: loading": Figure(taken / used, None, "records / CPU s", "min"),
        f"{size:,}: database": Figure(path.stat().st_size / 1e6, None, "MB"),
    }


def ask(path: Path) -> Mapping[str, tuple[float, str]]:
    """Ask a gate as a node does from its start on; return what it took, by name, with units."""
    site = open_store(path)
    digest = permissions.keep_task(site, DOCUMENT, NOW)
    gate = Gate(site, "bench", 2, timedelta(days=1))
    measured: dict[str, tuple[float, str]] = {}

    def timed(name: str, asking: Callable[[], _Answer]) -> _Answer:
        wall, cpu = time.perf_counter(), time.process_time()
        answer = asking()
        measured[name] = (time.perf_counter() - wall, "s")
        measured[f"{name}, CPU"] = (time.process_time() - cpu, "s")
        return answer

    timed("start of the node", lambda: gate.warm(NOW))
    frozen = timed("freeze", lambda: gate.snapshot(digest, NOW))
    if not isinstance(frozen, Snapshot):
        raise RuntimeError(frozen.reason)  # noqa: TRY004 -- the site was set up wrongly
    measured["studies asked about"] = (len(frozen.cohort.verdicts), "studies")
    measured["studies permitted"] = (len(frozen.cohort.studies), "studies")
    timed("re-check, nothing changed", lambda: gate.recheck(frozen, NOW))
    consents.withdraw(site, PSEUDONYMS.patient("nobody"), NOW)
    timed("re-check, another withdrew", lambda: gate.recheck(frozen, NOW))
    timed("freeze, another withdrew", lambda: gate.snapshot(digest, NOW))
    measured["peak memory"] = (_peak_memory(), "MB")
    site.dispose()
    return measured


def _peak_memory() -> float:
    """Return this process's peak of resident memory in MB; getrusage would count its parent's from before exec."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def _approve(site: sa.Engine) -> None:
    terms: dict[str, Any] = {"permission": "DUO:0000006", "modifiers": []}
    early = NOW - timedelta(days=1)
    permissions.register_dataset(site, "chest", terms, ASKED_MODALITY, "steward", early)
    permissions.approve_dataset(site, "chest", "manager", early)
    task = parse_task(DOCUMENT)
    form = RequestForm("chest", task.project, research_purpose(task))
    made = access_requests.draft(site, form, "applicant", early)
    if isinstance(made, Deny):
        raise RuntimeError(made.reason)  # noqa: TRY004 -- the site was set up wrongly
    access_requests.submit(site, made.number, "applicant", early)
    access_requests.approve(site, made.number, "manager", early, NOW + timedelta(days=30), words="to measure")
    access_requests.confirm(site, made.number, "director", early)
    permissions.approve_task(site, permissions.keep_task(site, DOCUMENT, early), "chest", "manager", early)


if __name__ == "__main__":
    raise SystemExit(main())
