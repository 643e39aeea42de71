"""dicom-anonymizer, with the edition of the standard that it takes by default."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from dicomanonymizer import anonymize_dicom_file  # type: ignore[import-not-found,import-untyped,unused-ignore]  # lives in .venv-peers

from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path


def treat(source: Path, target: Path) -> None:
    """Write the file as dicom-anonymizer leaves it."""
    anonymize_dicom_file(str(source), str(target))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    run(treat)
