"""What every tool's script tells of itself."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.command import peer
from benchmarks.figures import Figure, markdown
from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_a_tool_cannot_treat_is_counted_and_the_next_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    monkeypatch.setattr(sys, "argv", ["peer", str(source), str(target)])

    def treat(path: Path, to: Path) -> None:
        if path.name == "b":
            raise ValueError
        to.write_text(path.read_text())

    run(treat)

    account = json.loads(capsys.readouterr().out)
    assert account["failed"] == {"b": "ValueError"}
    assert account["files"] == 3
    assert sorted(path.name for path in target.iterdir()) == ["a", "c"]


def test_files_that_warm_a_tool_up_leave_nothing_and_are_not_counted(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "not-dicom").write_text("x")

    account = peer("walk", source, tmp_path / "out", warm=1, repeat=3)

    assert account.files == 3
    assert account.size == 3
    assert account.failed == {"not-dicom": "InvalidDicomError"}


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure(2.0, 1.0, "s"), False),
        (Figure(1.0, 1.0, "s"), True),
        (Figure(2.0, 1.0, "files/s", "min"), True),
        (Figure(0.5, 1.0, "files/s", "min"), False),
        (Figure(0.5, None, "s"), None),
    ],
)
def test_a_figure_meets_its_bar_from_the_side_that_its_sense_says(figure: Figure, *, met: bool | None) -> None:
    assert figure.met is met


def test_stored_figures_become_tables_for_the_documents() -> None:
    document = {
        "figures": {"headers": {"value": 1234.5, "bar": 150.0, "unit": "files/s", "sense": "min"}},
        "peers": {"ours": {"speed": 2.0, "left": 0.0}, "theirs": {"speed": 1.0}},
    }

    lines = markdown(document).splitlines()

    assert "| headers | 1,234.50 | files/s | ≥ 150 | ✓ |" in lines
    assert lines[-2:] == ["| ours | 2.0 | 0.0 |", "| theirs | 1.0 |  |"]
