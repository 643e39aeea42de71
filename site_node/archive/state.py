"""The site's own state in a snapshot: the database, the configuration, and the keys, wrapped.

The database is copied by SQLite's online backup, in segments, so that a change of few pages costs few segments. The
keys are wrapped under a recovery key of their own: whoever has the repository's password alone reads images, and cannot
sign as the site. The wrapping is deterministic (AES-SIV, RFC 5297), so the same keys are the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from site_node.archive.layout import write
from site_node.archive.lists import STATE
from site_node.config import CONFIG_NAME
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from site_node.archive.staging import Staging
    from site_node.config import SiteHome

RECOVERY_KEY_BYTES = 64
_SEGMENT = 1 << 16
_DATABASE, _KEYS, _SUMS = "site.db", "identity.wrapped", "state.json"
_PURPOSE = b"filmroom-archive-identity/1"


def stage(home: SiteHome, staging: Staging, recovery_key: bytes) -> None:
    """Put the site's state as it is now into the staging folder."""
    copy = staging.folder.parent / "site.db.part"
    copy.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(home.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        staging.put_state(_files(home, copy, recovery_key))
    finally:
        copy.unlink(missing_ok=True)


def restore(folder: Path, target: Path, recovery_key: bytes | None) -> None:
    """Write the state of a restored staging folder to `target`: database, configuration and, with the key, the keys.

    Raises: ArchiveError if something is missing or not as it was archived.
    """
    source = folder / STATE
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for journal in ("-wal", "-shm"):  # of a restore that was killed: it would be played on the database that comes
        target.joinpath(_DATABASE + journal).unlink(missing_ok=True)
    try:
        wanted = json.loads((source / _SUMS).read_bytes())[_DATABASE]
        write(target / CONFIG_NAME, ((source / CONFIG_NAME).read_bytes(),))
        write(target / _DATABASE, (path.read_bytes() for path in sorted((source / _DATABASE).iterdir())))
        wrapped = (source / _KEYS).read_bytes()
    except (OSError, KeyError, ValueError) as error:
        raise ArchiveError("the site's state is missing or damaged in this snapshot") from error
    with (target / _DATABASE).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
            raise ArchiveError("the site's database is not as it was archived")
    if recovery_key is not None:
        _untar(wrapped, target / "identity", recovery_key)


def _files(home: SiteHome, database: Path, recovery_key: bytes) -> Iterator[tuple[str, bytes]]:
    digest = hashlib.sha256()
    for name, segment in _segments(database):
        digest.update(segment)
        yield name, segment
    yield CONFIG_NAME, (home.root / CONFIG_NAME).read_bytes()
    yield _KEYS, AESSIV(recovery_key).encrypt(_tar(home.identity), [_PURPOSE])
    yield _SUMS, json.dumps({_DATABASE: digest.hexdigest()}).encode()


def _segments(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        number = 0
        while segment := file.read(_SEGMENT):
            yield f"{_DATABASE}/{number:08d}", segment
            number += 1


def _tar(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(str(path.relative_to(folder)))
            content = path.read_bytes()
            member.size, member.mode = len(content), 0o600
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _untar(wrapped: bytes, target: Path, recovery_key: bytes) -> None:
    try:
        packed = AESSIV(recovery_key).decrypt(wrapped, [_PURPOSE])
    except (InvalidTag, ValueError):
        raise ArchiveError("the recovery key is another than the one the keys were wrapped with") from None
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(target, filter="data")
