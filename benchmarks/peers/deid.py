"""deid, with its default recipe."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from deid.config import DeidRecipe  # type: ignore[import-not-found,import-untyped,unused-ignore]  # lives in .venv-peers
from deid.dicom import replace_identifiers  # type: ignore[import-not-found,import-untyped,unused-ignore]  # as above
from deid.logger import bot  # type: ignore[import-not-found,import-untyped,unused-ignore]  # as above

from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = DeidRecipe()


def treat(source: Path, target: Path) -> None:
    """Write the file as deid leaves it."""
    replace_identifiers([str(source)], deid=RECIPE, save=True, overwrite=True, output_folder=str(target.parent))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    bot.level = 0
    run(treat)
