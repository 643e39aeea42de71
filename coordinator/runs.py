"""The durable record of runs: their state, the global model of every closed round, and what each member did.

A round is closed in one transaction, after its model's file is on disk: a coordinator that is killed goes on from the
last closed round. What it had received of the open round is asked for again, under a new nonce.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from coordinator.errors import ConfigurationError, RunFailed
from coordinator.store import contribution, log_head, receipt_head, round_, run
from coordinator.verification import expected_json
from models import model_digest, parse_layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
    outcome: str  # counted | abstained | refused | absent
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
    name = f"run-{secrets.token_hex(4)}"
    with store.begin() as db:
        db.execute(
            sa.insert(run).values(run=name, task=task, state="requested", detail="", requested_at=at.isoformat())
        )
    return name


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
        self.folder = folder / name
        self.name = name
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, at: datetime) -> None:
        """Note that the run is under way; the first start counts."""
        with self._store.begin() as db:
            db.execute(
                sa.update(run)
                .where(run.c.run == self.name)
                .values(state="running", started_at=sa.func.coalesce(run.c.started_at, at.isoformat()))
            )

    def end(self, state: str, detail: str, at: datetime) -> None:
        """Note how the run ended."""
        with self._store.begin() as db:
            db.execute(
                sa.update(run).where(run.c.run == self.name).values(state=state, detail=detail, ended_at=at.isoformat())
            )

    def last_round(self) -> int | None:
        """Return the last round whose model is on disk; None before the initial model."""
        query = sa.select(sa.func.max(round_.c.round)).where(round_.c.run == self.name)
        with self._store.connect() as db:
            return db.execute(query).scalar()

    def model(self, number: int) -> dict[str, NDArray[np.generic]]:
        """Return the global model after round `number`.

        Raises: RunFailed if the file is not what the record says.
        """
        try:
            arrays = dict(load_file(self._model_path(number)))
        except (OSError, SafetensorError) as error:
            raise RunFailed(f"the model of round {number} on disk is missing or damaged") from error
        query = sa.select(round_.c.model_after).where(round_.c.run == self.name, round_.c.round == number)
        with self._store.connect() as db:
            expected = db.execute(query).scalar()
        if model_digest(arrays) != expected:
            raise RunFailed(f"the model of round {number} on disk is not the one on record")
        return arrays

    def layout(self) -> Layout:
        """Return where each tensor of the model lies in its arrays."""
        return parse_layout((self.folder / "layout.json").read_bytes())

    def start_with(self, arrays: Arrays, layout: bytes, at: float) -> None:
        """Keep the untrained model as that of round 0."""
        _write(self.folder / "layout.json", layout)
        _write(self._model_path(0), save(dict(arrays)))
        digest = model_digest(arrays)
        with self._store.begin() as db:
            self._insert_round(db, Closing(0, "initialise", {}, at, at, ()), digest, digest, at)

    def close(self, closing: Closing, before: str, arrays: Arrays, at: float) -> str:
        """Keep the model of a trained round and who contributed what; return the model's digest."""
        after = model_digest(arrays)
        _write(self._model_path(closing.round), save(dict(arrays)))
        with self._store.begin() as db:
            self._insert_round(db, closing, before, after, at)
            self._insert_contributions(db, closing)
        return after

    def keep_evaluation(self, closing: Closing) -> None:
        """Keep who measured the final model."""
        with self._store.begin() as db:
            self._insert_contributions(db, closing)

    def keep_short(self, closing: Closing) -> None:
        """Keep who did what in a round short of its quorum, until it is opened again; no receipt of it is followed."""
        with self._store.begin() as db:
            self._insert_contributions(db, closing, follow=False)

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

    def _model_path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}.safetensors"

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
                )
            )
            if follow and made.outcome == "counted":
                db.execute(sa.delete(receipt_head).where(receipt_head.c.site == made.site))
                head = {"site": made.site, "digest": made.receipt_digest, "receipt": made.receipt}
                db.execute(sa.insert(receipt_head).values(**head))
                db.execute(sa.delete(log_head).where(log_head.c.site == made.site))
                if made.log is not None:
                    db.execute(sa.insert(log_head).values(site=made.site, **asdict(made.log)))


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
        return {
            **row,
            "rounds": [{**r, "metrics": json.loads(r["metrics"])} for r in rounds],
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
