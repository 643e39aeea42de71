"""The words of `words.txt`, by section."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from site_node.stray.finding import Kind

# A label is tried as each of these in turn: a physician's name is no patient's, a phone number no number of a patient.
ORDER = (Kind.PLACE, Kind.STAFF, Kind.CONTACT, Kind.BIRTH_DATE, Kind.ADDRESS, Kind.IDENTIFIER, Kind.NAME)
_ANY = "~ "


@cache
def _sections() -> dict[str, list[str]]:
    text = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8")
    parts = (part.partition("]\n") for part in f"\n{text}".split("\n[")[1:])
    return {name: [line for line in lines.split("\n") if line and not line.startswith("#")] for name, _, lines in parts}


def section(name: str) -> frozenset[str]:
    """Return the words of a section."""
    return frozenset(" ".join(_sections()[name]).split())


def labels(name: str) -> re.Pattern[str]:
    """Return the expression that a section's labels match as a whole."""
    lines = (f"(?:.* )?(?:{line.removeprefix(_ANY)})" if line.startswith(_ANY) else line for line in _sections()[name])
    return re.compile("|".join(lines))
