"""What is delivered: the model as a MONAI bundle, with the record of how it came to be.

The provenance lists, for each round, who took part, the verified receipts, the digests of the model before and after,
and what was refused and why. Anyone can check it again: `audit` here, or by hand with the members' public keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from consent import ReceiptInvalid, key_id, open_receipt, receipt_digest
from coordinator.errors import ConfigurationError, RunFailed
from coordinator.receipt_keys import all_keys
from coordinator.runs import RunRecord, describe
from coordinator.verification import Refused, read_expected, verify
from models import bundle_files, canonical, task_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import sqlalchemy as sa

    from coordinator.verification import Evidence, Expected
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
        "receipt_keys": {site: [pem.decode() for pem in pems] for site, pems in all_keys(store).items()},
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
    """Make every check on every counted receipt again, and on the chains they form; return the faults found.

    A receipt is checked against what was expected of it when it came, which is kept with it and must itself be of this
    run, round, task and base model. The model of each round is the base of the next, the models on disk are the ones on
    record, and the receipts and the consent logs of each site follow one another.
    """
    record = describe(store, run)
    keys = {site: [_key(pem) for pem in pems] for site, pems in all_keys(store).items()}
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
    verified: list[_Verified] = []
    for row in counted:
        trained = row["kind"] == "train" and row["round"] in before  # else it is of the last model, or never closed
        base = before[row["round"]] if trained else rounds[-1]["model_after"]
        answer = _verified_again(record, row, _signer(row, keys), base)
        if isinstance(answer, _Verified):
            verified.append(answer)
        else:
            faults += [f"{_where(row)}: {fault}" for fault in answer]
    return faults or _chain_faults(verified)


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


@dataclass(frozen=True, slots=True)
class _Verified:
    """A counted receipt that holds, with the record it stands in and the key that signed it."""

    row: Mapping[str, Any]
    key_id: str
    expected: Expected
    evidence: Evidence


def _verified_again(
    record: Mapping[str, object], row: Mapping[str, Any], key: Ed25519PublicKey, base: str
) -> _Verified | list[str]:
    try:
        receipt = open_receipt(row["receipt"].encode(), key)
        expected = read_expected(row["expected"] or "")
    except ReceiptInvalid as error:
        return [f"receipt {error.reason}"]
    except ValueError:
        return ["what was expected of the receipt is not on record"]
    claimed = (receipt.run, receipt.round, receipt.kind, receipt.site, receipt.update, receipt.weight, receipt.task)
    names = ("run", "round", "kind", "site", "update", "weight")
    recorded = (*(row[name] for name in names), record["task"])
    faults = [] if claimed == recorded else ["the receipt speaks of something else"]
    if receipt.base_model != base:
        faults.append("the receipt names another base model")
    evidence = verify(row["receipt"].encode(), key, expected, row["update"], datetime.fromtimestamp(row["at"], UTC))
    if isinstance(evidence, Refused):
        return [*faults, f"the receipt does not hold: {evidence.reason}"]
    return faults or _Verified(row, key_id(key), expected, evidence)


def _chain_faults(verified: Sequence[_Verified]) -> list[str]:
    """Return where a receipt or its consent log does not follow the one by the same key that was counted before it."""
    faults, last = [], dict[str, _Verified]()
    for one in sorted(verified, key=lambda one: one.row["at"]):
        before = last.get(one.key_id)
        if before is not None:
            if one.evidence.receipt.prev != receipt_digest(before.row["receipt"].encode()):
                faults.append(f"{_where(one.row)}: does not follow the receipt counted before")
            log = before.evidence.recheck
            if (one.expected.log_size, one.expected.log_root) != (log.size, log.root.hex()):
                faults.append(f"{_where(one.row)}: its consent log does not follow the one accepted before")
        last[one.key_id] = one
    return faults


def _where(row: Mapping[str, Any]) -> str:
    return f"round {row['round']}, {row['kind']}, {row['site']}"


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


def _signer(row: Mapping[str, Any], keys: _Keys) -> Ed25519PublicKey:
    """Return the site's key that the receipt names; its newest one if it names none."""
    own = keys[row["site"]]
    return next((key for key in own if key_id(key) in row["receipt"]), own[-1])


def _key(pem: bytes) -> Ed25519PublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError("a member's receipt key is not an Ed25519 key")
    return key
