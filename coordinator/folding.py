"""The mean of a round, folded when the round closes, always in the order of the members' names.

So the same participation gives the same bits, whoever was first; and memory holds one mean and one update, however many
members there are: the updates wait on disk. They stay there until the round is closed, because one of them may be taken
back until then, and the mean has to be made again without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.numpy import load_file, save_file

from models import WeightedMean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


class OrderedMean:
    """The weighted mean of the verified updates of a round, which wait in `folder`; it is emptied first."""

    def __init__(self, base: Arrays, folder: Path) -> None:
        self._base = base
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self.discard()

    def add(self, site: str, arrays: Arrays) -> None:
        """Take the verified update of `site`."""
        save_file(dict(arrays), self._path(site))

    def result(self, weights: Mapping[str, int]) -> dict[str, NDArray[np.generic]]:
        """Return the mean of the updates of these sites, each counted as often as its weight says.

        Raises: UpdateRefused if an update is not like the base; ValueError if there are no sites.
        """
        mean = WeightedMean(self._base)
        for site in sorted(weights):
            mean.add(load_file(self._path(site)), weights[site])
        return mean.result()

    def discard(self) -> None:
        """Remove what waits."""
        for path in self._folder.iterdir():
            path.unlink()

    def _path(self, site: str) -> Path:
        return self._folder / f"{site}.safetensors"
