"""A coordinator's folder: configuration, authority, database; and its fleet, listening."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from coordinator.authority import create_authority
from coordinator.config import CoordinatorConfig
from coordinator.store import open_store
from tests.coordinator.parts import new_consortium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from coordinator.authority import Authority
    from coordinator.fleet import Fleet
    from tests.coordinator.parts import Consortium

NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Office:
    """What the modules that admit members and partners need."""

    config: CoordinatorConfig
    store: sa.Engine
    authority: Authority


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Yield a new coordinator's parts."""
    config = CoordinatorConfig("north-sea")
    store = open_store(tmp_path / "coordinator.db")
    yield Office(config, store, create_authority(tmp_path / "keys", config.federation, config.host, datetime.now(UTC)))
    store.dispose()


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    """Return a coordinator whose fleet does not listen yet."""
    return new_consortium(tmp_path)


@pytest.fixture
def fleet(consortium: Consortium) -> Iterator[Fleet]:
    """Yield its fleet, listening."""
    with consortium.running() as running:
        yield running
