"""A consent that waits because what came after it could not be taken: what it does if a person lets it count again.

`find(store, gate, number, at) -> Doubted | None` changes nothing; `consents.confirm` lets it count. What a consent
permits is decided by `consent.decide_under`, as the gate does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import CONSENT, Deny, Outcome, decide_under
from site_node import catalogue, permissions
from site_node.consents import as_decided
from site_node.gate import request_of
from site_node.store import consent_record, reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from consent import ConsentRecord, LegalBasis, Study
    from models import Task
    from site_node.gate import Gate


@dataclass(frozen=True, slots=True)
class Effect:
    """For one task: how many of the patient's studies consents permit `now`, and how many `then`."""

    digest: str
    task: str
    project: str
    now: int
    then: int


@dataclass(frozen=True, slots=True)
class Doubted:
    """A consent held in doubt, by the `number` of its record; `patient` is a pseudonym.

    `review` is why it would still not count: what it says itself is not clear.
    """

    number: int
    consent_id: str
    patient: str
    doubt: str
    dated_at: datetime | None
    review: str | None
    effects: tuple[Effect, ...]


def find(store: sa.Engine, gate: Gate, number: int, at: datetime) -> Doubted | None:
    """Return the consent held in doubt under this record's number, and what it does for each task known here."""
    columns = consent_record.c
    held = sa.select(consent_record).where(columns.superseded_at.is_(None))
    with reading(store).connect() as db:
        row = db.execute(held.where(columns.number == number, columns.doubt.is_not(None))).first()
        if row is None:
            return None
        others = db.execute(held.where(columns.patient == row.patient, columns.number != number))
        records = [as_decided(other.resource, other.studies, other.doubt) for other in others]
        doubted = as_decided(row.resource, row.studies, row.doubt)
        confirmed = as_decided(row.resource, row.studies, None)
        studies = catalogue.studies_of(db, row.patient)
        data = permissions.datasets(db)
        tasks = permissions.tasks(db)
    effects = []
    for digest, offered in tasks.items():
        basis = data[offered.dataset].basis if offered.dataset else CONSENT
        now, then = (
            _permitted(offered.task, gate, basis, studies, [*records, one], at) for one in (doubted, confirmed)
        )
        effects.append(Effect(digest, offered.task.name, offered.task.project, now, then))
    return Doubted(number, row.consent_id, row.patient, row.doubt, confirmed.dated_at, confirmed.review, tuple(effects))


def _permitted(
    task: Task, gate: Gate, basis: LegalBasis, studies: Sequence[Study], held: Sequence[ConsentRecord], at: datetime
) -> int:
    request = request_of(task, gate.recipients)
    if isinstance(request, Deny):
        return 0
    asked = [study for study in studies if study.modality == task.input.modality]
    return sum(decide_under(basis, held, study, request, at).outcome is Outcome.PERMIT for study in asked)
