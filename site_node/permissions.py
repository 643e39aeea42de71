"""What people at this hospital decided on datasets and tasks; grants come of `site_node.access_requests`.

Keeps and reads the decisions; whether they suffice at a moment is decided in `consent.access` and `consent.datause`.
Four eyes: who registered a dataset cannot be the one who approves it. Every change begins a new consent epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import (
    DatasetApproval,
    DataUse,
    DataUseInvalid,
    LegalBasis,
    TaskApproval,
    parse_data_use,
    parse_legal_basis,
    same_person,
)
from models import Change, Task, parse_task, task_changes, task_digest
from site_node import ledger
from site_node.consents import advance
from site_node.errors import ConfigurationError
from site_node.store import dataset, task

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as registered: its terms of use, its legal basis, and the modality of its images."""

    name: str
    terms: DataUse
    basis: LegalBasis
    modality: str
    approval: DatasetApproval | None


@dataclass(frozen=True, slots=True)
class OfferedTask:
    """A task the coordinator offered, the dataset it was approved for, and the approval if there is one."""

    task: Task
    dataset: str | None
    approval: TaskApproval | None


def register_dataset(
    store: sa.Engine, name: str, terms: Mapping[str, object], modality: str, by: str, at: datetime
) -> None:
    """Register a dataset of all accepted images of `modality`, under its data-use terms and legal basis.

    Raises: ConfigurationError if the terms are not valid or the name is taken.
    """
    try:
        _read_terms(terms)
    except DataUseInvalid as error:
        raise ConfigurationError(f"dataset {name}: {error}") from error
    with store.begin() as db:
        if db.execute(sa.select(dataset.c.name).where(dataset.c.name == name)).first():
            raise ConfigurationError(f"dataset {name} is already registered")
        text = json.dumps(terms, sort_keys=True)
        db.execute(
            sa.insert(dataset).values(
                name=name,
                terms=text,
                modality=modality,
                registered_by=by,
                registered_at=at.isoformat(),
            )
        )
        advance(db)
        digest = ledger.text_digest(text)
        ledger.write(db, at, "site:dataset:registered", dataset=name, by=by, modality=modality, terms=digest)


def approve_dataset(store: sa.Engine, name: str, by: str, at: datetime) -> None:
    """Let a registered dataset be used.

    Raises: ConfigurationError if it is unknown, or `by` is who registered it.
    """
    with store.begin() as db:
        row = db.execute(sa.select(dataset).where(dataset.c.name == name)).first()
        if row is None:
            raise ConfigurationError(f"dataset {name} is not registered")
        if same_person(row.registered_by, by):
            raise ConfigurationError(f"dataset {name}: {by} registered it; another must approve")
        db.execute(
            sa.update(dataset)
            .where(dataset.c.name == name)
            .values(approved_by=by, approved_at=at.isoformat(), revoked_at=None)
        )
        advance(db)
        ledger.write(db, at, "site:dataset:approved", dataset=name, by=by)


def revoke_dataset(store: sa.Engine, name: str, by: str, at: datetime) -> None:
    """Take a dataset's approval back; a running round stops as it does for a withdrawal.

    Raises: ConfigurationError if it is not approved.
    """
    columns = dataset.c
    approved = (columns.name == name) & columns.approved_at.is_not(None) & columns.revoked_at.is_(None)
    with store.begin() as db:
        changed = db.execute(sa.update(dataset).where(approved).values(revoked_at=at.isoformat()))
        if changed.rowcount != 1:
            raise ConfigurationError(f"dataset {name} is not approved here")
        advance(db)
        ledger.write(db, at, "site:dataset:revoked", dataset=name, by=by)


def keep_task(store: sa.Engine, document: bytes, at: datetime) -> str:
    """Keep an offered task and return its digest; nothing is approved by that.

    Raises: TaskRefused, naming the key this hospital does not accept.
    """
    digest = task_digest(parse_task(document))
    with store.begin() as db:
        if not db.execute(sa.select(task.c.digest).where(task.c.digest == digest)).first():
            db.execute(sa.insert(task).values(digest=digest, document=document.decode(), received_at=at.isoformat()))
    return digest


def previous_version(db: sa.Connection, digest: str) -> str | None:
    """Return the digest of the version of a task that was approved last here before this one; None for a first one.

    Versions of a task have its project and its name. One whose approval was taken back counts: it was read.
    """
    known = tasks(db)
    if digest not in known:
        return None
    names = (known[digest].task.project, known[digest].task.name)
    approved = {
        other: offered.approval.approved_at
        for other, offered in known.items()
        if offered.approval and other != digest and (offered.task.project, offered.task.name) == names
    }
    return max(approved, key=lambda other: approved[other], default=None)


def changes(db: sa.Connection, before: str, after: str) -> tuple[Change, ...]:
    """Return what is different between two tasks known here.

    Raises: ConfigurationError if one is not known.
    """
    known = tasks(db)
    for digest in (before, after):
        if digest not in known:
            raise ConfigurationError(f"task {digest} is not known here")
    return task_changes(known[before].task, known[after].task)


def approve_task(store: sa.Engine, digest: str, name: str, by: str, at: datetime) -> None:
    """Let the task with exactly this digest run on the dataset.

    Raises: ConfigurationError if task or dataset are unknown here.
    """
    with store.begin() as db:
        for table, column, value in (
            (task, task.c.digest, digest),
            (dataset, dataset.c.name, name),
        ):
            if not db.execute(sa.select(column).where(column == value)).first():
                raise ConfigurationError(f"{table.name} {value} is not known here")
        db.execute(
            sa.update(task)
            .where(task.c.digest == digest)
            .values(dataset=name, approved_by=by, approved_at=at.isoformat(), revoked_at=None)
        )
        advance(db)
        previous = previous_version(db, digest)
        changed = changes(db, previous, digest) if previous else ()
        parts = ", ".join(dict.fromkeys(change.part for change in changed))
        follows = {"follows": previous, "changed": parts} if previous else {}
        ledger.write(db, at, "site:task:approved", task=digest, dataset=name, by=by, **follows)


def revoke_task(store: sa.Engine, digest: str, by: str, at: datetime) -> None:
    """Take an approval back; a running round stops as it does for a withdrawal.

    Raises: ConfigurationError if the task is not approved.
    """
    with store.begin() as db:
        changed = db.execute(
            sa.update(task)
            .where(task.c.digest == digest, task.c.approved_at.is_not(None))
            .values(revoked_at=at.isoformat())
        )
        if changed.rowcount != 1:
            raise ConfigurationError(f"task {digest} is not approved here")
        advance(db)
        ledger.write(db, at, "site:task:revoked", task=digest, by=by)


def tasks(db: sa.Connection) -> dict[str, OfferedTask]:
    """Return the offered tasks by digest."""
    return {row.digest: _offered(row) for row in db.execute(sa.select(task))}


def datasets(db: sa.Connection) -> dict[str, Dataset]:
    """Return the datasets by name."""
    return {row.name: dataset_of(row) for row in db.execute(sa.select(dataset))}


def _offered(row: sa.Row[tuple[object, ...]]) -> OfferedTask:
    approval = TaskApproval(row.digest, _at(row.approved_at), _maybe(row.revoked_at)) if row.approved_at else None
    return OfferedTask(parse_task(row.document.encode()), row.dataset, approval)


def dataset_of(row: sa.Row[tuple[object, ...]]) -> Dataset:
    """Return the dataset that a row says.

    Raises: DataUseInvalid or ValueError if it is damaged.
    """
    approval = DatasetApproval(row.name, _at(row.approved_at), _maybe(row.revoked_at)) if row.approved_at else None
    use, basis = _read_terms(json.loads(row.terms))
    return Dataset(row.name, use, basis, row.modality, approval)


def _read_terms(document: Mapping[str, object]) -> tuple[DataUse, LegalBasis]:
    """Read terms of use, among which a legal basis other than consent may stand.

    Raises: DataUseInvalid.
    """
    basis = document.get("legal_basis")
    if basis is not None and not isinstance(basis, dict):
        raise DataUseInvalid("legal_basis: not an object")
    use = parse_data_use({name: value for name, value in document.items() if name != "legal_basis"})
    return use, parse_legal_basis(basis)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _maybe(text: str | None) -> datetime | None:
    return _at(text) if text else None
