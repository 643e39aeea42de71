"""A witness of sites' logs: it cosigns a checkpoint only if the log grew from the one it cosigned before.

It is a program of its own, run by somebody other than the site whose log it watches, with a folder, a key and a
database that it shares with nobody. It sees checkpoints alone: an origin, a size, a root; no entry of any log.

Source: C2SP tlog-witness, `add-checkpoint`. Its words stand in quotes below.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from consent import (
    EMPTY_ROOT,
    NOTE,
    Checkpoint,
    CheckpointInvalid,
    Verifier,
    cosign,
    generate_signing_key,
    open_checkpoint,
    origin_of,
    parse_verifier,
    read_request,
    verify_consistency,
    witness_verifier,
)
from coordinator.authority import write_private
from coordinator.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from consent import WitnessRequest

SIZE_TYPE = "text/x.tlog.size"

_TABLES = """
CREATE TABLE IF NOT EXISTS log (origin TEXT PRIMARY KEY, vkey TEXT NOT NULL, trusted_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS head (
    origin TEXT PRIMARY KEY REFERENCES log,
    size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL, at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS fork (
    origin TEXT REFERENCES log, size INTEGER, root BLOB, note TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (origin, size, root)
);
CREATE TRIGGER IF NOT EXISTS head_only_grows BEFORE UPDATE ON head
WHEN NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.root <> OLD.root)
BEGIN SELECT RAISE(ABORT, 'a log does not shrink'); END;
CREATE TRIGGER IF NOT EXISTS head_stays BEFORE DELETE ON head
BEGIN SELECT RAISE(ABORT, 'what was cosigned stays'); END;
"""


# ------------------------------------------------------------------ the decision


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not cosigned: the HTTP status that says why and, with 409, the size that was cosigned last.

    `fork` is true where the log signed two roots for one size: that note and the one held prove it.
    """

    status: int
    size: int | None = None
    fork: bool = False


def decide(request: WitnessRequest, log: Verifier | None, held: Checkpoint | None) -> Checkpoint | Refusal:
    """Return the checkpoint to cosign, or why not; `held` is what was cosigned last for its origin."""
    # "If the checkpoint origin is unknown, the witness MUST respond with a 404"
    if log is None:
        return Refusal(404)
    # "If none of the signatures verify against a trusted public key, ... 403"
    try:
        asked = open_checkpoint(request.note, log)
    except CheckpointInvalid:
        return Refusal(403)
    size, root = (held.size, held.root) if held else (0, EMPTY_ROOT)
    # "The old size MUST be equal to or lower than the checkpoint size. Otherwise ... 400"
    if request.old > asked.size:
        return Refusal(400)
    # Said here whatever the old size is: it is the proof that a log has two histories.
    fork = asked.size == size and asked.root != root
    # "The witness MUST check that the old size matches the size of the latest checkpoint it cosigned", and
    # "if the old size matches the checkpoint size, ... that the root hashes are also identical": 409
    if request.old != size or fork:
        return Refusal(409, size, fork)
    # "If the Merkle Consistency Proof doesn't verify, ... 422"
    if not verify_consistency(size, asked.size, root, asked.root, request.proof):
        return Refusal(422)
    return asked


# ------------------------------------------------------------------ the witness and its folder


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered over HTTP."""

    status: int
    body: str = ""
    kind: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class KnownLog:
    """A log that is watched: its key, and what was cosigned last."""

    vkey: str
    size: int | None
    at: str | None
    forks: int


class Witness:
    """An opened witness folder."""

    def __init__(self, root: Path) -> None:
        """Open the folder.

        Raises: ConfigurationError if it holds no witness.
        """
        self._database = root / "witness.db"
        try:
            self.name = (root / "name").read_text()
            key = load_pem_private_key((root / "witness.key").read_bytes(), password=None)
        except (FileNotFoundError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{root} holds no witness: run `filmroom-coordinator witness init`") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"{root / 'witness.key'}: not an Ed25519 key")
        self._key = key

    @property
    def vkey(self) -> str:
        """The text that sites pin in site.toml to know this witness by."""
        return witness_verifier(self.name, self._key.public_key()).text

    def trust(self, vkey: str, at: datetime) -> str:
        """Watch the log with this key from now on; return its origin.

        Raises: ConfigurationError if it is no log's key, or the origin has another.
        """
        try:
            origin = parse_verifier(vkey, NOTE).name
        except CheckpointInvalid as error:
            raise ConfigurationError(f"not the key of a log: {error}") from error
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO log VALUES (?, ?, ?)", (origin, vkey, at.isoformat()))
            if db.execute("SELECT vkey FROM log WHERE origin = ?", (origin,)).fetchone()[0] != vkey:
                raise ConfigurationError(f"{origin} is known with another key; a new key begins a new log")
        return origin

    def known(self) -> list[KnownLog]:
        """Return the logs that are watched, in the order of their names."""
        query = (
            "SELECT vkey, size, at, (SELECT count(*) FROM fork WHERE fork.origin = log.origin) FROM log "
            "LEFT JOIN head USING (origin) ORDER BY origin"
        )
        with self._transaction() as db:
            return [KnownLog(*row) for row in db.execute(query)]

    def add_checkpoint(self, body: bytes, at: datetime) -> Answer:
        """Answer one request. What is cosigned is durable before the cosignature exists for anybody else.

        Source: "checking the old size against the latest checkpoint and persisting the new checkpoint must be
            performed atomically"; "The witness MUST persist the new checkpoint before responding".
        """
        try:
            request = read_request(body)
            origin = origin_of(request.note)
        except CheckpointInvalid:
            return Answer(400)
        with self._transaction() as db:
            found = db.execute("SELECT vkey FROM log WHERE origin = ?", (origin,)).fetchone()
            row = db.execute("SELECT size, root FROM head WHERE origin = ?", (origin,)).fetchone()
            log = parse_verifier(found[0], NOTE) if found else None
            outcome = decide(request, log, Checkpoint(origin, *row) if row else None)
            match outcome:
                case Refusal(fork=True, size=size):
                    asked = open_checkpoint(request.note, log) if log else None
                    root = asked.root if asked else b""
                    values = (origin, size, root, request.note, at.isoformat())
                    db.execute("INSERT OR IGNORE INTO fork VALUES (?, ?, ?, ?, ?)", values)
                case Checkpoint(size=size, root=root):
                    values = (origin, size, root, request.note, at.isoformat())
                    db.execute(
                        "INSERT INTO head VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE "
                        "SET size = excluded.size, root = excluded.root, note = excluded.note, at = excluded.at",
                        values,
                    )
        if isinstance(outcome, Refusal):
            return Answer(outcome.status) if outcome.size is None else Answer(409, f"{outcome.size}\n", SIZE_TYPE)
        return Answer(200, cosign(request.note, self.name, self._key, at))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the database alone until the block ends, then commit to the disk; undo if the block fails."""
        with closing(sqlite3.connect(self._database, timeout=30, isolation_level=None)) as db:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                db.execute(f"PRAGMA {pragma}")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def create_witness(root: Path, name: str) -> Witness:
    """Make a witness's folder (0700): its name, its own key (0600) and its database (0600).

    Raises: ConfigurationError if there is one already, or a key cannot have the name.
    """
    key = generate_signing_key()
    try:
        witness_verifier(name, key.public_key())
    except ValueError as error:
        raise ConfigurationError(f"--name: {error}") from error
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        write_private(root / "witness.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_private(root / "witness.db", b"")
        with closing(sqlite3.connect(root / "witness.db")) as db:
            db.executescript(_TABLES)
        write_private(root / "name", name.encode())  # last: without it the folder holds no witness
    except FileExistsError as error:
        raise ConfigurationError(f"{root} already holds a witness, or half of one: remove it") from error
    return Witness(root)
