"""The gate's verdict on every study of an opening, kept for the auditor, and the tree a receipt commits to.

Knows how the rows are stored (see `store.eligibility`); what a leaf of the tree says is in `consent.eligibility`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from consent import ENGINE, POLICY, Decided, Outcome, eligibility_tree
from site_node.catalogue import files_of
from site_node.store import data_manifest, eligibility

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    from consent import EligibilityTree, Study, Verdict
    from site_node.cohort import Item

NO_MANIFEST: Final = ""


class Row(NamedTuple):
    """The verdict on one study of one patient; a study known under two patients has two rows and one verdict."""

    study: str
    patient: str
    study_date: str | None
    outcome: str
    reason: str
    records: tuple[int, ...]
    manifest: str


class Opening(NamedTuple):
    """Which opening of a round it is."""

    run: str
    round: int
    kind: str
    nonce: str

    def __str__(self) -> str:
        """Return it as an auditor reads it."""
        return f"{self.run}, round {self.round}, {self.kind}, opening {str(self.nonce)[:8]}"


def opening_of(row: sa.Row[Any]) -> Opening:
    """Return the opening that a row of any table speaks of."""
    return Opening(row.run, row.round, row.kind, row.nonce)


class Asked(NamedTuple):
    """What the verdicts rest on: the task's digest, the dataset's name, the consent epoch, and both moments."""

    task: str
    dataset: str
    epoch: int
    snapshot_at: datetime
    evaluated_at: datetime


def manifests(items: Iterable[Item]) -> dict[str, bytes]:
    """Return, for each study, the list of the files training reads: canonical JSON, sorted by SOPInstanceUID."""
    files: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for item in items:
        files[item.StudyInstanceUID].update((file.SOPInstanceUID, file.sha256) for file in files_of(item))
    return {study: _canonical(sorted(some)) for study, some in files.items()}


def rows_of(
    asked: Sequence[Study],
    verdicts: Mapping[str, Verdict],
    records: Mapping[str, tuple[int, ...]],
    files: Mapping[str, bytes],
) -> tuple[Row, ...]:
    """Return the verdicts on the studies asked about, in their order; a permitted study comes with its manifest."""
    digests = {study: _sha256(listed) for study, listed in files.items()}
    rows = []
    for study, patient, day in sorted({(one.StudyInstanceUID, one.patient, _text(one.study_date)) for one in asked}):
        verdict = verdicts[study]
        manifest = digests[study] if verdict.outcome is Outcome.PERMIT else NO_MANIFEST
        held = records.get(patient, ())
        rows.append(Row(study, patient, day or None, verdict.outcome.value, verdict.reason, held, manifest))
    return tuple(rows)


def plant(rows: Sequence[Row], leaves: Mapping[int, str], secret: bytes, at: datetime, size: int) -> EligibilityTree:
    """Return the tree of the permitted studies among `rows`; `leaves` are those of the records they name."""
    decided: dict[str, Decided] = {}
    for row in rows:
        if row.outcome == Outcome.PERMIT.value:
            before = decided[row.study].consents if row.study in decided else ()
            consents = (*before, *(leaves[number] for number in row.records))
            decided[row.study] = Decided(consents, row.outcome, POLICY, at.isoformat(), row.manifest)
    return eligibility_tree(secret, decided, hashlib.sha256(_canonical(rows)).hexdigest(), size)


def keep(
    db: sa.Connection,
    opening: Opening,
    asked: Asked,
    rows: Sequence[Row],
    tree: EligibilityTree | None,
    files: Mapping[str, bytes],
) -> None:
    """Keep the verdicts of an opening, and the files of the studies that were used."""
    db.execute(
        sa.insert(eligibility).values(
            **opening._asdict(),
            task=asked.task,
            dataset=asked.dataset,
            policy=POLICY,
            engine=ENGINE,
            epoch=asked.epoch,
            snapshot_at=asked.snapshot_at.isoformat(),
            evaluated_at=asked.evaluated_at.isoformat(),
            secret=tree.secret if tree else b"",
            root=tree.root if tree else None,
            padded_size=len(tree.entries) if tree else 0,
            rows=zlib.compress(_canonical(rows), level=1),
        )
    )
    used = {row.manifest for row in rows}
    _keep_manifests(db, {digest: listed for listed in files.values() if (digest := _sha256(listed)) in used})


def read_rows(packed: bytes) -> tuple[Row, ...]:
    """Return the rows as they were kept.

    Raises: ValueError if they are not what this module writes.
    """
    try:
        listed = [(*head, tuple(records), manifest) for *head, records, manifest in json.loads(zlib.decompress(packed))]
        return tuple(Row(*row) for row in listed)
    except (zlib.error, TypeError) as error:
        raise ValueError("the rows of an opening are damaged") from error


def read_manifest(packed: bytes, digest: str) -> tuple[tuple[str, str], ...]:
    """Return the (SOPInstanceUID, SHA-256) of each file.

    Raises: ValueError if the list is not the one `digest` names.
    """
    try:
        listed = zlib.decompress(packed)
    except zlib.error as error:
        raise ValueError("a list of files is damaged") from error
    if _sha256(listed) != digest:
        raise ValueError("a list of files is not the one its digest names")
    return tuple((uid, sha256) for uid, sha256 in json.loads(listed))


def _keep_manifests(db: sa.Connection, files: Mapping[str, bytes]) -> None:
    columns = data_manifest.c
    wanted = sa.select(sa.func.json_each(json.dumps(sorted(files))).table_valued("value").c.value)
    known = set(db.scalars(sa.select(columns.sha256).where(columns.sha256.in_(wanted))))
    new = [
        {"sha256": digest, "files": zlib.compress(listed)} for digest, listed in files.items() if digest not in known
    ]
    if new:
        db.execute(sa.insert(data_manifest), new)


def _text(day: date | None) -> str:
    return day.isoformat() if day else ""


def _canonical(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
