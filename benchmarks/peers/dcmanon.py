"""dcmanon, at its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcmanon import Anonymizer  # type: ignore[import-not-found,import-untyped,unused-ignore]  # lives in .venv-peers

from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path

ANONYMIZER = Anonymizer()


def treat(source: Path, target: Path) -> None:
    """Write the file as dcmanon leaves it."""
    target.write_bytes(ANONYMIZER.anonymize(str(source)))


if __name__ == "__main__":
    run(treat)
