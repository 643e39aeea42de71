"""What a receipt claims about the consents behind an update, and what the hospital keeps to show that it is so.

The log of consents is published when the set of studies is frozen and again when it was re-checked, whether or not
anything changed. The tree of the studies used is made of the second verdicts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent import (
    ENGINE,
    MLTRAINING,
    POLICY,
    TERMINOLOGY,
    Checkpoint,
    Eligibility,
    LogClaim,
    consistency_proof,
    key_id,
    log_origin,
    open_receipt,
    padded_size,
    sign_checkpoint,
)
from consent.eligibility import SECRET_BYTES
from site_node import consent_log, eligibility
from site_node.eligibility import Asked, manifests, plant, rows_of
from site_node.store import receipt_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from consent import Bucket, EligibilityTree, Receipt
    from site_node.consent_log import Published
    from site_node.eligibility import Opening, Row
    from site_node.gate import Snapshot
    from site_node.witnesses import Witnesses


@dataclass(frozen=True, slots=True)
class Frozen:
    """The set of studies as it was frozen, the state of the log then, and the files of each study."""

    snapshot: Snapshot
    log: Published
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of the set after the second check; `log` is the state of the log then."""

    frozen: Frozen
    checked: Snapshot
    log: Published
    since: tuple[str, ...]
    consistency: tuple[str, ...]
    rows: tuple[Row, ...]
    tree: EligibilityTree
    bucket: Bucket

    @property
    def consent_log(self) -> LogClaim:
        """The part of the receipt that speaks of the log."""
        return LogClaim(
            snapshot=self.frozen.log.note, recheck=self.log.note, since=self.since, consistency=self.consistency
        )

    @property
    def eligibility(self) -> Eligibility:
        """The part of the receipt that speaks of the studies."""
        return Eligibility(
            root=self.tree.root.hex(),
            padded_size=len(self.tree.entries),
            policy=POLICY,
            engine=ENGINE,
            terminology=TERMINOLOGY,
            purposes=self.checked.request.purposes,
            activity=(MLTRAINING,),
            recipients=self.checked.request.recipients,
            basis=self.checked.basis.kind.value,
        )


class Claims:
    """Makes claims from the site's store, and signs the states of the log; `site` is (federation, site)."""

    def __init__(
        self,
        store: sa.Engine,
        site: tuple[str, str],
        key: Ed25519PrivateKey,
        clock: Callable[[], datetime],
        witnesses: Witnesses,
    ) -> None:
        self._store = store
        self._origin = log_origin(*site, key.public_key())
        self._key = key
        self._clock = clock
        self._witnesses = witnesses
        with store.begin() as db:
            _note_signer(db, key.public_key(), clock())

    def freeze(self, snapshot: Snapshot) -> Frozen:
        """Publish the log as of a frozen set, and list the set's files."""
        return Frozen(snapshot, self.publish(), manifests(snapshot.cohort.items))

    def publish(self) -> Published:
        """Publish the log as it is now."""
        with self._store.begin() as db:
            return consent_log.publish(db, self._sign, self._clock())

    def publish_witnessed(self) -> Published | None:
        """Publish the log, and have the witnesses cosign it; None if too few of them do."""
        log = self.publish()
        with self._store.connect() as db:
            nodes = consent_log.nodes(db)
            note = self._witnesses.cosigned(log.note, log.size, lambda old, new: consistency_proof(old, new, nodes))
        return None if note is None else replace(log, note=note)

    def make(self, frozen: Frozen, checked: Snapshot, log: Published, bucket: Bucket, known: int) -> Claim:
        """Return the claim on what was re-checked; `known` is the size of the log the coordinator saw last."""
        rows = _rows(frozen, checked)
        numbers = sorted({number for row in rows for number in row.records})
        with self._store.connect() as db:
            leaves = consent_log.leaves_of(db, numbers)
            since = consent_log.grown(db, known, frozen.log.size)
            consistency = consent_log.grown(db, frozen.log.size, log.size)
        tree = plant(rows, leaves, os.urandom(SECRET_BYTES), checked.at, padded_size(bucket.lowest))
        return Claim(frozen, checked, log, since, consistency, rows, tree, bucket)

    def _sign(self, size: int, root: bytes) -> str:
        return sign_checkpoint(Checkpoint(self._origin, size, root), self._origin, self._key)


def keep(db: sa.Connection, opening: Opening, claim: Claim) -> None:
    """Keep the verdicts a claim rests on, in the transaction of its release."""
    asked = _asked(claim.frozen.snapshot, claim.checked)
    eligibility.keep(db, opening, asked, claim.rows, claim.tree, claim.frozen.files)


def keep_unused(db: sa.Connection, opening: Opening, decided: Snapshot) -> None:
    """Keep the verdicts of an opening of which nothing was released, whether or not enough studies were permitted."""
    files = manifests(decided.cohort.items)
    rows = rows_of(decided.cohort.asked, decided.cohort.verdicts, decided.records, files)
    eligibility.keep(db, opening, _asked(decided, decided), rows, None, files)


def signers(db: sa.Connection) -> tuple[Ed25519PublicKey, ...]:
    """Return the public keys this site signed with, oldest first."""
    rows = db.execute(sa.select(receipt_signer.c.public_key).order_by(receipt_signer.c.since))
    return tuple(Ed25519PublicKey.from_public_bytes(row.public_key) for row in rows)


def read_receipt(db: sa.Connection, envelope: bytes) -> Receipt:
    """Return a receipt of this site, by whichever of its keys.

    Raises: ReceiptInvalid if none of them signed it.
    """
    own = signers(db)
    return open_receipt(envelope, next((key for key in own if key_id(key).encode() in envelope), own[-1]))


def _note_signer(db: sa.Connection, key: Ed25519PublicKey, at: datetime) -> None:
    columns, name = receipt_signer.c, key_id(key)
    if db.execute(sa.select(columns.key_id).where(columns.key_id == name)).first() is None:
        raw = key.public_bytes_raw()
        db.execute(sa.insert(receipt_signer).values(key_id=name, public_key=raw, since=at.isoformat()))


def _asked(snapshot: Snapshot, checked: Snapshot) -> Asked:
    return Asked(checked.task_digest, checked.grants[0].dataset, checked.epoch, snapshot.at, checked.at)


def _rows(frozen: Frozen, checked: Snapshot) -> tuple[Row, ...]:
    """Return the second verdict on each study of the set, and the first on those left out of it."""
    first, second = frozen.snapshot, checked.cohort.verdicts
    left_out = [study for study in first.cohort.asked if study.StudyInstanceUID not in second]
    rows = (
        *rows_of(checked.cohort.asked, second, checked.records, frozen.files),
        *rows_of(left_out, first.cohort.verdicts, first.records, frozen.files),
    )
    return tuple(sorted(rows, key=lambda row: (row.study, row.patient, row.study_date or "")))
