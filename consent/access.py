"""Access decisions people made, and whether they hold at a moment.

Covers grants (dataset to project), approved tasks and approved datasets, and whether the consents are known as they are
now. Keeps no history and knows
no workflow; who may decide, and how, belongs to the programs. A decision starts at its own moment;
it ends at the moment of its expiry or revocation, which no longer belong to it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Permit:
    """Access holds at the moment asked."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Access does not hold, and why; safe to show."""

    reason: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A dataset's owner lets a project use it until `expires_at`."""

    dataset: str
    project: str
    granted_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskApproval:
    """This hospital approved the task with exactly this digest."""

    digest: str
    approved_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DatasetApproval:
    """This hospital released a dataset for federated use at all."""

    dataset: str
    approved_at: datetime
    revoked_at: datetime | None = None


def permits_sources(sources: Mapping[str, datetime], limit: timedelta, at: datetime) -> Permit | Deny:
    """Whether every source of consents was read within `limit` before `at`; `sources` says as of when each is known.

    A source that is further ahead of the clock than `limit` is trusted as little as one that far behind it.
    Source: HL7 FHIR Consent Management (FAST): who enforces a consent ensures that its copy is current.
    """
    if not sources:
        return Deny("consent: no source of consents was ever read")
    stale = sorted(name for name, as_of in sources.items() if abs(at - as_of) > limit)
    return (
        Deny(f"consent: not read within {limit.total_seconds() / 3600:g} h: {', '.join(stale)}") if stale else Permit()
    )


def same_person(one: str, other: str) -> bool:
    """Return whether two names on the record are one person: case, spaces and forms of a letter make no other."""
    return _person(one) == _person(other)


def permits_project(grants: Iterable[Grant], dataset: str, project: str, at: datetime) -> Permit | Deny:
    """Whether a grant lets `project` use `dataset` at `at`."""
    matching = (g for g in grants if (g.dataset, g.project) == (dataset, project))
    return _any("grant", [_holds(g.granted_at, g.revoked_at, g.expires_at, at) for g in matching])


def permits_task(approvals: Iterable[TaskApproval], digest: str, at: datetime) -> Permit | Deny:
    """Whether the task with `digest` is approved at `at`."""
    matching = (a for a in approvals if a.digest == digest)
    return _any("task", [_holds(a.approved_at, a.revoked_at, None, at) for a in matching])


def permits_dataset(approvals: Iterable[DatasetApproval], dataset: str, at: datetime) -> Permit | Deny:
    """Whether `dataset` is approved at `at`."""
    matching = (a for a in approvals if a.dataset == dataset)
    return _any("dataset", [_holds(a.approved_at, a.revoked_at, None, at) for a in matching])


def _person(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _any(subject: str, faults: list[str | None]) -> Permit | Deny:
    """Permit if one decision is without fault; else deny for the latest one's fault."""
    if None in faults:
        return Permit()
    return Deny(f"{subject}: {faults[-1] if faults else 'never approved here'}")


def _holds(since: datetime, revoked_at: datetime | None, expires_at: datetime | None, at: datetime) -> str | None:
    """Return why a decision does not hold at `at`, or nothing if it does."""
    if at < since:
        return "not yet in force"
    if revoked_at is not None and revoked_at <= at:
        return "revoked"
    if expires_at is not None and expires_at <= at:
        return "expired"
    return None
