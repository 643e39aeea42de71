"""What becomes of contributions whose permission was withdrawn.

A member signs which of its receipts are affected; nothing here says why, or who. An update whose round has not closed
is retracted: `coordinator.runs` counts it no more. One that was aggregated is in a model, and the task says what
becomes of that. Notice, answers and what follows are one transaction: a coordinator that is killed has done all of it
or nothing, and the member asks again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from consent import NoticeInvalid, WithdrawalAnswer, open_notice
from coordinator import runs
from coordinator.errors import PeerError
from coordinator.runs import OPEN_STATES, withdrawn_from
from coordinator.store import contribution, round_, run, task, withdrawal_notice, withdrawn_receipt
from models import parse_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from consent import AffectedReceipt, WithdrawalNotice
    from coordinator.members import Member

# States in which a run has, or may yet make, a model that somebody could be given.
LIVE_STATES = (*OPEN_STATES, "finished")
STOPPED = "a contribution to it was withdrawn, and its task says that the model is then not handed out"


def take_in(store: sa.Engine, federation: str, sender: Member, envelope: bytes, at: datetime) -> dict[str, str]:
    """Keep a member's notice and do what follows from it; return what became of each receipt, by its digest.

    `retracted`: in no model, and never will be. `aggregated`: in a model, which is flagged. `unknown`: no trace of it
    here; should it come yet, it is not counted. An answer, once given, is given again.
    Raises: PeerError if the sender did not sign it, or it speaks of another federation, site, or site's receipts.
    """
    try:
        notice = open_notice(envelope, sender.receipt_key)
    except NoticeInvalid as error:
        raise PeerError(f"notice-{error.reason}") from error
    if (notice.federation, notice.site) != (federation, sender.site):
        raise PeerError("the notice is of another federation or site")
    digest = hashlib.sha256(envelope).hexdigest()
    with store.begin() as db:
        runs.lock(db, run.c.task.in_(sa.select(run.c.task).where(run.c.run == notice.run)))
        if not db.execute(sa.select(withdrawal_notice.c.digest).filter_by(digest=digest)).first():
            row = {"digest": digest, "site": notice.site, "run": notice.run, "envelope": envelope}
            db.execute(sa.insert(withdrawal_notice).values(**row, received_at=at.isoformat()))
        answers = {receipt.sha256: _answer(db, notice, receipt, digest) for receipt in notice.receipts}
        for name, first in _containing(db, [sha256 for sha256, said in answers.items() if said == "aggregated"]):
            _follow_policy(db, name, first, at)
    return answers


def stated(store: sa.Engine, federation: str, envelope: bytes, answers: Mapping[str, str]) -> WithdrawalAnswer:
    """Return the answer to a notice that was taken in, to be signed; asked again, it is the same."""
    digest = hashlib.sha256(envelope).hexdigest()
    with store.connect() as db:
        row = db.execute(sa.select(withdrawal_notice).filter_by(digest=digest)).one()
    receipts = [{"sha256": receipt, "standing": standing} for receipt, standing in sorted(answers.items())]
    claimed = {"federation": federation, "site": row.site, "run": row.run, "notice": digest, "at": row.received_at}
    return WithdrawalAnswer.model_validate_json(json.dumps({**claimed, "receipts": receipts}))


def _answer(db: sa.Connection, notice: WithdrawalNotice, receipt: AffectedReceipt, digest: str) -> str:
    """Return what stands of one receipt; it is written down with the first notice that names it."""
    own = {"receipt": receipt.sha256, "site": notice.site}
    known = db.execute(sa.select(withdrawn_receipt.c.standing).filter_by(**own)).scalar()
    if known is not None:
        return str(known)
    standing = _standing(db, notice, receipt)
    db.execute(sa.insert(withdrawn_receipt).values(**own, notice=digest, standing=standing))
    return standing


def _standing(db: sa.Connection, notice: WithdrawalNotice, receipt: AffectedReceipt) -> str:
    columns = contribution.c
    query = sa.select(columns.run, columns.site, columns.made_in, columns.round, columns.kind).where(
        columns.receipt_digest == receipt.sha256, columns.outcome == "counted"
    )
    rows = db.execute(query).all()
    if any(row[1:] != (notice.site, notice.run, receipt.round, receipt.kind) for row in rows):
        raise PeerError("the notice names a receipt that is not the site's own, or of another round")
    if any(row.kind == "evaluate" or _is_closed(db, row.run, row.round) for row in rows):
        return "aggregated"
    return "retracted" if rows or _may_arrive(db, notice.run, receipt) else "unknown"


def _may_arrive(db: sa.Connection, name: str, receipt: AffectedReceipt) -> bool:
    """Return whether the receipt is of what a run is doing now: its update may be here, or on its way."""
    state = db.execute(sa.select(run.c.state).where(run.c.run == name)).scalar()
    last = db.execute(sa.select(sa.func.max(round_.c.round)).where(round_.c.run == name)).scalar()
    if state not in OPEN_STATES or last is None:
        return False
    if receipt.kind == "train":
        return receipt.round == int(last) + 1
    measured = sa.select(contribution.c.site).filter_by(run=name, round=receipt.round, kind="evaluate")
    return receipt.round == int(last) and db.execute(measured).first() is None


def _is_closed(db: sa.Connection, name: str, number: int) -> bool:
    return db.execute(sa.select(round_.c.round).filter_by(run=name, round=number)).first() is not None


def _containing(db: sa.Connection, receipts: Sequence[str]) -> list[tuple[str, int]]:
    """Return each run that counts one of these receipts and is live, with the first round that it would do again.

    A receipt of the measurement of a model is in no model: the rounds hold, and only the measurement is done again.
    """
    columns = contribution.c
    again = columns.round + sa.case((columns.kind == "evaluate", 1), else_=0)
    query = (
        sa.select(columns.run, sa.func.min(again))
        .join(run, run.c.run == columns.run)
        .where(columns.receipt_digest.in_(receipts), columns.outcome == "counted", run.c.state.in_(LIVE_STATES))
        .group_by(columns.run)
        .order_by(columns.run)
    )
    return [(name, first) for name, first in db.execute(query).all()]


def _follow_policy(db: sa.Connection, name: str, first: int, at: datetime) -> None:
    """Do what the run's task says of a model that contains, from round `first` on, what was withdrawn.

    A run that is under way and whose model would be handed to nobody ends at once: patients' images are not used for it
    any more.
    """
    policy = _policy(db, name)
    if policy == "rollback-retrain":
        runs.derive(db, name, first - 1, at)
    elif policy == "stop-distribution":
        under_way = (run.c.run == name) & run.c.state.in_(OPEN_STATES)
        ended = {"state": "stopped", "detail": STOPPED, "ended_at": at.isoformat()}
        db.execute(sa.update(run).where(under_way).values(ended))


def _policy(db: sa.Connection, name: str) -> str:
    query = sa.select(task.c.document).join(run, run.c.task == task.c.digest).where(run.c.run == name)
    return parse_task(str(db.execute(query).scalar_one()).encode()).withdrawal_policy


class Standing(NamedTuple):
    """Whether the model of a run may be handed out; `refusal` says why not, and is empty if it may."""

    run: str
    task: str
    state: str
    policy: str
    withdrawn_from: int | None  # the first round whose model contains a withdrawn contribution
    measured_with_withdrawn: bool
    successor: str
    refusal: str

    @property
    def is_flagged(self) -> bool:
        """Whether the model, or its measurement, contains a withdrawn contribution."""
        return self.withdrawn_from is not None or self.measured_with_withdrawn


def standing(store: sa.Engine, name: str) -> Standing:
    """Return how a run that is known stands."""
    with store.connect() as db:
        return _stands(db, name)


def all_standing(store: sa.Engine) -> list[Standing]:
    """Return how every run stands, oldest first."""
    with store.connect() as db:
        names = db.execute(sa.select(run.c.run).order_by(run.c.requested_at)).scalars().all()
        return [_stands(db, name) for name in names]


def _stands(db: sa.Connection, name: str) -> Standing:
    row = db.execute(sa.select(run).where(run.c.run == name)).one()
    policy, successor = _policy(db, name), _last_successor(db, name)
    first, measured = withdrawn_from(db, name), withdrawn_from(db, name, "evaluate") is not None
    refusal = ""
    if successor:
        refusal = f"a contribution to {name} was withdrawn: {successor} takes its place"
    elif row.state == "stopped" or (policy == "stop-distribution" and (first is not None or measured)):
        refusal = f"{name}: {STOPPED}"
    return Standing(name, row.task, row.state, policy, first, measured, successor, refusal)


def _last_successor(db: sa.Connection, name: str) -> str:
    last = ""
    while following := db.execute(sa.select(run.c.superseded_by).where(run.c.run == (last or name))).scalar():
        last = str(following)
    return last


def received(store: sa.Engine) -> list[dict[str, object]]:
    """Return every notice, with its envelope and the answer for each receipt it was the first to name; oldest first."""
    with store.connect() as db:
        notices = db.execute(sa.select(withdrawal_notice).order_by(withdrawal_notice.c.received_at)).mappings().all()
        answers: dict[str, dict[str, str]] = {}
        for row in db.execute(sa.select(withdrawn_receipt).order_by(withdrawn_receipt.c.receipt)):
            answers.setdefault(row.notice, {})[row.receipt] = row.standing
    return [
        {
            **notice,
            "envelope": notice["envelope"].decode(),
            "receipts": (found := answers.get(notice["digest"], {})),
            "answers": ", ".join(f"{number} {said}" for said, number in sorted(Counter(found.values()).items())),
        }
        for notice in notices
    ]
