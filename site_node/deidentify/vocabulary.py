"""Words that may stay in a text, by how surely they are no names.

The words are a table, `tables/words.txt`, made by `tests/planted/words.py` and reviewed; a word that
stands under no mark may not stay. Words are looked up without case and accents. Knows words one at a
time; `tables/contexts.txt`, by hand, holds the words that say something of those beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLES = Path(__file__).parent / "tables"


class Mark(Enum):
    """What kind of word a listed word is."""

    TECHNICAL = "technical"  # of DICOM or of radiology, and nobody's name
    TECHNICAL_NAME = "technical-name"  # as above, but some people are called so: Head
    PLAIN = "plain"  # an ordinary word, and nobody's name
    PLAIN_NAME = "plain-name"  # as above, but some people are called so: Carrier
    NAME = "name"  # a name more often than not: Baker
    EPONYM = "eponym"  # a name that medicine speaks of alone: Parkinson
    EPONYM_IN_CONTEXT = "eponym-in-context"  # a common name, and medicine's only before certain words: White matter


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The listed words without case and accents, and given names that are no words."""

    words: dict[str, Mark]
    given: frozenset[str]

    def technical(self, word: str) -> bool:
        """Return whether `word`, folded, is a word of DICOM or of radiology."""
        mark = self.words.get(word)
        return mark is Mark.TECHNICAL or mark is Mark.TECHNICAL_NAME


@cache
def vocabulary() -> Vocabulary:
    """Return the table, read once in a process."""
    words: dict[str, Mark] = {}
    given: list[str] = []
    for name, section in _sections("words.txt"):
        if name == "given":
            given = section
        else:
            words |= dict.fromkeys(section, Mark(name))
    return Vocabulary(words, frozenset(given))


@cache
def contexts() -> dict[str, frozenset[str]]:
    """Return the folded words of each section of `tables/contexts.txt`, which says what a section is for."""
    return {name: frozenset(words) for name, words in _sections("contexts.txt")}


def _sections(table: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each section's name and its words; a line that begins with # is a comment."""
    for section in f"\n{(_TABLES / table).read_text(encoding='utf-8')}".split("\n[")[1:]:
        name, _, lines = section.partition("]\n")
        yield name, " ".join(line for line in lines.split("\n") if not line.startswith("#")).split()
