"""Makes and opens a site's folder.

The one place, with the command line and the service, that reads a clock.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from site_node.config import CONFIG_NAME, SiteConfig, SiteHome
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.errors import ConfigurationError
from site_node.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa


def now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Site:
    """An opened site folder: configuration, database and the keeper of pseudonyms."""

    home: SiteHome
    config: SiteConfig
    store: sa.Engine
    pseudonymiser: Pseudonymiser


def create_site(root: Path, name: str) -> None:
    """Make a site folder: configuration, pseudonym key, database.

    Raises: ConfigurationError if there is a site already.
    """
    config = SiteConfig(name)
    if (root / CONFIG_NAME).exists():
        raise ConfigurationError(f"{root} already holds a site")
    home = SiteHome(root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.identity.mkdir(mode=0o700, exist_ok=True)
    if not home.pseudonym_key.exists():
        descriptor = os.open(home.pseudonym_key, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32))
    open_store(home.database).dispose()
    (root / CONFIG_NAME).write_text(f'name = "{config.name}"\n')


def open_site(root: Path) -> Site:
    """Open a site folder.

    Raises: ConfigurationError if it holds no usable site.
    """
    home = SiteHome(root)
    config = home.load_config()
    for folder in (home.outbox, home.work):
        folder.mkdir(mode=0o700, exist_ok=True)
    pseudonymiser = Pseudonymiser(home.pseudonym_key.read_bytes())
    return Site(home, config, open_store(home.database), pseudonymiser)
