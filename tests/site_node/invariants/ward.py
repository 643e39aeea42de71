"""A hospital to which anything may happen at any moment, and the naive record of what was permitted when.

`World` decides on its own: what was said of each patient, dataset, task and grant, kept as plain values. The site under
test is the real one: gate, rounds, receipts and an SQLite file, opened anew after each crash.
"""

from __future__ import annotations

import atexit
import copy
import json
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from consent import NO_PREVIOUS, Deny, Receipt, open_receipt, receipt_digest
from models import update_digest
from site_node import access_requests, consents, permissions, sources
from site_node.config import SiteHome
from site_node.errors import PeerError, PeerRefused
from site_node.store import inflight, open_store, outbox
from site_node.training import Trained
from tests.site_node.hospital import (
    NOON,
    PSEUDONYMS,
    Hospital,
    Line,
    PowerCut,
    add_study,
    bundle,
    consent_of,
    grant,
    lost_line,
)
from tests.site_node.invariants.interruptions import Interruptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flwr.app import Message

    from models import Task
    from site_node.cohort import Item

PATIENTS = ("N0", "N1", "N2", "N3", "N4")
MINIMUM = 2
MAX_AGE = timedelta(hours=2)
DATASET = "brain-mr"


@dataclass(slots=True)
class World:
    """What is permitted now, as somebody who reads every statement would know it."""

    epoch: int
    said: dict[str, tuple[str, datetime | None]]  # of each patient: permit, deny, inactive or review; until when
    refusals: dict[str, int]  # withdrawals in force
    task: bool = True
    dataset: bool = True
    grants: dict[int, datetime] = field(default_factory=dict)  # in force, by number, until when
    sources: dict[str, datetime] = field(default_factory=dict)

    def stands(self, patient: str) -> bool:
        """Return whether the patient's word is a permission, whatever its time."""
        return self.said[patient][0] == "permit" and not self.refusals[patient]

    def permits(self, patient: str, at: datetime) -> bool:
        """Return whether the patient permits the use at `at`."""
        _, until = self.said[patient]
        return self.stands(patient) and (until is None or at <= until)

    def opens(self, at: datetime) -> bool:
        """Return whether dataset, grant, task and the sources of consents permit anything at `at`."""
        return (
            self.task
            and self.dataset
            and any(at < end for end in self.grants.values())
            and bool(self.sources)
            and all(abs(at - as_of) <= MAX_AGE for as_of in self.sources.values())
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """A release that the site put on record, and between which states of the world it was earned."""

    opening: tuple[str, int, str, str]
    studies: frozenset[str]
    receipt: Receipt
    envelope: bytes
    begun: int  # the number of the world when the training began
    at: int  # and when it was committed


class Trainer:
    """Makes an update that follows from exactly the studies it was given; `during` happens meanwhile."""

    def __init__(self, ward: Ward) -> None:
        self._ward = ward

    def forget(self) -> None:
        """Keep nothing."""

    def run(
        self,
        what: str,
        _task: Task,
        may_go_on: Callable[[], bool],
        *,
        round_number: int = 0,
        base: Mapping[str, Any] | None = None,
        items: Sequence[Item] = (),
    ) -> Trained | None:
        """Return the update; None if the work may not go on."""
        del round_number, base
        ward = self._ward
        ward.trained.append(frozenset(item.StudyInstanceUID for item in items))
        ward.begun = len(ward.history) - 1
        ward.during()
        if ward.asks and not may_go_on():
            return None
        return Trained(made_of(ward.trained[-1]) if what == "train" else {}, {"train_loss": 0.25, "dice": 0.5}, "[]")


def made_of(studies: frozenset[str]) -> dict[str, Any]:
    """Return the update that training on exactly these studies makes."""
    return {"float32": np.array([len(studies), sum(int(study[-1]) + 1 for study in studies), 1], np.float32) / 8}


@dataclass(slots=True)
class WardLine(Line):
    """The line of a hospital; each hand-over is two more moments at which something may happen."""

    tick: Callable[[], None] = lambda: None
    lost_after: bool = False

    def _keep(self, kind: str, head: Message, content: object) -> None:
        self.tick()
        Line._keep(self, kind, head, content)  # noqa: SLF001 -- the same line; super() knows no slots
        self.tick()
        if self.lost_after:
            self.lost_after = False
            raise PeerError("handing over a reply: the answer was lost")


class Ward:
    """The site under test, those who change what is permitted, and the record of both."""

    def __init__(self, folder: Path) -> None:
        hospital = template()
        root = folder / "site"
        shutil.copytree(hospital.home.root, root)
        self.home = SiteHome(root)
        self.interruptions = Interruptions()
        self.site = copy.copy(hospital)
        self.line = WardLine(tick=self.interruptions.tick)
        self.site.home, self.site.said, self.site.line = self.home, [], self.line
        self.site.clock = replace(hospital.clock, on_tick=self.interruptions.tick)
        self.site.trainer = Trainer(self)  # type: ignore[assignment] # the same interface
        self.people = sa.create_engine(f"sqlite:///{self.home.database}", connect_args={"timeout": 0})
        self.site.store = open_store(self.home.database)
        self.reader = sqlite3.connect(self.home.database, isolation_level=None)
        self.trained: list[frozenset[str]] = []
        self.begun = 0
        self.asks = True
        self.ahead = timedelta()
        self.during: Callable[[], object] = lambda: None
        self.committed: list[Committed] = []
        self.asked: dict[str, tuple[str, int, str, str]] = {}
        self.dated = NOON
        self.studies = {study: patient for patient, study in hospital.studies.items()}
        now = World(
            self._epoch(),
            dict.fromkeys(hospital.studies, ("permit", None)),
            dict.fromkeys(hospital.studies, 0),
            grants={hospital.request: NOON + timedelta(days=30)},
            sources={"file": NOON},
        )
        self.history = [now]
        self._restart()

    # -------------------------------------------------------------- what people do

    @property
    def world(self) -> World:
        """What is permitted now."""
        return self.history[-1]

    @property
    def now(self) -> datetime:
        """The clock of the hospital."""
        return self.site.clock.now

    def happen(self, act: Callable[[Ward, World], None]) -> bool:
        """Let people do something; False if the site is writing just now and they have to wait."""
        before = copy.deepcopy(self.world)
        self.site.clock.now += timedelta(milliseconds=1)
        try:
            act(self, before)
        except sa.exc.OperationalError as error:
            assert "locked" in str(error)  # noqa: PT017 -- any other is a fault of this test
            return False
        before.epoch = self._epoch()
        self.history.append(before)
        return True

    @property
    def stamp(self) -> datetime:
        """What the clock of those who take back something says; it need not be the site's."""
        return self.now + self.ahead

    def load(self, *resources: Mapping[str, Any]) -> None:
        """Load consents, as the hospital's command does."""
        consents.load(self.people, bundle(*resources), PSEUDONYMS, self.now)

    def version(self) -> str:
        """Return a moment later than that of every version before."""
        self.dated = max(self.dated, self.now) + timedelta(milliseconds=1)
        return self.dated.isoformat()

    def withdrawals(self, patient: str) -> list[str]:
        """Return the ids of the patient's withdrawals that are in force."""
        rows = self.reader.execute(
            "SELECT consent_id FROM consent_record WHERE patient = ? AND superseded_at IS NULL "
            "AND consent_id LIKE 'withdrawal-%' AND resource LIKE '%\"status\": \"active\"%'",
            (PSEUDONYMS.patient(patient),),
        )
        return [row[0] for row in rows]

    # -------------------------------------------------------------- what the site does

    def ask(
        self,
        plan: Mapping[int, Sequence[Callable[[Ward, World], None]]],
        crash_at: int = 0,
        **values: Any,
    ) -> str:
        """Send an instruction and let things happen before the numbered operations; return how it ended.

        That is the kind of the answer, `crashed` or `lost`.
        """
        message_id = f"m{len(self.asked)}"
        head = receipt_digest(self.committed[-1].envelope) if self.committed else NO_PREVIOUS
        given = {"receipt_head": head, "nonce": message_id, "deadline": (self.now + timedelta(hours=1)).isoformat()}
        instruction = self.site.instruction(**{"sent_at": self.now.isoformat(), **given, **values})
        self.asked[message_id] = tuple(instruction[key] for key in ("run", "round", "kind", "nonce"))
        return self._do(lambda: self.site.ask(message_id, **instruction), plan, crash_at)

    def meet(self, fate: str) -> None:
        """Let the next hand-over be lost before or after it arrived, or refused."""
        refusal = PeerRefused("handing over a reply: the coordinator answered 404")
        failures: dict[str, list[BaseException]] = {"lost": [lost_line()], "refused": [refusal]}
        self.line.failures = failures.get(fate, [])
        self.line.lost_after = fate == "lost after"

    def resume(self, crash_at: int = 0) -> str:
        """Answer what is left over; return how it ended."""
        return self._do(self.site.resume, {}, crash_at)

    def _do(
        self,
        work: Callable[[], object],
        plan: Mapping[int, Sequence[Callable[[Ward, World], None]]],
        crash_at: int = 0,
    ) -> str:
        waiting: list[Callable[[Ward, World], None]] = []

        def before(number: int) -> None:
            self.observe()
            waiting.extend(plan.get(number, ()))
            while waiting and self.happen(waiting[0]):
                waiting.pop(0)
            if number == crash_at:
                raise PowerCut

        try:
            with self.interruptions.watching(self.home.root, before):
                work()
        except PowerCut:
            self.crash()
            return "crashed"
        except PeerError:
            return "lost"
        finally:
            self.observe()
        return self.site.line.kinds[-1] if self.site.line.kinds else ""

    def crash(self) -> None:
        """Lose the process: what is on disk is all there is, and a file that was being written may be cut short."""
        self.site.store.dispose()
        committed = {row[0] for row in self.reader.execute("SELECT arrays FROM outbox")}
        for path in self.home.outbox.iterdir():
            if path.name not in committed:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.site.store = open_store(self.home.database)
        self._restart()

    def close(self) -> None:
        """Let go of the files."""
        self.reader.close()
        self.people.dispose()
        self.site.store.dispose()

    def _restart(self) -> None:
        self.interruptions.watch(self.site.store)
        self.site.restart()
        self.site.rounds.tidy()

    def _epoch(self) -> int:
        with sqlite3.connect(self.home.database) as reader:
            found = int(reader.execute("SELECT epoch FROM consent_epoch").fetchone()[0])
        reader.close()
        return found

    # -------------------------------------------------------------- what has to hold

    def observe(self) -> None:
        """Note what the site put on record since the last look, and hold it against the record of permissions."""
        rows = self.reader.execute(
            "SELECT run, round, kind, nonce, studies, receipt FROM participation WHERE outcome = 'released' "
            "ORDER BY rowid LIMIT -1 OFFSET ?",
            (len(self.committed),),
        ).fetchall()
        for *opening, studies, envelope in rows:
            receipt = open_receipt(envelope, self.site.key.public_key())
            found = frozenset(json.loads(studies))
            made = Committed(tuple(opening), found, receipt, envelope, self.begun, len(self.history) - 1)
            self.committed.append(made)
            self.check(made)

    def check(self, made: Committed) -> None:
        """Check one release against the ledger of what was permitted when."""
        world, times = self.history[made.at], made.receipt.times
        patients = {self.studies[study] for study in made.studies}
        assert made.studies == self.trained[-1], "I3, I6: what was released is the whole of what was frozen"
        if made.opening[2] == "train":
            whole = update_digest(made_of(made.studies), {"train_loss": 0.25, "dice": 0.5})
            assert made.receipt.update == whole, "I3: the update is of exactly these studies"
        assert made.receipt.epoch.release == made.receipt.epoch.recheck == world.epoch, "I1: the epoch at the commit"
        assert [p for p in patients if not world.permits(p, times.released)] == [], "I1, I4, I7: a study"
        assert world.opens(times.released), "I1, I7, I9: dataset, grant, task or sources"
        for since in self.history[made.begun : made.at + 1]:
            assert [p for p in patients if not since.stands(p)] == [], "I6: a new permission waits for the next round"
            assert since.task, "I6: a task's new approval waits for the next round"
            assert since.dataset, "I6: a dataset's new approval waits for the next round"
        held = [set(since.grants) for since in self.history[made.begun : made.at + 1]]
        assert set.intersection(*held), "I6: a new grant waits for the next round"
        for earlier in self.history:
            if earlier.epoch == made.receipt.epoch.release:
                assert all(earlier.stands(p) for p in patients), "I4: no receipt of an epoch after a withdrawal"
        assert len(made.studies) >= MINIMUM, "I11: no fewer than the minimum"
        moments = [times.snapshot, times.trained, times.recheck, times.released]
        assert moments == sorted(moments), "I10: a clock that went back makes no release"

    def check_what_left(self) -> None:
        """Check all that was handed over."""
        receipts = [made.envelope for made in self.committed]
        openings = [made.opening for made in self.committed]
        assert len(openings) == len(set(openings)), "I8: one release for each opening at most"
        for kind, message_id, content in self.site.line.sent:
            if kind == "release":
                arrays, metrics, envelope = content
                assert envelope in receipts, "I8: nothing is handed over that was not committed"
                made = self.committed[receipts.index(envelope)]
                assert made.opening == self.asked[message_id]
                assert made.receipt.update == update_digest(arrays, metrics)
            else:
                assert (kind, content) == ("abstain", None), "I11: the one code and nothing beside it"

    def check_nothing_waits(self) -> None:
        """Check that each message got its answer, and that nothing of any work lies about."""
        assert self.site.rows(inflight) == self.site.rows(outbox) == []
        assert list(self.home.outbox.iterdir()) == []
        for message_id in self.asked:
            kinds = {kind for kind, answered, _ in self.site.line.sent if answered == message_id}
            assert len(kinds) <= 1, "I8: one kind of answer"


@cache
def template() -> Hospital:
    """Return the hospital that every ward begins as; its files are copied."""
    root = Path(tempfile.mkdtemp(prefix="filmroom-ward-")) / "site"
    root.mkdir()
    atexit.register(shutil.rmtree, root.parent, ignore_errors=True)
    store = open_store(root / "site.db")
    made = Hospital(SiteHome(root), store, patients=len(PATIENTS), minimum=MINIMUM)
    made.config = replace(made.config, max_consent_age_h=MAX_AGE.total_seconds() / 3600)
    store.dispose()
    return made


# ------------------------------------------------------------------ things that happen


def withdraws(patient: str) -> Callable[[Ward, World], None]:
    """Let a patient withdraw."""

    def act(ward: Ward, world: World) -> None:
        consents.withdraw(ward.people, PSEUDONYMS.patient(patient), ward.stamp)
        world.refusals[patient] += 1

    return act


def lifts(patient: str) -> Callable[[Ward, World], None]:
    """Let a patient's withdrawals be marked inactive."""

    def act(ward: Ward, world: World) -> None:
        dated = ward.version()
        lifted = [
            consent_of(patient, "deny", id=one, status="inactive", dateTime=dated) for one in ward.withdrawals(patient)
        ]
        if lifted:
            ward.load(*lifted)
        world.refusals[patient] = 0

    return act


def says(patient: str, word: str, minutes: int | None = None) -> Callable[[Ward, World], None]:
    """Let a new version of a patient's consent come in: permit, deny, inactive, or one that cannot be read."""

    def act(ward: Ward, world: World) -> None:
        document = consent_of(patient, "deny" if word == "deny" else "permit", meta={"lastUpdated": ward.version()})
        until = None
        if word == "inactive":
            document["status"] = "inactive"
        elif word == "review":
            document["patient"] = {}
        elif minutes is not None:
            until = ward.now + timedelta(minutes=minutes)
            document["provision"]["period"] = {"start": "2026-01-01", "end": until.isoformat()}
        ward.load(document)
        if word != "review":
            world.said[patient] = word, until
        elif world.said[patient][0] == "permit":
            world.said[patient] = "review", None

    return act


def arrives(patient: str) -> Callable[[Ward, World], None]:
    """Let the first images and the consent of a new patient come in."""

    def act(ward: Ward, world: World) -> None:
        if patient not in world.said:
            study = add_study(ward.people, patient)
            ward.studies[study] = patient
            world.said[patient], world.refusals[patient] = ("inactive", None), 0
            for since in ward.history:
                since.said[patient], since.refusals[patient] = ("inactive", None), 0
        says(patient, "permit")(ward, world)

    return act


def task_is(approved: bool) -> Callable[[Ward, World], None]:  # noqa: FBT001 -- reads as a sentence
    """Approve the task, or take its approval back."""

    def act(ward: Ward, world: World) -> None:
        if approved:
            permissions.approve_task(ward.people, ward.site.task, DATASET, "manager", ward.now)
        else:
            permissions.revoke_task(ward.people, ward.site.task, "manager", ward.stamp)
        world.task = approved

    return act


def dataset_is(approved: bool) -> Callable[[Ward, World], None]:  # noqa: FBT001 -- as above
    """Approve the dataset, or take its approval back."""

    def act(ward: Ward, world: World) -> None:
        if approved:
            permissions.approve_dataset(ward.people, DATASET, "manager", ward.now)
        elif world.dataset:
            permissions.revoke_dataset(ward.people, DATASET, "manager", ward.stamp)
        world.dataset = approved

    return act


def access_is_granted(minutes: int) -> Callable[[Ward, World], None]:
    """Grant access for some minutes."""

    def act(ward: Ward, world: World) -> None:
        end = ward.now + timedelta(minutes=minutes)
        world.grants[grant(ward.people, DATASET, ward.now, end)] = end

    return act


def access_is_revoked(ward: Ward, world: World) -> None:
    """End every grant that is still in force."""
    for number in [number for number, end in world.grants.items() if end > ward.stamp]:
        answer = access_requests.revoke(ward.people, number, "as a test", "director", ward.stamp)
        assert not isinstance(answer, Deny)
        del world.grants[number]


def source_is_read(name: str, minutes_ago: int = 0) -> Callable[[Ward, World], None]:
    """Note a source of consents as of some minutes ago."""

    def act(ward: Ward, world: World) -> None:
        as_of = ward.now - timedelta(minutes=minutes_ago)
        sources.note(ward.people, name, as_of, ward.now)
        world.sources[name] = max(as_of, world.sources.get(name, as_of))

    return act


def source_is_retired(name: str) -> Callable[[Ward, World], None]:
    """Expect nothing more of a source."""

    def act(ward: Ward, world: World) -> None:
        if world.sources.pop(name, None):
            sources.retire(ward.people, name, "manager", ward.now)

    return act


def time_passes(minutes: float) -> Callable[[Ward, World], None]:
    """Let the clock go on, or back."""

    def act(ward: Ward, _world: World) -> None:
        ward.site.clock.now += timedelta(minutes=minutes)

    return act
