"""The site's folder and its one TOML file, read once.

Does not create keys (enrolment does) and reads no environment variable.
"""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_NAME = "site.toml"


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """What the hospital decides; each field is described in docs/operating.md."""

    name: str
    minimum_studies: int = 20
    training_threads: int = 1
    abort_after_s: float = 2.0
    clock_skew_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse values no site may run with."""
        if not self.name.isidentifier():
            raise ConfigurationError(f"name: {self.name!r} must be letters, digits and _")
        for key in ("minimum_studies", "training_threads", "abort_after_s", "clock_skew_s"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{key}: must be finite and greater than 0")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this site is in its federation, and where its keys lie."""

    federation: str
    site: str
    fleet_address: str
    node_id: int
    authority: Path
    tls_certificate: Path
    tls_key: Path
    node_key: Path
    receipt_key: Path


@dataclass(frozen=True, slots=True)
class SiteHome:
    """The site's folder; every path the node writes lies below it."""

    root: Path

    @property
    def database(self) -> Path:
        """The site's SQLite file."""
        return self.root / "site.db"

    @property
    def identity(self) -> Path:
        """Folder of the keys and certificates, mode 0700."""
        return self.root / "identity"

    @property
    def pseudonym_key(self) -> Path:
        """The key behind every pseudonym; 32 random bytes, mode 0600."""
        return self.root / "identity" / "pseudonym.key"

    @property
    def work(self) -> Path:
        """Scratch of the round in progress; emptied when the round ends."""
        return self.root / "work"

    @property
    def outbox(self) -> Path:
        """Arrays of releases that were committed and not yet handed over."""
        return self.root / "outbox"

    def load_config(self) -> SiteConfig:
        """Read site.toml.

        Raises: ConfigurationError naming the key that is unknown, missing or of the wrong type.
        """
        return _parse(SiteConfig, _read_toml(self.root / CONFIG_NAME))

    def load_identity(self) -> Identity:
        """Return this site's membership.

        Raises: ConfigurationError if the site has not joined a federation yet, or the file is damaged.
        """
        path = self.identity / "membership.json"
        if not path.exists():
            raise ConfigurationError("this site has not joined a federation: run `filmroom-site join INVITATION`")
        try:
            return Identity(
                **json.loads(path.read_bytes()),
                authority=self.identity / "authority.pem",
                tls_certificate=self.identity / "tls.pem",
                tls_key=self.identity / "tls.key",
                node_key=self.identity / "node.key",
                receipt_key=self.identity / "receipt.key",
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{path} is damaged: restore it from a backup") from error


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} is missing: run `filmroom-site init` or name the folder with --home"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error


def _parse(kind: type[SiteConfig], document: dict[str, object]) -> SiteConfig:
    known = {field.name: field for field in fields(kind)}
    for key, value in document.items():
        if key not in known:
            raise ConfigurationError(f"{CONFIG_NAME}: unknown key {key!r}; known are {', '.join(known)}")
        _check_type(key, value, str(known[key].type))
    if "name" not in document:
        raise ConfigurationError(f"{CONFIG_NAME}: key 'name' is missing")
    return kind(**document)  # type: ignore[arg-type] # types were just checked


def _check_type(key: str, value: object, expected: str) -> None:
    accepted = {"str": (str,), "int": (int,), "float": (int, float)}[expected]
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ConfigurationError(f"{CONFIG_NAME}: {key}: expected {expected}")
