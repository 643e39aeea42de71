"""What is delivered: the model as a MONAI bundle, with the record of how it came to be.

The provenance lists, for each round, who took part, the verified receipts, the digests of the model before and after,
and what was refused and why. Anyone can check it again: `audit` here, or by hand with the members' public keys.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from consent import ReceiptInvalid, key_id, open_receipt, receipt_digest
from coordinator.errors import ConfigurationError, RunFailed
from coordinator.runs import RunRecord, describe
from coordinator.store import member
from models import bundle_files, canonical, task_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from models import Task

    _Keys = Mapping[str, Sequence[Ed25519PublicKey]]


def provenance(store: sa.Engine, federation: str, run: str, task: Task) -> dict[str, Any]:
    """Return the record of `run` as plain values."""
    record = describe(store, run)
    return {
        "format": "filmroom-provenance/1",
        "federation": federation,
        "run": run,
        "task": {"digest": task_digest(task), "document": json.loads(canonical(task))},
        "started_at": record["started_at"],
        "receipt_keys": {site: [pem.decode() for pem in pems] for site, pems in _receipt_keys(store).items()},
        "rounds": [_round(record, row) for row in _rows(record, "rounds")],
        "evaluation": [_contribution(row) for row in _rows(record, "contributions") if row["kind"] == "evaluate"],
    }


def write_bundle(record: RunRecord, task: Task, document: Mapping[str, Any]) -> Path:
    """Write the final model as a MONAI bundle below the run's folder and return its folder."""
    files = bundle_files(task, record.model(task.rounds), record.layout(), document)
    folder = record.folder / "bundle"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def audit(store: sa.Engine, run: str, folder: Path) -> list[str]:
    """Verify every stored receipt and the chain of models again; return the faults found.

    Checks the signatures, that each receipt speaks of this run, round, base model and update, that the model of each
    round is the base of the next, that the models on disk are the ones on record, and that each site's receipts of this
    run follow one another.
    """
    record = describe(store, run)
    keys = {site: [_key(pem) for pem in pems] for site, pems in _receipt_keys(store).items()}
    rounds = _rows(record, "rounds")
    before = {row["round"]: row["model_before"] for row in rounds}
    faults = [
        f"round {row['round']}: starts from another model than round {last['round']} made"
        for last, row in pairwise(rounds)
        if row["model_before"] != last["model_after"]
    ]
    kept = RunRecord(store, folder, run)
    faults += [fault for row in rounds for fault in _model_faults(kept, row["round"])]
    counted = [row for row in _rows(record, "contributions") if row["outcome"] == "counted"]
    for row in counted:
        trained = row["kind"] == "train" and row["round"] in before  # else it is of the last model, or never closed
        base = before[row["round"]] if trained else rounds[-1]["model_after"]
        faults += _receipt_faults(run, row, _signer(row, keys), base)
    return faults or _chain_faults(counted, keys)


def receipt_count(store: sa.Engine, run: str) -> int:
    """Return how many updates of the run were counted."""
    rows = _rows(describe(store, run), "contributions")
    return sum(row["outcome"] == "counted" for row in rows)


def _model_faults(kept: RunRecord, number: int) -> list[str]:
    try:
        kept.model(number)
    except RunFailed as error:
        return [f"round {number}: {error}"]
    return []


def _receipt_faults(run: str, row: Mapping[str, Any], key: Ed25519PublicKey, base: str | None) -> list[str]:
    where = f"round {row['round']}, {row['kind']}, {row['site']}"
    try:
        receipt = open_receipt(row["receipt"].encode(), key)
    except ReceiptInvalid as error:
        return [f"{where}: receipt {error.reason}"]
    claimed = (receipt.run, receipt.round, receipt.kind, receipt.site, receipt.update, receipt.weight)
    recorded = (run, row["round"], row["kind"], row["site"], row["update"], row["weight"])
    faults = [] if claimed == recorded else [f"{where}: the receipt speaks of something else"]
    if receipt.base_model != base:
        faults.append(f"{where}: the receipt names another base model")
    return faults


def _chain_faults(counted: Sequence[Mapping[str, Any]], keys: _Keys) -> list[str]:
    """Return where a receipt does not name the one by the same key that was counted before it in this run."""
    faults, last = [], dict[str, str]()
    for row in sorted(counted, key=lambda row: row["at"]):
        key, envelope = _signer(row, keys), row["receipt"].encode()
        prev = open_receipt(envelope, key).prev
        if prev != last.get(key_id(key), prev):
            where = f"round {row['round']}, {row['kind']}, {row['site']}"
            faults.append(f"{where}: does not follow the receipt counted before")
        last[key_id(key)] = receipt_digest(envelope)
    return faults


def _round(record: Mapping[str, object], row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "round": row["round"],
        "model_before": row["model_before"],
        "model_after": row["model_after"],
        "metrics": row["metrics"],
        "seconds": row["closed_at"] - row["opened_at"],
        "contributions": [
            _contribution(made)
            for made in _rows(record, "contributions")
            if made["round"] == row["round"] and made["kind"] == "train"
        ],
    }


def _contribution(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("site", "outcome", "reason", "weight", "update", "metrics", "receipt")
    return {key: row[key] for key in kept}


def _rows(record: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    rows: Any = record[name]
    return list(rows)


def _receipt_keys(store: sa.Engine) -> dict[str, list[bytes]]:
    """Return the receipt keys of each site, one for each membership it had, oldest first."""
    keys: dict[str, list[bytes]] = {}
    with store.connect() as db:
        for row in db.execute(sa.select(member).order_by(member.c.joined_at)):
            keys.setdefault(row.site, []).append(row.receipt_key)
    return keys


def _signer(row: Mapping[str, Any], keys: _Keys) -> Ed25519PublicKey:
    """Return the site's key that the receipt names; its newest one if it names none."""
    own = keys[row["site"]]
    return next((key for key in own if key_id(key) in row["receipt"]), own[-1])


def _key(pem: bytes) -> Ed25519PublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError("a member's receipt key is not an Ed25519 key")
    return key
