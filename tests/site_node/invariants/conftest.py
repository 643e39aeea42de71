"""A hospital to which anything may happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.site_node.invariants.ward import Ward

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """Yield a hospital of five patients who all permit, with everything approved."""
    made = Ward(tmp_path)
    yield made
    made.close()
