"""The signed state of a log, and who else saw it: C2SP checkpoints and their cosignatures.

A checkpoint is a note of three lines, the log's name, its size and its root, and signatures below
an empty line. A witness cosigns with the moment at which it saw that the log had only grown.

Source: C2SP signed-note, tlog-checkpoint, and tlog-cosignature (cosignature/v1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consent.errors import CheckpointInvalid
from consent.merkle import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ED25519: Final = b"\x01"
"""The type of a note's signature (signed-note, "Signature types")."""
COSIGNATURE_V1: Final = b"\x04"
"""The type of a witness's signature, which carries a moment (tlog-cosignature)."""
MAX_SIZE: Final = 2**53 - 1
MAX_SECONDS: Final = 253_402_300_800
"""The year 10000, beyond which no moment can be told."""
_NAME: Final = re.compile(r"[^\s+]{1,200}")
_LINE: Final = re.compile(r"— ([^\s+]{1,200}) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of the log `origin`: so many leaves, with this root."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        """Refuse what no note can say."""
        if not _NAME.fullmatch(self.origin):
            raise ValueError("the name of a log has no spaces and no plus")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_BYTES:
            raise ValueError("not a size and a root of a log")

    @property
    def text(self) -> str:
        """The lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the note of `checkpoint`, signed under the log's name."""
    signature = key.sign(checkpoint.text.encode())
    return f"{checkpoint.text}\n{_signature(checkpoint.origin, ED25519, key.public_key(), signature)}"


def open_checkpoint(note: str, origin: str, key: Ed25519PublicKey) -> Checkpoint:
    """Return the checkpoint in `note`, if it is of the log `origin` and the holder of `key` signed it.

    Raises: CheckpointInvalid.
    """
    checkpoint = _read(note)
    if checkpoint.origin != origin:
        raise CheckpointInvalid("of another log")
    for signature in _signatures(note, origin, ED25519, key):
        if _holds(key, signature, checkpoint.text.encode()):
            return checkpoint
    raise CheckpointInvalid("not signed by this key")


def cosign(note: str, name: str, key: Ed25519PrivateKey, at: datetime) -> str:
    """Return the line by which the witness `name` says that it saw the state in `note` at `at`.

    Raises: CheckpointInvalid if there is no checkpoint in it.
    """
    seconds = int(at.timestamp())
    signature = seconds.to_bytes(8) + key.sign(_cosigned(seconds, _read(note)))
    return _signature(name, COSIGNATURE_V1, key.public_key(), signature)


def cosigners(note: str, witnesses: Sequence[str]) -> dict[str, datetime]:
    """Return, for each of `witnesses` that cosigned `note`, when; they are named by their verifier keys.

    Raises: ValueError if one of these is no verifier key; CheckpointInvalid if there is no checkpoint.
    """
    checkpoint, found = _read(note), dict[str, datetime]()
    for witness in witnesses:
        name, key = read_verifier_key(witness)
        for blob in _signatures(note, name, COSIGNATURE_V1, key):
            seconds = int.from_bytes(blob[:8])
            if seconds < MAX_SECONDS and _holds(key, blob[8:], _cosigned(seconds, checkpoint)):
                found[witness] = datetime.fromtimestamp(seconds, UTC)
    return found


def verifier_key(name: str, key: Ed25519PublicKey) -> str:
    """Return the text by which a witness's public key is given to those who count its cosignatures.

    Raises: ValueError if `name` has spaces or a plus.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("the name of a witness has no spaces and no plus")
    raw = COSIGNATURE_V1 + key.public_bytes_raw()
    return f"{name}+{_key_hash(name, COSIGNATURE_V1, key).hex()}+{base64.b64encode(raw).decode()}"


def read_verifier_key(text: str) -> tuple[str, Ed25519PublicKey]:
    """Return name and key of a witness.

    Raises: ValueError if `text` is none, or its parts do not belong together.
    """
    name, _, rest = text.partition("+")
    raw = base64.b64decode(rest.partition("+")[2], validate=True)
    if raw[:1] != COSIGNATURE_V1:
        raise ValueError("not the key of a witness")
    key = Ed25519PublicKey.from_public_bytes(raw[1:])
    if verifier_key(name, key) != text:
        raise ValueError("not a verifier key: its parts do not belong together")
    return name, key


def _read(note: str) -> Checkpoint:
    """Return what a note says; only the one spelling `Checkpoint.text` writes counts."""
    text, gap, _ = note.partition("\n\n")
    lines = f"{text}\n".splitlines()
    try:
        origin, size, root = lines
        checkpoint = Checkpoint(origin, int(size), base64.b64decode(root, validate=True))
    except ValueError as error:
        raise CheckpointInvalid("not a checkpoint") from error
    if not gap or checkpoint.text != f"{text}\n":
        raise CheckpointInvalid("not a checkpoint")
    return checkpoint


def _signatures(note: str, name: str, kind: bytes, key: Ed25519PublicKey) -> Iterator[bytes]:
    """Yield the signatures of a note that claim to be by `key`; others are passed over, as they must be."""
    for line in note.partition("\n\n")[2].split("\n"):
        found = _LINE.fullmatch(line)
        if found and found[1] == name:
            try:
                blob = base64.b64decode(found[2], validate=True)
            except binascii.Error:
                continue
            if blob[:4] == _key_hash(name, kind, key):
                yield blob[4:]


def _signature(name: str, kind: bytes, key: Ed25519PublicKey, signature: bytes) -> str:
    blob = _key_hash(name, kind, key) + signature
    return f"— {name} {base64.b64encode(blob).decode()}\n"


def _key_hash(name: str, kind: bytes, key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:4]


def _cosigned(seconds: int, checkpoint: Checkpoint) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{checkpoint.text}".encode()


def _holds(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
