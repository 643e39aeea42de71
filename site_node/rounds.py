"""One round at the hospital, from the coordinator's message to the answer.

Snapshot, training, re-check, receipt, release: in this order, and the release commits in one transaction that compares
the consent epoch. Whatever goes wrong on the way, the answer is the same one code; the reason stays in the hospital.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import sqlalchemy as sa
from flwr.app import ArrayRecord, ConfigRecord
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from safetensors.numpy import load_file, save

from consent import (
    NO_PREVIOUS,
    Bucket,
    Deny,
    Epoch,
    Receipt,
    Times,
    bucket_with_hysteresis,
    count_bucket,
    key_id,
    open_receipt,
    receipt_digest,
    sign_receipt,
)
from models import UpdateRefused, model_digest, npy_array, update_digest
from site_node import claims, consent_log, ledger, lineage
from site_node.claims import Claims
from site_node.consents import current_epoch
from site_node.eligibility import Opening
from site_node.errors import PeerRefused, ReleaseRefused, TrainingFailed
from site_node.release import check_arrays, check_metrics
from site_node.store import eligibility, frozen_set, inflight, outbox, participation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from flwr.app import Message
    from numpy.typing import NDArray

    from site_node.claims import Claim, Frozen
    from site_node.config import SiteConfig, SiteHome
    from site_node.gate import Gate, Snapshot
    from site_node.release import Incoming, Line
    from site_node.training import Trained, Trainer
    from site_node.witnesses import Witnesses

    Arrays = Mapping[str, NDArray[np.generic]]

# Consents of other patients may change between the re-check and the release; then both are done again.
RELEASE_ATTEMPTS = 3
MAX_LOG_SIZE = 2**40  # a million leaves a day for three thousand years
SOFTWARE = f"filmroom {version('filmroom')}"
# A change is noticed at once while training; what ends by itself, by asking again this often.
ASK_AGAIN = timedelta(seconds=10)

_Text = Annotated[str, Field(min_length=1, max_length=256)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _moment(text: object) -> datetime:
    if not isinstance(text, str):
        raise ValueError("not a text")  # noqa: TRY004 -- what pydantic takes for an invalid value
    return datetime.fromisoformat(text)


_Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class Instruction(BaseModel):
    """What the coordinator asks for in one message; its moments are ISO 8601 text, and nothing else is converted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    kind: Literal["initialise", "train", "evaluate"]
    run: _Text
    round: Annotated[int, Field(ge=0, le=1_000_000)]
    task: _Sha256
    nonce: _Text
    base_model: _Sha256
    sent_at: _Moment
    deadline: _Moment
    receipt_head: _Sha256
    log_size: Annotated[int, Field(ge=0, le=MAX_LOG_SIZE)]
    carried_receipt: _Sha256
    whole: bool = False


class Abstention(Exception):
    """The round goes on without this site; `reason` stays in the hospital."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Discarded(Abstention):
    """A release that was committed and not handed over is void; its record is changed already."""


class Release(NamedTuple):
    """What was committed to leave."""

    arrays: Arrays
    metrics: Mapping[str, float]
    receipt: bytes


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent at the gate, on the receipt, and in training."""

    gate: float = 0.0
    receipt: float = 0.0
    training: float = 0.0

    @contextmanager
    def on_receipt(self) -> Iterator[None]:
        """Count the block's time as the receipt's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.receipt += time.perf_counter() - started


@dataclass(slots=True)
class _Work:
    """One instruction in progress; `decided` is what the gate first said of each study, once it did."""

    instruction: Instruction
    message_id: str
    base: dict[str, NDArray[np.generic]]
    watch: Stopwatch = field(default_factory=Stopwatch)
    decided: Snapshot | None = None

    @property
    def opening(self) -> Opening:
        """Which opening of a round this is."""
        asked = self.instruction
        return Opening(asked.run, asked.round, asked.kind, asked.nonce)


class Rounds:
    """Answers the coordinator's messages with what the gate permits."""

    def __init__(
        self,
        home: SiteHome,
        config: SiteConfig,
        store: sa.Engine,
        gate: Gate,
        trainer: Trainer,
        site: tuple[str, str],
        receipt_key: Ed25519PrivateKey,
        clock: Callable[[], datetime],
        say: Callable[[str], None],
        witnesses: Witnesses,
    ) -> None:
        self._home = home
        self._config = config
        self._store = store
        self._gate = gate
        self._trainer = trainer
        self._federation, self._site = site
        self._key = receipt_key
        self._claims = Claims(store, site, receipt_key, clock, witnesses)
        self._clock = clock
        self._say = say

    def tidy(self) -> None:
        """Remove what a killed predecessor had made and not committed, or handed over already."""
        with self._store.connect() as db:
            waiting = set(db.scalars(sa.select(outbox.c.arrays)))
        for path in self._home.outbox.iterdir():
            if path.name not in waiting:
                path.unlink()

    def resume(self, line: Line) -> None:
        """Answer what a killed predecessor left: hand over what was committed, abstain from the rest.

        Raises: PeerError if the coordinator cannot be reached; what is not answered yet is kept.
        """
        with self._store.begin() as db:
            waiting = db.execute(sa.select(inflight)).all()
        for row in waiting:
            head = message_from_proto(MessageProto.FromString(row.head))
            try:
                self._answer_again(line, head, row.message_id)
            except PeerRefused as error:
                self._say(f"an answer from before the restart was no longer wanted ({error})")
            self._settle(row.message_id)

    def take_part(self, line: Line, incoming: Incoming) -> None:
        """Do what the announced message asks, as far as it is permitted, and answer it.

        Raises: PeerError if the message cannot be had or the answer not handed over; `resume` then cares for it.
        """
        head, work = incoming.head, None
        self._note(head)
        message = line.fetch(incoming)
        try:
            work = self._read(message)
            del message  # a model is large; from here on the work alone holds it
            self._say(_announcement(work.instruction))
            if work.instruction.kind == "initialise":
                self._initialise(line, head, work)
            else:
                released = self._earn(work)
                self._check_again(work.message_id)
                line.release(head, released.arrays, released.metrics, released.receipt)
                self._say(f"round {work.instruction.round}: released")
        except Abstention as abstention:
            self._say(f"abstained: {abstention.reason}")
            self._trainer.forget()
            self._file(head.metadata.message_id).unlink(missing_ok=True)
            if not isinstance(abstention, Discarded):
                self._abstained(work, abstention.reason)
            line.abstain(head)
        self._settle(head.metadata.message_id)

    def _read(self, message: Message) -> _Work:
        """Return the work of `message`.

        Raises: Abstention if it is not an instruction this site can check.
        """
        record = message.content.get("instruction")
        if not isinstance(record, ConfigRecord):
            raise Abstention("the message holds no instruction")
        try:
            instruction = Instruction.model_validate(dict(record))
        except ValidationError as error:
            keys = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
            raise Abstention(f"instruction: {', '.join(sorted(keys))} is not valid") from None
        self._check_clock(instruction)
        self._check_nonce(instruction)
        self._check_log(instruction)
        return _Work(instruction, message.metadata.message_id, _base_model(message, instruction))

    def _check_clock(self, instruction: Instruction) -> None:
        now = self._clock()
        skew = (instruction.sent_at - now).total_seconds()
        if skew > self._config.clock_skew_s:
            raise Abstention(f"clocks differ by {skew:.0f} s: set this machine's clock")
        if now >= instruction.deadline:
            raise Abstention("the deadline has passed; if this repeats, set this machine's clock")

    def _check_nonce(self, instruction: Instruction) -> None:
        columns = participation.c
        opening = (instruction.run, instruction.round, instruction.kind, instruction.nonce)
        answered = sa.select(columns.outcome).where(
            sa.tuple_(columns.run, columns.round, columns.kind, columns.nonce) == opening
        )
        with self._store.connect() as db:
            if db.execute(answered).first() is not None:
                raise Abstention("this opening of the round was answered before")

    def _check_log(self, instruction: Instruction) -> None:
        with self._store.connect() as db:
            if not consent_log.known_size(db, instruction.log_size):
                raise Abstention("the coordinator names a state of the consent log this site never signed")

    def _initialise(self, line: Line, head: Message, work: _Work) -> None:
        task = self._gate.approved_task(work.instruction.task, self._clock())
        if isinstance(task, Deny):
            raise Abstention(task.reason)
        made = self._train(work, lambda: self._trainer.run("initialise", task, self._in_time(work)))
        line.release_initial(head, made.arrays, made.layout, whole=work.instruction.whole)
        with self._store.begin() as db:
            digest = model_digest(made.arrays)
            ledger.write(db, self._clock(), "site:model:initialised", model=digest)

    def _earn(self, work: _Work) -> Release:
        """Return a release that was committed while everything in it was permitted.

        Raises: Abstention; whatever was computed is then gone.
        """
        decided = work.decided = self._ask(work, lambda: self._gate.explained(work.instruction.task, self._clock()))
        snapshot = self._ask(work, lambda: self._gate.enough(decided))
        with work.watch.on_receipt():
            frozen = self._claims.freeze(snapshot)
        self._freeze(work, snapshot)
        arrays, metrics = self._trained(work, snapshot)
        trained_at = self._clock()
        for _ in range(RELEASE_ATTEMPTS):
            checked = self._ask(work, lambda: self._gate.recheck(snapshot, self._clock()))
            with work.watch.on_receipt():
                claim = self._claim(work, frozen, checked)
            released = self._commit(work, claim, trained_at, arrays, _coarsened(metrics, claim))
            if released is not None:
                return released
        raise Abstention("consent: the records kept changing at release")

    def _trained(self, work: _Work, snapshot: Snapshot) -> tuple[Arrays, Mapping[str, float]]:
        """Return the weights that may leave, and the exact metrics; the base model is needed no more and let go.

        Raises: Abstention.
        """
        made = self._train(work, lambda: self._compute(work, snapshot))
        try:
            training = work.instruction.kind == "train"
            arrays = check_arrays(snapshot.task, made.arrays, work.base) if training else {}
        except UpdateRefused as refusal:
            raise Abstention(str(refusal)) from refusal
        work.base.clear()
        return arrays, made.metrics

    def _ask(self, work: _Work, question: Callable[[], Snapshot | Deny]) -> Snapshot:
        started = time.perf_counter()
        answer = question()
        work.watch.gate += time.perf_counter() - started
        if isinstance(answer, Deny):
            raise Abstention(answer.reason)
        return answer

    def _compute(self, work: _Work, snapshot: Snapshot) -> Trained | None:
        in_time = self._in_time(work)
        epoch, asked_at = snapshot.epoch, snapshot.at

        def may_go_on() -> bool:
            nonlocal epoch, asked_at
            seen, now = self._gate.epoch(), self._clock()
            if seen != epoch or not asked_at <= now < asked_at + ASK_AGAIN:
                epoch, asked_at = seen, now
                if isinstance(self._gate.recheck(snapshot, now), Deny):
                    return False
            return in_time()

        kind = work.instruction.kind
        return self._trainer.run(
            kind,
            snapshot.task,
            may_go_on,
            round_number=work.instruction.round,
            base=work.base,
            items=snapshot.cohort.items,
        )

    def _in_time(self, work: _Work) -> Callable[[], bool]:
        return lambda: self._clock() < work.instruction.deadline

    def _train(self, work: _Work, run: Callable[[], Trained | None]) -> Trained:
        started = time.perf_counter()
        try:
            made = run()
        except TrainingFailed as error:
            raise Abstention(str(error)) from error
        finally:
            work.watch.training += time.perf_counter() - started
        if made is None:
            raise Abstention("stopped: a permission was taken back, or time ran out; work discarded")
        return made

    def _abstained(self, work: _Work | None, reason: str) -> None:
        with self._store.begin() as db:
            at, kept = self._clock(), dict[str, str | int]()
            if work is not None:
                self._participated(db, work, None, reason, None, at)
                if work.decided is not None:
                    claims.keep_unused(db, work.opening, work.decided)
                kept = {**work.opening._asdict(), **_digests(db, work.opening)}
            ledger.write(db, at, "site:round:abstained", reason=reason, **kept)

    def _claim(self, work: _Work, frozen: Frozen, checked: Snapshot) -> Claim:
        """Return what the receipt will claim of the studies that were re-checked."""
        log = self._claims.publish_witnessed()
        if log is None:
            raise Abstention("witnesses: too few of them cosigned the consent log")
        with self._store.connect() as db:
            bucket = self._bucket(db, work.instruction, len(checked.cohort.studies))
        return self._claims.make(frozen, checked, log, bucket, work.instruction.log_size)

    def _freeze(self, work: _Work, snapshot: Snapshot) -> None:
        """Put on record which studies the work that begins was given."""
        instruction = work.instruction
        with self._store.begin() as db:
            db.execute(
                sa.insert(frozen_set).values(
                    message_id=work.message_id,
                    run=instruction.run,
                    round=instruction.round,
                    kind=instruction.kind,
                    task=instruction.task,
                    used=lineage.written(snapshot.cohort.used),
                )
            )

    def _check_again(self, message_id: str, *, may_have_left: bool = False) -> None:
        """See that a committed release holds no study that was withdrawn meanwhile.

        Raises: Abstention; the release is then discarded, and the record says so.
        """
        if lineage.discard(self._store, self._gate, message_id, self._clock(), may_have_left=may_have_left):
            self._file(message_id).unlink(missing_ok=True)
            raise Discarded("consent: a study was withdrawn before the update was handed over; it was discarded")

    def _commit(
        self,
        work: _Work,
        claim: Claim,
        trained_at: datetime,
        arrays: Arrays,
        metrics: Mapping[str, float],
    ) -> Release | None:
        """Commit the release if the consent epoch is still the one that was re-checked; else None."""
        started, snapshot, checked = time.perf_counter(), claim.frozen.snapshot, claim.checked
        path = self._file(work.message_id)
        if arrays:
            _write(path, save(dict(arrays)))
        digest = update_digest(arrays, metrics)
        with self._store.begin() as db:
            now = self._clock()
            # The epoch tells what people changed since; the gate, what ended by itself or is not recent any more.
            if current_epoch(db) != checked.epoch or isinstance(self._gate.recheck(snapshot, now), Deny):
                path.unlink(missing_ok=True)
                return None
            if not snapshot.at <= trained_at <= checked.at <= now:
                raise Abstention("this machine's clock went back during the round")
            times = Times(snapshot=snapshot.at, trained=trained_at, recheck=checked.at, released=now)
            receipt = self._receipt(db, work, claim, times, digest)
            envelope = sign_receipt(receipt, self._key)
            work.watch.receipt += time.perf_counter() - started
            self._participated(db, work, checked, "", envelope, now)
            claims.keep(db, work.opening, claim)
            db.execute(
                sa.insert(outbox).values(
                    message_id=work.message_id,
                    arrays=path.name if arrays else None,
                    metrics=json.dumps(metrics),
                    receipt=envelope,
                )
            )
            named = {"update": digest, "receipt": receipt_digest(envelope)}
            ledger.write(db, now, "site:update:released", **work.opening._asdict(), **named)
        return Release(arrays, metrics, envelope)

    def _receipt(self, db: sa.Connection, work: _Work, claim: Claim, times: Times, digest: str) -> Receipt:
        instruction, checked = work.instruction, claim.checked
        return Receipt(
            federation=self._federation,
            run=instruction.run,
            round=instruction.round,
            kind=instruction.kind,
            nonce=instruction.nonce,
            site=self._site,
            base_model=instruction.base_model,
            task=instruction.task,
            update=digest,
            consent_log=claim.consent_log,
            eligibility=claim.eligibility,
            grants=checked.grants,
            count_bucket=claim.bucket.label,
            weight=claim.bucket.weight,
            times=times,
            epoch=Epoch(recheck=checked.epoch, release=checked.epoch),
            software=SOFTWARE,
            attestation=None,
            prev=self._previous(db, instruction.receipt_head),
        )

    def _bucket(self, db: sa.Connection, instruction: Instruction, studies: int) -> Bucket:
        """Return the range that stands for the number of studies, which goes on from the one before it in the run.

        A run that takes up an earlier one goes on from the rounds it carried over, and one in which the receipt key was
        changed from the rounds before, so that a withdrawal does not show.
        """
        made = self._receipts(db, participation.c.run == instruction.run) or self._carried(db, instruction)
        if not made:
            return count_bucket(studies)
        previous = claims.read_receipt(db, made[-1])
        return bucket_with_hysteresis(studies, Bucket(previous.count_bucket, previous.weight))

    def _carried(self, db: sa.Connection, instruction: Instruction) -> list[bytes]:
        """Return the receipt of an earlier run of the task that the instruction names, if it is one of this site."""
        for envelope in self._receipts(db):
            if receipt_digest(envelope) == instruction.carried_receipt:
                receipt = claims.read_receipt(db, envelope)
                return [envelope] if (receipt.task, receipt.kind) == (instruction.task, "train") else []
        return []

    def _previous(self, db: sa.Connection, head: str) -> str:
        """Return the receipt this one follows: the last the coordinator has, if it is ours and it forgot none.

        A receipt that was committed and never arrived stays in the site's own record as a side branch.
        """
        signer = key_id(self._key.public_key()).encode()
        made = [envelope for envelope in self._receipts(db) if signer in envelope]
        chain = [NO_PREVIOUS, *map(receipt_digest, made)]
        if head not in chain:
            raise Abstention("the coordinator names a receipt this site never made")
        # What the newest receipt follows is what the coordinator had then; it may have more now, not less.
        had = open_receipt(made[-1], self._key.public_key()).prev if made else NO_PREVIOUS
        if chain.index(head) < chain.index(had):
            raise Abstention("the coordinator goes back to a receipt before one that it had")
        return head

    def _receipts(self, db: sa.Connection, *which: sa.ColumnElement[bool]) -> list[bytes]:
        """Return the receipts that this site made, by whichever of its keys, oldest first."""
        columns = participation.c
        made = sa.select(columns.receipt).where(columns.receipt.is_not(None), *which).order_by(sa.text("rowid"))
        return list(db.execute(made).scalars())

    def _participated(
        self,
        db: sa.Connection,
        work: _Work,
        used: Snapshot | None,
        reason: str,
        receipt: bytes | None,
        at: datetime,
    ) -> None:
        instruction, watch = work.instruction, work.watch
        given = db.execute(sa.select(frozen_set.c.used).where(frozen_set.c.message_id == work.message_id)).scalar()
        db.execute(
            sa.insert(participation).values(
                run=instruction.run,
                round=instruction.round,
                kind=instruction.kind,
                nonce=instruction.nonce,
                outcome="released" if used else "abstained",
                reason=reason,
                epoch=used.epoch if used else current_epoch(db),
                studies=json.dumps(sorted(used.cohort.studies) if used else []),
                task=instruction.task,
                used=lineage.written(used.cohort.used) if used else given or lineage.written(()),
                receipt=receipt,
                gate_s=watch.gate,
                receipt_s=watch.receipt,
                training_s=watch.training,
                recorded_at=at.isoformat(),
            )
        )

    def _note(self, head: Message) -> None:
        with self._store.begin() as db:
            db.execute(
                sa.insert(inflight).values(
                    message_id=head.metadata.message_id,
                    head=message_to_proto(head).SerializeToString(),
                )
            )

    def _answer_again(self, line: Line, head: Message, message_id: str) -> None:
        try:
            self._check_again(message_id, may_have_left=True)
        except Discarded as discarded:
            self._say(f"abstained: {discarded.reason}")
        with self._store.begin() as db:
            row = db.execute(sa.select(outbox).where(outbox.c.message_id == message_id)).first()
        if row is None:
            line.abstain(head)
            return
        arrays = load_file(self._home.outbox / row.arrays) if row.arrays else {}
        line.release(head, arrays, json.loads(row.metrics), row.receipt)

    def _settle(self, message_id: str) -> None:
        with self._store.begin() as db:
            db.execute(sa.delete(inflight).where(inflight.c.message_id == message_id))
            db.execute(sa.delete(outbox).where(outbox.c.message_id == message_id))
            db.execute(sa.delete(frozen_set).where(frozen_set.c.message_id == message_id))
        self._file(message_id).unlink(missing_ok=True)

    def _file(self, message_id: str) -> Path:
        """Return where an update waits; the coordinator chose the id, so a digest of it names the file."""
        return self._home.outbox / f"{hashlib.sha256(message_id.encode()).hexdigest()}.safetensors"


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is on disk before the transaction that speaks of it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is on disk once its folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _base_model(message: Message, instruction: Instruction) -> dict[str, NDArray[np.generic]]:
    """Return the global model that came with the instruction; nothing where the untrained one is asked for.

    Raises: Abstention if it cannot be read, or is another than the instruction names.
    """
    if instruction.kind == "initialise":
        return {}
    arrays = message.content.array_records.get("arrays", ArrayRecord())
    try:
        base = {name: npy_array(array.data, array.dtype, array.shape) for name, array in arrays.items()}
        found = model_digest(base)
    except (UpdateRefused, ValueError) as error:
        raise Abstention("the base model cannot be read") from error
    if found != instruction.base_model:
        raise Abstention("the base model is not the one the instruction names")
    return base


def _coarsened(metrics: Mapping[str, float], claim: Claim) -> dict[str, float]:
    """Return the metrics as they may leave with the claim, whose range decides how coarse they are.

    Raises: Abstention.
    """
    try:
        return check_metrics(claim.checked.task, metrics, claim.bucket)
    except ReleaseRefused as refusal:
        raise Abstention(str(refusal)) from refusal


def _digests(db: sa.Connection, opening: Opening) -> dict[str, str]:
    """Return the digests of what is kept of an opening, by table."""
    found = {}
    for table in (participation, eligibility):
        this = sa.tuple_(*(table.c[name] for name in Opening._fields)) == tuple(opening)
        row = db.execute(sa.select(table).where(this)).mappings().first()
        if row is not None:
            found[table.name] = ledger.row_digest(dict(row))
    return found


def _announcement(instruction: Instruction) -> str:
    return f"{instruction.kind}: run {instruction.run}, round {instruction.round}"
