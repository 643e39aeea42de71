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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent import (
    BATCH,
    BATCH_LEVEL,
    ENGINE,
    POLICY,
    AnswerInvalid,
    CheckpointInvalid,
    ConsentError,
    ConsentRecord,
    Deny,
    Kind,
    NoticeInvalid,
    Outcome,
    ReceiptInvalid,
    SignerInvalid,
    Study,
    decide_under,
    entry_leaf,
    federation_recipient,
    is_answer_to,
    key_id,
    log_origin,
    log_verifier,
    nodes_of,
    open_answer,
    open_checkpoint,
    open_notice,
    open_receipt,
    receipt_digest,
    signer_key,
    study_key,
    tree_root,
    verify_excluded,
    verify_included,
)
from consent.decision import ENFORCED
from consent.receipt import NO_PREVIOUS
from site_node import consent_log as logs
from site_node import ledger_audit
from site_node.consents import as_decided
from site_node.eligibility import opening_of, plant, read_manifest, read_rows
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
    misfits_of,
    participation,
    receipt_signer,
    review_decision,
    treatment,
    withdrawal_answer,
    withdrawal_notice,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from consent import Checkpoint, EligibilityTree, LegalBasis, Receipt, Request, WithdrawalNotice
    from site_node.eligibility import Row
    from site_node.ledger_audit import Decided

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
    authority: bytes
    """The certificate of the federation's authority, PEM."""


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
    """Opens what this site signed, with the keys it ever had; `decided` is what people had decided by then."""

    federation: str
    site: str
    keys: Sequence[Ed25519PublicKey]
    decided: Decided

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

    def notice(self, envelope: bytes) -> WithdrawalNotice | None:
        """Return the notice of withdrawal in an envelope."""
        for key in self.keys:
            with suppress(NoticeInvalid):
                return open_notice(envelope, key)
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
    """The verdicts of an opening, and all that they rest on."""

    name: str
    rows: tuple[Row, ...]
    snapshot_at: datetime
    evaluated_at: datetime
    request: Request
    basis: LegalBasis
    modality: str


@dataclass(frozen=True, slots=True)
class _Released:
    """An opening with what was released of it; its receipt and its verdicts fit each other."""

    opening: _Opening
    tree: EligibilityTree
    newest: int


def audit(store: sa.Engine, audited: Audited, run: str | None = None, sample: Sample | None = None) -> list[Finding]:
    """Return what was checked, with every fault.

    The log is replayed whole. Rounds are those of `run`, or all; their studies are opened all, or by `sample`.
    """
    with store.connect() as db:
        tallies: dict[str, _Tally] = defaultdict(_Tally)
        kinds = tallies["columns against their kinds"]
        for column, misfits in misfits_of(db):
            kinds.note(f"{column}: {misfits} values are not of its kind; nothing else was audited", when=misfits > 0)
        if kinds.faults:
            return [Finding(what, tally.checked, tuple(tally.faults)) for what, tally in tallies.items()]
        decided = _check_ledger(db, tallies)
        signed = _Signed(audited.federation, audited.site, _signers(db, tallies["keys this site signed with"]), decided)
        records = _check_records(db, tallies["consent records against their leaves"])
        leaves = _check_log(db, tallies["leaves of the log against the records"])
        newest = _check_tree(db, leaves, signed, tallies)
        releases = list(_check_receipts(db, audited, signed, run, newest, tallies["receipts against log and verdicts"]))
        _check_chain(db, signed, tallies["each receipt against the one before it"])
        again, used = tallies["decisions made again"], set[str]()
        catalogue, dates = _catalogue(db), tallies["patients and dates of verdicts against the catalogue"]
        for released in releases:
            chosen = _chosen(released, sample)
            _check_decisions(db, released.opening, chosen, again)
            _check_used(released, chosen, records, again)
            _check_catalogue(catalogue, released.opening, chosen, dates)
            used.update(row.manifest for row in released.opening.rows if row.manifest and row.study in chosen)
        if sample is None:
            _check_unused(db, audited, signed, run, tallies["decisions of openings that released nothing, made again"])
        _check_withdrawn(db, releases, records, tallies["proofs that the withdrawn are in no later round"])
        _check_files(db, audited.root, used, tallies["image files against the lists of files"])
        _check_answers(db, audited, signed, tallies["answers of the coordinator to withdrawals"])
    return [Finding(what, tally.checked, tuple(tally.faults)) for what, tally in tallies.items()]


# ------------------------------------------------------------------ the ledger


def _check_ledger(db: sa.Connection, tallies: Mapping[str, _Tally]) -> Decided:
    """Compare the ledger with itself, with what was signed, and with the tables that say the same."""
    entries, chain = ledger_audit.read(db)
    decided, decisions = ledger_audit.decided(db, entries)
    for what, notes in (
        ("entries of the ledger against each other", chain),
        ("the ledger against the signed states of the log", ledger_audit.anchored(db, entries)),
        ("datasets and tasks against the ledger", decisions),
        ("steps of requests against the ledger", ledger_audit.events(db, entries)),
        ("openings against the ledger", ledger_audit.openings(db, entries)),
        ("withdrawn updates against the ledger", ledger_audit.withdrawn(db, entries)),
    ):
        for fault, wrong in notes:
            tallies[what].note(fault, when=wrong)
    return decided


def _signers(db: sa.Connection, tally: _Tally) -> list[Ed25519PublicKey]:
    """Return the keys this site ever signed with."""
    keys = []
    for row in db.execute(sa.select(receipt_signer)):
        try:
            key = Ed25519PublicKey.from_public_bytes(row.public_key)
        except (ValueError, TypeError):
            tally.note(f"key {row.key_id[:16]}: it cannot be read", when=True)
            continue
        tally.note(f"key {row.key_id[:16]}: it is under another name", when=key_id(key) != row.key_id)
        keys.append(key)
    return keys


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
    audited: Audited,
    signed: _Signed,
    run: str | None,
    known: Mapping[int, tuple[bytes, int]],
    tally: _Tally,
) -> Iterator[_Released]:
    """Compare each receipt with the log and with the verdicts kept; yield the openings in which all fit."""
    verdicts = {opening_of(row): row for row in db.execute(sa.select(eligibility))}
    answered = {opening_of(row): row for row in db.execute(sa.select(participation))}
    for opening in verdicts:
        if opening not in answered:
            tally.note(f"{opening}: verdicts are kept of an opening that was not answered", when=True)
    for opening, row in answered.items():
        if row.outcome == "released" and run in (None, row.run):
            found = _opened(db, row, verdicts.get(opening), audited, signed, known)
            tally.note(f"{opening}: {found}", when=isinstance(found, str))
            if isinstance(found, _Released):
                yield found


def _check_chain(db: sa.Connection, signed: _Signed, tally: _Tally) -> None:
    """Follow each receipt to the one before it, and each notice to the receipts it names, back to the first."""
    made = db.execute(sa.select(participation).order_by(sa.text("rowid"))).all()
    kept = {receipt_digest(row.receipt): row for row in made if row.receipt}
    for row in made:
        has = row.receipt is not None
        odd = has == (row.outcome == "abstained")
        tally.note(f"{opening_of(row)}: {row.outcome} does not go with its receipt", when=odd)
        receipt = signed.receipt(row.receipt) if has else None
        if receipt is not None:
            gone = receipt.prev != NO_PREVIOUS and receipt.prev not in kept
            tally.note(f"{opening_of(row)}: the receipt before it is not on record", when=gone)
            claimed = (receipt.run, receipt.round, receipt.kind, receipt.nonce, receipt.task)
            tally.note(f"{opening_of(row)}: its receipt is of another", when=claimed != (*opening_of(row), row.task))
        elif has:
            tally.note(f"{opening_of(row)}: the receipt is not signed by this site", when=True)
    for row in db.execute(sa.select(withdrawal_answer)):
        notice = signed.notice(row.notice)
        for one in notice.receipts if notice else ():
            gone = one.sha256 not in kept
            tally.note(f"update {one.sha256[:16]}: its notice is kept, its receipt is gone", when=gone)


def _check_unused(db: sa.Connection, audited: Audited, signed: _Signed, run: str | None, tally: _Tally) -> None:
    """Make the decisions again of the openings that were answered with nothing; no receipt speaks of them."""
    outcomes = {opening_of(row): row.outcome for row in db.execute(sa.select(participation))}
    for verdicts in db.execute(sa.select(eligibility)):
        if outcomes.get(opening_of(verdicts)) != "released" and run in (None, verdicts.run):
            opening = _asked(verdicts, audited, signed.decided)
            tally.note(f"{opening_of(verdicts)}: {opening}", when=isinstance(opening, str))
            if isinstance(opening, _Opening):
                _check_decisions(db, opening, frozenset(row.study for row in opening.rows), tally)


def _opened(
    db: sa.Connection,
    row: sa.Row[Any],
    verdicts: sa.Row[Any] | None,
    audited: Audited,
    signed: _Signed,
    known: Mapping[int, tuple[bytes, int]],
) -> _Released | str:
    """Return the opening with all that is kept of it, or what does not fit."""
    receipt = signed.receipt(row.receipt)
    if receipt is None:
        return "the receipt is not signed by this site"
    if verdicts is None:
        return "its verdicts are not on record"
    opening = _asked(verdicts, audited, signed.decided)
    if isinstance(opening, str):
        return opening
    try:
        tree = _replanted(db, opening, verdicts, receipt.eligibility.padded_size)
        studies = set(json.loads(row.studies))
        given = {(study, patient, day) for study, patient, day in json.loads(row.used)}
    except (ValueError, TypeError, KeyError):
        return "its verdicts are damaged"
    said, times, request = receipt.eligibility, receipt.times, opening.request
    states = [signed.state(note) for note in (receipt.consent_log.snapshot, receipt.consent_log.recheck)]
    claimed = (receipt.run, receipt.round, receipt.kind, receipt.nonce, receipt.epoch.release)
    kept = (verdicts.task, verdicts.epoch, opening.snapshot_at, opening.evaluated_at)
    asked = (request.purposes, request.recipients, opening.basis.kind.value)
    faults = {
        "the receipt speaks of something else": (*claimed, receipt.site, receipt.federation)
        != (row.run, row.round, row.kind, row.nonce, row.epoch, audited.site, audited.federation),
        "the receipt shows a state of the log that is not on record": not all(
            state is not None and known.get(state.size, (b"", 0))[0] == state.root for state in states
        ),
        "its verdicts are not those the receipt was made of": (tree.root, tree.root.hex(), said.padded_size)
        != (verdicts.root, said.root, verdicts.padded_size),
        "its verdicts are of another moment or task than the receipt says": kept
        != (receipt.task, receipt.epoch.release, times.snapshot, times.recheck),
        "its verdicts are of another dataset than the receipt says": verdicts.dataset != receipt.grants[0].dataset,
        "the receipt says of another request than the task's": (said.purposes, said.recipients, said.basis) != asked,
        "the receipt says of another version of Filmroom than its verdicts": (said.policy, said.engine)
        != (verdicts.policy, verdicts.engine),
        "the studies on record are not those that were permitted": studies
        != {one.study for one in opening.rows if one.outcome == Outcome.PERMIT.value},
        "the patients and dates on record are not those that were permitted": given
        != {(one.study, one.patient, one.study_date) for one in opening.rows if one.outcome == Outcome.PERMIT.value},
    }
    wrong = next((fault for fault, is_so in faults.items() if is_so), None) or signed.decided.fault(receipt)
    last = states[-1]
    return wrong or _Released(opening, tree, known[last.size][1] if last else 0)


def _asked(verdicts: sa.Row[Any], audited: Audited, decided: Decided) -> _Opening | str:
    """Return the verdicts as kept, with what was asked, or why they cannot be made again."""
    if (verdicts.policy, verdicts.engine) != (POLICY, ENGINE):
        return "it was decided by another version of Filmroom; audit it with that one"
    task, data = decided.tasks.get(verdicts.task), decided.datasets.get(verdicts.dataset)
    if task is None or data is None:
        return "its task or dataset is not on record"
    request = request_of(task, (federation_recipient(audited.federation),))
    if isinstance(request, Deny):
        return "its task asks for what cannot be decided"
    try:
        rows = read_rows(verdicts.rows)
        first, second = datetime.fromisoformat(verdicts.snapshot_at), datetime.fromisoformat(verdicts.evaluated_at)
    except (ValueError, TypeError):
        return "its verdicts are damaged"
    modality = task.input.modality
    return _Opening(str(opening_of(verdicts)), rows, first, second, request, data.basis, modality)


def _replanted(db: sa.Connection, opening: _Opening, verdicts: sa.Row[Any], size: int) -> EligibilityTree:
    """Return the tree of `size` entries that the verdicts make.

    Raises: ValueError, TypeError or KeyError if they are damaged.
    """
    leaves = logs.leaves_of(db, sorted({number for row in opening.rows for number in row.records}))
    return plant(opening.rows, leaves, verdicts.secret, opening.evaluated_at, size)


def _chosen(released: _Released, sample: Sample | None) -> frozenset[str]:
    """Return the studies that are opened: all, or those the root and the auditor's word choose among the permitted."""
    rows, tree = released.opening.rows, released.tree
    if sample is None:
        return frozenset(row.study for row in rows)
    studies = {row.study for row in rows if row.outcome == Outcome.PERMIT.value}

    def drawn(study: str) -> bytes:
        lot = tree.root + sample.nonce.encode() + study_key(tree.secret, study)
        return hashlib.sha256(lot).digest()

    return frozenset(sorted(studies, key=drawn)[: sample.size])


def _check_decisions(db: sa.Connection, opening: _Opening, chosen: frozenset[str], tally: _Tally) -> None:
    """Make the decision on each chosen study again, on the consents that it names."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in opening.rows:
        if row.study in chosen:
            rows[row.study].append(row)
    parsed = _parsed(db, {number for some in rows.values() for row in some for number in row.records})
    for study, some in rows.items():
        where = f"{opening.name}, study {study[-16:]}"
        used = some[0].outcome == Outcome.PERMIT.value
        try:
            outcomes = {_again(row, parsed, opening, used=used) for row in some}
        except (ValueError, KeyError):
            tally.note(f"{where}: a consent it was decided on is not on record", when=True)
            continue
        tally.note(f"{where}: decided anew it is not permitted", when=used and outcomes != {Outcome.PERMIT})
        tally.note(f"{where}: decided anew it is permitted", when=not used and outcomes == {Outcome.PERMIT})


def _check_used(released: _Released, chosen: frozenset[str], records: _Records, tally: _Tally) -> None:
    """See that each chosen study that was used was decided on all that was held, and is in the tree."""
    tree = released.tree
    for row in released.opening.rows:
        if row.study in chosen and row.outcome == Outcome.PERMIT.value:
            where = f"{released.opening.name}, study {row.study[-16:]}"
            complete = row.records == records.held(row.patient, released.newest)
            tally.note(f"{where}: other consents were held than it was decided on", when=not complete)
            place = tree.include(row.study)
            proven = place is not None and verify_included(place.entry, place, len(tree.entries), tree.root)
            tally.note(f"{where}: its leaf is not in the tree", when=not proven)


class _Catalogue(NamedTuple):
    """What the catalogue and the lists of files say now: of each study and file, and which files a list names."""

    held: Mapping[str, set[tuple[str, str | None]]]
    of_file: Mapping[str, sa.Row[Any]]
    lists: Mapping[str, Sequence[str]]


def _catalogue(db: sa.Connection) -> _Catalogue:
    held, of_file, lists = defaultdict[str, set[tuple[str, str | None]]](set), dict[str, sa.Row[Any]](), {}
    for row in db.execute(sa.select(instance)):
        held[row.StudyInstanceUID].add((row.patient, row.study_date))
        of_file[row.SOPInstanceUID] = row
    for row in db.execute(sa.select(data_manifest)):
        with suppress(ValueError):  # a list that is damaged is found where it is read for itself
            lists[row.sha256] = [uid for uid, _ in read_manifest(row.files, row.sha256)]
    return _Catalogue(held, of_file, lists)


def _check_catalogue(catalogue: _Catalogue, opening: _Opening, chosen: frozenset[str], tally: _Tally) -> None:
    """Compare patient and date of each verdict with the catalogue, where the study is in it still."""
    said = {(row.study, row.patient, row.study_date) for row in opening.rows}
    whose = {(row.study, row.patient) for row in opening.rows}
    for row in opening.rows:
        if row.study in chosen:
            where = f"{opening.name}, study {row.study[-16:]}"
            known = row.study not in catalogue.held or (row.patient, row.study_date) in catalogue.held[row.study]
            tally.note(f"{where}: the catalogue has another patient or date for it", when=not known)
            files = [
                catalogue.of_file[uid] for uid in catalogue.lists.get(row.manifest, ()) if uid in catalogue.of_file
            ]
            moved = any((one.StudyInstanceUID, one.patient) not in whose for one in files)
            tally.note(f"{where}: an image of it is another patient's or study's now", when=moved)
            # The first image of a series tells its date.
            first = {one.SeriesInstanceUID: one for one in reversed(files) if one.Modality == opening.modality}
            dated = all((one.StudyInstanceUID, one.patient, one.study_date) in said for one in first.values())
            tally.note(f"{where}: a series of it has another date now", when=not dated)


def _again(row: Row, parsed: Mapping[int, ConsentRecord], opening: _Opening, *, used: bool) -> Outcome:
    """Return the decision on a study: the second on what was used, the first on what was left out before it."""
    day = date.fromisoformat(row.study_date) if row.study_date else None
    study = Study(row.patient, row.study, day, modality=opening.modality)
    consents = [parsed[number] for number in row.records]
    at = opening.evaluated_at if used else opening.snapshot_at
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


def _check_withdrawn(db: sa.Connection, releases: Sequence[_Released], records: _Records, tally: _Tally) -> None:
    """Prove for each patient who refuses all use that no round after it used a study of theirs."""
    columns = instance.c
    studies: dict[str, set[str]] = defaultdict(set)
    for row in db.execute(sa.select(columns.patient, columns.StudyInstanceUID).distinct()):
        studies[row.patient].add(row.StudyInstanceUID)
    for released in releases:
        for one in released.opening.rows:
            studies[one.patient].add(one.study)
    refusals = list(_refusals(db))
    for released in releases:
        opening, tree = released.opening, released.tree
        if not opening.basis.later_opt_outs:
            continue  # the law lets this permit go on (EHDS 71(3))
        for number, patient in refusals:
            if number in records.held(patient, released.newest):
                for study in sorted(studies[patient]):
                    proof, key = tree.exclude(study), study_key(tree.secret, study)
                    fault = f"{opening.name}, study {study[-16:]}: used although its patient had withdrawn"
                    tally.note(fault, when=not verify_excluded(key, proof, len(tree.entries), tree.root))


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


def _check_answers(db: sa.Connection, audited: Audited, signed: _Signed, tally: _Tally) -> None:
    """Compare what a site says it was answered with what the coordinator signed, and that with what it was told."""
    words = {row.receipt: row.answer for row in db.execute(sa.select(withdrawal_notice)) if row.answer}
    for row in db.execute(sa.select(withdrawal_answer)):
        where, notice = f"notice of withdrawal {row.digest[:16]}", signed.notice(row.notice)
        tally.note(f"{where}: it is not signed by this site", when=notice is None)
        at = datetime.fromisoformat(row.answered_at)
        try:
            key = signer_key(row.certificate, audited.authority, audited.federation, at)
            answer = open_answer(row.answer, key)
        except (SignerInvalid, AnswerInvalid) as error:
            tally.note(f"{where}: its answer is not the coordinator's: {error.reason}", when=True)
            continue
        fits = notice is not None and is_answer_to(answer, row.notice, notice) and row.digest == answer.notice
        tally.note(f"{where}: it was not answered to this", when=not fits)
        for one in answer.receipts:
            kept = words.pop(one.sha256, None)
            tally.note(f"{where}, update {one.sha256[:16]}: answered otherwise", when=kept != one.standing)
    for receipt in words:
        tally.note(f"update {receipt[:16]}: no signed answer is kept for what it says", when=True)


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
