"""What a person decided about held instances, and what audits of accepted ones found.

Every decision is a row of its own with who, when and what; what came of it is known from the database after a crash
too. A leak that an audit finds takes the instance out of the catalogue at once, and running work with it stops.
Does not de-identify: `retake` comes in as an argument and does what intake does.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import sqlalchemy as sa

from consent import Deny, same_person
from site_node import ledger
from site_node.consents import advance
from site_node.errors import ConfigurationError, SiteError
from site_node.store import audit, disposition, instance, review_decision, treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

Boxes: TypeAlias = "tuple[tuple[int, int, int, int], ...]"  # (top, left, bottom, right), half-open, stored pixels
# Runs an original through intake again with what a person decided; returns None if it was accepted, else why not.
Retake: TypeAlias = "Callable[[str, Boxes, frozenset[str], datetime], str | None]"

ACCEPT, REDRAW, REJECT, REOPEN = "accept", "redraw", "reject", "reopen"
BEGUN, SECOND_AWAITED, ACCEPTED, HELD, REJECTED = "begun", "second-awaited", "accepted", "held", "rejected"
CLEAN, LEAK = "clean", "leak"
LEAK_FOUND, REOPENED, INTERRUPTED = "leak-found-in-audit", "reopened", "interrupted"
IN_ITS_SERIES = "leak-found-in-its-series"
TAKEN_OUT = ".taken-out"  # ends the name of a de-identified file that left the catalogue; it is not an original
UNKNOWN_PIPELINE = "unknown"
CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
GOALS = (0.001, 0.005, 0.01)
# What a picture shows of a person's face is judged by two.
_TWO_PERSONS = re.compile(r"fac(e|ial)|recogni[sz]able")
_SHORTEST_ID = 8
_WORD = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PLACE = re.compile(r"[A-Za-z0-9(),./\[\]-]+")
_LONGEST = 80
_LOCK = "review.lock"
_BISECTIONS = 60


class Rectangle(Protocol):
    """A box of stored pixels, half-open; deidentify.picture has it."""

    @property
    def top(self) -> int: ...  # noqa: D102 -- said above
    @property
    def left(self) -> int: ...  # noqa: D102 -- said above
    @property
    def bottom(self) -> int: ...  # noqa: D102 -- said above
    @property
    def right(self) -> int: ...  # noqa: D102 -- said above


@dataclass(frozen=True, slots=True)
class Case:
    """An instance that waits for a person, or waited: no value of the patient."""

    source_sha256: str
    outcome: str
    reason: str
    since: str
    kept_as: str
    boxes: Boxes  # proposed to be blanked
    pipeline: str
    SeriesInstanceUID: str | None  # pseudonym
    Modality: str | None
    notes: tuple[str, ...]  # what else was done with it, or stays in it by policy


@dataclass(frozen=True, slots=True)
class Decision:
    """What one person decided about one instance."""

    number: int
    source_sha256: str
    verdict: str
    held_for: str
    boxes: Boxes
    reason: str
    by: str
    at: str
    outcome: str
    held_again_for: str | None
    taken_out: str | None


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of the audited leaked, and between which bounds the true share lies."""

    audited: int
    leaks: int
    lower: float
    upper: float


def needs_two(reason: str) -> bool:
    """Return whether two persons must agree before an instance held for `reason` is accepted."""
    return _TWO_PERSONS.search(reason) is not None


def treated(
    db: sa.Connection,
    source_sha256: str,
    pipeline: str,
    boxes: Iterable[Rectangle],
    notes: Iterable[str] = (),
    **about: str,
) -> None:
    """Keep what de-identification did with a file, or proposes: the boxes, the notes, the version of the pipeline.

    `about` has the pseudonymous SOPInstanceUID and SeriesInstanceUID, and Modality, as far as they are known.
    """
    drawn = json.dumps([[box.top, box.left, box.bottom, box.right] for box in boxes])
    db.execute(sa.delete(treatment).where(treatment.c.source_sha256 == source_sha256))
    values = {"source_sha256": source_sha256, "pipeline": pipeline, "boxes": drawn, "notes": json.dumps([*notes])}
    db.execute(sa.insert(treatment).values(**values, **about))


def held(db: sa.Connection) -> list[Case]:
    """Return the instances that wait for a person, longest first."""
    return _cases(db, disposition.c.outcome == HELD)


def members(db: sa.Connection, name: str) -> list[str]:
    """Return the ids that a name means: those of a series that wait for a person, or the instance alone.

    Raises: ConfigurationError if it means none.
    """
    if not name.startswith("2.25."):
        return [find(db, name).source_sha256]
    found = _cases(db, (disposition.c.outcome == HELD) & (treatment.c.SeriesInstanceUID == name))
    if not found:
        raise ConfigurationError("no instance of that series waits for a person")
    return [case.source_sha256 for case in found]


def find(db: sa.Connection, name: str) -> Case:
    """Return the instance whose id (SHA-256 of the original) begins with `name`.

    Raises: ConfigurationError if none or several do, or the name is too short to mean one.
    """
    if len(name) < _SHORTEST_ID or not re.fullmatch("[0-9a-f]+", name):
        raise ConfigurationError(f"an instance is named by {_SHORTEST_ID} digits of its id, or more")
    found = _cases(db, disposition.c.source_sha256.startswith(name))
    if len(found) != 1:
        raise ConfigurationError(f"{len(found)} instances have an id that begins with {name}")
    return found[0]


def decisions(db: sa.Connection, source_sha256: str | None = None) -> list[Decision]:
    """Return what was decided about an instance, or about all, oldest first."""
    query = sa.select(review_decision).order_by(review_decision.c.number)
    if source_sha256 is not None:
        query = query.where(review_decision.c.source_sha256 == source_sha256)
    return [Decision(**{**row, "boxes": _boxes(row["boxes"])}) for row in db.execute(query).mappings()]


@contextmanager
def deciding(store: sa.Engine, root: Path, at: datetime) -> Iterator[None]:
    """Be the one process that decides in this folder; first make good what a crash left.

    A decision without an outcome is one of a process that is gone: what is in the catalogue now was accepted by it, and
    what is not waits for another decision.
    """
    with os.fdopen(os.open(root / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with store.begin() as db:
            for decision in decisions(db):
                if decision.outcome == BEGUN:
                    accepted = find(db, decision.source_sha256).outcome == ACCEPTED
                    _settle(db, decision, None if accepted else INTERRUPTED, at)
        _delete_taken_out(store, root)
        yield


def accept(store: sa.Engine, retake: Retake, name: str, by: str, at: datetime) -> Decision | Deny:
    """Let an instance in with the proposed boxes blanked; what it was held for is cleared by a person."""
    return _let_in(store, retake, name, ACCEPT, None, by, at)


def redraw(store: sa.Engine, retake: Retake, name: str, boxes: Boxes, by: str, at: datetime) -> Decision | Deny:
    """Let an instance in with a person's own boxes blanked in place of the proposed; none at all is possible.

    Raises: ConfigurationError if a box is empty or begins outside the picture.
    """
    for top, left, bottom, right in boxes:
        if not (0 <= top < bottom and 0 <= left < right):
            raise ConfigurationError("a box is top,left,bottom,right in pixels, half-open, and not empty")
    return _let_in(store, retake, name, REDRAW, boxes, by, at)


def reject(store: sa.Engine, name: str, reason: str, by: str, at: datetime) -> Decision | Deny:
    """Keep an instance out; `reason` is for the record, in lower-case words joined by hyphens."""
    _check_word(reason)
    with store.begin() as db:
        case = find(db, name)
        if case.outcome != HELD:
            return _refuse(db, case, by, at)
        db.execute(_disposition_of(case).values(outcome=REJECTED, reason=reason, recorded_at=at.isoformat()))
        return _decide(db, case, REJECT, (), by, at, REJECTED, reason=reason)


def reopen(store: sa.Engine, root: Path, name: str, reason: str, by: str, at: datetime) -> Decision | Deny:
    """Hold a decided instance again: what was accepted leaves the catalogue, and running work with it stops."""
    _check_word(reason)
    with store.begin() as db:
        case = find(db, name)
        if case.outcome not in {ACCEPTED, REJECTED}:
            return _refuse(db, case, by, at, "the instance waits for a decision already")
        path = _take_out(db, root, case, REOPENED, at)
        decision = _decide(db, case, REOPEN, (), by, at, HELD, reason=reason, again=REOPENED, taken_out=path)
    _delete_taken_out(store, root)
    return decision


def provide_original(store: sa.Engine, root: Path, name: str, content: bytes) -> Path:
    """Put the original of a held instance where review reads it; that of an accepted one was never copied.

    Raises: ConfigurationError if the instance is not held, or these are not its bytes.
    """
    with store.begin() as db:
        case = find(db, name)
        if case.outcome != HELD:
            raise ConfigurationError(f"instance {case.source_sha256[:12]} does not wait for a person")
        if hashlib.sha256(content).hexdigest() != case.source_sha256:
            raise ConfigurationError("that file is not the original of this instance")
        kept_as = f"review/{case.source_sha256}"
        target = root / kept_as
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(target)
        _flush(target.parent)
        db.execute(_disposition_of(case).values(kept_as=kept_as))
    return target


def sample(
    store: sa.Engine,
    at: datetime,
    seed: str,
    *,
    count: int | None = None,
    fraction: float | None = None,
    modality: str | None = None,
) -> list[str]:
    """Draw accepted instances at random that were never drawn; return their SOPInstanceUIDs.

    So many, or such a share of those there are, rounded up. The same seed draws the same from the same catalogue.
    Raises: ConfigurationError unless exactly one of `count` and `fraction` is given, and is positive.
    """
    if (count is None) == (fraction is None):
        raise ConfigurationError("a sample is of a count or of a fraction")
    if (count is not None and count < 1) or (fraction is not None and not 0 < fraction <= 1):
        raise ConfigurationError("a count is 1 or more; a fraction is above 0 and at most 1")
    drawn = sa.select(audit.c.number).where(
        audit.c.SOPInstanceUID == instance.c.SOPInstanceUID, audit.c.sha256 == instance.c.sha256
    )
    query = (
        sa.select(instance, treatment.c.pipeline)
        .outerjoin(treatment, treatment.c.source_sha256 == instance.c.source_sha256)
        .where(~drawn.exists())
    )
    if modality is not None:
        query = query.where(instance.c.Modality == modality)
    with store.begin() as db:
        population = db.execute(query).all()
        size = count if count is not None else math.ceil((fraction or 0) * len(population))
        chosen = sorted(population, key=lambda row: _rank(seed, row.SOPInstanceUID))[:size]
        for row in chosen:
            db.execute(
                sa.insert(audit).values(
                    SOPInstanceUID=row.SOPInstanceUID,
                    source_sha256=row.source_sha256,
                    sha256=row.sha256,
                    Modality=row.Modality,
                    pipeline=row.pipeline or UNKNOWN_PIPELINE,
                    seed=seed,
                    drawn_at=at.isoformat(),
                )
            )
        ledger.write(db, at, "site:audit:drawn", instances=len(chosen), of=len(population), seed=seed)
    return [str(row.SOPInstanceUID) for row in chosen]


def awaited(db: sa.Connection) -> list[dict[str, str]]:
    """Return what was drawn and is still to be looked at: SOPInstanceUID, Modality, path below the site folder."""
    query = (
        sa.select(instance.c.SOPInstanceUID, instance.c.Modality, instance.c.path)
        .join(audit, (audit.c.SOPInstanceUID == instance.c.SOPInstanceUID) & (audit.c.sha256 == instance.c.sha256))
        .where(audit.c.verdict.is_(None))
        .order_by(audit.c.number)
    )
    return [dict(row) for row in db.execute(query).mappings()]


def judge(
    store: sa.Engine,
    root: Path,
    uid: str,
    verdict: str,
    by: str,
    at: datetime,
    place: str | None = None,
    *,
    whole_series: bool = False,
) -> tuple[str, ...] | Deny:
    """Record what an audit found; return the ids of the instances that are held now.

    A leak holds the instance, out of the catalogue, and running work with it stops; so for its `whole_series` on wish.
    `place` names an attribute or a spot (`PatientComments`, `pixels`), never what stands there. What was judged clean
    may still be found to leak; what leaked is never judged clean.
    Raises: ConfigurationError if the instance was not drawn, or verdict or place are no words for the record.
    """
    _check_finding(verdict, place, by)
    columns = audit.c
    with store.begin() as db:
        query = sa.select(audit).where(columns.SOPInstanceUID == uid).order_by(columns.number.desc()).limit(1)
        drawn = db.execute(query).first()
        if drawn is None:
            raise ConfigurationError("that instance was not drawn for an audit")
        if drawn.verdict in {LEAK, verdict}:
            ledger.write(db, at, "site:audit:refused", audit=drawn.number, reason=f"judged {drawn.verdict}", by=by)
            return Deny(f"the audit is judged already: {drawn.verdict}")
        found = {"verdict": verdict, "place": place, "by": by, "at": at.isoformat()}
        db.execute(sa.update(audit).where(columns.number == drawn.number).values(found))
        ledger.write(db, at, "site:audit:judged", audit=drawn.number, verdict=verdict, place=place or "", by=by)
        held_now = _hold_leak(db, root, drawn, by, at, whole_series=whole_series) if verdict == LEAK else ()
    _delete_taken_out(store, root)
    return held_now


def statistics(db: sa.Connection) -> dict[tuple[str, str], Rate]:
    """Return the leak rate of all audits, by modality and by pipeline version.

    Keys are (`all`, ``), (`modality`, `MR`), (`pipeline`, `1.2`). The bounds hold for what was drawn from: where one
    modality was drawn more often than others, read its own line.
    """
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    columns = audit.c
    rows = db.execute(
        sa.select(columns.Modality, columns.pipeline, columns.verdict, sa.func.count())
        .where(columns.verdict.is_not(None))
        .group_by(columns.Modality, columns.pipeline, columns.verdict)
    )
    for modality, pipeline, verdict, number in rows:
        for key in (("all", ""), ("modality", modality), ("pipeline", pipeline)):
            counts[key][0] += number
            counts[key][1] += number if verdict == LEAK else 0
    return {key: rate(leaks, audited) for key, (audited, leaks) in sorted(counts.items())}


def rate(leaks: int, audited: int) -> Rate:
    """Return the rate with its bounds.

    Source: Clopper and Pearson 1934: two-sided, each tail has half of what is missing to 95 %.
    """
    lower = 0.0 if leaks == 0 else _bisect(lambda p: 1 - _at_most(leaks - 1, audited, p) >= _TAIL)
    upper = 1.0 if leaks == audited else _bisect(lambda p: _at_most(leaks, audited, p) <= _TAIL)
    return Rate(audited, leaks, lower, upper)


def clean_audits_needed(leaks: int, audited: int, goal: float) -> int:
    """Return how many more audits, all of them clean, put the upper bound below `goal`."""

    def enough(more: int) -> bool:
        return _at_most(leaks, audited + more, goal) < _TAIL

    if enough(0):
        return 0
    below, above = 0, 1
    while not enough(above):
        below, above = above, above * 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if enough(middle) else (middle, above)
    return above


def _hold_leak(
    db: sa.Connection, root: Path, drawn: sa.Row[tuple[object, ...]], by: str, at: datetime, *, whole_series: bool
) -> tuple[str, ...]:
    """Take what leaks out of the catalogue, if it is still the file that was drawn; return the ids."""
    still = (instance.c.SOPInstanceUID == drawn.SOPInstanceUID) & (instance.c.sha256 == drawn.sha256)
    row = db.execute(sa.select(instance.c.source_sha256).where(still)).first()
    if row is None:
        return ()
    others = _of_same_series(db, drawn.SOPInstanceUID) if whole_series else []
    if row.source_sha256 is None:  # of a site without a record of its files: there is no case to decide
        db.execute(sa.delete(instance).where(still))
        advance(db)
    leaks = [] if row.source_sha256 is None else [(row.source_sha256, LEAK, LEAK_FOUND)]
    leaks += [(other, REOPEN, IN_ITS_SERIES) for other in others]
    for source, verdict, reason in leaks:
        case = find(db, source)
        path = _take_out(db, root, case, reason, at)
        _decide(db, case, verdict, (), by, at, HELD, reason=reason, again=reason, taken_out=path)
    return tuple(source for source, _, _ in leaks)


def _of_same_series(db: sa.Connection, uid: str) -> list[str]:
    """Return the ids of the accepted instances beside this one: what is burned into one is often in all."""
    series = sa.select(instance.c.SeriesInstanceUID).where(instance.c.SOPInstanceUID == uid).scalar_subquery()
    query = sa.select(instance.c.source_sha256).where(
        instance.c.SeriesInstanceUID == series,
        instance.c.SOPInstanceUID != uid,
        instance.c.source_sha256.is_not(None),
    )
    return [str(source) for source in db.scalars(query.order_by(instance.c.SOPInstanceUID))]


def _let_in(
    store: sa.Engine, retake: Retake, name: str, verdict: str, drawn: Boxes | None, by: str, at: datetime
) -> Decision | Deny:
    with store.begin() as db:
        case = find(db, name)
        before = decisions(db, case.source_sha256)
        if case.outcome != HELD:
            return _refuse(db, case, by, at)
        if case.kept_as.endswith(TAKEN_OUT):
            return _refuse(db, case, by, at, "its original is not kept here: name the file with --original")
        boxes = case.boxes if drawn is None else drawn
        # A reopened instance keeps the caution it was first held with.
        reasons = frozenset({case.reason, *(decision.held_for for decision in before)})
        if any(map(needs_two, reasons)):
            first = before[-1] if before and before[-1].outcome == SECOND_AWAITED else None
            if first is None or first.boxes != boxes:
                return _decide(db, case, verdict, boxes, by, at, SECOND_AWAITED)
            if same_person(first.by, by):
                return _refuse(db, case, by, at, "another person must agree")
        decision = _decide(db, case, verdict, boxes, by, at, BEGUN)
    try:
        again = retake(case.source_sha256, boxes, reasons, at)
    except (SiteError, OSError):
        with store.begin() as db:
            _settle(db, decision, INTERRUPTED, at)
        raise
    with store.begin() as db:
        return _settle(db, decision, again, at)


def _decide(
    db: sa.Connection,
    case: Case,
    verdict: str,
    boxes: Boxes,
    by: str,
    at: datetime,
    outcome: str,
    *,
    reason: str = "",
    again: str | None = None,
    taken_out: str | None = None,
) -> Decision:
    if not by.strip():
        raise ConfigurationError("a decision says who made it")
    unnumbered = Decision(
        0, case.source_sha256, verdict, case.reason, boxes, reason, by, at.isoformat(), outcome, again, taken_out
    )
    values = {name: getattr(unnumbered, name) for name in Decision.__slots__ if name != "number"}
    values["boxes"] = json.dumps(boxes)
    number = db.execute(sa.insert(review_decision).values(values).returning(review_decision.c.number)).scalar_one()
    ledger.write(
        db,
        at,
        "site:review:decided",
        decision=number,
        source=case.source_sha256,
        verdict=verdict,
        held_for=case.reason,
        boxes=len(boxes),
        reason=reason,
        outcome=outcome,
        by=by,
    )
    return replace(unnumbered, number=number)


def _settle(db: sa.Connection, decision: Decision, again: str | None, at: datetime) -> Decision:
    """Record what came of a decision: accepted, or held again for a reason."""
    values = {"outcome": ACCEPTED if again is None else HELD, "held_again_for": again}
    db.execute(sa.update(review_decision).where(review_decision.c.number == decision.number).values(values))
    ledger.write(
        db, at, "site:review:settled", decision=decision.number, outcome=str(values["outcome"]), reason=again or ""
    )
    return replace(decision, outcome=str(values["outcome"]), held_again_for=again)


def _refuse(db: sa.Connection, case: Case, by: str, at: datetime, reason: str = "") -> Deny:
    why = reason or f"the instance is {case.outcome}: reopen it first"
    ledger.write(db, at, "site:review:refused", source=case.source_sha256, reason=why, by=by)
    return Deny(why)


def _take_out(db: sa.Connection, root: Path, case: Case, reason: str, at: datetime) -> str | None:
    """Hold an instance again and take it out of the catalogue; return the path of the file to delete there.

    The file gets its new name before the record says so, and loses the old one after.
    """
    row = db.execute(sa.select(instance).where(instance.c.source_sha256 == case.source_sha256)).first()
    values = {"outcome": HELD, "reason": reason, "recorded_at": at.isoformat()}
    if row is not None:
        values["kept_as"] = f"review/{case.source_sha256}{TAKEN_OUT}"
        _link(root / row.path, root / values["kept_as"])
        db.execute(sa.delete(instance).where(instance.c.SOPInstanceUID == row.SOPInstanceUID))
        advance(db)
    db.execute(_disposition_of(case).values(values))
    return row.path if row is not None else None


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if source.exists():
        target.hardlink_to(source)
        _flush(target.parent)


def _delete_taken_out(store: sa.Engine, root: Path) -> None:
    """Delete files that left the catalogue; no file can enter it meanwhile, since intake writes in a transaction."""
    column = review_decision.c.taken_out
    with store.begin() as db:
        for path in set(db.scalars(sa.select(column).where(column.is_not(None)))):
            if not db.execute(sa.select(instance.c.path).where(instance.c.path == path)).first():
                (root / path).unlink(missing_ok=True)
            db.execute(sa.update(review_decision).where(column == path).values(taken_out=None))


def _cases(db: sa.Connection, which: sa.ColumnElement[bool]) -> list[Case]:
    columns = disposition.c
    query = (
        sa.select(
            disposition,
            treatment.c.boxes,
            treatment.c.pipeline,
            treatment.c.SeriesInstanceUID,
            treatment.c.Modality,
            treatment.c.notes,
        )
        .outerjoin(treatment, treatment.c.source_sha256 == columns.source_sha256)
        .where(which)
        .order_by(columns.recorded_at, columns.source_sha256)
    )
    return [
        Case(
            row.source_sha256,
            row.outcome,
            row.reason,
            row.recorded_at,
            row.kept_as,
            _boxes(row.boxes or "[]"),
            row.pipeline or UNKNOWN_PIPELINE,
            row.SeriesInstanceUID,
            row.Modality,
            tuple(json.loads(row.notes or "[]")),
        )
        for row in db.execute(query)
    ]


def _boxes(text: str) -> Boxes:
    return tuple((top, left, bottom, right) for top, left, bottom, right in json.loads(text))


def _disposition_of(case: Case) -> sa.Update:
    return sa.update(disposition).where(disposition.c.source_sha256 == case.source_sha256)


def _check_word(reason: str) -> None:
    if len(reason) > _LONGEST or not _WORD.fullmatch(reason):
        raise ConfigurationError("a reason is lower-case words joined by hyphens, such as name-in-the-picture")


def _check_finding(verdict: str, place: str | None, by: str) -> None:
    if verdict not in {CLEAN, LEAK}:
        raise ConfigurationError(f"a verdict is {CLEAN} or {LEAK}")
    if (verdict == LEAK) != (place is not None):
        raise ConfigurationError("a leak has a place, and nothing else has")
    if place is not None and (len(place) > _LONGEST or not _PLACE.fullmatch(place)):
        raise ConfigurationError("a place names an attribute or a spot, in one word")
    if not by.strip():
        raise ConfigurationError("an audit says who made it")


def _rank(seed: str, uid: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{uid}".encode()).digest()


def _at_most(leaks: int, audited: int, p: float) -> float:
    """Return the probability of at most `leaks` among `audited`, where each leaks with probability 0 < p < 1."""
    if leaks >= audited:
        return 1.0
    choices = math.lgamma(audited + 1)
    return math.fsum(
        math.exp(
            choices
            - math.lgamma(hits + 1)
            - math.lgamma(audited - hits + 1)
            + hits * math.log(p)
            + (audited - hits) * math.log1p(-p)
        )
        for hits in range(leaks + 1)
    )


def _bisect(holds: Callable[[float], bool]) -> float:
    """Return where between 0 and 1 a condition begins to hold."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _flush(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
