"""dicognito: one anonymizer for all files, as its documentation asks for files that belong together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pydicom
from dicognito.anonymizer import Anonymizer  # type: ignore[import-not-found,import-untyped,unused-ignore]  # lives in .venv-peers

from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path

ANONYMIZER = Anonymizer()


def treat(source: Path, target: Path) -> None:
    """Write the file as dicognito leaves it."""
    ds = pydicom.dcmread(source, force=True)
    ANONYMIZER.anonymize(ds)
    ds.save_as(target)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(treat)
