"""The rounds: what is asked of each member, which answers count, and the model that comes of them.

Flower's Strategy, with what a consortium of hospitals needs and Flower's own averages lack: bounded waits, a message
lives no longer than its deadline, every answer is verified by itself and a bad one is dropped and recorded, and a round
short of its quorum is never counted as done. Verified updates wait on disk until the round closes and are folded then,
in the order of the members' names: memory does not grow with their number, the same participation gives the same bits,
and an update that is taken back before the close is left out, whenever that happens.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Result, Strategy

from consent import EMPTY_ROOT, ENGINE, MAX_ENVELOPE_BYTES, NO_PREVIOUS, POLICY, key_id, receipt_digest
from coordinator import members
from coordinator.errors import RunFailed, UpdateRetracted
from coordinator.folding import OrderedMean
from coordinator.receipt_keys import why_not
from coordinator.runs import Closing, Contribution, LogState, mean_metrics, without
from coordinator.verification import Expected, Refused, verify
from models import (
    UpdateRefused,
    check_update,
    metric_names,
    model_digest,
    npy_array,
    npy_bytes,
    parse_layout,
    task_digest,
    unpack,
    update_digest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    import sqlalchemy as sa
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from coordinator.config import CoordinatorConfig
    from coordinator.fleet import LinkStateGrid
    from coordinator.members import Member
    from coordinator.runs import RunRecord
    from models import Task

    Arrays = Mapping[str, NDArray[np.generic]]

# A round short of its quorum is opened again, with a new nonce, before the run is given up.
ROUND_ATTEMPTS = 3
# What stands for a consent log of which nothing was seen yet.
NO_LOG = (0, EMPTY_ROOT.hex())
ABSENT = "no answer before the deadline"
NPY = "numpy.ndarray"  # Flower's name for an npy file
KINDS = {"initialise": "query.initialise", "train": "train", "evaluate": "evaluate"}


@dataclass(slots=True)
class _Opening:
    """A round while its answers come in."""

    round: int
    kind: str
    nonce: str
    base_model: str
    asked_at: datetime
    heads: Mapping[str, str]
    logs: Mapping[str, tuple[int, str]]
    asked: dict[int, Member] = field(default_factory=dict)
    made: dict[str, Contribution] = field(default_factory=dict)
    last_reply_at: float = 0.0


class ConsentedAveraging(Strategy):
    """Federated averaging over updates whose consent receipts were verified."""

    def __init__(
        self,
        task: Task,
        record: RunRecord,
        store: sa.Engine,
        config: CoordinatorConfig,
        say: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._task = task
        self._digest = task_digest(task)
        self._record = record
        self._store = store
        self._config = config
        self._say = say
        self._stopping = stopping
        self._open: _Opening | None = None
        self._base: Arrays = {}
        self._closed: tuple[ArrayRecord, str] | None = None  # the model made last, and its digest
        self._mean: OrderedMean | None = None
        self._carried = record.carried_receipts()

    def summary(self) -> None:
        """Say what this run will do."""
        task = self._task
        self._say(f"{task.name}: {task.rounds} rounds, quorum {task.strategy.quorum}")

    def initialise(self, grid: LinkStateGrid) -> None:
        """Have the members build the untrained model, and keep it once a quorum agrees on it.

        It follows from the task alone, so all must arrive at the same bytes.
        Raises: RunFailed if fewer than the quorum agree, or the model asked for is not the one agreed on.
        """
        answers = self._initial_answers(grid, self._quorum_online(grid), whole=False)
        agreed, votes = Counter(answers.values()).most_common(1)[0] if answers else (("", ""), 0)
        if votes < self._task.strategy.quorum:
            raise RunFailed(f"{votes} sites agree on the untrained model; the quorum is {self._task.strategy.quorum}")
        willing = [member for member in self._online(grid) if answers.get(member.site) == agreed]
        for member in willing:
            arrays = self._fetch_initial(grid, member, agreed)
            if arrays is not None:
                self._record.start_with(arrays, agreed[1].encode(), time.time())
                self._say(f"untrained model {agreed[0][:12]} agreed on by {votes} sites")
                return
        raise RunFailed("no site handed over the untrained model it had agreed on")

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: object = None,
    ) -> Result:
        """Run the rounds that are still to do, then measure the final model.

        `num_rounds` counts from the run's first round; `timeout` bounds a round, and the task's deadline does too.
        Raises: RunFailed if a round stays short of its quorum.
        """
        del evaluate_fn  # the coordinator has no data to evaluate on
        self.summary()
        config = train_config or ConfigRecord()
        arrays = initial_arrays
        deadline = min(timeout, self._task.strategy.deadline_s)
        for number in range((self._record.last_round() or 0) + 1, num_rounds + 1):
            arrays = self._round(grid, number, arrays, config, deadline)
        if self._record.is_evaluated(num_rounds):
            return Result(arrays=arrays)
        messages = self.configure_evaluate(num_rounds, arrays, evaluate_config or ConfigRecord(), grid)
        metrics = self.aggregate_evaluate(num_rounds, grid.send_and_receive(messages, timeout=deadline))
        return Result(arrays=arrays, evaluate_metrics_clientapp={num_rounds: metrics or MetricRecord()})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the message that opens the round, for each member that is online."""
        return self._configure("train", server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Verify each answer as it comes, and return the mean of those that count.

        Nothing is returned where they are fewer than the quorum.
        """
        del server_round
        self._collect(replies)
        return self._fold()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the message that asks each online member to measure the model."""
        return self._configure("evaluate", server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Verify each answer and return the weighted mean of the metrics."""
        opening = self._collect(replies)
        self._record.keep_evaluation(self._closing(opening, {}))
        del server_round
        return _mean_metrics(opening.made.values())

    def _round(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, deadline: float
    ) -> ArrayRecord:
        for _ in range(ROUND_ATTEMPTS):
            opened_at = time.time()
            messages = list(self.configure_train(number, arrays, config, grid))
            replies = grid.send_and_receive(messages, timeout=deadline)
            try:
                folded = self.aggregate_train(number, self._noting(grid, number, replies))
                made = self._close(folded, opened_at)
            finally:
                if self._mean is not None:
                    self._mean.discard()
            if made is not None:
                return made
        raise RunFailed(f"round {number} stayed short of its quorum of {self._task.strategy.quorum}")

    def _close(self, folded: tuple[ArrayRecord | None, MetricRecord | None], opened_at: float) -> ArrayRecord | None:
        """Close the open round with the folded mean and return it; without it, note that the quorum was not reached.

        An update that was taken back since it was folded is left out, and what is left is folded again.
        Raises: RunEnded.
        """
        opening = self._opened()
        while True:
            mean, metrics = folded
            closing = self._closing(opening, _plain(metrics), opened_at)
            if mean is None:
                self._record.keep_short(closing)
                self._say(f"round {opening.round}: {_outcomes(closing)}; short of the quorum, asked again")
                return None
            try:
                digest = self._record.close(closing, opening.base_model, _arrays(mean), time.time())
            except UpdateRetracted:
                folded = self._fold()
                continue
            self._closed = mean, digest
            self._say(_told(closing, self._task.rounds))
            return mean

    def _fold(self) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean of what counts and was not taken back up to now; nothing if that is less than the quorum."""
        made = self._opened().made
        made.update((one.site, one) for one in without(made.values(), self._record.taken_back(made.values())))
        weights = {site: one.weight for site, one in made.items() if one.outcome == "counted"}
        if self._mean is None or len(weights) < self._task.strategy.quorum:
            return None, None
        return record_of(self._mean.result(weights)), _mean_metrics(made.values())

    def _noting(self, grid: Grid, number: int, replies: Iterable[Message]) -> Iterable[Message]:
        """Pass `replies` on; note when the last model was first handed out, and when the last reply arrived."""
        noted = False
        for reply in replies:
            if not noted:
                noted = True
                self._record.first_byte(number - 1, grid.first_byte_at())  # type: ignore[attr-defined] # ours
            self._opened().last_reply_at = grid.last_arrival_at()  # type: ignore[attr-defined] # ours
            yield reply

    def _configure(
        self, kind: str, number: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        self._base = _arrays(arrays)
        asked = self._quorum_online(grid) if kind == "train" else self._online(grid)
        # The deadline counts from here: not from before the wait for a quorum.
        known = self._closed[1] if self._closed is not None and self._closed[0] is arrays else ""
        opening = self._begin(kind, number, known or model_digest(self._base))
        self._mean = OrderedMean(self._base, self._record.folder / "open") if kind == "train" else None
        deadline = self._task.strategy.deadline_s
        return [self._message(opening, member, RecordDict({"arrays": arrays}), config, deadline) for member in asked]

    def _begin(self, kind: str, number: int, base_model: str) -> _Opening:
        self._open = _Opening(
            round=number,
            kind=kind,
            nonce=secrets.token_hex(16),
            base_model=base_model,
            asked_at=_now(),
            heads=members.heads(self._store),
            logs=members.logs(self._store),
        )
        return self._open

    def _message(
        self,
        opening: _Opening,
        member: Member,
        content: RecordDict,
        config: ConfigRecord,
        deadline_s: float,
    ) -> Message:
        opening.asked[member.node_id] = member
        content["instruction"] = ConfigRecord(
            {
                **config,
                "kind": opening.kind,
                "run": self._record.name,
                "round": opening.round,
                "task": self._digest,
                "nonce": opening.nonce,
                "base_model": opening.base_model,
                "sent_at": opening.asked_at.isoformat(),
                "deadline": (opening.asked_at + timedelta(seconds=deadline_s)).isoformat(),
                "receipt_head": opening.heads.get(member.site, NO_PREVIOUS),
                "log_size": opening.logs.get(member.site, NO_LOG)[0],
                "carried_receipt": self._carried.get(member.site, NO_PREVIOUS),
            }
        )
        return Message(
            content,
            member.node_id,
            KINDS[opening.kind],
            group_id=str(opening.round),
            ttl=deadline_s,
        )

    def _collect(self, replies: Iterable[Message]) -> _Opening:
        """Take the answers of the open round in; who never answered is noted as absent."""
        opening = self._opened()
        for reply in replies:
            member = opening.asked.get(reply.metadata.src_node_id)
            if member is not None and member.site not in opening.made:
                opening.made[member.site] = self._judge(opening, member, reply)
        for member in opening.asked.values():
            opening.made.setdefault(member.site, Contribution(member.site, "absent", ABSENT, at=time.time()))
        return opening

    def _judge(self, opening: _Opening, member: Member, reply: Message) -> Contribution:
        if reply.has_error():
            return Contribution(member.site, "abstained", at=time.time())
        started = time.perf_counter()
        try:
            return self._verified(opening, member, reply, started)
        except (UpdateRefused, ValueError, TypeError, KeyError) as error:
            reason = str(error.fault) if isinstance(error, UpdateRefused) else "malformed"
            return self._refused(opening, member, reason, None)

    def _refused(self, opening: _Opening, member: Member, reason: str, envelope: bytes | None) -> Contribution:
        """Note a refusal, and say it to whoever watches."""
        self._say(f"ALERT: round {opening.round}, {opening.kind}: {member.site} refused: {reason}")
        return Contribution(member.site, "refused", reason, receipt=envelope, at=time.time())

    def _verified(self, opening: _Opening, member: Member, reply: Message, started: float) -> Contribution:
        envelope = reply.content.config_records["receipt"]["envelope"]
        arrays = _arrays(reply.content.array_records.get("arrays", ArrayRecord()))
        metrics = dict(reply.content.metric_records["metrics"])
        if not isinstance(envelope, bytes) or not metrics.keys() <= set(metric_names(self._task)):
            return self._refused(opening, member, "malformed", None)
        digest = update_digest(arrays, metrics)  # type: ignore[arg-type] # raises on what is no number
        expected, now = self._expected(opening, member), _now()
        fault = why_not(self._store, member.node_id, envelope)
        evidence = Refused(fault) if fault else verify(envelope, member.receipt_key, expected, digest, now)
        if isinstance(evidence, Refused):
            kept = envelope if len(envelope) <= MAX_ENVELOPE_BYTES else None
            return self._refused(opening, member, evidence.reason, kept)
        weight, log = evidence.receipt.weight, evidence.recheck
        if self._mean is not None:
            check_update(arrays, self._base, self._task.strategy.max_update_norm)
            self._mean.add(member.site, arrays)
        return Contribution(
            site=member.site,
            outcome="counted",
            weight=weight,
            update=digest,
            metrics=metrics,  # type: ignore[arg-type] # as above
            receipt=envelope,
            receipt_digest=receipt_digest(envelope),
            expected=expected,
            log=LogState(key_id(member.receipt_key), log.size, log.root.hex(), evidence.receipt.consent_log.recheck),
            verify_s=time.perf_counter() - started,
            at=now.timestamp(),
        )

    def _expected(self, opening: _Opening, member: Member) -> Expected:
        config = self._config
        log_size, log_root = opening.logs.get(member.site, NO_LOG)
        return Expected(
            federation=config.federation,
            run=self._record.name,
            round=opening.round,
            kind=opening.kind,
            nonce=opening.nonce,
            site=member.site,
            base_model=opening.base_model,
            task=self._digest,
            prev=opening.heads.get(member.site, NO_PREVIOUS),
            asked_at=opening.asked_at,
            minimum_count=config.minimum_count,
            clock_skew=timedelta(seconds=config.clock_skew_s),
            purposes=self._task.purpose.purposes,
            policies=(POLICY, *config.allowed_policies),
            engines=(ENGINE, *config.allowed_engines),
            log_size=log_size,
            log_root=log_root,
            witnesses=config.witnesses,
            witness_quorum=config.witness_quorum,
            release_window=timedelta(seconds=config.release_window_s),
        )

    def _closing(self, opening: _Opening, metrics: Mapping[str, float], opened_at: float = 0.0) -> Closing:
        return Closing(
            round=opening.round,
            kind=opening.kind,
            metrics=metrics,
            opened_at=opened_at,
            last_reply_at=opening.last_reply_at,
            contributions=[opening.made[site] for site in sorted(opening.made)],
        )

    def _initial_answers(
        self, grid: LinkStateGrid, asked: Iterable[Member], *, whole: bool
    ) -> dict[str, tuple[str, str]]:
        """Return each site's digest and layout of the untrained model; keep the arrays if `whole`."""
        opening = self._begin("initialise", 0, self._digest)
        deadline = self._task.strategy.deadline_s
        config = ConfigRecord({"whole": whole})
        messages = [self._message(opening, m, RecordDict(), config, deadline) for m in asked]
        answers = {}
        for reply in grid.send_and_receive(messages, timeout=deadline):
            member = opening.asked.get(reply.metadata.src_node_id)
            if member is not None and not reply.has_error():
                answer = _initial(reply, whole=whole)
                if answer is not None:
                    answers[member.site], self._base = answer
        return answers

    def _fetch_initial(self, grid: LinkStateGrid, member: Member, agreed: tuple[str, str]) -> Arrays | None:
        answers = self._initial_answers(grid, [member], whole=True)
        return self._base if answers.get(member.site) == agreed else None

    def _online(self, grid: Grid) -> list[Member]:
        online = set(grid.get_node_ids())
        return [member for member in members.active(self._store) if member.node_id in online]

    def _quorum_online(self, grid: Grid) -> list[Member]:
        """Wait, at most a round's deadline, until a quorum is online; return who is.

        Raises: RunFailed if it never is.
        """
        end = time.monotonic() + self._task.strategy.deadline_s
        quorum = self._task.strategy.quorum
        while len(online := self._online(grid)) < quorum:
            if time.monotonic() > end or self._stopping():
                raise RunFailed(f"{len(online)} sites are online; the quorum is {quorum}")
            time.sleep(0.2)
        return online

    def _opened(self) -> _Opening:
        if self._open is None:
            raise RunFailed("no round is open")
        return self._open


def _now() -> datetime:
    return datetime.now(UTC)


def _arrays(record: ArrayRecord) -> dict[str, NDArray[np.generic]]:
    """Return views of what a record carries.

    Raises: ValueError if an array is anything else than one plain npy file.
    """
    return {name: _array(array) for name, array in record.items()}


def _array(array: Array) -> NDArray[np.generic]:
    if array.stype != NPY:
        raise ValueError("an array is of a kind that does not travel")
    return npy_array(array.data, array.dtype, array.shape)


def record_of(arrays: Arrays) -> ArrayRecord:
    """Return the arrays as Flower carries them."""
    return ArrayRecord({name: Array(a.dtype.name, a.shape, NPY, npy_bytes(a)) for name, a in arrays.items()})


def _plain(metrics: MetricRecord | None) -> dict[str, float]:
    return {name: value for name, value in (metrics or {}).items() if isinstance(value, float)}


def _initial(reply: Message, *, whole: bool) -> tuple[tuple[str, str], Arrays] | None:
    """Return the digest and the layout a site claims for the untrained model, and the arrays if `whole`.

    Nothing is returned for an answer that is malformed, or whose arrays are not those it claims.
    """
    model = reply.content.config_records.get("model", ConfigRecord())
    digest, layout = model.get("digest"), model.get("layout")
    if not isinstance(digest, str) or not isinstance(layout, str):
        return None
    try:
        slots = parse_layout(layout.encode())
        arrays = _arrays(reply.content.array_records["arrays"]) if whole else {}
        if whole and (model_digest(arrays) != digest or not unpack(arrays, slots)):
            return None
    except (UpdateRefused, ValueError, TypeError, KeyError):
        return None
    return (digest, layout), arrays


def _mean_metrics(made: Iterable[Contribution]) -> MetricRecord:
    return MetricRecord({**mean_metrics((one.weight, one.metrics or {}) for one in made)})


def _outcomes(closing: Closing) -> str:
    return ", ".join(f"{made.site} {made.outcome}" for made in closing.contributions)


def _told(closing: Closing, rounds: int) -> str:
    loss = closing.metrics.get("train_loss")
    told = "" if loss is None else f", loss {loss:.3f}"
    seconds = time.time() - closing.opened_at
    return f"round {closing.round}/{rounds}: {_outcomes(closing)}{told}, {seconds:.1f} s"
