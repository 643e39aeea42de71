"""What a withdrawal reaches: asked before it is recorded, and told of every one that was.

For a console as for the command line:
`preview(store, patient, scope, at) -> Preview` changes nothing;
`record(store, patient, scope, at, by) -> int` records the withdrawal and returns its number;
`recorded(store, gate, at) -> list[Withdrawal]` tells what became of each, and
`find(store, gate, number, at) -> Withdrawal` of one;
`still_permitted(store, gate, patient, at) -> tuple[StillPermitted, ...]` tells what may be used all the same, and
`confirmation.page(withdrawal, site, still) -> str` makes the page for the patient.

A patient is a pseudonym here. What lies within a withdrawal is decided by `consent.decide` on its record alone, so a
preview and the gate cannot differ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

from consent import AccessRequest, Deny, Outcome, Request, decide, may_permit, receipt_digest
from site_node import access_requests, catalogue, consents, lineage, permissions
from site_node.errors import ConfigurationError
from site_node.store import consent_record, frozen_set, instance, outbox, participation, reading, withdrawal_notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consent import ConsentRecord, Provision, Study
    from site_node.consents import WithdrawalScope
    from site_node.gate import Gate
    from site_node.permissions import OfferedTask

POLICIES = {
    "keep": "the model stays in use and is marked as containing withdrawn data",
    "stop-distribution": "the model is marked and no longer handed out",
    "rollback-retrain": "the model is no longer handed out and is trained again without the data",
}
"""A task's `withdrawal_policy` in plain words."""

NO_EFFECT = "nothing was there to be done: no work had been given what was withdrawn"
"""Said of a withdrawal that had no effect."""

Status = Literal["recorded", "refused", "completed"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work of one round that was given `studies` studies within the withdrawal.

    `word` is the coordinator's answer, for an update that was handed over: a `consent.Standing`, or None.
    `refusal` is why it refused for good to hear of it; empty if it did not.
    """

    run: str
    round: int
    kind: str
    studies: int
    policy: str
    word: str | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """The models of a run that contain withdrawn studies: those from round `first_round` on."""

    run: str
    first_round: int
    policy: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a withdrawal would reach, now; `scope` tells in words what it is limited to.

    `running`: work in progress; `waiting`: updates committed and not handed over; `handed_over`: the rest. Of the
    patient's studies `studies` lie within the scope, and `remaining` are left as they were.
    """

    scope: str
    running: tuple[Part, ...]
    waiting: tuple[Part, ...]
    handed_over: tuple[Part, ...]
    studies: int
    remaining: int

    @property
    def models(self) -> tuple[ModelVersions, ...]:
        """The model versions that contain the studies."""
        return models(self.handed_over)


@dataclass(frozen=True, slots=True)
class StillPermitted:
    """An approved task that may use `studies` studies of a patient by the records of now, withdrawal or not."""

    task_digest: str
    project: str
    studies: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A withdrawal that was recorded, and what became of it.

    `came_by` is `command` (the console's too) or `fhir`. `stopped` is work that was ended, `discarded` updates that
    were thrown away before they were handed over. `completed`: nothing runs, nothing waits, and the coordinator
    answered for every update. `refused`: the coordinator refused a notice, and a person has to see to it.
    `limited`: it is not of everything; `elsewhere` are models that contain what of the patient lies outside it.
    """

    number: int
    patient: str
    came_by: Literal["command", "fhir"]
    scope: str
    recorded_at: datetime
    running: tuple[Part, ...]
    waiting: tuple[Part, ...]
    stopped: tuple[Part, ...]
    discarded: tuple[Part, ...]
    handed_over: tuple[Part, ...]
    status: Status
    limited: bool = False
    elsewhere: tuple[ModelVersions, ...] = ()

    @property
    def had_no_effect(self) -> bool:
        """Whether it is completed because no work at all was given what was withdrawn."""
        reached = self.running or self.waiting or self.stopped or self.discarded or self.handed_over
        return self.status == "completed" and not reached

    @property
    def models(self) -> tuple[ModelVersions, ...]:
        """The model versions that contain the studies."""
        return models(self.handed_over)


def preview(store: sa.Engine, patient: str, scope: WithdrawalScope, at: datetime) -> Preview:
    """Return what a withdrawal of `patient` (pseudonym) within `scope` would reach; nothing is changed.

    Raises: ConfigurationError if the scope cannot be stated, or names a project that nobody ever named here.
    """
    known = projects(store)
    if not known.issuperset(scope.projects):
        raise ConfigurationError(f"a project that is not known here; known are: {', '.join(sorted(known)) or 'none'}")
    refusal = consents.refusal(patient, at, scope)[1].record
    with reading(store).connect() as db:
        reach = _Reach(db, patient, lambda study, request, _: decide([refusal], study, request, at).outcome)
        catalogued = catalogue.studies_of(db, patient)
    asked = Request(("HRESCH",), _ANYBODY, project=scope.projects[0] if scope.projects else None)
    within = {
        study.StudyInstanceUID for study in catalogued if decide([refusal], study, asked, at).outcome is Outcome.DENY
    }
    return Preview(
        scope_in_words(refusal.root),
        reach.running,
        reach.waiting,
        tuple(part for part, _, _ in reach.released),
        len(within),
        len({study.StudyInstanceUID for study in catalogued} - within),
    )


def projects(store: sa.Engine) -> set[str]:
    """Return the projects that a task or a request for access ever named at this site."""
    with reading(store).connect() as db:
        asking = access_requests.requests(db).values()
        named = {offered.task.project for offered in permissions.tasks(db).values()}
    return named | {one.form.project for one in asking if isinstance(one, AccessRequest)}


def is_known(store: sa.Engine, patient: str) -> bool:
    """Return whether the hospital holds an image or a consent of `patient` (pseudonym)."""
    with reading(store).connect() as db:
        held = sa.select(instance.c.SOPInstanceUID).where(instance.c.patient == patient).limit(1)
        return db.execute(held).first() is not None or consents.is_known(store, patient)


def record(store: sa.Engine, patient: str, scope: WithdrawalScope, at: datetime, by: str = "") -> int:
    """Record the withdrawal of `patient` (pseudonym), by whom where that is known, and return its number.

    Raises: ConfigurationError if the scope cannot be stated.
    """
    consents.withdraw(store, patient, at, scope, by)
    columns = consent_record.c
    query = sa.select(sa.func.max(columns.number)).where(
        columns.patient == patient, columns.recorded_at == at.isoformat()
    )
    with reading(store).connect() as db:
        return int(db.execute(query).scalar_one())


def recorded(store: sa.Engine, gate: Gate, at: datetime) -> list[Withdrawal]:
    """Return every withdrawal on record, in the order they came."""
    told = {one.receipt for one in lineage.affected(store, gate, at)}
    with reading(store).connect() as db:
        return [_withdrawal(db, entry, gate, told) for entry in _entries(db)]


def find(store: sa.Engine, gate: Gate, number: int, at: datetime) -> Withdrawal:
    """Return one withdrawal.

    Raises: ConfigurationError if there is none of that number.
    """
    for withdrawal in recorded(store, gate, at):
        if withdrawal.number == number:
            return withdrawal
    raise ConfigurationError(f"no withdrawal has the number {number}: see `filmroom-site withdrawals list`")


def still_permitted(store: sa.Engine, gate: Gate, patient: str, at: datetime) -> tuple[StillPermitted, ...]:
    """Return what approved tasks may use of `patient` (pseudonym) at `at`, by the records as they are.

    It is what lies outside a limited withdrawal, and what is used on a legal basis that a withdrawal leaves untouched.
    """
    with reading(store).connect() as db:
        approved = {digest: one.task.project for digest, one in permissions.tasks(db).items() if one.approval}
    found = []
    for digest, project in approved.items():
        answer = gate.explained(digest, at)
        items = () if isinstance(answer, Deny) else answer.cohort.items
        studies = {item.StudyInstanceUID for item in items if item.patient == patient}
        if studies:
            found.append(StillPermitted(digest, project, len(studies)))
    return tuple(found)


def models(handed_over: Iterable[Part]) -> tuple[ModelVersions, ...]:
    """Return which models contain updates that were handed over and, as far as is known, aggregated."""
    found: dict[str, ModelVersions] = {}
    for part in handed_over:
        if part.kind == "train" and part.word not in {"retracted", "unknown"}:
            earlier = found.get(part.run)
            first = min(part.round, earlier.first_round) if earlier else part.round
            found[part.run] = ModelVersions(part.run, first, part.policy)
    return tuple(found.values())


_ANYBODY = ("urn:filmroom:federation",)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record that withdraws, and the permission it took the place of, if it only ended that."""

    row: sa.Row[tuple[object, ...]]
    record: ConsentRecord
    ended: ConsentRecord | None
    by_command: bool


class _Reach:
    """The work and the updates that were given studies within a withdrawal."""

    def __init__(
        self, db: sa.Connection, patient: str, outcome: Callable[[Study, Request, datetime | None], Outcome]
    ) -> None:
        self._patient, self._outcome = patient, outcome
        self._tasks = permissions.tasks(db)
        words = {row.receipt: (row.answer, row.refusal or "") for row in db.execute(sa.select(withdrawal_notice))}
        waiting = {row.receipt: row.message_id for row in db.execute(sa.select(outbox.c.receipt, outbox.c.message_id))}
        self.released: list[tuple[Part, str, datetime]] = []
        self.discarded: list[tuple[Part, str, datetime]] = []
        self.abstained: list[tuple[Part, datetime]] = []
        kept: list[Part] = []
        for row in db.execute(sa.select(participation).order_by(sa.text("rowid"))):
            at = datetime.fromisoformat(row.recorded_at)
            part = self._part(row, at)
            if part is None:
                continue
            if row.outcome == "abstained":
                self.abstained.append((part, at))
            elif row.receipt in waiting:
                kept.append(part)
            else:
                digest = receipt_digest(row.receipt)
                ended = self.discarded if row.outcome == "discarded" else self.released
                word, refusal = words.get(digest, (None, ""))
                ended.append((replace(part, word=word, refusal=refusal), digest, at))
        self.waiting = tuple(kept)
        unfinished = sa.select(frozen_set).where(frozen_set.c.message_id.not_in(list(waiting.values())))
        found = (self._part(row, None) for row in db.execute(unfinished))
        self.running = tuple(part for part in found if part is not None)

    def _part(self, row: sa.Row[tuple[object, ...]], at: datetime | None) -> Part | None:
        """Return the piece of work, None if it was given nothing that lies within the withdrawal."""
        offered: OfferedTask | None = self._tasks.get(str(row.task))
        studies = [study for study in lineage.read(row.used) if study.patient == self._patient]
        if offered is None or not studies:
            return None
        task = offered.task
        request = Request(task.purpose.purposes, _ANYBODY, project=task.project)
        within = [
            study
            for study in studies
            if self._outcome(replace(study, modality=task.input.modality), request, at) is Outcome.DENY
        ]
        return Part(row.run, row.round, row.kind, len(within), task.withdrawal_policy) if within else None


def _withdrawal(db: sa.Connection, entry: _Entry, gate: Gate, told: set[str]) -> Withdrawal:
    row = entry.row
    since = datetime.fromisoformat(str(row.recorded_at))
    until = datetime.fromisoformat(str(row.superseded_at)) if row.superseded_at else None

    def outcome(study: Study, request: Request, at: datetime | None) -> Outcome:
        asked = replace(request, recipients=gate.recipients)
        if entry.ended is None:
            return decide([entry.record], study, asked, since).outcome
        permitted = decide([entry.ended], study, asked, min(at or since, since)).outcome is Outcome.PERMIT
        return Outcome.DENY if permitted else Outcome.NO_CONSENT

    reach = _Reach(db, str(row.patient), outcome)
    outside = _Reach(
        db,
        str(row.patient),
        lambda study, request, at: Outcome.NO_CONSENT if outcome(study, request, at) is Outcome.DENY else Outcome.DENY,
    )
    in_force = until is None
    released = [(part, digest) for part, digest, at in reach.released if at <= since]
    # While a refusal is in force no new work is given what it refuses: what ended since was given it before.
    stopped = tuple(part for part, at in reach.abstained if since <= at and (until is None or at <= until))
    running, waiting = (reach.running, reach.waiting) if in_force else ((), ())
    answered = all(part.word is not None or digest not in told for part, digest in released)
    pending = db.execute(sa.select(withdrawal_notice.c.receipt).where(withdrawal_notice.c.answer.is_(None))).scalars()
    discarded = [(part, digest) for part, digest, at in reach.discarded if at <= since]
    refused = any(part.refusal for part, _ in (*released, *discarded))
    unanswered = {digest for _, digest in (*released, *discarded)}.intersection(pending)
    return Withdrawal(
        row.number,
        str(row.patient),
        "command" if entry.by_command else "fhir",
        _everything_permitted() if entry.ended else scope_in_words(entry.record.root),
        since,
        running,
        waiting,
        stopped,
        tuple(part for part, _ in discarded),
        tuple(part for part, _ in released),
        "refused" if refused else "completed" if answered and not (running or waiting or unanswered) else "recorded",
        entry.ended is not None or bool(entry.record.root.limits),
        models(part for part, _, at in outside.released if at <= since),
    )


def scope_in_words(root: Provision) -> str:
    """Return what a refusal is limited to, in words a patient understands."""
    limits = []
    if root.projects:
        limits.append(f"in the research project {' or '.join(root.projects)}")
    if root.modalities:
        limits.append(f"of images of the kind {' or '.join(MODALITIES.get(code, code) for code in root.modalities)}")
    if root.data_period and root.data_period.start:
        limits.append(f"of images taken from {root.data_period.start:%d %B %Y} on")
    if root.data_period and root.data_period.end:
        limits.append(f"of images taken up to {root.data_period.end:%d %B %Y}")
    if set(root.limits) - {"projects", "modalities", "data_period"}:
        limits.append("within the further limits the consent states")
    return f"any further use {', '.join(limits)}" if limits else "any further use of all images"


MODALITIES = {
    "MR": "magnetic resonance (MR)",
    "CT": "computed tomography (CT)",
    "CR": "X-ray (CR)",
    "DX": "X-ray (DX)",
    "MG": "mammography (MG)",
    "US": "ultrasound (US)",
    "PT": "positron emission tomography (PT)",
}
"""Kinds of images that a withdrawal may be limited to, in words a patient understands."""


def _everything_permitted() -> str:
    return "any further use that the consent had permitted"


def _entries(db: sa.Connection) -> list[_Entry]:
    """Return the records that withdraw: refusals by command, and what ended or overrode a permission."""
    held: dict[str, tuple[str, ConsentRecord]] = {}
    found = []
    for row in db.execute(sa.select(consent_record).order_by(consent_record.c.number)):
        record = consents.as_decided(row.resource, row.studies, row.doubt)
        if row.doubt is not None:
            continue  # what was held before waits for a person; nothing was withdrawn
        before = held.get(row.consent_id)
        others = [one for patient, one in held.values() if patient == row.patient and may_permit(one)]
        held[row.consent_id] = (row.patient, record)
        if record.review is not None or may_permit(record):
            continue
        refuses = record.status == "active"
        ended = before[1] if before and may_permit(before[1]) else None
        by_command = _by_command(json.loads(row.resource), row.patient)
        if by_command or ended or (refuses and others and not (before and before[1].status == "active")):
            found.append(_Entry(row, record, None if refuses else ended, by_command))
    return found


def _by_command(resource: Mapping[str, object], patient: str) -> bool:
    """Whether `consents.withdraw` made it: it alone names the patient by the pseudonym."""
    return resource.get("patient") == {"identifier": {"value": patient}}
