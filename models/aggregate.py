"""The running weighted mean of updates: one model in memory, however many sites there are.

Bit-identical for the same updates added in the same order; the caller adds in the members' order.
Whether an update may be added is not decided here: `models.update.check_update` and the
coordinator's verification do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.update import CHUNK, chunks, is_floating, require_like, working_dtype

if TYPE_CHECKING:
    from models.update import AnyArray, Arrays


class WeightedMean:
    """The mean of the updates added so far, each counted `weight` times.

    Floating-point arrays are averaged, in float32 or wider, and come out in their own dtype. All
    others, such as the batch counters of a normalisation layer, keep their largest value (in a
    round they are all the reference's: `check_update`). Equal updates average to themselves, to
    the last bit, because each step moves the mean by a share of its distance to the update.
    """

    def __init__(self, reference: Arrays) -> None:
        self._reference = reference
        self._mean: dict[str, AnyArray] = {}
        self._weight = 0

    def add(self, arrays: Arrays, weight: int) -> None:
        """Take one update into the mean.

        Raises: UpdateRefused if it is not like the reference; ValueError if `weight` is not
            positive.
        """
        if weight <= 0:
            raise ValueError("a weight is positive")
        require_like(arrays, self._reference)
        self._weight += weight
        if not self._mean:
            self._mean = {name: array.astype(_wide(array)) for name, array in arrays.items()}
            return
        for name, array in arrays.items():
            if is_floating(array):
                _move(self._mean[name], array, weight / self._weight)
            else:
                np.maximum(self._mean[name], array, out=self._mean[name])

    def result(self) -> dict[str, AnyArray]:
        """Hand over the mean without copying it, and begin anew.

        Raises: ValueError if nothing was added.
        """
        if not self._mean:
            raise ValueError("nothing was added")
        mean, self._mean, self._weight = self._mean, {}, 0
        return {name: a.astype(self._reference[name].dtype, copy=False) for name, a in mean.items()}


def _wide(array: AnyArray) -> np.dtype[np.generic]:
    return working_dtype(array.dtype) if is_floating(array) else array.dtype


def _move(mean: AnyArray, towards: AnyArray, share: float) -> None:
    """Move `mean` in place by `share` of the way, with one chunk of scratch memory."""
    scratch = np.empty(min(CHUNK, mean.size), mean.dtype)
    for part in chunks(mean.size):
        step = scratch[: len(mean[part])]
        np.subtract(towards[part], mean[part], out=step)
        np.multiply(step, share, out=step)
        np.add(mean[part], step, out=mean[part])
