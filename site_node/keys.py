"""Secret keys by reference: `file:` and `pkcs11:`, and no other scheme.

A key of a network KMS is reached through its vendor's PKCS#11 library, as one of an HSM is, so no network library
enters the node; a URI of a KMS's own scheme is refused. A key on a token never leaves it: the token answers one HMAC,
and the 32 bytes that come back are the key used here, in memory alone. Which key is for what is the caller's `use`.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from site_node import cryptoki
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY_BYTES = 32
SITE_PSEUDONYMS, IDENTITIES = "site-pseudonyms", "identities"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OVERWRITES = 2  # random, then zeros; what a file system or a disk keeps of old blocks is out of reach


class Keeper(Protocol):
    """Where keys of one URI scheme lie; `address` is the reference without its scheme, `root` the site's folder."""

    def load(self, address: str, root: Path, use: str) -> bytes:
        """Return the key for `use`."""

    def destroy(self, address: str, root: Path) -> None:
        """Destroy the key; nothing happens if it is gone."""


def load(reference: str, root: Path, use: str) -> bytes:
    """Return the 32 bytes of the key that `reference` names; relative files lie below `root`.

    Raises: ConfigurationError if the scheme is not served, or the key is missing or not kept as a secret.
    """
    keeper, address = _keeper(reference)
    return keeper.load(address, root, use)


def destroy(reference: str, root: Path) -> None:
    """Destroy the key that `reference` names; nothing happens if it is gone already.

    Raises: ConfigurationError if the scheme is not served, or the key cannot be destroyed from here.
    """
    keeper, address = _keeper(reference)
    keeper.destroy(address, root)


def is_file(reference: str) -> bool:
    """Return whether the key lies in a file."""
    return reference.startswith("file:")


def make_file(path: Path, key: bytes) -> None:
    """Write a new key, mode 0600, so that it survives a power cut.

    Raises: ConfigurationError if there is a file already.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} is there already") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(path.parent)


def write_signing_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a new signing key, mode 0600, so that it is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    make_file(part, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    move_into_place(part, path)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a file of a folder, so that the new name survives a power cut."""
    source.replace(target)
    flush_folder(target.parent)


def read_secret(path: Path) -> bytes:
    """Return the content of a secret file.

    Raises: ConfigurationError if it is missing, not a regular file of this user, or open to others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is missing: restore it from a backup") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{path} is not a regular file")
        if status.st_mode & _OTHERS:
            raise ConfigurationError(f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600")
        if status.st_uid != os.geteuid():
            raise ConfigurationError(f"{path} belongs to another user than the one who runs this")
        return file.read()


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return a key that signs statements of this site.

    Raises: ConfigurationError if it is no Ed25519 key.
    """
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: not an Ed25519 key")
    return key


class _Files:
    """Keys in files of mode 0600."""

    def load(self, address: str, root: Path, use: str) -> bytes:  # noqa: ARG002 -- a file holds the key of one use
        path = root / address
        key = read_secret(path)
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"{path}: a key has {KEY_BYTES} bytes")
        return key

    def destroy(self, address: str, root: Path) -> None:
        path = root / address
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            length = os.fstat(file.fileno()).st_size
            for turn in range(_OVERWRITES):
                file.seek(0)
                file.write(bytes(length) if turn else os.urandom(length))
                os.fsync(file.fileno())
        path.unlink()
        flush_folder(path.parent)


class _Tokens:
    """Keys on PKCS#11 tokens."""

    def load(self, address: str, root: Path, use: str) -> bytes:
        where = cryptoki.parse(address)
        return cryptoki.derive(where, _pin(where, root), use)

    def destroy(self, address: str, root: Path) -> None:
        where = cryptoki.parse(address)
        cryptoki.destroy(where, _pin(where, root))


SCHEMES: Mapping[str, Keeper] = {"file": _Files(), "pkcs11": _Tokens()}


def _keeper(reference: str) -> tuple[Keeper, str]:
    scheme, colon, address = reference.partition(":")
    if not colon or not address or scheme not in SCHEMES:
        # What stands before the colon might be the key itself: it is not repeated.
        raise ConfigurationError(f"a key is named by a reference: {', '.join(f'{known}:' for known in SCHEMES)} alone")
    return SCHEMES[scheme], address


def _pin(where: cryptoki.Address, root: Path) -> str:
    return read_secret(root / where.pin_file).decode("utf-8", "replace").strip("\r\n")


def flush_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
