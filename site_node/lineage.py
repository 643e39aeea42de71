"""Which updates hold a study that was withdrawn since, and telling the coordinator of them until it has answered.

A notice that the coordinator refuses for good is asked no more: the refusal is on record, where the consent manager
sees it, and `tell_again` begins anew once the cause is mended. Whatever else fails is tried again.

A study counts as withdrawn where its use at the moment of release is not permitted by the records of now, so every
way of recording a withdrawal has the same effect, and an expiry is none. A consent in review stops running work and
an update not handed over; it takes back what was handed over only once a person has decided.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from consent import (
    MAX_NOTICE_RECEIPTS,
    AffectedReceipt,
    AnswerInvalid,
    Outcome,
    SignerInvalid,
    Study,
    WithdrawalNotice,
    is_answer_to,
    open_answer,
    receipt_digest,
    sign_notice,
    signer_key,
)
from site_node import ledger
from site_node.errors import NotAMember, PeerError, PeerRefused
from site_node.store import outbox, participation, reading, withdrawal_answer, withdrawal_notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from consent import WithdrawalAnswer
    from site_node.gate import Gate

WHAT_TO_DO = (
    "the coordinator is told of these no more: ask those who run it to mend the cause, "
    "then `filmroom-site withdrawals tell-again`"
)
WITHDRAWN = frozenset({Outcome.DENY, Outcome.NO_CONSENT})


@dataclass(frozen=True, slots=True)
class Affected:
    """A released update that holds withdrawn studies."""

    run: str
    round: int
    kind: str
    receipt: str
    studies: tuple[str, ...]


def written(used: Iterable[Study]) -> str:
    """Return of each study what consent turns on, as the database keeps it."""
    return json.dumps(
        [[s.StudyInstanceUID, s.patient, s.study_date.isoformat() if s.study_date else None] for s in used]
    )


def read(used: str) -> list[Study]:
    """Return the studies that `written` wrote."""
    return [Study(patient, uid, date.fromisoformat(day) if day else None) for uid, patient, day in json.loads(used)]


def affected(store: sa.Engine, gate: Gate, at: datetime) -> list[Affected]:
    """Return the released updates that hold a study withdrawn by `at`, in the order of their release."""
    with reading(store).connect() as db:
        released = db.execute(
            sa.select(participation).where(participation.c.outcome == "released").order_by(sa.text("rowid"))
        ).all()
    found = []
    for row in released:
        verdicts = gate.withdrawn(row.task, read(row.used), datetime.fromisoformat(row.recorded_at), at)
        studies = tuple(sorted(uid for uid, outcome in verdicts.items() if outcome in WITHDRAWN))
        if studies:
            found.append(Affected(row.run, row.round, row.kind, receipt_digest(row.receipt), studies))
    return found


def discard(store: sa.Engine, gate: Gate, message_id: str, at: datetime, *, may_have_left: bool) -> bool:
    """Take a committed release out of the outbox if it holds a study that is no longer permitted; return whether.

    Where it may have left before a crash, the coordinator is told of it as well.
    """
    with reading(store).connect() as db:
        envelope = db.execute(sa.select(outbox.c.receipt).where(outbox.c.message_id == message_id)).scalar()
        row = db.execute(sa.select(participation).where(participation.c.receipt == envelope)).first()
    if envelope is None or row is None:
        return False
    if not gate.withdrawn(row.task, read(row.used), datetime.fromisoformat(row.recorded_at), at):
        return False
    reason = "consent: a study was withdrawn before the update was handed over"
    with store.begin() as db:
        this = participation.c.receipt == envelope
        db.execute(sa.update(participation).where(this).values(outcome="discarded", reason=reason))
        db.execute(sa.delete(outbox).where(outbox.c.message_id == message_id))
        if may_have_left:
            _keep(db, Affected(row.run, row.round, row.kind, receipt_digest(envelope), ()), at)
        told = {"told": "the coordinator is told"} if may_have_left else {}
        digest = receipt_digest(envelope)
        ledger.write(db, at, "site:update:discarded", round=row.round, receipt=digest, reason=reason, **told)
    return True


class Told(NamedTuple):
    """For how many updates the coordinator answered, and refused the notice for good."""

    answered: int
    refused: int


class Notices:
    """Finds what a withdrawal affects whenever the consent epoch changed, and tells the coordinator."""

    def __init__(
        self,
        store: sa.Engine,
        gate: Gate,
        site: tuple[str, str],
        key: Ed25519PrivateKey,
        clock: Callable[[], datetime],
        give: Callable[[bytes], tuple[bytes, bytes]],
        authority: bytes,
    ) -> None:
        self._store = store
        self._gate = gate
        self._federation, self._site = site
        self._key = key
        self._clock = clock
        self._give = give
        self._authority = authority
        self._epoch = -1

    def look(self) -> int:
        """Keep what is affected and not known yet, if the epoch has changed; return how many updates it is."""
        epoch = self._gate.epoch()
        if epoch == self._epoch:
            return 0
        at = self._clock()
        found = affected(self._store, self._gate, at)
        with self._store.begin() as db:
            new = [one.receipt for one in found if _keep(db, one, at)]
            if new:
                ledger.write(db, at, "site:withdrawal:found", updates=len(new), receipts=" ".join(new))
        self._epoch = epoch
        return len(new)

    def send(self) -> Told:
        """Tell the coordinator what is pending, run by run; no notice waits for another.

        Raises: PeerError if it cannot be told of one, or gives no answer; what is pending stays so.
        """
        columns = withdrawal_notice.c
        with reading(self._store).connect() as db:
            pending = db.execute(
                sa.select(withdrawal_notice)
                .where(columns.answer.is_(None), columns.refusal.is_(None))
                .order_by(columns.run, columns.round, columns.kind, columns.receipt)
            ).all()
        answered = refused = 0
        failed: PeerError | None = None
        for run, of_run in groupby(pending, key=lambda row: str(row.run)):
            rows = list(of_run)
            for start in range(0, len(rows), MAX_NOTICE_RECEIPTS):
                some = rows[start : start + MAX_NOTICE_RECEIPTS]
                try:
                    answered += self._tell(run, some)
                except NotAMember:
                    raise  # once it is a member again, it tells
                except PeerRefused as error:
                    refused += self._refused(run, some, str(error))
                except PeerError as error:
                    failed = error
        if failed is not None:
            raise failed
        return Told(answered, refused)

    def _tell(self, run: str, rows: list[sa.Row[tuple[object, ...]]]) -> int:
        receipts = tuple(AffectedReceipt(round=row.round, kind=row.kind, sha256=row.receipt) for row in rows)
        notice = WithdrawalNotice(
            federation=self._federation, site=self._site, run=run, at=self._clock(), receipts=receipts
        )
        told = sign_notice(notice, self._key)
        envelope, certificate = self._give(told)
        at, digest = self._clock(), hashlib.sha256(told).hexdigest()
        answer = self._opened(envelope, certificate, at)
        if not is_answer_to(answer, told, notice):
            raise PeerError("telling of a withdrawal: the coordinator's answer is to another notice")
        kept = {"digest": digest, "notice": told, "answer": envelope, "certificate": certificate}
        with self._store.begin() as db:
            db.execute(sa.insert(withdrawal_answer).values(**kept, answered_at=at.isoformat()))
            for one in answer.receipts:
                this = withdrawal_notice.c.receipt == one.sha256
                word = {"answer": one.standing, "answered_at": at.isoformat()}
                db.execute(sa.update(withdrawal_notice).where(this).values(word))
            ledger.write(db, at, "site:withdrawal:answered", run=run, updates=len(receipts), notice=digest)
        return len(receipts)

    def _opened(self, envelope: bytes, certificate: bytes, at: datetime) -> WithdrawalAnswer:
        """Return the coordinator's answer.

        Raises: PeerError if the federation's authority does not vouch for who signed it.
        """
        try:
            return open_answer(envelope, signer_key(certificate, self._authority, self._federation, at))
        except SignerInvalid as error:
            raise PeerError(f"telling of a withdrawal: who signed the answer is refused: {error.reason}") from error
        except AnswerInvalid as error:
            raise PeerError(f"telling of a withdrawal: the answer is refused: {error.reason}") from error

    def _refused(self, run: str, rows: list[sa.Row[tuple[object, ...]]], reason: str) -> int:
        at = self._clock()
        named = withdrawal_notice.c.receipt.in_([row.receipt for row in rows])
        with self._store.begin() as db:
            db.execute(sa.update(withdrawal_notice).where(named).values(refusal=reason, refused_at=at.isoformat()))
            ledger.write(db, at, "site:withdrawal:refused", run=run, updates=len(rows), reason=reason)
        return len(rows)


class Refusal(NamedTuple):
    """Updates of a run on which the coordinator refused the notice for good, and why."""

    run: str
    updates: int
    reason: str
    refused_at: datetime


def refusals(db: sa.Connection) -> list[Refusal]:
    """Return what was refused for good and is not told again."""
    columns = withdrawal_notice.c
    query = (
        sa.select(columns.run, columns.refusal, sa.func.max(columns.refused_at), sa.func.count())
        .where(columns.refusal.is_not(None))
        .group_by(columns.run, columns.refusal)
        .order_by(columns.run, columns.refusal)
    )
    return [
        Refusal(run, number, reason, datetime.fromisoformat(at)) for run, reason, at, number in db.execute(query).all()
    ]


def tell_again(store: sa.Engine, by: str, at: datetime) -> int:
    """Have the node tell of every update whose notice was refused; return how many that is."""
    with store.begin() as db:
        refused = sa.update(withdrawal_notice).where(withdrawal_notice.c.refusal.is_not(None))
        number = db.execute(refused.values(refusal=None, refused_at=None)).rowcount
        if number:
            ledger.write(db, at, "site:withdrawal:told-again", updates=number, by=by)
    return number


def _keep(db: sa.Connection, one: Affected, at: datetime) -> bool:
    """Put an update on the list of what the coordinator is told; False if it is there already."""
    known = sa.select(withdrawal_notice.c.receipt).where(withdrawal_notice.c.receipt == one.receipt)
    if db.execute(known).first() is not None:
        return False
    db.execute(
        sa.insert(withdrawal_notice).values(
            receipt=one.receipt, run=one.run, round=one.round, kind=one.kind, found_at=at.isoformat()
        )
    )
    return True
