"""A sample is drawn so that it can be drawn again, and its bound is that of the hypergeometric distribution."""

from __future__ import annotations

from collections import Counter
from math import comb

import pytest

from site_node.drills.sampling import draw, undetected


def slow_bound(total: int, drawn: int) -> int:
    return max(lost for lost in range(total - drawn + 1) if comb(total - lost, drawn) * 20 > comb(total, drawn))


@pytest.mark.parametrize("total", range(1, 41))
def test_the_bound_is_that_of_exact_counting(total: int) -> None:
    assert [undetected(total, drawn) for drawn in range(total + 1)] == [
        slow_bound(total, drawn) for drawn in range(total + 1)
    ]


def test_all_drawn_leaves_nothing_open_and_none_drawn_leaves_everything_open() -> None:
    assert (undetected(50, 50), undetected(50, 0), undetected(0, 0)) == (0, 50, 0)


def test_twenty_of_ten_thousand_say_little() -> None:
    assert undetected(10_000, 20) == slow_bound(10_000, 20) == 1389


def test_more_than_there_is_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="no more"):
        undetected(3, 4)


def test_the_same_word_draws_the_same_and_every_study_is_as_likely() -> None:
    studies = [f"studies/{number}" for number in range(10)]
    drawn = Counter(study for nonce in range(2000) for study in draw(studies, 3, str(nonce)))

    assert draw(studies, 3, "word") == draw(reversed(studies), 3, "word")
    assert len(drawn) == 10
    assert all(480 < count < 720 for count in drawn.values())
