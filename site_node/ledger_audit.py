"""What people decided and what left, as the ledger has it, against the tables that say so too.

The ledger is a chain of hashes whose head stands in every signed state of the consent log, so what it says up to the
last of them is what it said then. Requests, datasets, tasks, rounds and withdrawals are compared with it here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from consent import ConsentError, Deny, match_data_use, receipt_digest, same_person
from consent import DataUseDecision as Decision
from models import ModelsError, parse_task, task_digest
from site_node import access_requests, ledger, permissions
from site_node.consent_log import anchor, split
from site_node.eligibility import Opening, opening_of
from site_node.gate import research_purpose, within_time_limit
from site_node.store import (
    consent_checkpoint,
    consent_log,
    dataset,
    eligibility,
    participation,
    request_event,
    task,
    withdrawal_answer,
    withdrawal_notice,
)
from site_node.store import ledger as table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consent import Receipt
    from models import Task
    from site_node.access_requests import Granted
    from site_node.permissions import Dataset

Note = tuple[str, bool]
"""What would be a fault, and whether it is one."""
DATASET = {"approved_by": None, "approved_at": None, "revoked_at": None}
TASK = {**DATASET, "dataset": None}


class Entry(NamedTuple):
    """An entry of the ledger; `hash` is the one it should have after those before it."""

    number: int
    at: str
    entry: str
    detail: Mapping[str, Any]
    hash: str


@dataclass(slots=True)
class _Span:
    """An approval, from when until when it stood; `dataset` is the one a task was approved for."""

    at: str
    by: str
    dataset: str = ""
    until: str | None = None

    def covers(self, begin: datetime, end: datetime) -> bool:
        return datetime.fromisoformat(self.at) <= begin and (
            self.until is None or datetime.fromisoformat(self.until) >= end
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """What people decided: readable tasks and datasets, sound requests, and every approval with its end."""

    tasks: Mapping[str, Task]
    datasets: Mapping[str, Dataset]
    grants: tuple[Granted, ...]
    approvals: Mapping[tuple[str, str], list[_Span]] = field(default_factory=dict)

    def fault(self, receipt: Receipt) -> str:
        """Return what people had not decided of what a receipt rests on; empty if all was."""
        begin, end, claim = receipt.times.snapshot, receipt.times.released, receipt.grants[0]
        kept, data = self.tasks.get(receipt.task), self.datasets.get(claim.dataset)
        if kept is None or data is None:
            return "its task or dataset is not on record"
        spans = self.approvals.get(("task", receipt.task), [])
        if not any(span.covers(begin, end) and span.dataset == claim.dataset for span in spans):
            return "its task was not approved for the dataset then"
        if not any(span.covers(begin, end) for span in self.approvals.get(("dataset", claim.dataset), [])):
            return "its dataset was not approved then"
        stated = research_purpose(kept)
        for made in self.grants:
            ended, grant = made.grant.revoked_at, within_time_limit(made, data.terms).grant
            names = (grant.dataset, grant.project, grant.expires_at)
            in_force = grant.granted_at <= begin and (ended is None or ended >= end)
            if names == (claim.dataset, kept.project, claim.expires_at) and in_force:
                at = receipt.times.recheck
                own, granted = (match_data_use(data.terms, one, at).decision for one in (stated, made.purpose))
                duo = "APPROVE" if granted is Decision.APPROVE else "MANUAL"
                if Decision.DENY not in {own, granted} and duo == claim.duo:
                    return ""
        return "no request that was approved makes the grant it names"


def read(db: sa.Connection) -> tuple[list[Entry], list[Note]]:
    """Return the ledger's entries, and whether each is whole and follows the one before it."""
    entries, notes, before = list[Entry](), list[Note](), ledger.NOTHING
    for place, row in enumerate(db.execute(sa.select(table).order_by(table.c.number)), 1):
        detail = _object(row.detail)
        before = ledger.entry_hash(before, row.number, row.at, row.entry, row.detail)
        follows = (row.number, row.hash) == (place, before)
        notes.append((f"ledger, entry {place}: altered, or one before it is gone", not follows))
        notes.append((f"ledger, entry {place}: it cannot be read", detail is None))
        entries.append(Entry(row.number, row.at, row.entry, detail or {}, before))
    return entries, notes


def anchored(db: sa.Connection, entries: list[Entry]) -> Iterator[Note]:
    """Compare each published state of the consent log with the ledger's head that was put into it."""
    heads, size, last = {0: ledger.NOTHING, **{one.number: one.hash for one in entries}}, 0, 0
    batches = db.scalars(sa.select(consent_log.c.leaves).order_by(consent_log.c.place))
    leaves = [leaf for batch in batches for leaf in split(batch)]
    for row in db.execute(sa.select(consent_checkpoint).order_by(consent_checkpoint.c.size)):
        head = heads.get(row.ledger_number)
        fault = f"log of {row.size} leaves: the ledger is not as it was when this was signed"
        holds = head is not None and anchor(row.ledger_salt, head) in leaves[size : row.size]
        yield fault, not holds or row.ledger_number < last
        size, last = row.size, row.ledger_number


def decided(db: sa.Connection, entries: list[Entry]) -> tuple[Decided, list[Note]]:
    """Return what people decided, and whether the tables say what the ledger says."""
    approvals: dict[tuple[str, str], list[_Span]] = defaultdict(list)
    said = {
        kind: defaultdict[str, dict[str, Any]](first.copy) for kind, first in (("dataset", DATASET), ("task", TASK))
    }
    for one in entries:
        _, subject, act = (*one.entry.split(":"), "", "")[:3]
        if subject in said:
            name = str(one.detail.get(subject))
            _decide(said[subject][name], approvals[subject, name], act, one)
    datasets: dict[str, Dataset] = {}
    tasks: dict[str, Task] = {}
    grants: list[Granted] = []
    notes = [*_datasets(db, said["dataset"], datasets), *_tasks(db, said["task"], tasks)]
    for number, request in access_requests.requests(db).items():
        refused = isinstance(request, Deny)
        notes.append((f"request {number}: {request.reason if isinstance(request, Deny) else ''}", refused))
        if not isinstance(request, Deny) and request.grant:
            grants.append(access_requests.Granted(request.grant, request.form.purpose))
    return Decided(tasks, datasets, tuple(grants), approvals), notes


def _datasets(db: sa.Connection, said: dict[str, dict[str, Any]], readable: dict[str, Dataset]) -> Iterator[Note]:
    for row in db.execute(sa.select(dataset)).all():
        where, known = f"dataset {row.name}", said.pop(row.name, {})
        yield f"{where}: not registered in the ledger", "terms" not in known
        kept = {**row._asdict(), "terms": ledger.text_digest(row.terms)}
        yield from _differences(where, kept, known)
        alone = row.approved_by is not None and same_person(row.registered_by, row.approved_by)
        yield f"{where}: approved by who registered it", alone
        try:
            readable[row.name] = permissions.dataset_of(row)
        except (ConsentError, ValueError, TypeError, AttributeError):
            yield f"{where}: it cannot be read", True
    for name in said:
        yield f"dataset {name}: it is in the ledger, and gone", True


def _tasks(db: sa.Connection, said: dict[str, dict[str, Any]], readable: dict[str, Task]) -> Iterator[Note]:
    for row in db.execute(sa.select(task)).all():
        where = f"task {row.digest[:16]}"
        yield from _differences(where, row._asdict(), said.pop(row.digest, TASK))
        try:
            readable[row.digest] = parse_task(row.document.encode())
        except (ModelsError, ValueError):
            yield f"{where}: it cannot be read", True
            continue
        yield f"{where}: its document is another's", task_digest(readable[row.digest]) != row.digest
    for name in said:
        yield f"task {name[:16]}: it is in the ledger, and gone", True


def _differences(where: str, kept: Mapping[str, object], said: Mapping[str, object]) -> Iterator[Note]:
    for column, value in said.items():
        yield f"{where}: {column} is not what the ledger says", kept[column] != value


def _decide(row: dict[str, Any], spans: list[_Span], act: str, one: Entry) -> None:
    by = one.detail.get("by")
    if act == "registered":
        row |= {"registered_by": by, "registered_at": one.at}
        row |= {name: one.detail.get(name) for name in ("modality", "terms")}
    elif act == "approved":
        row |= {"approved_by": by, "approved_at": one.at, "revoked_at": None}
        if "dataset" in row:
            row["dataset"] = one.detail.get("dataset")
        for span in spans:  # an approval anew, for another dataset, ends the one before it
            span.until = span.until or one.at
        spans.append(_Span(one.at, str(by), str(one.detail.get("dataset"))))
    elif act == "revoked":
        row["revoked_at"] = one.at
        if spans:
            spans[-1].until = one.at


def events(db: sa.Connection, entries: list[Entry]) -> Iterator[Note]:
    """Compare each step of a request with its entry."""
    said = {
        (one.detail.get("request"), one.detail.get("version")): one.detail["event"]
        for one in entries
        if one.entry.startswith("site:request:") and "event" in one.detail
    }
    for row in db.execute(sa.select(request_event)):
        digest = said.pop((row.request, row.version), None)
        where = f"request {row.request}, version {row.version}"
        yield f"{where}: not the step in the ledger", digest != ledger.text_digest(row.event)
    for request, version in said:
        yield f"request {request}, version {version}: its step is gone", True


def openings(db: sa.Connection, entries: list[Entry]) -> Iterator[Note]:
    """Compare how each opening of a round ended, and what is kept of those that released nothing, with its entry."""
    said, of_receipt = dict[Opening, tuple[str, str, Entry]](), dict[object, Opening]()
    for one in entries:
        key = Opening._make(one.detail.get(name) for name in Opening._fields)
        if one.entry == "site:update:released":
            said[key] = ("released", "", one)
            of_receipt[one.detail.get("receipt")] = key
        elif one.entry == "site:update:discarded":
            made = of_receipt.get(one.detail.get("receipt"))
            if made in said:
                said[made] = ("discarded", str(one.detail.get("reason")), said[made][2])
        elif one.entry == "site:round:abstained" and None not in key:
            said[key] = ("abstained", str(one.detail.get("reason")), one)
    verdicts = {opening_of(row): row._asdict() for row in db.execute(sa.select(eligibility))}
    for row in db.execute(sa.select(participation)):
        where, known = opening_of(row), said.pop(opening_of(row), None)
        if known is None:
            yield f"{where}: it is not in the ledger", True
            continue
        outcome, reason, one = known
        same = (row.outcome, row.reason, row.recorded_at) == (outcome, reason, one.at)
        yield f"{where}: the ledger says {outcome}, or otherwise why or when", not same
        if outcome == "abstained":
            wrong = one.detail.get("participation") != ledger.row_digest(row._asdict())
            yield f"{where}: what is kept of it is not what the ledger says", wrong
            kept = verdicts.get(opening_of(row))
            wrong = one.detail.get("eligibility") != (ledger.row_digest(kept) if kept else None)
            yield f"{where}: its verdicts are not those the ledger speaks of", wrong
        else:
            digest = receipt_digest(row.receipt or b"")
            yield f"{where}: its receipt is not the one in the ledger", digest != one.detail.get("receipt")
    for key in said:
        yield f"{key}: it is in the ledger, and gone", True


def withdrawn(db: sa.Connection, entries: list[Entry]) -> Iterator[Note]:
    """Compare what the coordinator had to be told of withdrawals with the ledger and with what was released."""
    found, answered, refused = dict[str, str](), set[object](), set[tuple[object, object, str]]()
    for one in entries:
        if one.entry == "site:withdrawal:found":
            found |= dict.fromkeys(str(one.detail.get("receipts", "")).split(), one.at)
        elif one.entry == "site:update:discarded" and "told" in one.detail:
            found.setdefault(str(one.detail.get("receipt")), one.at)
        elif one.entry == "site:withdrawal:answered":
            answered.add(one.detail.get("notice"))
        elif one.entry == "site:withdrawal:refused":
            refused.add((one.detail.get("run"), one.detail.get("reason"), one.at))
    made = db.execute(sa.select(participation).where(participation.c.receipt.is_not(None)))
    released = {receipt_digest(row.receipt): opening_of(row)[:3] for row in made}
    for row in db.execute(sa.select(withdrawal_notice)):
        where = f"update {row.receipt[:16]}"
        yield f"{where}: that it was withdrawn is not in the ledger", found.pop(row.receipt, None) != row.found_at
        fits = released.get(row.receipt) == (row.run, row.round, row.kind)
        yield f"{where}: its notice speaks of another round", not fits
        said = row.refusal is None or (row.run, row.refusal, row.refused_at) in refused
        yield f"{where}: that its notice was refused is not in the ledger", not said
    for receipt in found:
        yield f"update {receipt[:16]}: it was withdrawn, and its notice is gone", True
    kept = set(db.scalars(sa.select(withdrawal_answer.c.digest)))
    for digest in sorted(map(str, answered - kept)):
        yield f"notice of withdrawal {digest[:16]}: its answer is gone", True


def _object(text: object) -> Mapping[str, Any] | None:
    try:
        found = json.loads(str(text))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
