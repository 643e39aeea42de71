"""A federation in memory: the real strategy, record and database, and sites that sign real receipts, without sockets.

A site behaves until it is told not to (`federation.site("north").replay_last_update()`). It trains nothing: its update
follows from its name and the round, so that two federations can be compared bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from consent import (
    BATCH,
    ENGINE,
    POLICY,
    TERMINOLOGY,
    AffectedReceipt,
    Checkpoint,
    Eligibility,
    Epoch,
    GrantClaim,
    LogClaim,
    Receipt,
    Times,
    WithdrawalNotice,
    consistency_proof,
    count_bucket,
    federation_recipient,
    leaf_hash,
    log_origin,
    nodes_of,
    padded_size,
    receipt_digest,
    sign_checkpoint,
    sign_notice,
    sign_receipt,
    tree_root,
)
from coordinator import members, runs, tasks, withdrawals
from coordinator.config import CoordinatorConfig
from coordinator.runs import RunRecord, describe
from coordinator.store import member, open_store, partner
from coordinator.strategy import ConsentedAveraging
from models import layout_bytes, layout_of, model_digest, pack, parse_task, update_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from coordinator.members import Member
    from models.update import AnyArray

    Arrays = Mapping[str, NDArray[Any]]
    Fault = Callable[["Answer"], "Answer | None"]

NAME: Final = "north-sea"
SITES: Final = ("east", "north", "west")
STATE: Final[dict[str, AnyArray]] = {
    "conv.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "norm.count": np.array(0, dtype=np.int64),
}
UNTRAINED: Final = pack(STATE)
LAYOUT: Final = layout_bytes(layout_of(STATE))
STUDIES: Final = {"east": 20, "north": 40, "west": 70}
TASK: Final = {
    "format": "filmroom-task/1",
    "name": "tissue",
    "title": "Tissue on MR",
    "project": "tissue-2026",
    "kind": "segmentation",
    "purpose": {"purposes": ["CLINTRCH"]},
    "input": {"modality": "MR", "spatial_dims": 2},
    "labels": [{"value": 1, "name": "tissue"}],
    "network": {
        "name": "UNet",
        "arguments": {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 2,
            "channels": [4, 8],
            "strides": [2],
        },
    },
    "loss": {"name": "DiceCELoss"},
    "optimiser": {"name": "Adam", "arguments": {"lr": 0.01}},
    "metrics": ["dice"],
    "rounds": 3,
    "local_epochs": 1,
    "batch_size": 4,
    "seed": 7,
    "validation_fraction": 0.2,
    "strategy": {"name": "FedAvg", "quorum": 2, "deadline_s": 1.0, "max_update_norm": 100},
}
DOCUMENT: Final = json.dumps(TASK).encode()


class Log:
    """A site's consent log: it grows by 64 leaves at each publication, whatever stands in them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._leaves: list[bytes] = []

    def publish(self, key: Ed25519PrivateKey, origin: str = "") -> tuple[int, str]:
        """Grow, and return the new size and the note that says so."""
        grown = range(len(self._leaves), len(self._leaves) + BATCH)
        self._leaves += [leaf_hash(f"{self._name} {number}".encode()) for number in grown]
        return len(self._leaves), self.note(key, origin)

    def note(self, key: Ed25519PrivateKey, origin: str = "") -> str:
        """Return the signed note of the state of now."""
        size = len(self._leaves)
        root = tree_root(size, nodes_of(self._leaves))
        name = origin or log_origin(NAME, self._name, key.public_key())
        return sign_checkpoint(Checkpoint(name, size, root), name, key)

    def proof(self, old: int, new: int) -> tuple[str, ...]:
        """Return the proof that the log grew from one size to another."""
        return tuple(one.hex() for one in consistency_proof(old, new, nodes_of(self._leaves)))

    def rewrite(self) -> None:
        """Change the first leaf."""
        self._leaves[0] = leaf_hash(b"another")

    def claim(self, key: Ed25519PrivateKey, known: int) -> LogClaim:
        """Publish twice, as a round does, and return what the receipt says of it.

        A log that begins anew has the leaves it had: it first grows to what the coordinator knows.
        """
        while len(self._leaves) < known:
            self.publish(key)
        first, snapshot = self.publish(key)
        second, recheck = self.publish(key)
        since, consistency = self.proof(known, first), self.proof(first, second)
        return LogClaim(snapshot=snapshot, recheck=recheck, since=since, consistency=consistency)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a site is about to send; a fault changes it. Set `envelope` to send a receipt other than the fitting one."""

    arrays: Arrays
    metrics: Mapping[str, float]
    claim: Mapping[str, Any]
    key: Ed25519PrivateKey
    envelope: bytes | None = None
    record: ArrayRecord | None = None
    error: bool = False


@dataclass(slots=True)
class Site:
    """A scripted hospital."""

    name: str
    node_id: int
    key: Ed25519PrivateKey
    untrained: Arrays = field(default_factory=lambda: UNTRAINED)
    handed_over: Arrays | None = None
    layout: bytes = LAYOUT
    fault: Fault | None = None
    sent: Answer | None = None
    history: dict[int, Answer] = field(default_factory=dict)
    measured: bytes = b""  # the receipt of its last measurement
    asked: list[str] = field(default_factory=list)
    time_left: dict[str, float] = field(default_factory=dict)
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        """Begin a log."""
        self.log = Log(self.name)

    def behave(self) -> None:
        """Answer as agreed from now on."""
        self.fault = None

    def silent(self) -> None:
        """Answer nothing."""
        self.fault = lambda _answer: None

    def silent_once_in(self, number: int) -> None:
        """Answer nothing when round `number` is opened first."""

        def nothing(answer: Answer) -> Answer | None:
            if (answer.claim["kind"], answer.claim["round"]) != ("train", number):
                return answer
            self.behave()
            return None

        self.fault = nothing

    def uses_a_patient_from(self, number: int) -> None:
        """Train, from round `number` on, on a patient who makes another update of it."""

        def moved(answer: Answer) -> Answer:
            if answer.claim["kind"] != "train" or answer.claim["round"] < number:
                return answer
            return replace(answer, arrays={**answer.arrays, "float32": answer.arrays["float32"] + np.float32(0.5)})

        self.fault = moved

    def meanwhile(self, number: int, happens: Callable[[], object]) -> None:
        """Let something happen while this site is about to answer round `number`."""

        def answering(answer: Answer) -> Answer:
            if (answer.claim["kind"], answer.claim["round"]) == ("train", number):
                self.behave()
                happens()
            return answer

        self.fault = answering

    def fails(self) -> None:
        """Answer with an error."""
        self.fault = lambda answer: replace(answer, error=True)

    def claims(self, **changes: object) -> None:
        """Sign a receipt that says something else."""
        self.fault = lambda answer: replace(answer, claim={**answer.claim, **changes})

    def says_of_its_studies(self, **changes: object) -> None:
        """Sign another account of how its studies were chosen."""
        self.fault = lambda answer: replace(answer, claim=_changed(answer.claim, "eligibility", changes))

    def shows_of_its_log(self, **changes: object) -> None:
        """Sign another account of its consent log."""
        self.fault = lambda answer: replace(answer, claim=_changed(answer.claim, "consent_log", changes))

    def rewrites_its_log(self) -> None:
        """Begin the consent log with another record than before."""
        self.log.rewrite()

    def dawdles(self) -> None:
        """Check consents almost a minute before it releases."""
        at = datetime.now(UTC)
        early, late = at - timedelta(seconds=25), at + timedelta(seconds=25)
        self.claims(times=Times(snapshot=early, trained=early, recheck=early, released=late))

    def replay_last_update(self) -> None:
        """Send what was sent before, receipt and all."""
        earlier = self.sent
        self.fault = lambda _answer: earlier

    def forged_signature(self) -> None:
        """Sign with a key that is not the member's."""
        self.fault = lambda answer: replace(answer, key=Ed25519PrivateKey.generate())

    def too_few(self) -> None:
        """Train on fewer studies than the consortium demands."""
        bucket = count_bucket(2)
        changes = {"count_bucket": bucket.label, "weight": bucket.weight, "eligibility": eligibility_of(bucket.lowest)}
        self.claims(**changes)

    def sends(self, **arrays: NDArray[Any]) -> None:
        """Send these arrays in place of the trained ones, under a receipt that fits them."""
        self.fault = lambda answer: replace(answer, arrays={**answer.arrays, **arrays})

    def serialises(self, array: Array) -> None:
        """Send an array that was not made by Flower's own serialisation."""
        self.fault = lambda answer: replace(answer, record=ArrayRecord({"float32": array}))

    def reports(self, **metrics: float) -> None:
        """Report these metrics too, under a receipt that fits them."""
        self.fault = lambda answer: replace(answer, metrics={**answer.metrics, **metrics})

    def reports_infinity(self) -> None:
        """Report a loss that is no number; no receipt can fit it."""
        self.fault = lambda answer: replace(
            answer, metrics={"train_loss": float("inf")}, claim={**answer.claim, "update": "c" * 64}
        )

    def answer(self, message: Message) -> Message | None:
        """Return the reply to one message; None for no reply."""
        instruction = dict(message.content.config_records["instruction"])
        self.asked.append(f"{instruction['kind']!s} {instruction['round']!s}")
        left = datetime.fromisoformat(str(instruction["deadline"])) - datetime.now(UTC)
        self.time_left[str(instruction["kind"])] = left.total_seconds()
        if instruction["kind"] == "initialise":
            return self._initial(message, whole=bool(instruction["whole"]))
        honest = self._honest(instruction, _unpacked(message))
        made = honest if self.fault is None else self.fault(honest)
        if made is None or made.error:
            return None if made is None else Message(Error(code=1001, reason="abstain"), reply_to=message)
        envelope = made.envelope or _signed(made)
        if instruction["kind"] == "train":
            self.sent = self.history[int(str(instruction["round"]))] = replace(made, envelope=envelope)
        else:
            self.measured = envelope
        records = RecordDict(
            {"metrics": MetricRecord(dict(made.metrics)), "receipt": ConfigRecord({"envelope": envelope})}
        )
        if made.arrays:
            records["arrays"] = made.record or _packed(made.arrays)
        return Message(records, reply_to=message)

    def _initial(self, message: Message, *, whole: bool) -> Message:
        digest = model_digest(self.untrained)
        records = RecordDict({"model": ConfigRecord({"digest": digest, "layout": self.layout.decode()})})
        if whole:
            records["arrays"] = _packed(self.handed_over or self.untrained)
        return Message(records, reply_to=message)

    def _honest(self, instruction: Mapping[str, Any], base: Arrays) -> Answer:
        trains = instruction["kind"] == "train"
        metrics = {"train_loss": 0.5} if trains else {"dice": 0.75}
        bucket = count_bucket(STUDIES[self.name])
        at = datetime.now(UTC)
        claim = {
            **{name: instruction[name] for name in ("run", "round", "kind", "nonce", "base_model", "task")},
            "federation": NAME,
            "site": self.name,
            "consent_log": self.log.claim(self.key, int(instruction["log_size"])),
            "eligibility": eligibility_of(bucket.lowest),
            "grants": (GrantClaim(dataset="brain-mr", expires_at=at + timedelta(days=1), duo="APPROVE"),),
            "count_bucket": bucket.label,
            "weight": bucket.weight,
            "times": Times(snapshot=at, trained=at, recheck=at, released=at),
            "epoch": Epoch(recheck=4, release=4),
            "software": "filmroom 0.1.0",
            "attestation": None,
            "prev": instruction["receipt_head"],
        }
        return Answer(_trained(base, self.name, instruction["round"]) if trains else {}, metrics, claim, self.key)


class MemoryGrid(Grid):
    """Flower's grid without a network: each message is answered at once, in the order `arrival` gives."""

    def __init__(self, sites: Sequence[Site], arrival: Callable[[Sequence[Site]], Sequence[Site]]) -> None:
        self._sites = {site.node_id: site for site in sites}
        self._arrival = arrival
        self.online = set(self._sites)
        self._online_at = 0.0
        self._run = Run.create_empty(run_id=7)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1

    def connect(self, site: Site) -> None:
        """Let a site come online under the node id it has now."""
        self._sites[site.node_id] = site
        self.online.add(site.node_id)

    def set_run(self, run: Run) -> None:
        """Take over another run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run whose messages these are."""
        return self._run

    def create_message(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refuse, as the real grid does."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the sites that are online."""
        return sorted(self.online) if time.monotonic() >= self._online_at else []

    def come_online_after(self, seconds: float) -> None:
        """Have every site offline for a while."""
        self._online_at = time.monotonic() + seconds

    def push_messages(self, _messages: Iterable[Message]) -> NoReturn:
        """Refuse: the strategy sends and receives at once."""
        raise NotImplementedError

    def pull_messages(self, _message_ids: Iterable[str]) -> NoReturn:
        """Refuse, as above."""
        raise NotImplementedError

    def last_arrival_at(self) -> float:
        """When the last reply came in."""
        return time.time()

    def first_byte_at(self) -> float:
        """When the first site was handed the messages pushed last."""
        return time.time()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Yield the sites' replies in order of arrival."""
        del timeout
        asked = {message.metadata.dst_node_id: message for message in messages}
        for site in self._arrival([self._sites[node_id] for node_id in asked]):
            message = asked[site.node_id]
            message.metadata.__dict__["_message_id"] = message.object_id
            reply = site.answer(message)
            if reply is not None:
                yield reply


class Federation:
    """A coordinator's record with members, a task and a run, and the sites that answer it."""

    def __init__(
        self,
        folder: Path,
        arrival: Callable[[Sequence[Site]], Sequence[Site]] = list,
        run: str | None = None,
        withdrawal_policy: str = "stop-distribution",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = open_store(folder / "coordinator.db")
        self.config = CoordinatorConfig(NAME, release_window_s=40.0)
        self.sites = {name: Site(name, 100 + place, site_key(name)) for place, name in enumerate(SITES)}
        self.document = json.dumps({**TASK, "withdrawal_policy": withdrawal_policy}).encode()
        self.task = parse_task(self.document)
        self.said: list[str] = []
        self.grid = MemoryGrid(list(self.sites.values()), arrival)
        self.run = run or self._found()
        self.record = RunRecord(self.store, folder / "runs", self.run)

    def site(self, name: str) -> Site:
        """Return a member by name."""
        return self.sites[name]

    def strategy(self, stopping: Callable[[], bool] = lambda: False) -> ConsentedAveraging:
        """Return the strategy under test, on this federation's record."""
        return ConsentedAveraging(self.task, self.record, self.store, self.config, self.said.append, stopping)

    def train(self, rounds: int | None = None) -> dict[str, NDArray[Any]]:
        """Run (or go on with) the run as the coordinator does, and return the final model."""
        strategy = self.strategy()
        if self.record.last_round() is None:
            strategy.initialise(self.grid)  # type: ignore[arg-type] # what is used of it
        base = self.record.model(self.record.last_round() or 0)
        strategy.start(self.grid, _packed(base), rounds or self.task.rounds)
        return self.record.model(self.record.last_round() or 0)

    def go_on(self) -> None:
        """Turn to the run that is to be carried out next, as the coordinator does."""
        following = runs.next_open(self.store)
        assert following is not None
        self.run = following[0]
        self.record = RunRecord(self.store, self.folder / "runs", self.run)

    def member(self, name: str) -> Member:
        """Return a site as the coordinator knows it."""
        return next(one for one in members.active(self.store) if one.site == name)

    def notice(self, name: str, *rounds: int) -> bytes:
        """Return a site's signed notice that its updates of these rounds of the run may no longer be used."""
        site = self.sites[name]
        receipts = [
            AffectedReceipt(round=number, kind="train", sha256=receipt_digest(envelope))
            for number in sorted(rounds)
            if (envelope := site.history[number].envelope)
        ]
        return self._notice(site, *receipts)

    def withdraw(self, name: str, *rounds: int) -> list[str]:
        """Hand a site's notice in and return what was answered for each round."""
        answers = self._hand_in(name, self.notice(name, *rounds))
        return [answers[receipt_digest(self.sites[name].history[number].envelope or b"")] for number in sorted(rounds)]

    def withdraw_measurement(self, name: str, number: int) -> list[str]:
        """Hand in a notice on a site's measurement of the model of a round, and return the answer."""
        site = self.sites[name]
        receipt = AffectedReceipt(round=number, kind="evaluate", sha256=receipt_digest(site.measured))
        return list(self._hand_in(name, self._notice(site, receipt)).values())

    def digests(self) -> list[str]:
        """Return the digest of the model after each round of the run, the untrained one first."""
        made: Any = describe(self.store, self.run)["rounds"]
        return [row["model_after"] for row in made]

    def outcome(self, number: int, site: str, kind: str = "train") -> tuple[str, str]:
        """Return what is on record of a site in a round: (outcome, reason)."""
        made: Any = describe(self.store, self.run)["contributions"]
        return next(
            (row["outcome"], row["reason"])
            for row in made
            if (row["round"], row["site"], row["kind"]) == (number, site, kind)
        )

    def join_again(self, name: str) -> None:
        """Revoke a member and take it in again, with a new key and as a new node."""
        at, site = datetime.now(UTC), self.sites[name]
        members.revoke(self.store, name, lambda: at)
        site.key, site.node_id = Ed25519PrivateKey.generate(), site.node_id + 100
        self.grid.connect(site)
        with self.store.begin() as db:
            _take_in(db, site, at)

    def _notice(self, site: Site, *receipts: AffectedReceipt) -> bytes:
        made = WithdrawalNotice(federation=NAME, site=site.name, run=self.run, at=datetime.now(UTC), receipts=receipts)
        return sign_notice(made, site.key)

    def _hand_in(self, name: str, notice: bytes) -> dict[str, str]:
        return withdrawals.take_in(self.store, NAME, self.member(name), notice, datetime.now(UTC))

    def _found(self) -> str:
        at = datetime.now(UTC)
        with self.store.begin() as db:
            db.execute(sa.insert(partner).values(name="acme", token_sha256="0" * 64, added_at=at.isoformat()))
            for site in self.sites.values():
                _take_in(db, site, at)
        return runs.request(self.store, tasks.submit(self.store, self.document, "acme", at), at)


def _take_in(db: sa.Connection, site: Site, at: datetime) -> None:
    pem = site.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    db.execute(
        sa.insert(member).values(
            site=site.name,
            node_id=str(site.node_id),
            node_key=pem,
            receipt_key=pem,
            certificate_sha256=hashlib.sha256(pem).hexdigest(),
            joined_at=at.isoformat(),
        )
    )


def eligibility_of(lowest: int) -> Eligibility:
    """Return what an honest site says of its studies."""
    return Eligibility(
        root="e" * 64,
        padded_size=padded_size(lowest),
        policy=POLICY,
        engine=ENGINE,
        terminology=TERMINOLOGY,
        purposes=("CLINTRCH",),
        activity=("MLTRAINING",),
        recipients=(federation_recipient(NAME),),
        basis="consent",
    )


def _changed(claim: Mapping[str, Any], part: str, changes: Mapping[str, object]) -> dict[str, Any]:
    return {**claim, part: claim[part].model_copy(update=dict(changes))}


def site_key(name: str) -> Ed25519PrivateKey:
    """Return the key a site begins with."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def _trained(base: Arrays, site: str, number: int) -> Arrays:
    rng = np.random.default_rng([number, *site.encode()])
    step = rng.normal(size=base["float32"].shape).astype(np.float32)
    return {"float32": base["float32"] + step, "int64": base["int64"]}


def sealed(made: Answer, **claims: object) -> Answer:
    """Return the answer with its receipt, which may claim something else."""
    made = replace(made, claim={**made.claim, **claims})
    return replace(made, envelope=_signed(made))


def _signed(made: Answer) -> bytes:
    claim = dict(made.claim)
    if "update" not in claim:
        claim["update"] = update_digest(made.arrays, made.metrics)
    return sign_receipt(Receipt(**claim), made.key)


def _packed(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def _unpacked(message: Message) -> Arrays:
    return {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
