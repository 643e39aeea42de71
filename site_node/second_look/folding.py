"""Texts made alike for comparison."""

from __future__ import annotations

import unicodedata

_FOLDS = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "o", "ł": "l", "Ł": "l", "đ": "d", "æ": "ae", "Æ": "ae", "œ": "oe", "\u0131": "i"}
)


def fold(text: str) -> str:
    """Return `text` without case, accents, width or compatibility forms."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.translate(_FOLDS).casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))
