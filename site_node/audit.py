"""The auditor's replay, inside the hospital: whether what was signed is what is on record, and was right.

It trusts nothing that can be computed again: leaves from the consent records, the tree and its roots from the leaves,
the roots of the studies used from the verdicts, the verdicts from the consents as they were at that moment, the lists
of files from the files. What it cannot see is said in docs/threat-model.md.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from consent import (
    BATCH,
    BATCH_LEVEL,
    ENGINE,
    POLICY,
    CheckpointInvalid,
    ConsentError,
    ConsentRecord,
    Deny,
    Kind,
    Outcome,
    ReceiptInvalid,
    Study,
    decide_under,
    entry_leaf,
    federation_recipient,
    log_origin,
    log_verifier,
    nodes_of,
    open_checkpoint,
    open_receipt,
    study_key,
    tree_root,
    verify_excluded,
    verify_included,
)
from consent.decision import ENFORCED
from site_node import claims, permissions
from site_node import consent_log as logs
from site_node.consents import as_decided
from site_node.eligibility import plant, read_manifest, read_rows
from site_node.gate import request_of
from site_node.store import (
    consent_checkpoint,
    consent_log,
    consent_log_node,
    consent_opening,
    consent_record,
    data_manifest,
    eligibility,
    instance,
    participation,
    review_decision,
    treatment,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from consent import Checkpoint, EligibilityTree, LegalBasis, Receipt, Request
    from site_node.eligibility import Row

NEVER: Final = 2**63
CHUNK: Final = 2**20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked, how often, and every fault found."""

    what: str
    checked: int
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audited:
    """Whose records are audited: the site's folder, and its names in the federation."""

    root: Path
    federation: str
    site: str


class Sample(NamedTuple):
    """How many of a round's studies are opened, and the auditor's word that chooses them."""

    size: int
    nonce: str


@dataclass(slots=True)
class _Tally:
    """Counts what is checked, and collects the faults."""

    checked: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, fault: str, *, when: bool) -> None:
        """Count one check; it is a fault `when` so."""
        self.checked += 1
        if when:
            self.faults.append(fault)


@dataclass(frozen=True, slots=True)
class _Signed:
    """Opens what this site signed, with the keys it ever had."""

    federation: str
    site: str
    keys: Sequence[Ed25519PublicKey]

    def state(self, note: str) -> Checkpoint | None:
        """Return the state of the log in a note."""
        for key in self.keys:
            with suppress(CheckpointInvalid):
                return open_checkpoint(note, log_verifier(log_origin(self.federation, self.site, key), key))
        return None

    def receipt(self, envelope: bytes) -> Receipt | None:
        """Return the receipt in an envelope."""
        for key in self.keys:
            with suppress(ReceiptInvalid):
                return open_receipt(envelope, key)
        return None


@dataclass(frozen=True, slots=True)
class _Records:
    """Which consent records follow which: from it, what was held when a record was the newest."""

    of_patient: Mapping[str, Sequence[int]]
    followed_by: Mapping[int, int]

    def held(self, patient: str, newest: int) -> tuple[int, ...]:
        """Return the records of `patient` that were held when `newest` was the last one stored."""
        return tuple(n for n in self.of_patient.get(patient, ()) if n <= newest < self.followed_by.get(n, NEVER))


@dataclass(frozen=True, slots=True)
class _Opening:
    """A released opening whose receipt and verdicts fit each other."""

    name: str
    receipt: Receipt
    rows: tuple[Row, ...]
    tree: EligibilityTree
    newest: int
    request: Request
    basis: LegalBasis
    modality: str


def audit(
    store: sa.Engine,
    audited: Audited,
    run: str | None = None,
    sample: Sample | None = None,
    *,
    read_files: bool = True,
) -> list[Finding]:
    """Return what was checked, with every fault.

    The log is replayed whole. Rounds are those of `run`, or all; their studies are opened all, or by `sample`. Without
    `read_files` the record alone is replayed, where the images are not at hand.
    """
    with store.connect() as db:
        tallies: dict[str, _Tally] = defaultdict(_Tally)
        signed = _Signed(audited.federation, audited.site, claims.signers(db))
        records = _check_records(db, tallies["consent records against their leaves"])
        leaves = _check_log(db, tallies["leaves of the log against the records"])
        newest = _check_tree(db, leaves, signed, tallies)
        openings = list(
            _check_receipts(db, audited.site, signed, run, newest, tallies["receipts against log and verdicts"])
        )
        for opening in openings:
            chosen = _chosen(opening, sample)
            _check_decisions(db, opening, chosen, records, tallies["decisions made again"])
        _check_withdrawn(db, openings, records, tallies["proofs that the withdrawn are in no later round"])
        used = {row.manifest for o in openings for row in o.rows if row.manifest and row.study in _chosen(o, sample)}
        if read_files:
            _check_files(db, audited.root, used, tallies["image files against the lists of files"])
    return [Finding(what, tally.checked, tuple(tally.faults)) for what, tally in tallies.items()]


# ------------------------------------------------------------------ the log


def _check_records(db: sa.Connection, tally: _Tally) -> _Records:
    """Compare every consent record with its leaf, and with the record that took its place."""
    columns = consent_record.c
    openings = {row.record: (row.salt, row.leaf) for row in db.execute(sa.select(consent_opening))}
    of_patient: dict[str, list[int]] = defaultdict(list)
    followed_by, last = dict[int, int](), dict[str, tuple[int, str | None]]()
    for entries in logs.entries(db):
        for entry in entries:
            salt, leaf = openings.pop(entry.version, (bytes(32), b""))
            fault = f"consent record {entry.version}: it is not what its leaf was made of"
            tally.note(fault, when=len(salt) != len(bytes(32)) or entry_leaf(salt, entry) != leaf)
            of_patient[entry.patient].append(entry.version)
    for number in openings:
        tally.note(f"consent record {number}: it is gone, its leaf is there", when=True)
    query = sa.select(columns.number, columns.consent_id, columns.recorded_at, columns.superseded_at)
    for number, consent_id, recorded_at, superseded_at in db.execute(query.order_by(columns.number)):
        before, ended_at = last.get(consent_id, (0, ""))
        if before:
            followed_by[before] = number
            fault = f"consent record {before}: its end is not the beginning of the one that took its place"
            tally.note(fault, when=ended_at != recorded_at)
        last[consent_id] = (number, superseded_at)
    for number, ended_at in last.values():
        tally.note(f"consent record {number}: it ended and nothing took its place", when=ended_at is not None)
    for number, resource, digest in db.execute(sa.select(columns.number, columns.resource, columns.sha256)):
        if hashlib.sha256(resource.encode("utf-8", "surrogatepass")).hexdigest() != digest:
            tally.note(f"consent record {number}: its digest is of another text", when=True)
    return _Records(of_patient, followed_by)


def _check_log(db: sa.Connection, tally: _Tally) -> list[bytes]:
    """Compare every leaf of the log with the record it stands for; return the leaves."""
    made = {row.record: row.leaf for row in db.execute(sa.select(consent_opening))}
    seen, leaves = set[int](), list[bytes]()
    for place, row in enumerate(db.execute(sa.select(consent_log).order_by(consent_log.c.place))):
        batch, records = logs.split(row.leaves), _numbers(row.records)
        whole = row.place == place and len(row.leaves) == BATCH * logs.HASH_BYTES and len(records) == BATCH
        tally.note(f"log, leaves {BATCH * row.place} to {BATCH * (row.place + 1) - 1}: not whole", when=not whole)
        leaves += batch
        for leaf, number in zip(batch, records, strict=False):
            if number is not None:
                fault = f"log, leaf of consent record {number}: not the record's, or there twice"
                tally.note(fault, when=made.get(number) != leaf or number in seen)
                seen.add(number)
    published = db.execute(sa.select(sa.func.max(consent_checkpoint.c.last_record))).scalar() or 0
    for number in made:
        if number <= published and number not in seen:
            tally.note(f"consent record {number}: its leaf is not in the log", when=True)
    return leaves


def _numbers(text: str) -> list[int | None]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _check_tree(
    db: sa.Connection, leaves: Sequence[bytes], signed: _Signed, tallies: Mapping[str, _Tally]
) -> dict[int, tuple[bytes, int]]:
    """Compute the tree anew; return root and newest record of each signed state, by size."""
    nodes = nodes_of(leaves)
    tally = tallies["nodes of the tree"]
    for row in db.execute(sa.select(consent_log_node)):
        right = 0 <= row.place < len(leaves) >> row.level and nodes(row.level, row.place) == row.hash
        tally.note(f"log, node {row.place} of level {row.level}: not that of its leaves", when=not right)
    kept = tally.checked
    due = sum(len(leaves) >> level for level in range(BATCH_LEVEL, len(leaves).bit_length()))
    tally.note(f"log: {kept} nodes are kept, {due} are due", when=kept != due)
    tally = tallies["signed states of the log"]
    known, before = dict[int, tuple[bytes, int]](), 0
    for row in db.execute(sa.select(consent_checkpoint).order_by(consent_checkpoint.c.size)):
        right = row.size <= len(leaves) and tree_root(row.size, nodes) == row.root
        tally.note(f"log of {row.size} leaves: its root is not that of the leaves", when=not right)
        state = signed.state(row.note)
        said = state is not None and (state.size, state.root) == (row.size, row.root)
        tally.note(f"log of {row.size} leaves: its note is not signed by this site, or says otherwise", when=not said)
        tally.note(f"log of {row.size} leaves: it holds fewer records than before", when=row.last_record < before)
        before = row.last_record
        known[row.size] = (row.root, row.last_record)
    tally.note("log: the last state is not signed", when=bool(leaves) and len(leaves) not in known)
    return known


# ------------------------------------------------------------------ the rounds


def _check_receipts(
    db: sa.Connection,
    site: str,
    signed: _Signed,
    run: str | None,
    known: Mapping[int, tuple[bytes, int]],
    tally: _Tally,
) -> Iterator[_Opening]:
    """Compare each receipt with the log and with the verdicts kept; yield the openings in which all fit."""
    names = ("run", "round", "kind", "nonce")
    query = sa.select(participation).where(participation.c.outcome == "released")
    released = db.execute(query if run is None else query.where(participation.c.run == run)).all()
    verdicts = {tuple(getattr(row, n) for n in names): row for row in db.execute(sa.select(eligibility))}
    answered = {tuple(row) for row in db.execute(sa.select(*(participation.c[n] for n in names)))}
    for opening in verdicts:
        if opening not in answered:
            tally.note(f"{_name(opening)}: verdicts are kept of an opening that was not answered", when=True)
    for row in released:
        opening = tuple(getattr(row, n) for n in names)
        found = _opened(db, row, verdicts.get(opening), site, signed, known)
        tally.note(f"{_name(opening)}: {found}", when=isinstance(found, str))
        if isinstance(found, _Opening):
            yield found


def _opened(
    db: sa.Connection,
    row: sa.Row[Any],
    verdicts: sa.Row[Any] | None,
    site: str,
    signed: _Signed,
    known: Mapping[int, tuple[bytes, int]],
) -> _Opening | str:
    """Return the opening with all that is kept of it, or what does not fit."""
    receipt = signed.receipt(row.receipt)
    if receipt is None:
        return "the receipt is not signed by this site"
    if verdicts is None:
        return "its verdicts are not on record"
    try:
        rows, tree = _replanted(db, verdicts)
        snapshot_at = datetime.fromisoformat(verdicts.snapshot_at)
        evaluated_at = datetime.fromisoformat(verdicts.evaluated_at)
        studies = set(json.loads(row.studies))
    except (ValueError, TypeError, KeyError):
        return "its verdicts are damaged"
    said, times = receipt.eligibility, receipt.times
    states = [signed.state(note) for note in (receipt.consent_log.snapshot, receipt.consent_log.recheck)]
    claimed = (receipt.run, receipt.round, receipt.kind, receipt.nonce, receipt.epoch.release, receipt.site)
    kept = (verdicts.task, verdicts.epoch, snapshot_at, evaluated_at)
    faults = {
        "the receipt speaks of something else": claimed != (row.run, row.round, row.kind, row.nonce, row.epoch, site),
        "the receipt shows a state of the log that is not on record": not all(
            state is not None and known.get(state.size, (b"", 0))[0] == state.root for state in states
        ),
        "its verdicts are not those the receipt was made of": (tree.root, tree.root.hex(), len(tree.entries))
        != (verdicts.root, said.root, said.padded_size),
        "its verdicts are of another moment or task than the receipt says": kept
        != (receipt.task, receipt.epoch.release, times.snapshot, times.recheck),
        "its verdicts are of another dataset than the receipt says": verdicts.dataset != receipt.grants[0].dataset,
        "the studies on record are not those that were permitted": studies
        != {one.study for one in rows if one.outcome == Outcome.PERMIT.value},
    }
    wrong = next((fault for fault, is_so in faults.items() if is_so), None)
    last = states[-1]
    return wrong or _decided(db, receipt, rows, tree, known[last.size][1] if last else 0)


def _replanted(db: sa.Connection, verdicts: sa.Row[Any]) -> tuple[tuple[Row, ...], EligibilityTree]:
    """Return the verdicts as kept, and the tree they make.

    Raises: ValueError, TypeError or KeyError if they are damaged.
    """
    rows = read_rows(verdicts.rows)
    leaves = logs.leaves_of(db, sorted({number for row in rows for number in row.records}))
    at = datetime.fromisoformat(verdicts.evaluated_at)
    return rows, plant(rows, leaves, verdicts.secret, at, verdicts.padded_size)


def _decided(
    db: sa.Connection, receipt: Receipt, rows: tuple[Row, ...], tree: EligibilityTree, newest: int
) -> _Opening | str:
    """Return the opening with what was asked; the receipt must say the same."""
    offered = permissions.tasks(db).get(receipt.task)
    data = permissions.datasets(db).get(receipt.grants[0].dataset)
    if offered is None or data is None:
        return "its task or dataset is not on record"
    request = request_of(offered.task, (federation_recipient(receipt.federation),))
    said = receipt.eligibility
    if isinstance(request, Deny) or (said.purposes, said.recipients, said.basis) != (
        request.purposes,
        request.recipients,
        data.basis.kind.value,
    ):
        return "the receipt says of another request than the task's"
    if (said.policy, said.engine) != (POLICY, ENGINE):
        return "it was decided by another version of Filmroom; audit it with that one"
    name = _name((receipt.run, receipt.round, receipt.kind, receipt.nonce))
    return _Opening(name, receipt, rows, tree, newest, request, data.basis, offered.task.input.modality)


def _name(opening: tuple[object, ...]) -> str:
    run, number, kind, nonce = opening
    return f"{run}, round {number}, {kind}, opening {str(nonce)[:8]}"


def _chosen(opening: _Opening, sample: Sample | None) -> frozenset[str]:
    """Return the studies that are opened: all, or those the root and the auditor's word choose among the permitted."""
    if sample is None:
        return frozenset(row.study for row in opening.rows)
    studies = {row.study for row in opening.rows if row.outcome == Outcome.PERMIT.value}

    def drawn(study: str) -> bytes:
        lot = opening.tree.root + sample.nonce.encode() + study_key(opening.tree.secret, study)
        return hashlib.sha256(lot).digest()

    return frozenset(sorted(studies, key=drawn)[: sample.size])


def _check_decisions(
    db: sa.Connection, opening: _Opening, chosen: frozenset[str], records: _Records, tally: _Tally
) -> None:
    """Make the decision on each chosen study again, on the consents that were held."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in opening.rows:
        if row.study in chosen:
            rows[row.study].append(row)
    parsed = _parsed(db, {number for some in rows.values() for row in some for number in row.records})
    times = opening.receipt.times
    for study, some in rows.items():
        where = f"{opening.name}, study {study[-16:]}"
        used = some[0].outcome == Outcome.PERMIT.value
        try:
            outcomes = {_again(row, parsed, opening, times.recheck if used else times.snapshot) for row in some}
        except (ValueError, KeyError):
            tally.note(f"{where}: a consent it was decided on is not on record", when=True)
            continue
        tally.note(f"{where}: decided anew it is not permitted", when=used and outcomes != {Outcome.PERMIT})
        tally.note(f"{where}: decided anew it is permitted", when=not used and outcomes == {Outcome.PERMIT})
        if used:
            complete = all(row.records == records.held(row.patient, opening.newest) for row in some)
            tally.note(f"{where}: other consents were held than it was decided on", when=not complete)
            place = opening.tree.include(study)
            size, root = len(opening.tree.entries), opening.tree.root
            proven = place is not None and verify_included(place.entry, place, size, root)
            tally.note(f"{where}: its leaf is not in the tree", when=not proven)


def _again(row: Row, parsed: Mapping[int, ConsentRecord], opening: _Opening, at: datetime) -> Outcome:
    day = date.fromisoformat(row.study_date) if row.study_date else None
    study = Study(row.patient, row.study, day, modality=opening.modality)
    consents = [parsed[number] for number in row.records]
    return decide_under(opening.basis, consents, study, opening.request, at).outcome


def _parsed(db: sa.Connection, numbers: set[int]) -> dict[int, ConsentRecord]:
    columns = consent_record.c
    wanted = sa.select(sa.func.json_each(json.dumps(sorted(numbers))).table_valued("value").c.value)
    query = sa.select(columns.number, columns.resource, columns.studies, columns.doubt).where(
        columns.number.in_(wanted)
    )
    found = dict[int, ConsentRecord]()
    for row in db.execute(query):
        with suppress(ConsentError, ValueError):  # what cannot be read is missed where a decision rests on it
            found[row.number] = as_decided(row.resource, row.studies, row.doubt)
    return found


def _check_withdrawn(db: sa.Connection, openings: Sequence[_Opening], records: _Records, tally: _Tally) -> None:
    """Prove for each patient who refuses all use that no round after it used a study of theirs."""
    columns = instance.c
    studies: dict[str, set[str]] = defaultdict(set)
    for row in db.execute(sa.select(columns.patient, columns.StudyInstanceUID).distinct()):
        studies[row.patient].add(row.StudyInstanceUID)
    for opening in openings:
        for one in opening.rows:
            studies[one.patient].add(one.study)
    refusals = list(_refusals(db))
    for opening in openings:
        if not opening.basis.later_opt_outs:
            continue  # the law lets this permit go on (EHDS 71(3))
        size, root = len(opening.tree.entries), opening.tree.root
        for number, patient in refusals:
            if number in records.held(patient, opening.newest):
                for study in sorted(studies[patient]):
                    proof, key = opening.tree.exclude(study), study_key(opening.tree.secret, study)
                    fault = f"{opening.name}, study {study[-16:]}: used although its patient had withdrawn"
                    tally.note(fault, when=not verify_excluded(key, proof, size, root))


def _refusals(db: sa.Connection) -> Iterator[tuple[int, str]]:
    """Yield number and patient of each record that refuses all use without a limit, as a withdrawal does."""
    columns = consent_record.c
    query = sa.select(columns.number, columns.patient, columns.resource, columns.studies, columns.doubt)
    for row in db.execute(query.where(columns.resource.contains('"deny"'))):
        try:
            record = as_decided(row.resource, row.studies, row.doubt)
        except (ConsentError, ValueError):
            continue  # its leaf tells that it was changed
        root = record.root
        whole = root.kind is Kind.DENY and not (root.limits or root.children or record.clauses or record.period)
        if whole and record.status == ENFORCED and record.review is None:
            yield row.number, row.patient


# ------------------------------------------------------------------ the files


def _check_files(db: sa.Connection, root: Path, used: set[str], tally: _Tally) -> None:
    """Compare the files on disk and the catalogue with the lists of those that were used."""
    listed = {row.sha256: row.files for row in db.execute(sa.select(data_manifest))}
    files = set[tuple[str, str]]()
    for digest in sorted(used):
        try:
            files.update(read_manifest(listed[digest], digest))
        except (KeyError, ValueError):
            tally.note(f"list of files {digest[:16]}: damaged or gone", when=True)
    columns = instance.c
    catalogue = {
        row.SOPInstanceUID: (row.sha256, row.path)
        for row in db.execute(sa.select(columns.SOPInstanceUID, columns.sha256, columns.path))
    }
    reviewed = _reviewed(db)
    for uid, sha256 in sorted(files):
        kept, path = catalogue.get(uid, ("", ""))
        if kept != sha256 and uid in reviewed:
            continue  # a reviewer took it out or blanked more of it, which is on record
        tally.note(f"file {uid[-16:]}: the catalogue does not have it as it was used", when=kept != sha256)
        if kept == sha256:
            tally.note(f"file {uid[-16:]}: not the bytes that were used", when=_digest(root / path) != sha256)


def _reviewed(db: sa.Connection) -> frozenset[str]:
    joined = treatment.join(review_decision, treatment.c.source_sha256 == review_decision.c.source_sha256)
    return frozenset(db.scalars(sa.select(treatment.c.SOPInstanceUID).select_from(joined)))


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                total.update(chunk)
    except OSError:
        return ""
    return total.hexdigest()
