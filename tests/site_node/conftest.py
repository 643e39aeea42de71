"""A site's folder and database, empty and in a temporary place."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from site_node.app import create_site
from site_node.config import SiteHome
from site_node.keys import make_file
from site_node.store import open_store
from tests.site_node.hospital import Hospital

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the site's folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def store(root: Path) -> Iterator[sa.Engine]:
    """Yield the site's database."""
    engine = open_store(root / "site.db")
    yield engine
    engine.dispose()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Return an empty folder that files arrive in."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def open_hospital(root: Path) -> Iterator[Hospital]:
    """Yield a hospital of today, in a folder that the commands open: four patients, a task, a federation."""
    home = SiteHome(root)
    make_file(home.pseudonym_key, bytes(range(32)))
    create_site(root, "north")
    member = {"federation": "demo", "site": "north", "fleet_address": "127.0.0.1:1", "node_id": 1}
    (home.identity / "membership.json").write_text(json.dumps(member))
    store = open_store(home.database)
    yield Hospital(home, store, noon=datetime.now(UTC))
    store.dispose()


@pytest.fixture
def hospital(root: Path, store: sa.Engine) -> Hospital:
    """Return a hospital of four patients who all permit, with everything approved."""
    return Hospital(SiteHome(root), store)
