"""Filmroom's finding and judging of burned-in text alone: nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.runner import run
from site_node.deidentify import stream
from site_node.deidentify.burned_in import Reader
from site_node.deidentify.identities import Identities
from site_node.deidentify.instance import pixels_of
from site_node.deidentify.pixels import assess

if TYPE_CHECKING:
    from pathlib import Path

READER = Reader()
NOBODY = Identities.of()


def treat(source: Path, _: Path) -> None:
    """Look at every frame and judge what is found."""
    shown, ds = pixels_of(stream.read(source.read_bytes()))
    assess(ds, shown, NOBODY, READER)


if __name__ == "__main__":
    run(treat)
