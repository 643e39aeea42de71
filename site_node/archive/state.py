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
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from site_node.archive.layout import write
from site_node.config import CONFIG_NAME
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from site_node.archive.staging import Staging
    from site_node.config import SiteHome

RECOVERY_KEY_BYTES = 64
STATE = "state"
_SEGMENT = 1 << 16
_KEYS, _SUMS = "identity.wrapped", "state.json"
_PURPOSE = b"filmroom-archive-identity/1"


def stage(home: SiteHome, staging: Staging, recovery_key: bytes) -> None:
    """Put the site's state as it is now into the staging folder."""
    copy = staging.folder.parent / "site.db.part"
    copy.unlink(missing_ok=True)
    try:
        with sqlite3.connect(home.database) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        source.close()
        target.close()
        files = dict(_segments(copy))
        digest = hashlib.sha256(b"".join(files.values())).hexdigest()
    finally:
        copy.unlink(missing_ok=True)
    files[CONFIG_NAME] = (home.root / CONFIG_NAME).read_bytes()
    files[_KEYS] = AESSIV(recovery_key).encrypt(_tar(home.identity), [_PURPOSE])
    files[_SUMS] = json.dumps({"site.db": digest}).encode()
    for name, content in files.items():
        staging.put_state(name, content)
    staging.trim_state(files)


def restore(folder: Path, target: Path, recovery_key: bytes | None) -> None:
    """Write the state of a restored staging folder to `target`: database, configuration and, with the key, the keys.

    Raises: ArchiveError if something is missing or not as it was archived.
    """
    source = folder / STATE
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        wanted = json.loads((source / _SUMS).read_bytes())["site.db"]
        segments = [path.read_bytes() for path in sorted((source / "site.db").iterdir())]
        write(target / CONFIG_NAME, ((source / CONFIG_NAME).read_bytes(),))
        wrapped = (source / _KEYS).read_bytes()
    except (OSError, KeyError, ValueError) as error:
        raise ArchiveError("the site's state is missing or damaged in this snapshot") from error
    content = b"".join(segments)
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ArchiveError("the site's database is not as it was archived")
    write(target / "site.db", (content,))
    if recovery_key is not None:
        _untar(wrapped, target / "identity", recovery_key)


def _segments(path: Path) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        number = 0
        while segment := file.read(_SEGMENT):
            yield f"site.db/{number:08d}", segment
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
