"""How many studies of a hospital consents permit for a task, as ranges that the consortium may see.

A range is a power of two wide, and nothing below a floor is told apart. Against the ranges told last, a count has to
leave its range by an eighth before another is told, so that one patient more or less does not show. Signed with the
site's receipt key; what is counted, and how often it may be told, is the business of the program.
"""

from __future__ import annotations

from datetime import date  # noqa: TC003 -- pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator

from consent.errors import StatisticsInvalid
from consent.statement import Claim, Sha256, StatementForm, Text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

STATISTICS_TYPE: Final = "https://filmroom.org/consent-statistics/v1"
MAX_STATISTICS_BYTES: Final = 8192
"""Several times the size of a statement."""
FLOOR: Final = 20
"""Fewer studies than this are not told apart; not even from none."""
FEWER: Final = f"fewer than {FLOOR}"
_HIGHEST: Final = 2**40


def count_range(n: int, previous: str | None = None) -> str:
    """Return the range of `n`: `fewer than 20`, `20-31`, `32-63` and so on; or `previous` where `n` is next to it.

    Next to it is at most an eighth of its lowest number outside, of the floor for the lowest range, and at least one.

    Raises: ValueError if `n` is negative or beyond all ranges, or `previous` is no range.
    """
    if not 0 <= n < _HIGHEST:
        raise ValueError("a number of studies is not negative, and smaller than 2**40")
    if previous is not None:
        low, high = range_bounds(previous)
        slack = max(1, (low or FLOOR) // 8)
        if low - slack <= n <= high + slack:
            return previous
    if n < FLOOR:
        return FEWER
    low = 1 << (n.bit_length() - 1)
    return f"{max(low, FLOOR)}-{2 * low - 1}"


def range_bounds(label: str) -> tuple[int, int]:
    """Return the lowest and the highest number of a range.

    Raises: ValueError if it is none of those that `count_range` returns.
    """
    if label == FEWER:
        return 0, FLOOR - 1
    first, _, last = label.partition("-")
    if first.isascii() and first.isdecimal() and int(first[:16]) < _HIGHEST and count_range(int(first)) == label:
        return int(first), int(last)
    raise ValueError("not a range of studies")


def _is_range(label: str) -> str:
    range_bounds(label)
    return label


_Range = Annotated[Text, AfterValidator(_is_range)]


class RangeCounts(Claim):
    """Studies by what consents say of them; see `consent.record.Outcome`."""

    permit: _Range
    deny: _Range
    no_consent: _Range
    review: _Range


class ConsentStatistics(Claim):
    """What a site tells of one task: the studies of the dataset that is assigned to it there, as of a day (UTC)."""

    federation: Text
    site: Text
    task: Sha256
    dataset: Text
    modality: Text
    as_of: date
    studies: RangeCounts


_FORM: Final = StatementForm(
    STATISTICS_TYPE,
    ConsentStatistics,
    subject="task",
    subjects=lambda made: [made.task],
    predicate=lambda made: made.model_dump(mode="json", exclude={"task"}),
    fields=lambda statement: {**statement["predicate"], "task": statement["subject"][0]["digest"]["sha256"]},
    refused=StatisticsInvalid,
)


def sign_statistics(statistics: ConsentStatistics, key: Ed25519PrivateKey) -> bytes:
    """Return the signed envelope of `statistics`; `key` is the site's receipt key."""
    return _FORM.sign(statistics, key)


def open_statistics(envelope: bytes, key: Ed25519PublicKey, max_bytes: int = MAX_STATISTICS_BYTES) -> ConsentStatistics:
    """Return the statistics in `envelope`, if the holder of `key` signed them.

    Raises: StatisticsInvalid, as `StatementForm.open` says.
    """
    return _FORM.open(envelope, key, max_bytes)
