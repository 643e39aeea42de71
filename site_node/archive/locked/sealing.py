"""What leaves for an S3 endpoint: a deterministic tar of a series' files, encrypted at the site.

The format is age (age-encryption.org/v1: X25519, HKDF, ChaCha20-Poly1305 in the STREAM construction), by the library
pyrage; whoever has the key can open an object with the programs `age` and `tar`, without Filmroom. An object's name
is an HMAC of what is inside, with a key that no endpoint has: it says nothing of the patient, and nothing else passes
for it.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyrage

from consent import generate_signing_key
from site_node import keys
from site_node.errors import ConfigurationError, LockedCopyInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FOLDER = "identity/archive"
_SEALING, _NAMING, _SIGNING = "age.key", "naming.key", "signing.key"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a series: where it lies below the folder that is locked, and what is in it."""

    path: str
    size: int
    sha256: str


def content_digest(members: Sequence[Member]) -> bytes:
    """Return the digest of names and contents together; the order does not count."""
    listed = sorted((member.path, member.size, member.sha256) for member in members)
    return hashlib.sha256(json.dumps(listed, ensure_ascii=True, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True, slots=True)
class Seal:
    """The keys by which this site's objects are named and sealed."""

    _identity: pyrage.x25519.Identity
    _naming: bytes

    def name(self, members: Sequence[Member]) -> str:
        """Return the name of the object that holds these files."""
        return self._digest("object", content_digest(members)).hex()

    def token(self, uid: str) -> str:
        """Return what stands for a UID in the catalogue of locked objects."""
        return self._digest("uid", uid.encode()).hex()

    def seal(self, root: Path, members: Sequence[Member], target: BinaryIO) -> None:
        """Write the sealed tar of files below `root`.

        Raises: LockedCopyInvalid if a file is no longer what its member says; OSError.
        """
        reader = _Reader(_tar(root, sorted(members, key=lambda member: member.path)))
        writer = _Writer(target)
        try:
            pyrage.encrypt_io(reader, writer, [self._identity.to_public()])
        except (pyrage.EncryptError, OSError) as error:
            # pyrage tells the text of what happened in between alone; the error itself is told here.
            raise (reader.failed or writer.failed or error) from error

    def open(self, chunks: Iterable[bytes], target: BinaryIO) -> None:
        """Write the tar that is sealed in `chunks`.

        Raises: LockedCopyInvalid if it was not sealed for this site, or is damaged; OSError; what `chunks` raises.
        """
        reader, writer = _Reader(iter(chunks)), _Writer(target)
        try:
            pyrage.decrypt_io(reader, writer, [self._identity])
        except (pyrage.DecryptError, OSError) as error:
            if reader.failed or writer.failed:
                raise (reader.failed or writer.failed or error) from error
            raise LockedCopyInvalid("not sealed by this site, or damaged") from error

    def seal_bytes(self, content: bytes) -> bytes:
        """Return a small content, sealed."""
        sealed: bytes = pyrage.encrypt(content, [self._identity.to_public()])
        return sealed

    def open_bytes(self, sealed: bytes) -> bytes:
        """Return what `seal_bytes` sealed.

        Raises: LockedCopyInvalid if it was not sealed for this site, or is damaged.
        """
        try:
            content: bytes = pyrage.decrypt(sealed, [self._identity])
        except pyrage.DecryptError as error:
            raise LockedCopyInvalid("not sealed by this site, or damaged") from error
        return content

    def _digest(self, domain: str, content: bytes) -> bytes:
        return hmac.digest(self._naming, domain.encode() + b"\0" + content, hashlib.sha256)


def make_keys(root: Path) -> None:
    """Give the site the keys of its archive, mode 0600, if it has none."""
    folder = root / FOLDER
    if not (folder / _NAMING).exists():
        keys.make_file(folder / _NAMING, os.urandom(keys.KEY_BYTES))
    if not (folder / _SIGNING).exists():
        keys.write_signing_key(folder / _SIGNING, generate_signing_key())
    if not (folder / _SEALING).exists():
        keys.make_file(folder / _SEALING, f"{pyrage.x25519.Identity.generate()}\n".encode())


def read_signing_key(root: Path) -> Ed25519PrivateKey:
    """Return the key that signs what the archive claims of itself.

    Raises: ConfigurationError if it is missing or none.
    """
    path = root / FOLDER / _SIGNING
    if not path.exists():
        raise ConfigurationError(f"{path} is missing: run `filmroom-site locked probe`")
    return keys.read_signing_key(path)


def open_seal(root: Path) -> Seal:
    """Return the site's seal.

    Raises: ConfigurationError if a key is missing or none.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder} is missing: restore it from a backup; if nothing was locked yet, `locked probe` makes it"
        )
    text = keys.read_secret(folder / _SEALING).decode("ascii", "replace").strip()
    try:
        identity = pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError:
        raise ConfigurationError(f"{folder / _SEALING}: not an age identity") from None
    return Seal(identity, keys.load(f"file:{FOLDER}/{_NAMING}", root, "locked"))


def read_members(tar: BinaryIO, keep: Callable[[str, BinaryIO], None]) -> list[Member]:
    """Give each file of a tar to `keep`, and return what they are.

    Raises: LockedCopyInvalid if the tar is none, or holds anything but files below its own root.
    """
    members = []
    try:
        with tarfile.open(fileobj=tar, mode="r:") as archive:
            for info in archive:
                content = archive.extractfile(info)
                if content is None or not info.isreg() or not _is_below(info.name):
                    raise LockedCopyInvalid("holds something that is no file of a folder")
                hashing = _Hashing(content)
                keep(info.name, hashing)  # type: ignore[arg-type]  # read is all that is asked of it
                members.append(Member(info.name, info.size, hashing.sha256.hexdigest()))
    except tarfile.TarError as error:
        raise LockedCopyInvalid("not a tar") from error
    return members


def _is_below(path: str) -> bool:
    return not path.startswith("/") and all(part not in {"", ".", ".."} for part in path.split("/"))


def _tar(root: Path, members: Sequence[Member]) -> Iterator[bytes]:
    """Yield a tar in which only names, sizes and contents stand, so that the same files make the same bytes."""
    size = 0
    for member in members:
        info = tarfile.TarInfo(member.path)
        info.size, info.mode = member.size, 0o600
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        yield header
        digest = hashlib.sha256()
        left = member.size
        with (root / member.path).open("rb") as file:
            while left and (chunk := file.read(min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
                yield chunk
            if left or file.read(1) or digest.hexdigest() != member.sha256:
                raise LockedCopyInvalid("a file changed while it was read")
        padding = -member.size % tarfile.BLOCKSIZE
        yield bytes(padding)
        size += len(header) + member.size + padding
    # Two empty blocks end a tar, and it fills whole records.
    yield bytes(2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)


class _Reader(io.RawIOBase):
    """Chunks as what pyrage reads; keeps the error that stopped them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")
        self.failed: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, none at the end."""
        try:
            while not self._rest:
                self._rest = memoryview(next(self._chunks))
        except StopIteration:
            return b""
        except BaseException as error:
            self.failed = error
            raise
        size = len(self._rest) if size < 0 else size
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


class _Writer(io.RawIOBase):
    """A file as what pyrage writes; keeps the error that stopped it."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self.failed: BaseException | None = None

    def write(self, content: bytes) -> int:  # type: ignore[override]  # pyrage writes bytes alone
        """Write all of `content`."""
        try:
            self._target.write(content)
        except BaseException as error:
            self.failed = error
            raise
        return len(content)


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, content: object) -> None:
        self._content = content
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        chunk: bytes = self._content.read(size)  # type: ignore[attr-defined]
        self.sha256.update(chunk)
        return chunk
