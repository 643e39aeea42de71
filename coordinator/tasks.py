"""AI partners and the tasks they submit.

A task is data: it is parsed, bounded and kept by its digest, never run here.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING

import sqlalchemy as sa

from coordinator.errors import ConfigurationError, PeerError
from coordinator.store import partner, submission, task
from models import Task, canonical, parse_task, task_digest

if TYPE_CHECKING:
    from datetime import datetime

    from coordinator.authority import Authority
    from coordinator.config import CoordinatorConfig


def add_partner(store: sa.Engine, config: CoordinatorConfig, authority: Authority, name: str, at: datetime) -> str:
    """Admit an AI partner; return its access file (JSON), whose token is kept here by digest only.

    One whose access was revoked may be admitted again, with a new token.
    Raises: ConfigurationError if the name is taken.
    """
    token = secrets.token_urlsafe(32)
    access = {"token_sha256": _digest(token), "added_at": at.isoformat(), "revoked_at": None}
    with store.begin() as db:
        known = db.execute(sa.select(partner).where(partner.c.name == name)).first()
        if known is not None and known.revoked_at is None:
            raise ConfigurationError(f"partner {name} exists already")
        if known is None:
            db.execute(sa.insert(partner).values(name=name, **access))
        else:
            db.execute(sa.update(partner).where(partner.c.name == name).values(**access))
    document = {
        "url": f"https://{config.host}:{config.join_port}",
        "authority": authority.certificate.read_text(),
        "token": token,
    }
    return json.dumps(document, indent=2)


def revoke_partner(store: sa.Engine, name: str, at: datetime) -> None:
    """Let a partner's token open nothing any more; its tasks and their runs stay on the record.

    Raises: ConfigurationError if it is no partner.
    """
    with store.begin() as db:
        changed = db.execute(
            sa.update(partner)
            .where(partner.c.name == name, partner.c.revoked_at.is_(None))
            .values(revoked_at=at.isoformat())
        )
        if changed.rowcount != 1:
            raise ConfigurationError(f"{name} is not a partner")


def partner_of(store: sa.Engine, token: str) -> str:
    """Return the partner that holds `token`.

    Raises: PeerError if nobody does, or its access was revoked.
    """
    query = sa.select(partner.c.name).where(partner.c.token_sha256 == _digest(token), partner.c.revoked_at.is_(None))
    with store.connect() as db:
        name = db.execute(query).scalar()
    if name is None:
        raise PeerError("the partner's token is not known here")
    return str(name)


def submit(store: sa.Engine, document: bytes, by: str, at: datetime) -> str:
    """Keep a partner's task and return its digest; the same task again is the same digest, whoever submits it.

    Raises: TaskRefused, naming the key that is not accepted.
    """
    parsed = parse_task(document)
    digest = task_digest(parsed)
    with store.begin() as db:
        if not db.execute(sa.select(task.c.digest).where(task.c.digest == digest)).first():
            db.execute(
                sa.insert(task).values(
                    digest=digest,
                    document=canonical(parsed).decode(),
                    submitted_at=at.isoformat(),
                )
            )
        if not db.execute(sa.select(submission).filter_by(task=digest, partner=by)).first():
            db.execute(sa.insert(submission).values(task=digest, partner=by))
    return digest


def offered(store: sa.Engine) -> list[tuple[str, str, list[str]]]:
    """Return (digest, document, names of the partners that submitted it) of every task, oldest first."""
    partners: dict[str, list[str]] = {}
    with store.connect() as db:
        found = db.execute(sa.select(task).order_by(task.c.submitted_at)).all()
        for row in db.execute(sa.select(submission).order_by(submission.c.partner)):
            partners.setdefault(row.task, []).append(row.partner)
    return [(row.digest, row.document, partners[row.digest]) for row in found]


def find(store: sa.Engine, digest: str) -> Task:
    """Return the task with `digest`.

    Raises: ConfigurationError if there is none.
    """
    with store.connect() as db:
        document = db.execute(sa.select(task.c.document).where(task.c.digest == digest)).scalar()
    if document is None:
        raise ConfigurationError(f"task {digest} is not known; see `filmroom-coordinator tasks list`")
    return parse_task(str(document).encode())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
