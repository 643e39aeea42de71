"""A hospital without images: a database with a catalogue, consents and decisions, all invented.

The studies are rows; nothing reads a file. `Line` and `Trainer` stand where the network and the worker stand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from consent import NO_PREVIOUS, Deny, RequestForm, generate_signing_key
from demo.task import TASK
from models import model_digest, parse_task
from site_node import access_requests, consents, permissions, sources
from site_node.config import SiteConfig, SiteHome
from site_node.deidentify.profile import Options
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import PeerError
from site_node.gate import Gate, research_purpose
from site_node.intake.folder import MAX_BYTES, Intake
from site_node.link import Incoming
from site_node.reidentification import Vault
from site_node.rounds import Rounds
from site_node.store import instance
from site_node.training import Trained
from site_node.witnesses import Witnesses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models import Task
    from site_node.cohort import Item

    Arrays = Mapping[str, NDArray[np.generic]]

# Flower builds a message in the name of a task; here no coordinator sets one.
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PROJECT = str(TASK["project"])
PSEUDONYMS = Pseudonymiser(bytes(range(32)))
TERMS = {"permission": "DUO:0000006", "modifiers": []}
PERMIT = {
    "kind": "data-permit",
    "reference": "DE-2026-17",
    "issued_on": "2026-01-01",
    "valid_until": "2026-12-31",
    "purposes": ["HRESCH"],
    "recipients": ["urn:filmroom:federation|demo"],
}
TASK_DOCUMENT = json.dumps(TASK).encode()


def intake_of(
    root: Path, store: sa.Engine, pseudonymiser: Pseudonymiser = PSEUDONYMS, max_bytes: int = MAX_BYTES
) -> Intake:
    """Return where a site takes images in, by the rules that are as by default."""
    return Intake(root, store, pseudonymiser, Options(), Vault(bytes(32), pseudonymiser), max_bytes)


def consent_of(patient_id: str, kind: str = "permit", **elements: Any) -> dict[str, Any]:
    """Return an R4 Consent to health research; `elements` replace its own."""
    research = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}
    purpose = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HRESCH"}
    return {
        "resourceType": "Consent",
        "id": f"consent-{patient_id}",
        "status": "active",
        "scope": {"coding": [research]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "57016-8"}]}],
        "patient": {"identifier": {"value": patient_id}},
        "dateTime": "2026-01-01T00:00:00Z",
        "policy": [{"uri": "urn:example:policy"}],
        "provision": {"type": kind, "purpose": [purpose]},
    } | elements


def bundle(*resources: Mapping[str, Any]) -> bytes:
    """Return a FHIR Bundle of the resources."""
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()


def add_study(store: sa.Engine, patient_id: str, study: str = "", study_date: str | None = "2026-03-12") -> str:
    """Put one labelled series into the catalogue and return its StudyInstanceUID."""
    patient, study = PSEUDONYMS.patient(patient_id), study or f"2.25.1{patient_id.removeprefix('N')}"
    rows: list[dict[str, Any]] = [
        {"Modality": "MR", "SeriesInstanceUID": f"{study}.{patient}.1", "references_series": None},
        {"Modality": "SEG", "SeriesInstanceUID": f"{study}.{patient}.2", "references_series": f"{study}.{patient}.1"},
    ]
    with store.begin() as db:
        for row in rows:
            uid = f"{row['SeriesInstanceUID']}.1"
            db.execute(
                sa.insert(instance).values(
                    SOPInstanceUID=uid,
                    StudyInstanceUID=study,
                    SOPClassUID="1.2",
                    patient=patient,
                    study_date=study_date,
                    path=f"deidentified/{uid}.dcm",
                    sha256="0" * 64,
                    **row,
                )
            )
    return study


def form_of(dataset: str, project: str = PROJECT, document: bytes = TASK_DOCUMENT) -> RequestForm:
    """Return what a task asks for."""
    return RequestForm(dataset, project, research_purpose(parse_task(document)))


def grant(store: sa.Engine, dataset: str, at: datetime, expires_at: datetime, document: bytes = TASK_DOCUMENT) -> int:
    """Let the request of a task go its whole way, and return its number."""
    made = access_requests.draft(store, form_of(dataset, document=document), "applicant", at)
    assert not isinstance(made, Deny)
    for answer in (
        access_requests.submit(store, made.number, "applicant", at),
        access_requests.approve(store, made.number, "manager", at, expires_at, words="as a test"),
        access_requests.confirm(store, made.number, "director", at),
    ):
        assert not isinstance(answer, Deny)
    return made.number


@dataclass(slots=True)
class Clock:
    """A clock that stands still until it is moved; `on_tick` happens at each reading, as in a busy hospital."""

    now: datetime = NOON
    on_tick: Callable[[], None] = lambda: None

    def __call__(self) -> datetime:
        """Return the moment."""
        self.on_tick()
        return self.now


@dataclass(slots=True)
class Trainer:
    """Makes weights at once; `during` happens while it trains, and then it asks whether it may go on."""

    arrays: Arrays = field(default_factory=lambda: {"float32": np.full(3, 0.5, np.float32)})
    metrics: Mapping[str, float] = field(default_factory=lambda: {"train_loss": 0.25, "dice": 0.5})
    during: Callable[[], None] = lambda: None
    used: list[tuple[Item, ...]] = field(default_factory=list)
    forgotten: int = 0

    def forget(self) -> None:
        """Count how often nothing was to be kept."""
        self.forgotten += 1

    def run(
        self,
        what: str,
        _task: Task,
        may_go_on: Callable[[], bool],
        *,
        round_number: int = 0,
        base: Arrays | None = None,
        items: Sequence[Item] = (),
    ) -> Trained | None:
        """Return the weights; None if the work may not go on."""
        assert round_number >= 0
        assert (base is None) == (what == "initialise")
        self.used.append(tuple(items))
        self.during()
        return Trained(self.arrays, self.metrics, "[]") if may_go_on() else None


@dataclass(slots=True)
class Line:
    """Keeps what was handed over; the next `failures` hand-overs raise."""

    message: Message | None = None
    sent: list[tuple[str, str, Any]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def announce(self) -> None:
        """Announce nothing."""

    def fetch(self, _incoming: Incoming) -> Message:
        """Return the message."""
        assert self.message is not None
        return self.message

    def release(self, head: Message, arrays: Arrays, metrics: Mapping[str, float], receipt: bytes) -> None:
        """Keep a release."""
        self._keep("release", head, (dict(arrays), dict(metrics), receipt))

    def release_initial(self, head: Message, arrays: Arrays, layout: str, *, whole: bool) -> None:
        """Keep an untrained model."""
        self._keep("initial", head, (dict(arrays), layout, whole))

    def abstain(self, head: Message) -> None:
        """Keep an abstention."""
        self._keep("abstain", head, None)

    @property
    def kinds(self) -> list[str]:
        """What was handed over, in order."""
        return [kind for kind, _, _ in self.sent]

    def _keep(self, kind: str, head: Message, content: object) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append((kind, head.metadata.message_id, content))


class PowerCut(BaseException):
    """The process is gone at this moment."""


class Hospital:
    """A site with patients N0, N1, …, all of whom permit, and a task that may run on them."""

    def __init__(
        self, home: SiteHome, store: sa.Engine, patients: int = 4, minimum: int = 2, noon: datetime = NOON
    ) -> None:
        for folder in (home.outbox, home.work):
            folder.mkdir(exist_ok=True)
        self.home, self.store, self.noon = home, store, noon
        self.config = SiteConfig("north", minimum_studies=minimum, max_consent_age_h=24 * 365.0)
        self.clock, self.trainer, self.line = Clock(noon), Trainer(), Line()
        self.key = generate_signing_key()
        self.witnesses = Witnesses((), 0, _no_line)
        self.said: list[str] = []
        self.base = {"float32": np.zeros(3, np.float32)}
        self.studies = {f"N{number}": add_study(store, f"N{number}") for number in range(patients)}
        self.load(*map(consent_of, self.studies))
        early = noon - timedelta(days=1)
        permissions.register_dataset(store, "brain-mr", TERMS, "MR", "steward", early)
        permissions.approve_dataset(store, "brain-mr", "manager", early)
        self.request = grant(store, "brain-mr", early, noon + timedelta(days=30))
        self.task = permissions.keep_task(store, TASK_DOCUMENT, early)
        permissions.approve_task(store, self.task, "brain-mr", "manager", early)
        self.restart()

    def restart(self) -> None:
        """Begin again as a new process would, with what is on disk."""
        self.gate = Gate(self.store, "demo", self.config.minimum_studies, self.config.max_consent_age)
        self.rounds = Rounds(
            self.home,
            self.config,
            self.store,
            self.gate,
            self.trainer,  # type: ignore[arg-type] # the same interface, without a process
            ("demo", "north"),
            self.key,
            self.clock,
            self.said.append,
            self.witnesses,
        )

    def load(self, *resources: Mapping[str, Any]) -> consents.Loaded:
        """Load consents."""
        loaded = consents.load(self.store, bundle(*resources), PSEUDONYMS, self.clock.now)
        sources.note(self.store, "file", self.clock.now, self.clock.now)
        return loaded

    def withdraw(self, patient_id: str) -> None:
        """Let a patient withdraw."""
        consents.withdraw(self.store, PSEUDONYMS.patient(patient_id), self.clock.now)

    def revoke(self) -> None:
        """Take the task's approval back."""
        permissions.revoke_task(self.store, self.task, "manager", self.clock.now)

    def revoke_grant(self) -> None:
        """Take the project's grant back."""
        answer = access_requests.revoke(self.store, self.request, "as a test", "director", self.clock.now)
        assert not isinstance(answer, Deny)

    def instruction(self, **values: Any) -> dict[str, Any]:
        """Return an instruction this site can follow; `values` replace its own."""
        return {
            "kind": "train",
            "run": "run-1",
            "round": 1,
            "task": self.task,
            "nonce": "nonce-1",
            "base_model": model_digest(self.base),
            "sent_at": self.noon.isoformat(),
            "deadline": (self.noon + timedelta(minutes=5)).isoformat(),
            "receipt_head": NO_PREVIOUS,
            "log_size": 0,
            "carried_receipt": NO_PREVIOUS,
        } | values

    def ask(self, message_id: str = "m1", **values: Any) -> str:
        """Send an instruction and return the kind of the last answer."""
        self.line.message = message(self.instruction(**values), self.base, message_id)
        self.take_part()
        return self.line.kinds[-1]

    def take_part(self) -> None:
        """Answer the message on the line."""
        assert self.line.message is not None
        head = message(None, {}, self.line.message.metadata.message_id)
        self.rounds.take_part(self.line, Incoming(head, None))  # type: ignore[arg-type] # the line is ours

    def resume(self) -> None:
        """Answer what was left from before a restart."""
        self.rounds.resume(self.line)  # type: ignore[arg-type] # the line is ours

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        """Return a table."""
        with self.store.connect() as db:
            return [dict(row) for row in db.execute(sa.select(table)).mappings()]


def _no_line(_witness: str, _request: bytes) -> tuple[int, str]:
    raise lost_line()


def message(instruction: Mapping[str, Any] | None, base: Arrays, message_id: str) -> Message:
    """Return a message as the coordinator sends it; without an instruction only its head."""
    content = RecordDict()
    if instruction is not None:
        content["instruction"] = ConfigRecord(dict(instruction))
        content["arrays"] = ArrayRecord({name: Array(np.asarray(array)) for name, array in base.items()})
    made = Message(content, dst_node_id=7, message_type="train")
    made.metadata.__dict__["_message_id"] = message_id
    return made


def lost_line() -> PeerError:
    """Return what a broken connection raises."""
    return PeerError("handing over a reply: ConnectError")
