"""The durable record of runs: their state, the global model of every closed round, and what each member did.

A round is closed in one transaction, after its model's file is on disk: a coordinator that is killed goes on from the
last closed round. What it had received of the open round is asked for again, under a new nonce. The same transaction
makes sure that the run was not ended meanwhile and that no counted update was taken back: whoever withdraws locks the
run's row first (`lock`), so one of the two sees the other.

A run may be derived from an earlier one: its first rounds are then rows that name the run that made them, and their
models lie in that run's folder.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from coordinator.errors import ConfigurationError, RunEnded, RunFailed, UpdateRetracted
from coordinator.store import contribution, log_head, receipt_head, round_, run, withdrawn_receipt
from coordinator.verification import expected_json
from models import model_digest, parse_layout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from coordinator.verification import Expected
    from models import Layout

    Arrays = Mapping[str, NDArray[np.generic]]

OPEN_STATES = ("requested", "running")


@dataclass(frozen=True, slots=True)
class LogState:
    """A state of a site's consent log, and by which of the site's keys it was signed."""

    key_id: str
    size: int
    root: str
    note: str


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one member did in one round."""

    site: str
    outcome: str  # counted | abstained | refused | absent | retracted
    reason: str = ""
    weight: int = 0
    update: str = ""
    metrics: Mapping[str, float] | None = None
    receipt: bytes | None = None
    receipt_digest: str = ""
    expected: Expected | None = None
    log: LogState | None = None
    verify_s: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Closing:
    """A round as it is closed; moments in seconds since the epoch."""

    round: int
    kind: str
    metrics: Mapping[str, float]
    opened_at: float
    last_reply_at: float
    contributions: Sequence[Contribution]


def request(store: sa.Engine, task: str, at: datetime) -> str:
    """Ask the running coordinator to start a run of `task`; return the run's name."""
    with store.begin() as db:
        return _request(db, task, at)


def derive(db: sa.Connection, name: str, carried_rounds: int, at: datetime) -> str:
    """Ask for a run that takes the place of run `name` and goes on after its round `carried_rounds`; return its name.

    The rounds up to that one, and who contributed to them, become the new run's own; the old run ends as superseded.
    """
    old = db.execute(sa.select(run).where(run.c.run == name)).one()
    new = _request(db, old.task, at, derived_from=name, carried_rounds=carried_rounds)
    for table, which in (
        (round_, round_.c.round <= carried_rounds),
        (contribution, (contribution.c.round <= carried_rounds) & (contribution.c.kind == "train")),
    ):
        for row in db.execute(sa.select(table).where(table.c.run == name, which)).mappings().all():
            db.execute(sa.insert(table).values({**row, "run": new}))
    detail = f"a contribution to it was withdrawn; {new} takes its place"
    ended = {"state": "superseded", "detail": detail, "superseded_by": new, "ended_at": at.isoformat()}
    db.execute(sa.update(run).where(run.c.run == name).values(ended))
    return new


def _request(db: sa.Connection, task: str, at: datetime, **lineage: object) -> str:
    name = f"run-{secrets.token_hex(4)}"
    asked = {"run": name, "task": task, "state": "requested", "detail": "", "requested_at": at.isoformat()}
    db.execute(sa.insert(run).values({**asked, **lineage}))
    return name


def lock(db: sa.Connection, which: sa.ColumnElement[bool]) -> None:
    """Let no other transaction close a round or withdraw a contribution of these runs until this one has ended."""
    db.execute(sa.update(run).where(which).values(state=run.c.state))


def is_open(store: sa.Engine, name: str) -> bool:
    """Return whether a run is requested or under way; another process may have ended it."""
    with store.connect() as db:
        return db.execute(sa.select(run.c.state).where(run.c.run == name)).scalar() in OPEN_STATES


def next_open(store: sa.Engine) -> tuple[str, str] | None:
    """Return (run, task digest) of the oldest run that is requested or was interrupted."""
    query = sa.select(run).where(run.c.state.in_(OPEN_STATES)).order_by(run.c.requested_at).limit(1)
    with store.connect() as db:
        row = db.execute(query).first()
    return None if row is None else (row.run, row.task)


class RunRecord:
    """One run's record: its rows, and its folder of models."""

    def __init__(self, store: sa.Engine, folder: Path, name: str) -> None:
        self._store = store
        self._runs = folder
        self.folder = folder / name
        self.name = name
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, at: datetime) -> None:
        """Note that the run is under way; the first start counts.

        Raises: RunEnded if it was ended meanwhile.
        """
        if not self._move(state="running", started_at=sa.func.coalesce(run.c.started_at, at.isoformat())):
            raise RunEnded(self.name)

    def end(self, state: str, detail: str, at: datetime) -> bool:
        """Note how the run ended, unless it was ended before; return whether it was noted."""
        return self._move(state=state, detail=detail, ended_at=at.isoformat())

    def is_open(self) -> bool:
        """Return whether nobody has ended the run."""
        return is_open(self._store, self.name)

    def _move(self, **values: object) -> bool:
        still_open = (run.c.run == self.name) & run.c.state.in_(OPEN_STATES)
        with self._store.begin() as db:
            return db.execute(sa.update(run).where(still_open).values(values)).rowcount == 1

    def last_round(self) -> int | None:
        """Return the last round whose model is on disk; None before the initial model."""
        query = sa.select(sa.func.max(round_.c.round)).where(round_.c.run == self.name)
        with self._store.connect() as db:
            return db.execute(query).scalar()

    def model(self, number: int) -> dict[str, NDArray[np.generic]]:
        """Return the global model after round `number`.

        Raises: RunFailed if the file is not what the record says.
        """
        query = sa.select(round_.c.model_after, round_.c.made_in).where(
            round_.c.run == self.name, round_.c.round == number
        )
        with self._store.connect() as db:
            row = db.execute(query).first()
        try:
            arrays = dict(load_file(self._model_path(number, row.made_in if row else self.name)))
        except (OSError, SafetensorError) as error:
            raise RunFailed(f"the model of round {number} on disk is missing or damaged") from error
        if row is None or model_digest(arrays) != row.model_after:
            raise RunFailed(f"the model of round {number} on disk is not the one on record")
        return arrays

    def layout(self) -> Layout:
        """Return where each tensor of the model lies in its arrays."""
        query = sa.select(round_.c.made_in).where(round_.c.run == self.name, round_.c.round == 0)
        with self._store.connect() as db:
            made_in = db.execute(query).scalar() or self.name
        return parse_layout((self._runs / made_in / "layout.json").read_bytes())

    def start_with(self, arrays: Arrays, layout: bytes, at: float) -> None:
        """Keep the untrained model as that of round 0."""
        _write(self.folder / "layout.json", layout)
        _write(self._model_path(0), save(dict(arrays)))
        digest = model_digest(arrays)
        with self._store.begin() as db:
            self._insert_round(db, Closing(0, "initialise", {}, at, at, ()), digest, digest, at)

    def close(self, closing: Closing, before: str, arrays: Arrays, at: float) -> str:
        """Keep the model of a trained round and who contributed what; return the model's digest.

        Raises: UpdateRetracted if one that counts was taken back before this was written; RunEnded if the run was
            ended. Nothing is written then.
        """
        after = model_digest(arrays)
        _write(self._model_path(closing.round), save(dict(arrays)))
        with self._store.begin() as db:
            self._still_open(db)
            if _taken_back(db, _counted(closing.contributions)):
                raise UpdateRetracted(f"round {closing.round}")
            self._insert_round(db, closing, before, after, at)
            self._insert_contributions(db, closing)
        return after

    def keep_evaluation(self, closing: Closing) -> None:
        """Keep who measured the final model; what was taken back before this does not count.

        Raises: RunEnded if the run was ended.
        """
        with self._store.begin() as db:
            self._still_open(db)
            taken = _taken_back(db, _counted(closing.contributions))
            self._insert_contributions(db, replace(closing, contributions=without(closing.contributions, taken)))

    def keep_short(self, closing: Closing) -> None:
        """Keep who did what in a round short of its quorum, until it is opened again; no receipt of it is followed.

        Raises: RunEnded if the run was ended.
        """
        with self._store.begin() as db:
            self._still_open(db)
            self._insert_contributions(db, closing, follow=False)

    def taken_back(self, contributions: Iterable[Contribution]) -> frozenset[str]:
        """Return the receipts, by digest, of those contributions that were taken back up to now."""
        with self._store.connect() as db:
            return _taken_back(db, _counted(contributions))

    def carried_receipts(self) -> dict[str, str]:
        """Return, by site, the last receipt counted in the rounds that were carried over from an earlier run."""
        columns = contribution.c
        query = sa.select(columns.site, columns.receipt_digest).where(
            columns.run == self.name, columns.made_in != self.name, columns.outcome == "counted"
        )
        with self._store.connect() as db:
            return {row.site: row.receipt_digest for row in db.execute(query.order_by(columns.round))}

    def _still_open(self, db: sa.Connection) -> None:
        lock(db, run.c.run == self.name)
        if db.execute(sa.select(run.c.state).where(run.c.run == self.name)).scalar() not in OPEN_STATES:
            raise RunEnded(self.name)

    def is_evaluated(self, number: int) -> bool:
        """Return whether the model of round `number` was measured; a final model is measured once."""
        columns = contribution.c
        same = (columns.run == self.name) & (columns.round == number) & (columns.kind == "evaluate")
        with self._store.connect() as db:
            return db.execute(sa.select(contribution.c.site).where(same).limit(1)).first() is not None

    def first_byte(self, number: int, at: float) -> None:
        """Note when the first site was handed the model that round `number` made."""
        with self._store.begin() as db:
            db.execute(
                sa.update(round_).where(round_.c.run == self.name, round_.c.round == number).values(first_byte_at=at)
            )

    def _model_path(self, number: int, made_in: str | None = None) -> Path:
        return self._runs / (made_in or self.name) / f"round-{number:04d}.safetensors"

    def _insert_round(self, db: sa.Connection, closing: Closing, before: str, after: str, at: float) -> None:
        db.execute(
            sa.insert(round_).values(
                run=self.name,
                round=closing.round,
                model_before=before,
                model_after=after,
                metrics=json.dumps(dict(closing.metrics)),
                opened_at=closing.opened_at,
                last_reply_at=closing.last_reply_at,
                closed_at=at,
                made_in=self.name,
            )
        )

    def _insert_contributions(self, db: sa.Connection, closing: Closing, *, follow: bool = True) -> None:
        """Write the contributions, in place of an earlier opening of the same round."""
        same = (
            (contribution.c.run == self.name)
            & (contribution.c.round == closing.round)
            & (contribution.c.kind == closing.kind)
        )
        db.execute(sa.delete(contribution).where(same))
        for made in closing.contributions:
            db.execute(
                sa.insert(contribution).values(
                    run=self.name,
                    round=closing.round,
                    kind=closing.kind,
                    site=made.site,
                    outcome=made.outcome,
                    reason=made.reason,
                    weight=made.weight,
                    update=made.update,
                    metrics=json.dumps(dict(made.metrics or {})),
                    receipt=made.receipt,
                    expected=expected_json(made.expected) if made.expected else None,
                    verify_s=made.verify_s,
                    at=made.at,
                    receipt_digest=made.receipt_digest,
                    made_in=self.name,
                )
            )
            if follow and made.outcome == "counted":
                db.execute(sa.delete(receipt_head).where(receipt_head.c.site == made.site))
                head = {"site": made.site, "digest": made.receipt_digest, "receipt": made.receipt}
                db.execute(sa.insert(receipt_head).values(**head))
                db.execute(sa.delete(log_head).where(log_head.c.site == made.site))
                if made.log is not None:
                    db.execute(sa.insert(log_head).values(site=made.site, **asdict(made.log)))


def without(contributions: Iterable[Contribution], taken_back: Collection[str]) -> list[Contribution]:
    """Return the contributions, in which those whose receipts were taken back are so, and say nothing else."""
    return [
        Contribution(made.site, "retracted", at=made.at) if made.receipt_digest in taken_back else made
        for made in contributions
    ]


def _counted(contributions: Iterable[Contribution]) -> list[tuple[str, str]]:
    return [(made.receipt_digest, made.site) for made in contributions if made.outcome == "counted"]


def _taken_back(db: sa.Connection, receipts: Sequence[tuple[str, str]]) -> frozenset[str]:
    columns = withdrawn_receipt.c
    found = sa.select(columns.receipt).where(sa.tuple_(columns.receipt, columns.site).in_(receipts))
    return frozenset(db.execute(found).scalars())


def withdrawn_from(db: sa.Connection, name: str, kind: str = "train") -> int | None:
    """Return the first closed round of a run that counts a contribution which was withdrawn later; None if none does.

    Every model from that round on contains it. With kind "evaluate": the round whose model it helped to measure.
    """
    columns = contribution.c
    found = (
        sa.select(sa.func.min(columns.round))
        .join(
            withdrawn_receipt,
            (withdrawn_receipt.c.receipt == columns.receipt_digest) & (withdrawn_receipt.c.site == columns.site),
        )
        .join(round_, (round_.c.run == columns.run) & (round_.c.round == columns.round))
        .where(columns.run == name, columns.kind == kind, columns.outcome == "counted")
    )
    first: int | None = db.execute(found).scalar()
    return first


def mean_metrics(reported: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return the mean of each metric over those that report it, each by its weight."""
    reported = list(reported)
    weights: Counter[str] = Counter()
    for weight, metrics in reported:
        weights.update(dict.fromkeys(metrics, weight))
    means = dict.fromkeys(weights, 0.0)
    for weight, metrics in reported:
        for name, value in metrics.items():
            means[name] += value * (weight / weights[name])  # shares first: a huge value does not overflow
    return means


def describe(store: sa.Engine, name: str) -> dict[str, object]:
    """Return a run's whole record as plain values.

    Raises: ConfigurationError if there is no such run.
    """
    with store.connect() as db:
        row = db.execute(sa.select(run).where(run.c.run == name)).mappings().first()
        if row is None:
            raise ConfigurationError(f"run {name} is not known; see `filmroom-coordinator runs list`")
        rounds = db.execute(sa.select(round_).where(round_.c.run == name).order_by(round_.c.round)).mappings()
        made = (
            db.execute(
                sa.select(contribution)
                .where(contribution.c.run == name)
                .order_by(contribution.c.round, contribution.c.kind, contribution.c.site)
            )
            .mappings()
            .all()
        )
        first = withdrawn_from(db, name)
        return {
            **row,
            "measured_with_withdrawn": withdrawn_from(db, name, "evaluate") is not None,
            "rounds": [
                {
                    **r,
                    "metrics": json.loads(r["metrics"]),
                    "contains_withdrawn": first is not None and r["round"] >= first,
                }
                for r in rounds
            ],
            "alerts": [
                f"round {c['round']}, {c['kind']}, {c['site']}: {c['reason']}"
                for c in made
                if c["outcome"] == "refused"
            ],
            "contributions": [
                {
                    **c,
                    "metrics": json.loads(c["metrics"]),
                    "receipt": c["receipt"].decode() if c["receipt"] else None,
                }
                for c in made
            ],
        }


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent, whatever happens meanwhile, and still there after a power cut."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is on disk once its folder is
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def rows_of(record: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    """Return the rounds or the contributions of what `describe` returned."""
    rows: Any = record[name]
    return list(rows)


def place_of(row: Mapping[str, Any]) -> str:
    """Return where a contribution was made, as an auditor reads it."""
    return f"round {row['round']}, {row['kind']}, {row['site']}"
