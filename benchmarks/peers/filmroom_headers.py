"""Filmroom's headers alone, in one process: what is kept, cleaned or dropped; pixels pass untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.filmroom import KEY
from benchmarks.peers.runner import run
from site_node.deidentify import stream
from site_node.deidentify.headers import deidentify
from site_node.deidentify.profile import Options, Profile
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.intake.judging import source as opened

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = Profile.of(Options())
PSEUDONYMISER = Pseudonymiser(KEY)


def treat(source: Path, target: Path) -> None:
    """Write the file with clean headers."""
    with opened(source) as content, target.open("wb") as out:
        cleaned = deidentify(stream.read(content), PROFILE, PSEUDONYMISER)
        out.writelines(stream.write(cleaned.part10))


if __name__ == "__main__":
    run(treat)
