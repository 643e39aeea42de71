"""Filmroom's own engine in one process, run as the peers are: headers, pixels and documents.

A file that a person would have to see first is treated as if that person had accepted it, so that all tools are
compared on the same files; the benchmark says how many those are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.runner import run
from site_node.deidentify.instance import Cleaner, Decision, Held
from site_node.deidentify.profile import Options
from site_node.deidentify.pseudonym import Pseudonymiser

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))
CLEANER = Cleaner(Options(), Pseudonymiser(KEY))
_MOST_REASONS = 8


def treat(source: Path, target: Path) -> None:
    """Write the file as it may stay once every reason to hold it is cleared."""
    content, accept = memoryview(source.read_bytes()), frozenset[str]()
    for _ in range(_MOST_REASONS):
        result = CLEANER.clean(content, Decision(accept=accept))
        if not isinstance(result, Held):
            with target.open("wb") as out:
                out.writelines(result.chunks)
            return
        accept |= {result.reason}


if __name__ == "__main__":
    run(treat)
