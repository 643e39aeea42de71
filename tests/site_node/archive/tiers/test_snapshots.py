"""A snapshot of a folder that files have left: what was staged is kept, what was not is recalled, and no alarm."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from site_node import away
from site_node.archive.anomaly import Watch
from site_node.archive.index import open_index
from site_node.archive.staging import Staging
from tests.site_node.archive.tiers.test_tiers_model import TiersModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from site_node.archive.anomaly import Finding


@pytest.fixture
def model() -> Iterator[TiersModel]:
    """Yield a site with six files of old studies, in memory but for its folder."""
    made = TiersModel()
    made.configure("active-archive", 6, required=True)
    yield made
    made.store.dispose()
    shutil.rmtree(made.base)


def stage(model: TiersModel, folder: Path) -> tuple[tuple[int, int], list[Finding]]:
    """Stage a snapshot; return how many files it has and were read, and what alarmed."""
    heard: list[Finding] = []

    def tell(findings: Sequence[Finding]) -> None:
        heard.extend(findings)

    index = open_index(folder / "index.db")
    staging = Staging(folder / "staging", index, model.recalling())
    done = staging.update({"originals": model.folder}, Watch(1, tell))
    staging.accept("made")
    index.dispose()
    assert not done.problems
    return (done.files, done.read), heard


def test_what_left_after_it_was_staged_is_kept_and_alarms_nobody(model: TiersModel, tmp_path: Path) -> None:
    assert stage(model, tmp_path) == ((6, 6), [])
    model.tiering().run()
    assert list(away.marked(model.folder))

    assert stage(model, tmp_path) == ((6, 0), [])
    assert not any(model.folder.rglob("*.dcm"))


def test_what_left_before_it_was_ever_staged_is_recalled(model: TiersModel, tmp_path: Path) -> None:
    model.tiering().run()

    assert stage(model, tmp_path) == ((6, 6), [])
    assert len(list(model.folder.rglob("*.dcm"))) == 6


def test_a_file_that_went_with_a_forged_mark_is_an_alarm(model: TiersModel, tmp_path: Path) -> None:
    stage(model, tmp_path)
    path = model.folder / "0/0.dcm"
    away.put([(path, away.Mark("f" * 64, path.stat().st_size, "0" * 64))])
    path.unlink()

    _, heard = stage(model, tmp_path)

    assert heard
