"""One small inbox, made once for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.hospitals import make_inbox

if TYPE_CHECKING:
    from pathlib import Path

    from demo.hospitals import Inbox


@pytest.fixture(scope="session")
def inbox_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give where the inbox lies."""
    return tmp_path_factory.mktemp("inbox") / "east"


@pytest.fixture(scope="session")
def inbox(inbox_folder: Path) -> Inbox:
    """Fill the inbox of the east hospital, the one that writes Latin-1."""
    return make_inbox("east", inbox_folder, patients=3, seed=7)
