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

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from consent import NoticeInvalid, ReceiptInvalid, key_id, open_notice, open_receipt, receipt_digest
from coordinator.completeness import gaps
from coordinator.errors import ConfigurationError, RunFailed
from coordinator.receipt_keys import all_keys
from coordinator.runs import RunRecord, describe, mean_metrics, place_of, rows_of
from coordinator.store import contribution, withdrawal_notice, withdrawn_receipt
from coordinator.verification import Refused, read_expected, verify
from models import bundle_files, bundle_texts, canonical, layout_digest, task_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from coordinator.receipt_keys import Term
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
        "derived_from": _lineage(record),
        "contains_withdrawn": _is_flagged(record),
        "receipt_keys": {site: [term.pem.decode() for term in terms] for site, terms in all_keys(store).items()},
        "rounds": [_round(record, row) for row in rows_of(record, "rounds")],
        "measured": _measured(record),
        "evaluation": [_contribution(row) for row in rows_of(record, "contributions") if row["kind"] == "evaluate"],
    }


def write_bundle(record: RunRecord, task: Task, document: Mapping[str, Any]) -> Path:
    """Write the final model as a MONAI bundle below the run's folder and return its folder."""
    flagged = bool(document["contains_withdrawn"])
    files = bundle_files(task, record.model(task.rounds), record.layout(), document, contains_withdrawn=flagged)
    folder = record.folder / "bundle"
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def texts_as_they_stand(store: sa.Engine, federation: str, record: RunRecord, task: Task) -> dict[str, bytes]:
    """Return the texts of a finished bundle, by path, as the record has it now.

    What was written at the end of the run does not know of a contribution that was withdrawn since.
    """
    document = provenance(store, federation, record.name, task)
    digests = {
        "task": task_digest(task),
        "layout": layout_digest(record.layout()),
        "model": document["rounds"][-1]["model_after"],
    }
    return bundle_texts(task, digests, document, contains_withdrawn=bool(document["contains_withdrawn"]))


def audit(store: sa.Engine, run: str, folder: Path) -> list[str]:
    """Make every check on every counted receipt again, and on the chains they form; return the faults found.

    A receipt is checked against what was expected of it when it came, which is kept with it and must itself be of this
    run, round, task and base model, and it came while the key it names was in force. The model of each round is the
    base of the next, the models on disk are the ones on record, and the receipts and the consent logs of each site
    follow one another. Rounds carried over are those of the run they come from, the notices of withdrawal were signed
    by their members, and nothing was counted that was answered to be in no model. Nothing of the run is gone
    (`coordinator.completeness`).
    """
    try:
        record, terms = describe(store, run), all_keys(store)
        keys = {site: [_key(term.pem) for term in had] for site, had in terms.items()}
    except (ValueError, TypeError, AttributeError):
        return ["a row of the run or of a member is damaged"]
    unknown = sorted({row["site"] for row in rows_of(record, "contributions")} - keys.keys())
    if unknown:
        return [f"{site}: has contributions and is no member" for site in unknown]
    rounds = rows_of(record, "rounds")
    if not rounds:
        begun = record["state"] == "finished" or rows_of(record, "contributions")
        return ["no round of the run is on record"] if begun else []
    before, after = ({row["round"]: row[f"model_{side}"] for row in rounds} for side in ("before", "after"))
    faults = [
        f"round {row['round']}: starts from another model than round {last['round']} made"
        for last, row in pairwise(rounds)
        if row["model_before"] != last["model_after"]
    ]
    kept = RunRecord(store, folder, run)
    faults += [fault for row in rounds for fault in _model_faults(kept, row["round"])]
    counted = [row for row in rows_of(record, "contributions") if row["outcome"] == "counted"]
    verified: list[_Verified] = []
    for row in counted:
        models = before if row["kind"] == "train" else after
        base = models.get(row["round"], rounds[-1]["model_after"])  # a round that never closed starts from the last
        answer = _verified_again(record, row, _signer(row, keys), base)
        faults += _term_faults(row, terms[row["site"]])
        if isinstance(answer, _Verified):
            verified.append(answer)
        else:
            faults += [f"{place_of(row)}: {fault}" for fault in answer]
    faults += [*_lineage_faults(store, record), *_withdrawal_faults(store, record, keys)]
    missing = gaps(store, record, [one.row for one in verified], keys)
    return [*(faults or _chain_faults(verified)), *missing]


def receipt_count(store: sa.Engine, run: str) -> int:
    """Return how many updates of the run were counted."""
    rows = rows_of(describe(store, run), "contributions")
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
    names = ("made_in", "round", "kind", "site", "update", "weight")
    recorded = (*(row[name] for name in names), record["task"])
    faults = [] if claimed == recorded else ["the receipt speaks of something else"]
    if receipt.base_model != base:
        faults.append("the receipt names another base model")
    evidence = verify(row["receipt"].encode(), key, expected, row["update"], datetime.fromtimestamp(row["at"], UTC))
    if isinstance(evidence, Refused):
        return [*faults, f"the receipt does not hold: {evidence.reason}"]
    return faults or _Verified(row, key_id(key), expected, evidence)


def _term_faults(row: Mapping[str, Any], terms: Sequence[Term]) -> list[str]:
    """Return whether a receipt was counted while the key it names was not in force."""
    came = datetime.fromtimestamp(row["at"], UTC)
    named = [term for term in terms if key_id(_key(term.pem)) in row["receipt"]]
    if all(term.holds(came) for term in named):
        return []
    return [f"{place_of(row)}: counted while the key that signed it was not in force"]


def _chain_faults(verified: Sequence[_Verified]) -> list[str]:
    """Return where a receipt or its consent log does not follow the one before it, by the same key in the same run."""
    faults, last = [], dict[tuple[str, str], _Verified]()
    for one in sorted(verified, key=lambda one: one.row["at"]):
        before = last.get((one.key_id, one.row["made_in"]))
        if before is not None:
            if one.evidence.receipt.prev != receipt_digest(before.row["receipt"].encode()):
                faults.append(f"{place_of(one.row)}: does not follow the receipt counted before")
            log = before.evidence.recheck
            if (one.expected.log_size, one.expected.log_root) != (log.size, log.root.hex()):
                faults.append(f"{place_of(one.row)}: its consent log does not follow the one accepted before")
        last[one.key_id, one.row["made_in"]] = one
    return faults


def _lineage_faults(store: sa.Engine, record: Mapping[str, object]) -> list[str]:
    """Return where a round that was carried over is not that of the run it comes from."""
    if record["derived_from"] is None:
        foreign = [row for name in ("rounds", "contributions") for row in rows_of(record, name)]
        return [f"round {row['round']}: made in another run" for row in foreign if row["made_in"] != record["run"]]
    earlier, last = describe(store, str(record["derived_from"])), int(str(record["carried_rounds"]))
    own, theirs = _carried(record, last), _carried(earlier, last)
    rounds = rows_of(record, "rounds")
    beyond = sorted({row["round"] for row in rounds if (row["made_in"] == record["run"]) is (row["round"] <= last)})
    return [
        *(f"round {number}: is not as run {earlier['run']} made it" for number in own if own[number] != theirs[number]),
        *(f"round {number}: not carried over as the run's lineage says" for number in beyond),
    ]


def _carried(record: Mapping[str, object], last: int) -> dict[int, list[tuple[Any, ...]]]:
    """Return what makes each round up to `last`: its models, and the receipts that were counted."""
    made: dict[int, list[tuple[Any, ...]]] = {number: [] for number in range(last + 1)}
    for row in rows_of(record, "rounds"):
        if row["round"] <= last:
            made[row["round"]].append((row["model_before"], row["model_after"], row["made_in"]))
    for row in rows_of(record, "contributions"):
        if row["round"] <= last and row["kind"] == "train":
            made[row["round"]].append((row["site"], row["outcome"], row["receipt"], row["made_in"]))
    return made


def _withdrawal_faults(store: sa.Engine, record: Mapping[str, object], keys: _Keys) -> list[str]:
    """Return the notices on this run that their member did not sign, and what was counted against an answer."""
    runs = {row["made_in"] for row in rows_of(record, "rounds")} | {record["run"]}
    closed = {row["round"] for row in rows_of(record, "rounds")}
    counted = sa.and_(
        withdrawn_receipt.c.receipt == contribution.c.receipt_digest, withdrawn_receipt.c.site == contribution.c.site
    )
    with store.connect() as db:
        notices = db.execute(sa.select(withdrawal_notice).where(withdrawal_notice.c.run.in_(runs))).all()
        against = db.execute(
            sa.select(contribution.c.round, contribution.c.kind, contribution.c.site)
            .join(withdrawn_receipt, counted)
            .where(
                contribution.c.run == record["run"],
                contribution.c.outcome == "counted",
                withdrawn_receipt.c.standing != "aggregated",
            )
        ).all()
    return [
        *(f"the notice {row.digest[:12]} of {row.site}: not signed by it" for row in notices if not _signed(row, keys)),
        *(
            f"round {row.round}, {row.kind}, {row.site}: counted although it was taken back"
            for row in against
            if row.round in closed
        ),
    ]


def _signed(notice: sa.Row[Any], keys: _Keys) -> bool:
    for key in keys.get(notice.site, ()):
        try:
            return bool(open_notice(notice.envelope, key).run == notice.run)
        except NoticeInvalid:
            continue
    return False


def _lineage(record: Mapping[str, object]) -> dict[str, object] | None:
    if record["derived_from"] is None:
        return None
    return {"run": record["derived_from"], "carried_rounds": record["carried_rounds"]}


def _is_flagged(record: Mapping[str, object]) -> bool:
    in_model = any(row["contains_withdrawn"] for row in rows_of(record, "rounds"))
    return in_model or bool(record["measured_with_withdrawn"])


def _round(record: Mapping[str, object], row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "round": row["round"],
        "made_in": row["made_in"],
        "contains_withdrawn": row["contains_withdrawn"],
        "model_before": row["model_before"],
        "model_after": row["model_after"],
        "metrics": row["metrics"],
        "seconds": row["closed_at"] - row["opened_at"],
        "contributions": [
            _contribution(made)
            for made in rows_of(record, "contributions")
            if made["round"] == row["round"] and made["kind"] == "train"
        ],
    }


def _measured(record: Mapping[str, object]) -> dict[str, float]:
    """Return what the sites measured of the final model, together."""
    made = [row for row in rows_of(record, "contributions") if row["kind"] == "evaluate"]
    return mean_metrics((row["weight"], row["metrics"]) for row in made if row["outcome"] == "counted")


def _contribution(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what others may know: an update that was taken back reads as an abstention, whatever its reason.

    What a site's metrics were stays with the coordinator; their mean is in the round.
    """
    kept = ("site", "outcome", "reason", "weight", "update", "receipt")
    told = {"retracted": "abstained"}.get(row["outcome"], row["outcome"])
    return {key: row[key] for key in kept} | {"outcome": told}


def _signer(row: Mapping[str, Any], keys: _Keys) -> Ed25519PublicKey:
    """Return the site's key that the receipt names; its newest one if it names none."""
    own = keys[row["site"]]
    return next((key for key in own if key_id(key) in row["receipt"]), own[-1])


def _key(pem: bytes) -> Ed25519PublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError("a member's receipt key is not an Ed25519 key")
    return key
