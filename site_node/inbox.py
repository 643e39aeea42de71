"""What waits for a consent manager: old sources, consents to review or that disagree, requests, grants, refusals.

Lists only; what a consent permits is decided in `consent.decision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from consent import AccessRequest, Deny, Permit, RequestState, Scope, may_permit, permits_sources
from site_node import access_requests, lineage, sources
from site_node.consents import current_epoch, doubted
from site_node.store import reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import sqlalchemy as sa

    from consent import ConsentRecord
    from site_node.consents import ConsentReader
    from site_node.lineage import Refusal

ENDS_SOON: Final = timedelta(days=30)
_UNDECIDED: Final = frozenset({RequestState.SUBMITTED, RequestState.IN_REVIEW, RequestState.SECOND_AWAITED})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A consent that cannot count before a person looked.

    `number` is its record's, where a person may let it count again: what it says itself is clear.
    """

    consent_id: str
    patient: str
    reason: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Active consents of one patient, of which some permit and some only refuse; the refusal holds."""

    patient: str
    permitting: tuple[str, ...]
    refusing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OldSource:
    """A source that was not read within the limit; nothing may be used until it is."""

    name: str
    as_of: datetime


@dataclass(frozen=True, slots=True)
class EndingGrant:
    """A grant that ends within thirty days."""

    number: int
    dataset: str
    project: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Undecided:
    """A request for access that waits for somebody's decision."""

    number: int
    dataset: str
    project: str
    state: RequestState


@dataclass(frozen=True, slots=True)
class Inbox:
    """All that waits; `patients` here are pseudonyms."""

    waiting: Sequence[Waiting]
    conflicts: Sequence[Conflict]
    old_sources: Sequence[OldSource]
    undecided: Sequence[Undecided]
    ending_grants: Sequence[EndingGrant]
    refused_notices: Sequence[Refusal]


def open_inbox(store: sa.Engine, reader: ConsentReader, max_consent_age: timedelta, at: datetime) -> Inbox:
    """Return what waits now, all of it in one state of the database."""
    with reading(store).connect() as db:
        held = reader.read(db, current_epoch(db))
        known = sources.known(db)
        confirmable = doubted(db)
        asked = access_requests.requests(db)
        refused = lineage.refusals(db)
    by_patient = {patient: [one.record() for one in some.readings] for patient, some in held.items()}
    return Inbox(
        [
            Waiting(record.consent_id, patient, record.review, confirmable.get(record.consent_id))
            for patient, records in sorted(by_patient.items())
            for record in records
            if record.review is not None and _matters(record)
        ],
        [found for patient, records in sorted(by_patient.items()) if (found := _conflict(patient, records))],
        [
            OldSource(name, as_of)
            for name, as_of in known.items()
            if permits_sources({name: as_of}, max_consent_age, at) != Permit()
        ],
        list(_undecided(asked)),
        list(_ending(asked, at)),
        refused,
    )


def _conflict(patient: str, records: Sequence[ConsentRecord]) -> Conflict | None:
    counting = [record for record in records if record.review is None and _matters(record)]
    permitting = tuple(record.consent_id for record in counting if may_permit(record))
    refusing = tuple(record.consent_id for record in counting if not may_permit(record))
    return Conflict(patient, permitting, refusing) if permitting and refusing else None


def _matters(record: ConsentRecord) -> bool:
    return record.status == "active" and record.scope is not Scope.OTHER


def _undecided(asked: Mapping[int, AccessRequest | Deny]) -> Iterator[Undecided]:
    for number, request in sorted(asked.items()):
        if isinstance(request, AccessRequest) and request.state in _UNDECIDED:
            yield Undecided(number, request.form.dataset, request.form.project, request.state)


def _ending(asked: Mapping[int, AccessRequest | Deny], at: datetime) -> Iterator[EndingGrant]:
    for number, request in sorted(asked.items()):
        if isinstance(request, Deny) or request.state_at(at) is not RequestState.APPROVED:
            continue
        if request.expires_at is not None and request.expires_at - at <= ENDS_SOON:
            yield EndingGrant(number, request.form.dataset, request.form.project, request.expires_at)
