"""A snapshot of a folder that files have left: what was staged is kept, what was not is recalled, and no alarm."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from site_node import away
from site_node.archive.anomaly import Watch
from site_node.archive.index import open_index
from site_node.archive.staging import MARKED, Staged, Staging
from site_node.errors import ConfigurationError
from tests.site_node.archive.tiers.test_tiers_model import TiersModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from site_node.archive.anomaly import Finding
    from site_node.archive.staging import Elsewhere


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
    done, heard = staged(model.folder, model.recalling(), folder)
    assert not done.problems
    return (done.files, done.read), heard


def staged(originals: Path, elsewhere: Elsewhere | None, folder: Path, most: int = 1) -> tuple[Staged, list[Finding]]:
    """Stage a snapshot and take it for good; return what was done, and what alarmed: `most` files that are gone."""
    heard: list[Finding] = []

    def tell(findings: Sequence[Finding]) -> None:
        heard.extend(findings)

    index = open_index(folder / "index.db")
    staging = Staging(folder / "staging", index, elsewhere)
    done = staging.update({"originals": originals}, Watch(most, tell))
    staging.accept("made")
    index.dispose()
    return done, heard


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

    done, heard = staged(model.folder, model.recalling(), tmp_path)

    assert heard
    assert [why for _, why in done.problems] == [MARKED]


@pytest.mark.parametrize("was_staged", [True, False])
def test_no_snapshot_counts_while_files_are_away_that_no_tiers_know(
    model: TiersModel, tmp_path: Path, *, was_staged: bool
) -> None:
    if was_staged:
        stage(model, tmp_path)
    model.tiering().run()

    done, _ = staged(model.folder, None, tmp_path, most=100)

    assert [why for _, why in done.problems] == [MARKED] * 6
    assert done.files == (6 if was_staged else 0)  # what is staged of them stays
    assert stage(model, tmp_path) == ((6, 0 if was_staged else 6), [])  # with [tiers] again all is as before


class Moving:
    """A site's way back from its copies, while files come back between any two looks at the folder."""

    def __init__(self, model: TiersModel) -> None:
        self._recalling, self._names = model.recalling(), model.tiering().recallable()

    def proven(self) -> set[Path]:
        """Bring an object back, and return what is away then."""
        if self._names:
            self._recalling.object(self._names.pop())
        return self._recalling.proven()

    def recall(self, path: Path) -> None:
        """Bring a file back."""
        self._recalling.recall(path)


@pytest.mark.slow
def test_a_file_that_comes_back_while_a_snapshot_looks_is_not_gone(model: TiersModel, tmp_path: Path) -> None:
    stage(model, tmp_path)
    model.tiering().run()

    done, heard = staged(model.folder, Moving(model), tmp_path)

    assert (done.files, done.gone, heard) == (6, 0, [])


def test_a_folder_that_is_not_mounted_is_not_called_well(model: TiersModel) -> None:
    model.tiering().run()
    hidden = model.folder.with_name("hidden")
    model.folder.rename(hidden)
    tiering = model.tiering()

    for work in (tiering.run, tiering.plan, tiering.recallable):
        with pytest.raises(ConfigurationError, match="is it mounted"):
            work()
    model.folder.mkdir()
    with pytest.raises(ConfigurationError, match="holds nothing of 2 objects that are on record; is it mounted"):
        tiering.run()

    model.folder.rmdir()
    hidden.rename(model.folder)
    assert model.tiering().run().away == 2
