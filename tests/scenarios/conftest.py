"""A consortium's folder, and the certainty that no process outlives its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.consortium import Consortium
from tests.scenarios.setting import SITES, Setting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    """Yield a consortium in which nothing runs yet."""
    with Consortium(tmp_path, "demo", SITES) as consortium:
        yield Setting(consortium)
