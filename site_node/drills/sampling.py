"""Which studies a drill draws, and what a drill that finds nothing says of the others.

The draw follows from a word, so that an auditor who is told it, or gives it, can draw the same again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

CONFIDENCE_PERCENT = 95


def draw(studies: Iterable[str], size: int, nonce: str) -> list[str]:
    """Return `size` of the studies (all, if there are no more), each as likely as any other."""
    return sorted(studies, key=lambda study: hashlib.sha256(f"{nonce} {study}".encode()).digest())[:size]


def undetected(total: int, drawn: int) -> int:
    """Return how many of `total` studies may be lost at most, if none of the `drawn` ones is, with 95 % confidence.

    The largest number for which a draw without replacement misses all of them with more than 5 % probability: with `d`
    lost, C(total - d, drawn) / C(total, drawn).
    Raises: ValueError unless 0 <= drawn <= total.
    Source: the hypergeometric distribution, no success in `drawn` draws.
    """
    if not 0 <= drawn <= total:
        raise ValueError("no more can be drawn than there are")
    low, high = 0, total - drawn
    while low < high:
        lost = (low + high + 1) // 2
        if _missed(total, drawn, lost) > 1 - CONFIDENCE_PERCENT / 100:
            low = lost
        else:
            high = lost - 1
    return low


def _missed(total: int, drawn: int, lost: int) -> float:
    """Return the probability that no lost study is among the drawn."""
    chance = 1.0
    for at in range(drawn):
        chance *= (total - lost - at) / (total - at)
    return chance
