"""Makes and opens a coordinator's folder.

The one place, with the command line and the service, that reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coordinator.authority import Authority, create_authority
from coordinator.config import CONFIG_NAME, CoordinatorConfig, CoordinatorHome
from coordinator.errors import ConfigurationError
from coordinator.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    import sqlalchemy as sa


def now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """An opened coordinator folder."""

    home: CoordinatorHome
    config: CoordinatorConfig
    store: sa.Engine
    authority: Authority


def create_coordinator(root: Path, config: CoordinatorConfig) -> None:
    """Make a coordinator folder: configuration, certificate authority, database.

    Raises: ConfigurationError if there is a coordinator already.
    """
    home = CoordinatorHome(root)
    if (root / CONFIG_NAME).exists():
        raise ConfigurationError(f"{root} already holds a coordinator")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_authority(home.keys, config.federation, config.host, now())
    open_store(home.database).dispose()
    (root / CONFIG_NAME).write_text(config.as_toml())


def open_coordinator(root: Path) -> Coordinator:
    """Open a coordinator folder.

    Raises: ConfigurationError if it holds no usable coordinator.
    """
    home = CoordinatorHome(root)
    config = home.load_config()
    return Coordinator(home, config, open_store(home.database), Authority(home.keys))
