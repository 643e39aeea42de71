"""Whether anything of a run is gone: its rounds, receipts, notices, or the task and the metrics they rest on.

That each receipt on record holds is seen in `coordinator.provenance`; here, that those are on record which must be:
a quorum for each round, every receipt that another one follows, and every one that a signed notice names.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from consent import NO_PREVIOUS, NoticeInvalid, ReceiptInvalid, open_notice, open_receipt, receipt_digest
from coordinator.runs import mean_metrics, place_of, rows_of
from coordinator.store import contribution, receipt_head, round_, task, withdrawal_notice, withdrawn_receipt
from models import ModelsError, UpdateRefused, parse_task, task_digest, update_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from consent import Receipt, WithdrawalNotice
    from models import Task

    Keys = Mapping[str, Sequence[Ed25519PublicKey]]
    Record = Mapping[str, object]


def gaps(store: sa.Engine, record: Record, sound: Iterable[Mapping[str, Any]], keys: Keys) -> list[str]:
    """Return what is missing of the run that `record` describes; `sound` are its contributions whose receipts hold."""
    return [
        *_task_gaps(store, record, sound),
        *_metric_gaps(record),
        *_receipt_gaps(store, keys),
        *_notice_gaps(store, record, keys),
    ]


def _task_gaps(store: sa.Engine, record: Record, sound: Iterable[Mapping[str, Any]]) -> list[str]:
    with store.connect() as db:
        document = db.execute(sa.select(task.c.document).where(task.c.digest == record["task"])).scalar()
    try:
        read = parse_task(str(document).encode())
    except (ModelsError, ValueError):
        return ["the task's document cannot be read"]
    faults = [] if task_digest(read) == record["task"] else ["the task's document is another's"]
    return [*faults, *_round_gaps(record, read, sound)]


def _round_gaps(record: Record, read: Task, sound: Iterable[Mapping[str, Any]]) -> list[str]:
    closed = [row["round"] for row in rows_of(record, "rounds")]
    # A round is trained on the model of the one before it, and measured on its own.
    reached = [row["round"] + (row["kind"] == "evaluate") for row in rows_of(record, "contributions")]
    due = max(read.rounds + 1 if record["state"] == "finished" else 0, len(closed), *reached)
    faults = [] if closed == list(range(due)) else [f"rounds {closed} are on record; the task has {read.rounds}"]
    made = Counter(row["round"] for row in sound if row["kind"] == "train")
    quorum = read.strategy.quorum
    return faults + [
        f"round {number}: {made[number]} sound receipts, fewer than the quorum of {quorum}"
        for number in closed
        if number > 0 and made[number] < quorum
    ]


def _metric_gaps(record: Record) -> list[str]:
    """Return where the metrics of a measurement are not those signed, and those of a round not its sites' mean."""
    made = [row for row in rows_of(record, "contributions") if row["outcome"] == "counted"]
    faults = [
        f"{place_of(row)}: its metrics are not those of its receipt"
        for row in made
        if row["kind"] == "evaluate" and not _is_measurement(row)
    ]
    for closed in rows_of(record, "rounds"):
        trained = [row for row in made if row["round"] == closed["round"] and row["kind"] == "train"]
        if not _is_mean(closed["metrics"], trained):
            faults.append(f"round {closed['round']}: its metrics are not the mean of its sites'")
    return faults


def _is_measurement(row: Mapping[str, Any]) -> bool:
    try:
        return bool(update_digest({}, row["metrics"]) == row["update"])
    except (UpdateRefused, ValueError, TypeError, AttributeError):
        return False


def _is_mean(metrics: Mapping[str, float], trained: Sequence[Mapping[str, Any]]) -> bool:
    try:
        means = mean_metrics((row["weight"], row["metrics"]) for row in trained)
        return means.keys() == metrics.keys() and all(math.isclose(means[name], metrics[name]) for name in means)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError):
        return False


def _receipt_gaps(store: sa.Engine, keys: Keys) -> list[str]:
    """Return where a receipt's forerunner is gone, and where a site's head on record is not its last receipt.

    A receipt follows those of other runs too, so all are looked at. What was counted in a round that never closed
    (its run failed) is followed by none.
    """
    columns = contribution.c
    closed = sa.exists().where(round_.c.run == columns.run, round_.c.round == columns.round)
    query = sa.select(contribution, closed.label("closed")).where(columns.outcome == "counted")
    with store.connect() as db:
        rows = db.execute(query).mappings().all()
        heads = {row.site: row for row in db.execute(sa.select(receipt_head))}
    kept = {(row["site"], receipt_digest(row["receipt"] or b"")) for row in rows}
    followed, faults = dict[str, set[str]](), list[str]()
    for row in rows:
        site, where = row["site"], f"{row['run']}, {place_of(dict(row))}"
        if row["receipt_digest"] != receipt_digest(row["receipt"] or b""):
            faults.append(f"{where}: the digest of its receipt is another's")
        receipt = _receipt(row["receipt"] or b"", keys.get(site, ()))
        if receipt is None:
            faults.append(f"{where}: its receipt is not signed by the site")
            continue
        if row["closed"] or row["kind"] == "evaluate":
            followed.setdefault(site, set()).add(receipt.prev)
        if receipt.prev != NO_PREVIOUS and (site, receipt.prev) not in kept:
            faults.append(f"{where}: the receipt it follows is gone")
    for site in sorted({*followed, *heads}):
        head = heads.get(site)
        if head is None or head.digest != receipt_digest(head.receipt or b"") or (site, head.digest) not in kept:
            faults.append(f"{site}: the last receipt on record is not among those counted")
        elif head.digest in followed.get(site, ()):
            faults.append(f"{site}: the last receipt on record is not the last that was counted")
    return faults


def _receipt(envelope: bytes, keys: Iterable[Ed25519PublicKey]) -> Receipt | None:
    for key in keys:
        with suppress(ReceiptInvalid):
            return open_receipt(envelope, key)
    return None


def _notice_gaps(store: sa.Engine, record: Record, keys: Keys) -> list[str]:
    """Return receipts that a signed notice names and no flag does, flags and updates taken back without a notice."""
    with store.connect() as db:
        notices = db.execute(sa.select(withdrawal_notice)).all()
        flags = {(row.site, row.receipt): row.notice for row in db.execute(sa.select(withdrawn_receipt))}
    named, faults = dict[tuple[str, str], set[str]](), list[str]()
    for row in notices:
        if hashlib.sha256(row.envelope).hexdigest() != row.digest:
            faults.append(f"the notice {row.digest[:12]} of {row.site}: it is under another's digest")
        notice = _notice(row.envelope, keys.get(row.site, ()))
        for one in notice.receipts if notice else ():
            named.setdefault((row.site, one.sha256), set()).add(row.digest)
    faults += [
        f"{site}: a notice names the receipt {receipt[:12]}, which is not flagged"
        for site, receipt in sorted(named.keys() - flags.keys())
    ]
    faults += [
        f"{site}: no notice flags the receipt {receipt[:12]}"
        for (site, receipt), digest in sorted(flags.items())
        if digest not in named.get((site, receipt), ())
    ]
    heard = {site for site, _ in named}
    return faults + [
        f"{place_of(row)}: taken back, and no notice of the site is on record"
        for row in rows_of(record, "contributions")
        if row["outcome"] == "retracted" and row["site"] not in heard
    ]


def _notice(envelope: bytes, keys: Iterable[Ed25519PublicKey]) -> WithdrawalNotice | None:
    for key in keys:
        with suppress(NoticeInvalid):
            return open_notice(envelope, key)
    return None
