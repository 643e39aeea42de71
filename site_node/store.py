"""The site's database: its tables, and how it is opened.

SQLite in WAL mode with full synchronisation, so what was committed survives `kill -9`. Tables only; the modules
that own a subject hold its queries. Patients appear here by keyed pseudonym. The FHIR source text of a consent is
kept as it came, because an auditor must be able to re-read it; the file is mode 0600.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import event

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from pathlib import Path

metadata = sa.MetaData()

# Every file that ever came in: what became of it, and why. Nothing is silently skipped.
disposition = sa.Table(
    "disposition",
    metadata,
    sa.Column("source_sha256", sa.String, primary_key=True),
    sa.Column("outcome", sa.String, nullable=False),  # accepted | held | quarantined | rejected
    sa.Column("reason", sa.String, nullable=False),  # names tags and rules, never values
    sa.Column("kept_as", sa.String, nullable=False),  # path below the site folder
    sa.Column("recorded_at", sa.String, nullable=False),
)

# De-identified instances; the only ones training may read.
instance = sa.Table(
    "instance",
    metadata,
    sa.Column("SOPInstanceUID", sa.String, primary_key=True),
    sa.Column("SeriesInstanceUID", sa.String, nullable=False, index=True),
    sa.Column("StudyInstanceUID", sa.String, nullable=False, index=True),
    sa.Column("SOPClassUID", sa.String, nullable=False),
    sa.Column("Modality", sa.String, nullable=False, index=True),
    sa.Column("patient", sa.String, nullable=False, index=True),  # keyed pseudonym
    sa.Column("study_date", sa.String),  # true acquisition date (ISO); stays inside
    sa.Column("references_series", sa.String),  # of a SEG: the image series it labels
    sa.Column("path", sa.String, nullable=False),  # below the site folder
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("source_sha256", sa.String, sa.ForeignKey("disposition.source_sha256")),
    # Whether files are still what they were is told by the index alone: before every release it is asked of all in use.
    sa.Index("instance_content", "SOPInstanceUID", "sha256"),
)

# Class labels of images that carry none of their own (a SEG is its own label).
class_label = sa.Table(
    "class_label",
    metadata,
    sa.Column("SOPInstanceUID", sa.String, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)

# One row; every change of what is permitted adds one, in the transaction of the change.
consent_epoch = sa.Table(
    "consent_epoch",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
)

consent_record = sa.Table(
    "consent_record",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("consent_id", sa.String, nullable=False, index=True),
    sa.Column("patient", sa.String, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("studies", sa.Text, nullable=False),  # the UIDs it names and by which others each is known, JSON
    sa.Column("doubt", sa.Text),  # why a person has to look, where what came after it could not be taken
    sa.Column("recorded_at", sa.String, nullable=False),
    sa.Column("superseded_at", sa.String),
    # Which rows of a patient are active is told by the index alone: the rows themselves are large.
    sa.Index("consent_record_active", "patient", "superseded_at"),
)

# The opening of each consent record's leaf in the consent log: with it an auditor recomputes the leaf. Append only.
consent_opening = sa.Table(
    "consent_opening",
    metadata,
    sa.Column("record", sa.Integer, sa.ForeignKey("consent_record.number"), primary_key=True),
    sa.Column("salt", sa.LargeBinary, nullable=False),  # 32 random bytes
    sa.Column("leaf", sa.LargeBinary, nullable=False),  # RFC 6962 leaf hash; stored with the record
)

# The consent log as it was published, 64 leaves a row, in their order. Append only.
consent_log = sa.Table(
    "consent_log",
    metadata,
    sa.Column("place", sa.Integer, primary_key=True),  # leaf number / 64
    sa.Column("leaves", sa.LargeBinary, nullable=False),  # 64 leaf hashes
    sa.Column(
        "records", sa.Text, nullable=False
    ),  # JSON: whose leaf each is, by consent_record.number; null is padding
)

# Inner nodes of the log's tree from the roots of those 64 leaves upwards; only complete subtrees, so append only.
consent_log_node = sa.Table(
    "consent_log_node",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True),  # 6 and above: the node stands for 2^level leaves
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)

# The public halves of the keys this site signed receipts and its log with, one for each membership. Append only.
receipt_signer = sa.Table(
    "receipt_signer",
    metadata,
    sa.Column("key_id", sa.String, primary_key=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),  # 32 bytes, Ed25519
    sa.Column("since", sa.String, nullable=False),
)

# Every state of the log that was signed. Append only.
consent_checkpoint = sa.Table(
    "consent_checkpoint",
    metadata,
    sa.Column("size", sa.Integer, primary_key=True),  # leaves
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("last_record", sa.Integer, nullable=False),  # every consent_record up to this one is in the log
    sa.Column("ledger_number", sa.Integer, nullable=False),  # the last entry of the ledger then; 0 for none
    sa.Column("ledger_salt", sa.LargeBinary, nullable=False),  # 32 random bytes: opens the leaf that holds its hash
    sa.Column("note", sa.Text, nullable=False),  # the signed note, without cosignatures
    sa.Column("at", sa.String, nullable=False),
)

# The gate's verdict on every study it was asked about, for each answered opening of a round (see participation); from
# it an auditor replays the decisions. `rows` is zlib of canonical JSON, a list in the order of the studies, each
# [StudyInstanceUID, patient, study date or null, outcome, reason, [consent_record.number …], data manifest or ""].
# Studies left out were decided on at snapshot_at, the others again at evaluated_at. Where nothing was released root is
# null and nothing signed speaks of the rows. Append only.
eligibility = sa.Table(
    "eligibility",
    metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("nonce", sa.String, primary_key=True),
    sa.Column("task", sa.String, nullable=False),  # digest; with it comes the request that was decided on
    sa.Column("dataset", sa.String, nullable=False),  # with it comes the legal basis
    sa.Column("policy", sa.String, nullable=False),  # digests of the rules and the program that decided
    sa.Column("engine", sa.String, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("snapshot_at", sa.String, nullable=False),
    sa.Column("evaluated_at", sa.String, nullable=False),
    sa.Column("secret", sa.LargeBinary, nullable=False),  # 32 random bytes: keys and salts of the tree
    sa.Column("root", sa.LargeBinary),
    sa.Column("padded_size", sa.Integer, nullable=False),  # 0 without a root
    sa.Column("rows", sa.LargeBinary, nullable=False),
)

# The files behind a data manifest, content-addressed: the same study in the next round is the same row. Append only.
data_manifest = sa.Table(
    "data_manifest",
    metadata,
    sa.Column("sha256", sa.String, primary_key=True),  # of `files`, uncompressed
    sa.Column("files", sa.LargeBinary, nullable=False),  # zlib of canonical JSON: [[SOPInstanceUID, sha256], …], sorted
)

# What was read from each record, so that its text is read once; `site_node.readings` owns both tables.
consent_shape = sa.Table(
    "consent_shape",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("reader", sa.String, nullable=False),  # version of the code that read it
    sa.Column("digest", sa.String, nullable=False),  # SHA-256 of the text
    sa.Column("text", sa.Text, nullable=False),  # a record without its id and its moments, JSON
    sa.UniqueConstraint("digest", "reader"),
)

consent_reading = sa.Table(
    "consent_reading",
    metadata,
    sa.Column("number", sa.Integer, sa.ForeignKey("consent_record.number"), primary_key=True, autoincrement=False),
    sa.Column("consent_id", sa.String, nullable=False),
    sa.Column("shape", sa.Integer, sa.ForeignKey("consent_shape.number"), nullable=False),
    sa.Column("moments", sa.Text, nullable=False),  # ISO 8601, with the offsets as written
)

# Where consents come from; all that a source said up to `as_of` is in the records above.
consent_source = sa.Table(
    "consent_source",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("as_of", sa.String, nullable=False),
)

# What a server showed when it was read: what it shows no more was deleted there.
consent_shown = sa.Table(
    "consent_shown",
    metadata,
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("consent_id", sa.String, primary_key=True),
)

dataset = sa.Table(
    "dataset",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("terms", sa.Text, nullable=False),  # data-use terms, canonical JSON
    sa.Column("modality", sa.String, nullable=False),
    sa.Column("registered_by", sa.String, nullable=False),
    sa.Column("registered_at", sa.String, nullable=False),
    sa.Column("approved_by", sa.String),
    sa.Column("approved_at", sa.String),
    sa.Column("revoked_at", sa.String),
)

# What people did with requests to use a dataset, act by act; a request is the fold of its events. Append only.
request_event = sa.Table(
    "request_event",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("request", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # of the request after this event, from 1
    sa.Column("event", sa.Text, nullable=False),  # JSON of consent.RequestEvent
    sa.UniqueConstraint("request", "version"),
)

# Tasks as the coordinator offered them, and what this hospital said of each.
task = sa.Table(
    "task",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("received_at", sa.String, nullable=False),
    sa.Column("dataset", sa.String, sa.ForeignKey("dataset.name")),
    sa.Column("approved_by", sa.String),
    sa.Column("approved_at", sa.String),
    sa.Column("revoked_at", sa.String),
)

# One row per instruction that was answered. The nonce names one opening of a round: at most one release each.
participation = sa.Table(
    "participation",
    metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("nonce", sa.String, primary_key=True),
    sa.Column("outcome", sa.String, nullable=False),  # released | abstained | discarded
    sa.Column("reason", sa.String, nullable=False),  # inside the hospital only
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("studies", sa.Text, nullable=False),  # de-identified StudyInstanceUIDs used, JSON
    sa.Column("task", sa.String, nullable=False),
    sa.Column(
        "used", sa.Text, nullable=False
    ),  # of each study it was given, what consent turns on: UID, patient, date; JSON
    sa.Column("receipt", sa.LargeBinary),
    sa.Column("gate_s", sa.Float, nullable=False),
    sa.Column("receipt_s", sa.Float, nullable=False),
    sa.Column("training_s", sa.Float, nullable=False),
    sa.Column("recorded_at", sa.String, nullable=False),
)

# A message that was received and not yet answered; a restarted process answers it.
inflight = sa.Table(
    "inflight",
    metadata,
    sa.Column("message_id", sa.String, primary_key=True),
    sa.Column("head", sa.LargeBinary, nullable=False),  # Flower's Message, without content
)

# A release that was committed and not yet handed over; deleted once the coordinator has it.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("message_id", sa.String, primary_key=True),
    sa.Column("arrays", sa.String),  # path below the site folder
    sa.Column("metrics", sa.Text, nullable=False),
    sa.Column("receipt", sa.LargeBinary, nullable=False),
)

# What work in progress was given: written when its set is frozen, gone when its message is answered.
frozen_set = sa.Table(
    "frozen_set",
    metadata,
    sa.Column("message_id", sa.String, primary_key=True),
    sa.Column("run", sa.String, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("task", sa.String, nullable=False),
    sa.Column("used", sa.Text, nullable=False),  # as in `participation`
)

# Updates that were let go and may no longer be used: what the coordinator has to be told, until it has answered.
withdrawal_notice = sa.Table(
    "withdrawal_notice",
    metadata,
    sa.Column("receipt", sa.String, primary_key=True),  # SHA-256 of the receipt's envelope
    sa.Column("run", sa.String, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("found_at", sa.String, nullable=False),
    sa.Column("answer", sa.String),  # retracted | aggregated | unknown; none: pending or refused
    sa.Column("answered_at", sa.String),
    sa.Column("refusal", sa.String),  # why the coordinator will not have the notice; it is asked no more
    sa.Column("refused_at", sa.String),
)

# What the coordinator was told of withdrawals, and its answers, as both were signed. Append only.
withdrawal_answer = sa.Table(
    "withdrawal_answer",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),  # SHA-256 of the notice's envelope
    sa.Column("notice", sa.LargeBinary, nullable=False),
    sa.Column("answer", sa.LargeBinary, nullable=False),
    sa.Column("certificate", sa.LargeBinary, nullable=False),  # PEM, of the key that signed the answer
    sa.Column("answered_at", sa.String, nullable=False),
)

# One row: which key the site's own pseudonyms are made with.
site_key = sa.Table(
    "site_key",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key_id", sa.String, nullable=False),
)

# A project's pseudonym keys, generation by generation; the key itself lies where `reference` says.
project_key = sa.Table(
    "project_key",
    metadata,
    sa.Column("key_id", sa.String, primary_key=True),  # a digest that says nothing about the key
    sa.Column("project", sa.String, nullable=False, index=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("reference", sa.String, nullable=False),  # file: or pkcs11: URI, never with a PIN
    sa.Column("made_by", sa.String, nullable=False),
    sa.Column("made_at", sa.String, nullable=False),
    sa.Column("retired_at", sa.String),  # a later generation took its place
    sa.Column("destroyed_by", sa.String),
    sa.Column("destroyed_at", sa.String),  # from here on it is not used; then the key is overwritten
    sa.Column("erased_at", sa.String),  # the key is gone
    sa.UniqueConstraint("project", "generation"),
)

# Who stands behind a pseudonym. Sealed under the identity key and the pseudonym key together.
identity = sa.Table(
    "identity",
    metadata,
    sa.Column("key_id", sa.String, primary_key=True),  # of the pseudonym key
    sa.Column("pseudonym", sa.String, primary_key=True, index=True),
    sa.Column("kind", sa.String, nullable=False),  # patient | study | series | instance
    sa.Column("sealed", sa.LargeBinary, nullable=False),  # nonce and AES-256-GCM
)

# A wish to know who stands behind a pseudonym: asked by one, approved by another, shown once.
reidentification = sa.Table(
    "reidentification",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("pseudonym", sa.String),  # none: all that one key stands for, as a file
    sa.Column("key_id", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_by", sa.String, nullable=False),
    sa.Column("requested_at", sa.String, nullable=False),
    sa.Column("expires_at", sa.String, nullable=False),
    sa.Column("approved_by", sa.String),
    sa.Column("approved_at", sa.String),
    sa.Column("denied_by", sa.String),
    sa.Column("denied_at", sa.String),
    sa.Column("shown_at", sa.String),
)

# What de-identification did with a file: for the reviewer, and for figures by version.
treatment = sa.Table(
    "treatment",
    metadata,
    sa.Column("source_sha256", sa.String, primary_key=True),
    sa.Column("pipeline", sa.String, nullable=False),  # its version
    sa.Column("SOPInstanceUID", sa.String),  # pseudonyms
    sa.Column("SeriesInstanceUID", sa.String, index=True),
    sa.Column("Modality", sa.String),
    sa.Column("boxes", sa.Text, nullable=False),  # JSON, [top, left, bottom, right]: blanked, or proposed to be
    sa.Column("notes", sa.Text, nullable=False),  # JSON: what else was done, or stays by policy; never a value
)

# Every decision of a reviewer; a later one about the same file stands beside it, never in its place.
review_decision = sa.Table(
    "review_decision",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("source_sha256", sa.String, nullable=False, index=True),
    sa.Column("verdict", sa.String, nullable=False),  # accept | redraw | reject | reopen | leak
    sa.Column("held_for", sa.String, nullable=False),  # the reason that was decided on
    sa.Column("boxes", sa.Text, nullable=False),  # JSON
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),  # begun | second-awaited | accepted | held | rejected
    sa.Column("held_again_for", sa.String),  # with outcome held: why
    sa.Column("taken_out", sa.String),  # path of a file that left the catalogue and is still to be deleted there
)

# Accepted instances drawn at random for a person to look at.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("SOPInstanceUID", sa.String, nullable=False, index=True),
    sa.Column("source_sha256", sa.String),
    sa.Column("sha256", sa.String, nullable=False),  # of the file that is audited
    sa.Column("Modality", sa.String, nullable=False),
    sa.Column("pipeline", sa.String, nullable=False),
    sa.Column("seed", sa.String, nullable=False),
    sa.Column("drawn_at", sa.String, nullable=False),
    sa.Column("verdict", sa.String),  # clean | leak
    sa.Column("place", sa.String),
    sa.Column("by", sa.String),
    sa.Column("at", sa.String),
    sa.UniqueConstraint("SOPInstanceUID", "sha256"),
)

# Consent statistics as they were told to the consortium, in ranges. The last answer to a question steadies the next.
told_statistics = sa.Table(
    "told_statistics",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("task", sa.String, nullable=False, index=True),
    sa.Column("question", sa.String, nullable=False, index=True),  # digest of what was asked, of which dataset
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("studies", sa.Text, nullable=False),  # JSON of consent.RangeCounts
    sa.Column("signer", sa.String, nullable=False),  # the key of the membership in which it was told
    sa.Column("counted_at", sa.String, nullable=False),
    sa.Column("told_at", sa.String, nullable=False),
    sa.Column("handed_over_at", sa.String),  # the coordinator answered that it has it
)

# Snapshots that count: restic ended well, its list shows them, nothing was left out. Append only.
archive_snapshot = sa.Table(
    "archive_snapshot",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String, nullable=False),  # restic's
    sa.Column("at", sa.String, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("manifest", sa.String, nullable=False),  # SHA-256
    sa.Column("is_good", sa.Boolean, nullable=False),  # taken without an alarm
)

# Good snapshots that were begun since the last one on record, by the digest of their manifest (SHA-256).
archive_begun = sa.Table(
    "archive_begun",
    metadata,
    sa.Column("manifest", sa.String, primary_key=True),
)

# Images of the archive changed as none may. While a row is not cleared, nothing is trained on.
archive_alarm = sa.Table(
    "archive_alarm",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("counts", sa.Text, nullable=False),  # JSON: images by what happened to them
    sa.Column("last_good", sa.String, nullable=False),  # the snapshot to restore from
    sa.Column("cleared_at", sa.String),
    sa.Column("cleared_by", sa.String),
    sa.Column("reason", sa.String),
)

# Recovery drills. A row without an end is of a drill that runs, or was killed: it proved nothing.
drill = sa.Table(
    "drill",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("mode", sa.String, nullable=False),  # sample | full | attack | failover
    sa.Column("started_at", sa.String, nullable=False),
    sa.Column("ended_at", sa.String),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("problems", sa.Text, nullable=False),  # JSON
    sa.Column("report", sa.String),  # SHA-256 of the signed report
)

# Locked copies: one object of S3 for each part of a series, sealed at this site; the name is a keyed digest.
locked_object = sa.Table(
    "locked_object",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("series", sa.String, nullable=False, index=True),  # keyed digest of the SeriesInstanceUID
    sa.Column("patient", sa.String, nullable=False, index=True),  # keyed pseudonym
    sa.Column("modality", sa.String, nullable=False),
    sa.Column("study_date", sa.String),  # ISO; stays inside
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),  # bytes of the files
    sa.Column("until", sa.String, nullable=False),  # the legal date
    sa.Column("hold", sa.Boolean, nullable=False),
    sa.Column("sealed_at", sa.String, nullable=False),
)

# Where each lies: a row says that this version was read back whole and its lock was read, at `verified_at`.
locked_copy = sa.Table(
    "locked_copy",
    metadata,
    sa.Column("name", sa.String, sa.ForeignKey("locked_object.name"), primary_key=True),
    sa.Column("copy", sa.String, primary_key=True),
    sa.Column("place", sa.String, nullable=False),  # endpoint and bucket: a copy's name may come to mean another
    sa.Column("version", sa.String, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),  # of the sealed object
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("until", sa.String, nullable=False),  # as the endpoint told it
    sa.Column("hold", sa.Boolean, nullable=False),  # as the endpoint told it
    sa.Column("verified_at", sa.String, nullable=False),
    sa.Column("fault", sa.String, nullable=False),  # what the last look found; empty where all was well
)

# Which files an object stands for, so that no endpoint need be asked; sealed, since a path may name a patient.
tier_object = sa.Table(
    "tier_object",
    metadata,
    sa.Column("name", sa.String, sa.ForeignKey("locked_object.name"), primary_key=True),
    sa.Column("study", sa.String, nullable=False, index=True),  # keyed digest of the StudyInstanceUID
    sa.Column("members", sa.LargeBinary, nullable=False),  # sealed JSON: path, size and SHA-256 of each
    sa.Column("came_at", sa.String, nullable=False),  # when its files came into the folder, or came back
)

# The domain that stands in for the site's folder: at most one row.
tier_serving = sa.Table(
    "tier_serving",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("domain", sa.String, nullable=False),
    sa.Column("since", sa.String, nullable=False),
)

# Every result of the conformance probe, signed. Append only.
lock_probe = sa.Table(
    "lock_probe",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("endpoint", sa.String, nullable=False),
    sa.Column("bucket", sa.String, nullable=False),
    sa.Column("envelope", sa.LargeBinary, nullable=False),  # DSSE, see archive.probe
)

# The clock by which expiry is judged: one row, the latest moment it showed and how long the machine had run then.
clock_reading = sa.Table(
    "clock_reading",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("boot", sa.String, nullable=False),  # the kernel's id of the running boot
    sa.Column("running_s", sa.Float, nullable=False),  # CLOCK_BOOTTIME
)

# Who may use the console.
account = sa.Table(
    "account",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("role", sa.String, nullable=False),  # consent-manager | auditor
    sa.Column("password", sa.String, nullable=False),  # Argon2id, PHC string
    sa.Column("failures", sa.Integer, nullable=False),  # wrong passwords in a row
    sa.Column("locked_until", sa.String),
    sa.Column("disabled_at", sa.String),
)

# Known patients, for the search for stray identities: keyed digests alone.
stray_known = sa.Table(
    "stray_known",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("person", sa.LargeBinary, primary_key=True),
    sa.Column("kind", sa.Integer, nullable=False),
)

# Each search of a place, and how many files had what afterwards.
stray_scan = sa.Table(
    "stray_scan",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("source", sa.String, nullable=False, index=True),  # keyed digest
    sa.Column("shown", sa.String, nullable=False),  # the place, masked
    sa.Column("everything", sa.Boolean, nullable=False),  # unchanged files too
    sa.Column("began_at", sa.String, nullable=False),
    sa.Column("ended_at", sa.String),
    sa.Column("counts", sa.Text, nullable=False),  # JSON
)

# The files of searched places; where each lies is sealed.
stray_file = sa.Table(
    "stray_file",
    metadata,
    sa.Column("id", sa.String, primary_key=True),  # keyed digest of the place and the path in it
    sa.Column("source", sa.String, nullable=False, index=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),  # place and path
    sa.Column("shown", sa.String, nullable=False),  # the path, masked
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("stamp", sa.String, nullable=False),  # what changes when the file does
    sa.Column("rules", sa.String, nullable=False),  # by which it was searched
    sa.Column("scan", sa.Integer, nullable=False, index=True),  # that saw it last
    sa.Column("searched", sa.Integer, nullable=False),  # the scan that read it last
    sa.Column("content", sa.String, nullable=False),  # keyed digest
    sa.Column("persons", sa.Integer, nullable=False),  # known patients in it
    sa.Column("faults", sa.Text, nullable=False),  # JSON: places that were not looked into, and why
    sa.Column("left_out", sa.Text, nullable=False),  # JSON: what nobody wanted to be looked into
    sa.Column("more", sa.Integer, nullable=False),  # findings beyond those that are kept
    sa.Column("picture", sa.LargeBinary),  # PNG, coarse
)

stray_finding = sa.Table(
    "stray_finding",
    metadata,
    sa.Column("file", sa.String, sa.ForeignKey("stray_file.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("rule", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),  # keyed
    sa.Column("confidence", sa.Integer, nullable=False),
    sa.Column("risk", sa.Integer, nullable=False),
    sa.Column("place", sa.String, nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
)

# What a person decided about a file, in order.
stray_decision = sa.Table(
    "stray_decision",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("file", sa.String, nullable=False, index=True),
    sa.Column("verdict", sa.String, nullable=False),  # accepted | quarantined | restored | de-identified
    sa.Column("state", sa.String, nullable=False),  # begun | done | undone
    sa.Column("content", sa.String, nullable=False),  # keyed digest of the file it was about
    sa.Column("covers", sa.Text, nullable=False),  # JSON: the findings that were accepted
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("shown", sa.String, nullable=False),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("at", sa.String, nullable=False),
)

# What an auditor reads: `source:subject:action`, append only. Each entry's hash covers the one before it.
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("entry", sa.String, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),  # JSON: digests, counts, reasons
    sa.Column("hash", sa.String, nullable=False),
)


# Held to it by the database too: nothing of these is changed, deleted, or replaced where a key is taken.
APPEND_ONLY = {
    "request_event": "number = NEW.number OR (request = NEW.request AND version = NEW.version)",
    "ledger": "number = NEW.number",
    "receipt_signer": "key_id = NEW.key_id",
    "archive_snapshot": "number = NEW.number",
    "consent_opening": "record = NEW.record",
    "consent_log": "place = NEW.place",
    "consent_log_node": "level = NEW.level AND place = NEW.place",
    "consent_checkpoint": "size = NEW.size",
    "eligibility": "run = NEW.run AND round = NEW.round AND kind = NEW.kind AND nonce = NEW.nonce",
    "data_manifest": "sha256 = NEW.sha256",
    "withdrawal_answer": "digest = NEW.digest",
    "lock_probe": "number = NEW.number",
}


def among(column: sa.ColumnElement[Any], values: Iterable[object]) -> sa.ColumnElement[bool]:
    """Return the condition that a column is one of any number of values, as one parameter."""
    listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(listed.c.value))


def reading(store: sa.Engine) -> sa.Engine:
    """Return `store` for reading: one consistent state, without waiting for a writer."""
    return store.execution_options(reading=True)


_STORED: Final = (
    (sa.Integer, "integer"),
    (sa.Boolean, "integer"),
    (sa.Float, "real"),
    (sa.String, "text"),
    (sa.LargeBinary, "blob"),
)


def misfits_of(db: sa.Connection) -> Iterator[tuple[str, int]]:
    """Yield each column with how many of its values are of another kind, which SQLite lets in; a moment is a kind too.

    Source: SQLite, Datatypes, section 3 (type affinity).
    """
    for table in metadata.sorted_tables:
        for column in table.columns:
            kind = next(stored for declared, stored in _STORED if isinstance(column.type, declared))
            kinds = {kind, "null"} if column.nullable else {kind}
            odd = sa.select(sa.func.count()).select_from(table).where(sa.func.typeof(column).not_in(kinds))
            misfits = db.scalar(odd) or 0
            if not misfits and column.name.rpartition("_")[2] == "at":
                misfits = sum(not _is_moment(value) for value in db.scalars(sa.select(column).distinct()))
            yield f"{table.name}.{column.name}", misfits


def _is_moment(value: str | None) -> bool:
    try:
        return value is None or datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def open_store(path: Path) -> sa.Engine:
    """Open the database at `path`, making it (mode 0600) if it is not there."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    # An error names the statement and none of its values, which may be a patient's.
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below, not where sqlite3 guesses
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    metadata.create_all(engine)
    with engine.begin() as db:
        for table, taken in APPEND_ONLY.items():
            _forbid_changes(db, table, taken)
        db.execute(
            sa.text("INSERT OR IGNORE INTO consent_epoch (id, epoch) VALUES (1, 0)"),
        )
    return engine


def _forbid_changes(db: sa.Connection, table: str, taken: str) -> None:
    # REPLACE deletes what it replaces without a DELETE trigger: so an insert where a key is taken is refused as well.
    replaces = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {taken})"  # noqa: S608 -- names of our own tables
    for change, when in (("UPDATE", ""), ("DELETE", ""), ("INSERT", replaces)):
        db.exec_driver_sql(
            f"CREATE TRIGGER IF NOT EXISTS {table}_forbids_{change.lower()} BEFORE {change} ON {table} {when} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append only'); END"
        )
