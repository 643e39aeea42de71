"""No tool at all: pydicom reads a file, walks every element and writes it again, the floor of all that use it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pydicom

from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset


def treat(source: Path, target: Path) -> None:
    """Write a copy."""
    ds = pydicom.dcmread(source)
    ds.walk(_look)
    ds.save_as(target)


def _look(_: Dataset, element: DataElement) -> None:
    """Do with an element the least that de-identification does: look at its tag."""
    assert element.tag >= 0  # noqa: S101 -- the least that can be done


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(treat)
