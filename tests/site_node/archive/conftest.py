"""One hardened lock server for all tests of the archive, and what a site needs to use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.site_node.archive import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.site_node.archive.servers import Ours


@pytest.fixture(scope="session")
def lock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    """Yield a running lock server; tests take buckets of their own."""
    started = servers.ours(tmp_path_factory.mktemp("locks") / "server")
    yield started
    started.process.stop()
