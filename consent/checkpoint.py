"""Checkpoints of an append-only log: what a log signs about itself, and what witnesses add.

A checkpoint is a signed note of three lines: origin, size, root. Its log signs it with Ed25519; a
witness, who saw that the log only grew, adds a line of its own with the moment. A site's log is
signed with the site's receipt key, so that a new receipt key begins a new log (`log_origin`).
Pure: keeps nothing, and asks nobody.

Source: C2SP signed-note, tlog-checkpoint v1.0.0, tlog-cosignature (Ed25519, `cosignature/v1`) and
    the request of tlog-witness. Their words stand in quotes below.
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
from consent.merkle import EMPTY_ROOT, HASH_BYTES
from consent.statement import key_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NOTE: Final = 0x01
"""Signature type of an Ed25519 note (signed-note, "Signature types")."""
COSIGNATURE: Final = 0x04
"""Signature type of a timestamped Ed25519 cosignature (tlog-cosignature, "Format")."""
MAX_NOTE_BYTES: Final = 16_384
MAX_SIGNATURES: Final = 32
"""Signed-note: verifiers "MUST accept at least up to 16 signatures"."""
MAX_PROOF_LINES: Final = 63
"""Tlog-witness: "The client MUST NOT send more than 63 consistency proof lines"."""
MAX_REQUEST_BYTES: Final = MAX_NOTE_BYTES + 4096
MAX_SIZE: Final = 2**63 - 1
"""No log of Filmroom is larger; a proof of 63 lines reaches so far."""

_KEY_ID_BYTES, _KEY_BYTES, _SIGNATURE_BYTES, _TIME_BYTES = 4, 32, 64, 8
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,256}")  # \s is every Unicode space
_LINE = "\u2014 "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's name, how many entries it has, and the root of their tree (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        """Refuse what no checkpoint may say."""
        if not _NAME.fullmatch(self.origin):
            raise ValueError("an origin has 1 to 256 characters, neither a space nor a plus")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_BYTES:
            raise ValueError("a checkpoint has a size from 0 and a root of 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise ValueError("an empty log has one root")


@dataclass(frozen=True, slots=True)
class Verifier:
    """A name and the public key behind it, for one type of signature."""

    name: str
    kind: int
    key: Ed25519PublicKey

    @property
    def key_id(self) -> bytes:
        """The four bytes by which a signature line names the key.

        Source: signed-note, "key ID = SHA-256(key name || 0x0A || signature type || public key)[:4]".
        """
        return hashlib.sha256(self.name.encode() + b"\n" + self._material).digest()[:_KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key's text form: `NAME+HEX KEY ID+BASE64(TYPE || PUBLIC KEY)`."""
        return f"{self.name}+{self.key_id.hex()}+{_encode(self._material)}"

    @property
    def _material(self) -> bytes:
        return bytes([self.kind]) + self.key.public_bytes_raw()


def log_verifier(name: str, key: Ed25519PublicKey) -> Verifier:
    """Return the verifier of a log's own signatures.

    Raises: ValueError if a key cannot have this name.
    """
    return _verifier(name, NOTE, key)


def witness_verifier(name: str, key: Ed25519PublicKey) -> Verifier:
    """Return the verifier of a witness's cosignatures.

    Raises: ValueError if a key cannot have this name.
    """
    return _verifier(name, COSIGNATURE, key)


def parse_verifier(text: str, kind: int) -> Verifier:
    """Return the verifier whose text form this is, if it is for signatures of `kind`.

    Raises: CheckpointInvalid with reason `bad-vkey`.
    """
    name, _, rest = text.partition("+")
    named, _, encoded = rest.partition("+")
    material = _decode(encoded) if len(encoded) <= MAX_NOTE_BYTES else None
    if not _NAME.fullmatch(name) or material is None or len(material) != 1 + _KEY_BYTES or material[0] != kind:
        raise CheckpointInvalid("bad-vkey")
    found = Verifier(name, kind, Ed25519PublicKey.from_public_bytes(material[1:]))
    if found.key_id.hex() != named:
        raise CheckpointInvalid("bad-vkey", "key id")
    return found


def log_origin(federation: str, site: str, key: Ed25519PublicKey) -> str:
    """Return the origin of the log that `site` signs with its receipt key: another key, another log."""
    return f"filmroom.org/log/{federation}/{site}/{key_id(key)[:16]}"


# ------------------------------------------------------------------ the log signs


def sign_checkpoint(checkpoint: Checkpoint, name: str, key: Ed25519PrivateKey) -> str:
    """Return the note of `checkpoint`, signed by its log; `name` is the origin (tlog-checkpoint: SHOULD)."""
    body = _body(checkpoint)
    signer = log_verifier(name, key.public_key())
    return f"{body}\n{_signature_line(signer, key.sign(body.encode()))}"


def open_checkpoint(note: str, log: Verifier) -> Checkpoint:
    """Return the checkpoint in `note`, if `log` signed it. Lines of other signers are ignored.

    Raises: CheckpointInvalid whose `reason` is `too-large`, `malformed`, `unsigned` (no line is by
        this key) or `bad-signature`.
    Source: signed-note, "If the key name and ID match a known key, verifiers MUST verify the
        signature"; "If no signature from a known key verifies successfully, clients MUST reject".
    """
    body, lines = _split(note)
    signatures = _by(log, lines)
    if not signatures:
        raise CheckpointInvalid("unsigned")
    for signature in signatures:
        if not _verifies(log.key, signature, body.encode()):
            raise CheckpointInvalid("bad-signature")
    return _read_body(body)


def origin_of(note: str) -> str:
    """Return the origin an unverified note claims, to find the key it has to be signed with.

    Raises: CheckpointInvalid with reason `too-large` or `malformed`.
    """
    return _read_body(_split(note)[0]).origin


# ------------------------------------------------------------------ witnesses cosign


def cosign(note: str, name: str, key: Ed25519PrivateKey, at: datetime) -> str:
    """Return the signature line of a witness over the checkpoint in `note`, as of the second of `at`.

    The note has to be opened before: nothing is verified here.

    Raises: CheckpointInvalid with reason `too-large` or `malformed`.
    Source: tlog-cosignature, "Ed25519 signed message".
    """
    body, _ = _split(note)
    _read_body(body)
    seconds = int(at.timestamp())
    signer = witness_verifier(name, key.public_key())
    signature = key.sign(_cosigned(seconds, body))
    return _signature_line(signer, seconds.to_bytes(_TIME_BYTES) + signature)


def cosigners(note: str, witnesses: Sequence[Verifier]) -> Mapping[str, datetime]:
    """Return which of `witnesses` cosigned `note`, and when; a line that does not verify does not count.

    Raises: CheckpointInvalid with reason `too-large` or `malformed`.
    """
    body, lines = _split(note)
    found: dict[str, datetime] = {}
    for witness in witnesses:
        for signature in _by(witness, lines):
            seconds = int.from_bytes(signature[:_TIME_BYTES])
            message = _cosigned(seconds, body)
            if _verifies(witness.key, signature[_TIME_BYTES:], message) and (at := _moment(seconds)) is not None:
                found[witness.name] = max(at, found.get(witness.name, at))
    return found


def add_cosignatures(note: str, lines: str) -> str:
    """Return `note` with the signature lines added that it does not have yet.

    Raises: CheckpointInvalid with reason `too-large` or `malformed`.
    """
    body, held = _split(note)
    new = [line for line in _signature_lines(lines) if line not in held]
    joined = f"{body}\n" + "".join(f"{line}\n" for line in dict.fromkeys([*held, *new]))
    _split(joined)
    return joined


# ------------------------------------------------------------------ the request to a witness


@dataclass(frozen=True, slots=True)
class WitnessRequest:
    """What is asked of a witness: to cosign `note`, which follows the log of `old` entries by `proof`."""

    old: int
    proof: tuple[bytes, ...]
    note: str


def write_request(request: WitnessRequest) -> bytes:
    """Return the body of add-checkpoint.

    Source: tlog-witness, "The request body MUST be a sequence of an old size line, zero or more
        consistency proof lines, and an empty line, followed by a checkpoint."
    """
    lines = [f"old {request.old}", *map(_encode, request.proof), "", request.note]
    return "\n".join(lines).encode()


def read_request(body: bytes) -> WitnessRequest:
    """Return what the body of add-checkpoint asks.

    Raises: CheckpointInvalid with reason `too-large` or `malformed`.
    """
    if len(body) > MAX_REQUEST_BYTES:
        raise CheckpointInvalid("too-large")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise CheckpointInvalid("malformed", "not UTF-8") from error
    head, separator, note = text.partition("\n\n")
    first, *encoded = head.split("\n")
    word, _, old = first.partition(" ")
    hashes = [_decode(line) for line in encoded]
    proof = tuple(item for item in hashes if item is not None and len(item) == HASH_BYTES)
    if (word, bool(separator)) != ("old", True) or not _is_size(old):
        raise CheckpointInvalid("malformed", "old size")
    if len(proof) != len(hashes) or len(proof) > MAX_PROOF_LINES:
        raise CheckpointInvalid("malformed", "proof")
    return WitnessRequest(int(old), proof, note)


# ------------------------------------------------------------------ the texts


def _body(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.origin}\n{checkpoint.size}\n{_encode(checkpoint.root)}\n"


def _read_body(body: str) -> Checkpoint:
    """Read the three lines; extension lines are refused, which tlog-checkpoint does NOT RECOMMEND."""
    lines = body.split("\n")
    if len(lines) != 4 or lines[3] or not _is_size(lines[1]):  # noqa: PLR2004 -- three lines, each ended
        raise CheckpointInvalid("malformed", "checkpoint")
    try:
        return Checkpoint(lines[0], int(lines[1]), _decode(lines[2]) or b"")
    except ValueError as error:
        raise CheckpointInvalid("malformed", "checkpoint") from error


def _split(note: str) -> tuple[str, list[str]]:
    """Return a note's text and its signature lines, not verified.

    Source: signed-note, "the text is separated from the signatures by the last empty line in the
        note"; "MUST NOT contain any ASCII control characters other than newline".
    """
    if len(note) > MAX_NOTE_BYTES or len(note.encode(errors="replace")) > MAX_NOTE_BYTES:
        raise CheckpointInvalid("too-large")
    if any(character < " " and character != "\n" for character in note):
        raise CheckpointInvalid("malformed", "control character")
    body, separator, signatures = note.rpartition("\n\n")
    lines = _signature_lines(signatures)
    if not separator or not lines:
        raise CheckpointInvalid("malformed", "no signature")
    return body + "\n", lines


def _signature_lines(text: str) -> list[str]:
    """Return the lines, each of the form of a signature."""
    *lines, rest = text.split("\n")
    if rest or len(lines) > MAX_SIGNATURES:
        raise CheckpointInvalid("malformed" if rest else "too-large", "signature lines")
    if any(_signature_of(line) is None for line in lines):
        raise CheckpointInvalid("malformed", "signature line")
    return lines


def _signature_of(line: str) -> tuple[str, bytes, bytes] | None:
    """Return name, key id and signature of a line; None if it has not that form."""
    name, _, encoded = line.removeprefix(_LINE).partition(" ")
    content = _decode(encoded)
    if not line.startswith(_LINE) or not _NAME.fullmatch(name) or content is None or len(content) <= _KEY_ID_BYTES:
        return None
    return name, content[:_KEY_ID_BYTES], content[_KEY_ID_BYTES:]


def _by(verifier: Verifier, lines: Iterable[str]) -> list[bytes]:
    """Return the signatures of the lines whose name and key id are the verifier's."""
    found = (_signature_of(line) for line in lines)
    wanted = (verifier.name, verifier.key_id)
    return [signature for name, number, signature in filter(None, found) if (name, number) == wanted]


def _signature_line(signer: Verifier, signature: bytes) -> str:
    return f"{_LINE}{signer.name} {_encode(signer.key_id + signature)}\n"


def _cosigned(seconds: int, body: str) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{body}".encode()


def _moment(seconds: int) -> datetime | None:
    """Return the moment; None if it is later than dates go."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    if len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _verifier(name: str, kind: int, key: Ed25519PublicKey) -> Verifier:
    if not _NAME.fullmatch(name):
        raise ValueError("a key's name has 1 to 256 characters, neither a space nor a plus")
    return Verifier(name, kind, key)


def _is_size(text: str) -> bool:
    return _DECIMAL.fullmatch(text) is not None and int(text) <= MAX_SIZE


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> bytes | None:
    """Return what is encoded; None unless it is the one spelling of RFC 4648 section 4."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if _encode(content) == text else None
