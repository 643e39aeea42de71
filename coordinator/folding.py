"""The mean of a round, folded as updates come in, always in the order of the members' names.

So the same participation gives the same bits, whoever was first; and memory holds one mean, however many members there
are: an update that comes before its turn waits on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.numpy import load_file, save_file

from models import WeightedMean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


class OrderedMean:
    """The weighted mean of the updates of `sites`; what waits lies in `folder`, which is emptied first."""

    def __init__(self, base: Arrays, sites: Iterable[str], folder: Path) -> None:
        self._mean = WeightedMean(base)
        self._turns = sorted(sites, reverse=True)
        self._waiting: dict[str, int] = {}  # weight by site; 0 for one that contributes nothing
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self.discard()

    def add(self, site: str, arrays: Arrays, weight: int) -> None:
        """Take the verified update of `site`, which counts `weight` times.

        Raises: UpdateRefused if it is not like the base.
        """
        if self._turns and self._turns[-1] == site:
            self._mean.add(arrays, weight)
            self._turns.pop()
            self._go_on()
        else:
            save_file(dict(arrays), self._path(site))
            self._waiting[site] = weight

    def pass_over(self, site: str) -> None:
        """Note that `site` contributes nothing to this round."""
        self._waiting[site] = 0
        self._go_on()

    def result(self) -> dict[str, NDArray[np.generic]]:
        """Hand over the mean of all that was added; who has not been heard of contributes nothing.

        Raises: ValueError if nothing was added.
        """
        for site in self._turns:
            self._waiting.setdefault(site, 0)
        self._go_on()
        return self._mean.result()

    def discard(self) -> None:
        """Remove what waits; the round makes no model."""
        for path in self._folder.iterdir():
            path.unlink()

    def _go_on(self) -> None:
        while self._turns and self._turns[-1] in self._waiting:
            site = self._turns.pop()
            weight = self._waiting.pop(site)
            if weight:
                self._mean.add(load_file(self._path(site)), weight)
                self._path(site).unlink()

    def _path(self, site: str) -> Path:
        return self._folder / f"{site}.safetensors"
