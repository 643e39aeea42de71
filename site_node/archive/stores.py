"""Where the repository of snapshots lies, as restic is told: a folder, an address it knows, or a locked copy.

A locked copy can also be looked at as it was at a moment: rclone gives restic every object's newest version of then,
and lets nothing be written. Whatever an attacker hid or wrote over since is there again, with no change to the bucket.
"""

from __future__ import annotations

import shlex
from datetime import UTC
from typing import TYPE_CHECKING

from site_node.archive import programs
from site_node.archive.locked.rolling import PREFIX
from site_node.archive.repository import SETTING, Store
from site_node.config import LOCKED
from site_node.errors import ConfigurationError
from site_node.keys import read_secret

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from site_node.archive.locked.places import Places
    from site_node.config import ArchiveSettings, LockedCopy

_REMOTE = "VIEW"  # what rclone calls the endpoint, and reads its settings by
_NO_FILE = "/dev/null"


def store_of(root: Path, settings: ArchiveSettings, places: Places, as_of: datetime | None = None) -> Store:
    """Return where the repository lies; with `as_of`, as it was then, to be read only.

    Raises: ConfigurationError if a file that is named cannot be used, or what is asked cannot be had there.
    """
    address = settings.repository
    given = read_settings(root / settings.settings_file) if settings.settings_file else {}
    if address.startswith(LOCKED):
        (copy,) = places.chosen(address.removeprefix(LOCKED))
        return _locked(places, copy) if as_of is None else _view(places, copy, as_of)
    if as_of is not None:
        raise ConfigurationError("archive.repository: only a locked copy can be looked at as it was at a moment")
    return Store(address if ":" in address else str((root / address).resolve()), given)


def read_settings(path: Path) -> dict[str, str]:
    """Return what a store asks for, from a file (mode 0600) of lines NAME=value.

    Raises: ConfigurationError naming the line, never its value.
    """
    settings = {}
    for number, line in enumerate(read_secret(path).decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not SETTING.fullmatch(name):
            raise ConfigurationError(f"{path}: line {number} is not a setting that restic may have")
        settings[name] = value
    return settings


def _locked(places: Places, copy: LockedCopy) -> Store:
    known, authority = places.credentials(copy), places.authority(copy)
    return Store(
        f"s3:{copy.endpoint}/{copy.bucket}/{PREFIX.rstrip('/')}",
        {
            "AWS_ACCESS_KEY_ID": known.access_key,
            "AWS_SECRET_ACCESS_KEY": known.secret_key,
            "AWS_DEFAULT_REGION": copy.region,
        },
        ("--cacert", str(authority)) if authority else (),
    )


def _view(places: Places, copy: LockedCopy, as_of: datetime) -> Store:
    known, authority = places.credentials(copy), places.authority(copy)
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": copy.endpoint,
        "REGION": copy.region,
        "ACCESS_KEY_ID": known.access_key,
        "SECRET_ACCESS_KEY": known.secret_key,
    }
    rclone = programs.find("rclone", "pip install 'filmroom[archive]'")
    return Store(
        f"rclone:{_REMOTE.lower()}:{copy.bucket}/{PREFIX.rstrip('/')}",
        {f"RCLONE_CONFIG_{_REMOTE}_{name}": value for name, value in remote.items()}
        | {"RCLONE_CONFIG": _NO_FILE, "RCLONE_S3_VERSION_AT": as_of.astimezone(UTC).isoformat()}
        | ({"RCLONE_CA_CERT": str(authority)} if authority else {}),
        ("--no-lock", "--no-cache", "-o", f"rclone.program={shlex.quote(rclone)}"),
    )
