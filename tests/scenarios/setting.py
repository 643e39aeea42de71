"""A small consortium of real processes on this machine: two hospitals, few patients, a short task."""

from __future__ import annotations

import json
import shutil
import time
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from demo.hospitals import make_inbox
from demo.task import TASK
from site_node.cohort import is_validation
from site_node.deidentify.pseudonym import Pseudonymiser
from tests.site_node.hospital import TERMS, bundle, consent_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from demo.consortium import Consortium
    from demo.consortium import Setting as Value
    from demo.hospitals import HospitalName, Inbox

PATIENTS: Final = 6
SITES: Final[tuple[HospitalName, HospitalName]] = ("north", "east")
WAIT_S: Final = 120.0


def short_task(rounds: int = 2, local_epochs: int = 1, quorum: int = 2) -> dict[str, Any]:
    """Return the demo's task, with fewer rounds and epochs."""
    strategy = {"name": "FedAvg", "quorum": quorum, "deadline_s": 60, "max_update_norm": 1000.0}
    return TASK | {"rounds": rounds, "local_epochs": local_epochs, "strategy": strategy}


class Setting:
    """A consortium whose coordinator serves; hospitals are added, made ready and started by name."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        self.root = consortium.root
        self.inboxes: dict[str, Inbox] = {}

    def open_coordinator(self, settings: Mapping[str, Value] | None = None) -> None:
        """Set the coordinator up, with a partner, and start it."""
        self.consortium.set_up_coordinator({"record_arrivals": "arrivals", "minimum_count": 2, **(settings or {})})
        self.consortium.start("coordinator", until="listens")
        self.consortium.coordinator("partners", "add", "acme", "--to", str(self.root / "acme.json"))

    def submit(self, task: Mapping[str, Any]) -> str:
        """Offer a task as the partner and return its digest."""
        document = self.root / "task.json"
        document.write_text(json.dumps(task))
        access = str(self.root / "acme.json")
        return self.consortium.coordinator("tasks", "submit", str(document), "--access", access).strip()

    def admit(self, name: HospitalName, settings: Mapping[str, Value] | None = None, silent: int = 0) -> None:
        """Let a hospital join, take its patients' images in, and load their consents.

        All permit, but the first `silent` patients, of whom there is no consent yet.
        """
        self.consortium.set_up_site(name, {"minimum_studies": 2, **(settings or {})})
        folder = self.root / "inbox" / name
        self.inboxes[name] = make_inbox(name, folder, PATIENTS, seed=7)
        shutil.rmtree(folder / "public")
        self.consortium.site(name, "ingest", str(folder))
        self.permit(name, *self.patients(name)[silent:])

    def permit(self, name: str, *patients: str) -> None:
        """Load consents of these patients, who permit."""
        consents = self.root / f"{name}.consents.json"
        consents.write_bytes(bundle(*(consent_of(patient) for patient in patients)))
        self.consortium.site(name, "consents", "load", str(consents))

    def approve(self, name: str, digest: str) -> None:
        """Decide everything a hospital decides so that the task may run."""
        terms = self.root / "terms.json"
        terms.write_text(json.dumps(TERMS))
        for command in (
            ("datasets", "register", "brain-mr", "--terms", str(terms), "--by", "steward"),
            ("datasets", "approve", "brain-mr", "--by", "manager"),
            ("tasks", "list"),
            ("requests", "draft", "brain-mr", "--task", digest, "--by", "applicant", "--submit"),
            ("requests", "approve", "1", "--by", "manager", "--until", "2099-12-31"),
            ("requests", "confirm", "1", "--by", "director"),
            ("tasks", "approve", digest, "brain-mr", "--by", "manager"),
        ):
            self.consortium.site(name, *command)

    def ready(self, task: Mapping[str, Any], silent: int = 0) -> str:
        """Bring coordinator and both hospitals up for the task and return its digest; `silent` as for north.

        The task's seed is such that north's first patient is trained on, and does not measure the model instead.
        """
        self.open_coordinator()
        for name in SITES:
            self.admit(name, silent=silent if name == "north" else 0)
        first = self.pseudonymiser("north").patient(self.patients("north")[0])
        fraction = task["validation_fraction"]
        digest = self.submit({**task, "seed": next(n for n in count(1) if not is_validation(first, fraction, n))})
        for name in SITES:
            self.approve(name, digest)
        for name in SITES:
            self.consortium.start(name, until="connected")
        return digest

    def start_run(self, digest: str) -> str:
        """Start a run and return its name."""
        return self.consortium.coordinator("runs", "start", digest).strip()

    def finish(self, run: str) -> dict[str, Any]:
        """Wait until the run has finished, have it audited, and return its record."""
        self.consortium.coordinator("runs", "wait", run)
        self.consortium.coordinator("audit", run)
        record: dict[str, Any] = json.loads(self.consortium.coordinator("runs", "show", run))
        return record

    def rounds(self, name: str) -> list[dict[str, Any]]:
        """Return what a hospital did, in order."""
        found: list[dict[str, Any]] = json.loads(self.consortium.site(name, "rounds", "--json"))
        return found

    def pseudonymiser(self, name: str) -> Pseudonymiser:
        """Return what gives a hospital's pseudonyms."""
        return Pseudonymiser((self.consortium.home(name) / "identity" / "pseudonym.key").read_bytes())

    def patients(self, name: str) -> list[str]:
        """Return the hospital's PatientIDs."""
        return [patient.patient_id for patient in self.inboxes[name].patients]

    def await_log(self, name: str, words: str) -> None:
        """Wait until a program has printed the words."""
        wait_until(lambda: words in self.consortium.log(name), f"{name} says {words!r}")


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Return as soon as it holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


def counted(record: Mapping[str, Any], number: int) -> list[str]:
    """Return the sites whose updates made the model of a round."""
    return [
        made["site"]
        for made in record["contributions"]
        if (made["round"], made["kind"], made["outcome"]) == (number, "train", "counted")
    ]
