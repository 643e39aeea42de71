"""What a file is taken apart into: texts at their places, pictures, and what could not be looked into.

Whatever unpacks asks its `Budget` first, so that no file costs more than was agreed; a file that would is reported as
not scanned, in that place, and never unpacked further.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from site_node.stray.finding import Sort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

TOO_DEEP = "archives in archives, too deep"
TOO_MANY = "more members than are looked into"
BOMB = "unpacks to too much"
TOO_LARGE = "too large to look into"
ENCRYPTED = "encrypted"
PACKED = "compressed or encrypted, in a form that is not read"
NOT_ALL_SEEN = "only some of its pictures are looked at"
DAMAGED = "damaged, or not what it seems"


class Piece(NamedTuple):
    """A text, the label it stands under, and where; a place may identify, and is masked before it is told."""

    trail: tuple[str, ...]
    text: str
    label: str = ""
    sort: Sort = Sort.PROSE


class View(NamedTuple):
    """What a person would see. Shape: (row, column) or (row, column, 3)."""

    trail: tuple[str, ...]
    pixels: NDArray[np.uint8]


class Fault(NamedTuple):
    """A place that could not be looked into, and why; never a value."""

    trail: tuple[str, ...]
    reason: str


class LeftOut(NamedTuple):
    """What was not looked at because whoever asked for the search wanted it so."""

    what: str


class Refused(Exception):
    """Something may not, or cannot, be unpacked; the text is the reason."""


Part: TypeAlias = Piece | View | Fault | LeftOut


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one file is unpacked.

    Units: bytes; `ratio` is unpacked bytes to packed ones, and counts from `floor` unpacked bytes on.
    """

    depth: int = 6
    members: int = 20_000
    total: int = 2 * 1024**3
    one: int = 256 * 1024**2
    ratio: int = 200
    floor: int = 16 * 1024**2
    pictures: int = 8  # of one file or series of frames that are looked at as pictures


class Budget:
    """What is left of the limits for one file, whatever lies in it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._total = self._members = 0

    def member(self) -> None:
        """Count a member.

        Raises: Refused if there are too many.
        """
        self._members += 1
        if self._members > self.limits.members:
            raise Refused(TOO_MANY)

    def most(self, packed: int) -> int:
        """Return how many bytes a stream of `packed` bytes may become."""
        allowed = max(self.limits.floor, packed * self.limits.ratio)
        return max(0, min(self.limits.one, allowed, self.limits.total - self._total))

    def spend(self, unpacked: int) -> None:
        """Count unpacked bytes."""
        self._total += unpacked


@dataclass(frozen=True, slots=True)
class Here:
    """Where one is in a file: the way there, what may still be unpacked, and how to look into what is inside."""

    trail: tuple[str, ...]
    name: str
    budget: Budget
    look: Callable[[memoryview, Here], Iterator[Part]]
    pictures: str = "none"  # or suspect, or all
    depth: int = 0

    def at(self, *steps: str) -> tuple[str, ...]:
        """Return the place of something here."""
        return (*self.trail, *steps)

    @property
    def looks(self) -> bool:
        """Return whether pictures are looked at."""
        return self.pictures != "none"

    def within(self, name: str, content: bytes | memoryview) -> Iterator[Part]:
        """Yield the parts of a file that lies in this one."""
        if self.depth >= self.budget.limits.depth:
            yield Fault(self.at(name), TOO_DEEP)
            return
        inside = replace(self, trail=self.at(name), name=name, depth=self.depth + 1)
        yield from self.look(memoryview(content), inside)
