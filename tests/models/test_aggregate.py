"""The running weighted mean against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from models.aggregate import WeightedMean
from models.errors import UpdateRefused
from models.update import CHUNK

Update = dict[str, NDArray[Any]]

LENGTH = 3
DTYPES = ("float16", "float32", "float64")
weights = st.integers(1, 4096)


def vectors(dtype: str) -> st.SearchStrategy[NDArray[Any]]:
    width = {"float16": 16, "float32": 32, "float64": 64}[dtype]
    return hnp.arrays(dtype, LENGTH, elements=st.floats(-100, 100, width=width))  # type: ignore[arg-type]  # the stubs want the literal widths


updates = st.fixed_dictionaries({dtype: vectors(dtype) for dtype in DTYPES}).flatmap(
    lambda floats: hnp.arrays("int64", LENGTH).map(lambda whole: floats | {"int64": whole})
)


def mean_of(*weighted: tuple[Update, int]) -> Update:
    mean = WeightedMean(weighted[0][0])
    for update, weight in weighted:
        mean.add(update, weight)
    return mean.result()


@given(st.lists(st.tuples(updates, weights), min_size=1, max_size=5))
def test_the_mean_agrees_with_exact_arithmetic(weighted: list[tuple[Update, int]]) -> None:
    result = mean_of(*weighted)

    total = sum(weight for _, weight in weighted)
    for dtype, tolerance in zip(DTYPES, (2e-3, 1e-5, 1e-13), strict=True):
        assert result[dtype].dtype == dtype
        for place in range(LENGTH):
            exact = sum(Fraction(float(u[dtype][place])) * w for u, w in weighted) / total
            assert float(result[dtype][place]) == pytest.approx(float(exact), rel=tolerance, abs=100 * tolerance)


@given(st.lists(st.tuples(updates, weights), min_size=1, max_size=5))
def test_whole_numbers_keep_their_largest_value(weighted: list[tuple[Update, int]]) -> None:
    result = mean_of(*weighted)

    largest = np.max([update["int64"] for update, _ in weighted], axis=0)
    np.testing.assert_array_equal(result["int64"], largest)


@given(updates, st.lists(weights, min_size=1, max_size=5))
def test_equal_updates_average_to_themselves_to_the_last_bit(update: Update, many: list[int]) -> None:
    result = mean_of(*((update, weight) for weight in many))

    for name, array in update.items():
        np.testing.assert_array_equal(result[name], array)


@given(st.lists(st.tuples(updates, weights), min_size=1, max_size=4))
def test_the_same_order_gives_the_same_bits(weighted: list[tuple[Update, int]]) -> None:
    one, other = mean_of(*weighted), mean_of(*weighted)

    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_every_chunk_of_a_long_array_is_averaged() -> None:
    zeros = {"float32": np.zeros(2 * CHUNK + 1, "float32")}
    ones = {"float32": np.ones(2 * CHUNK + 1, "float32")}

    result = mean_of((zeros, 1), (ones, 3))

    np.testing.assert_array_equal(result["float32"], np.float32(0.75))


def test_adding_alters_neither_the_updates_nor_the_reference() -> None:
    reference = {"float32": np.zeros(2, "float32")}
    first, second = {"float32": np.ones(2, "float32")}, {"float32": np.full(2, 5, "float32")}
    for update in (reference, first, second):
        update["float32"].flags.writeable = False
    mean = WeightedMean(reference)

    mean.add(first, 1)
    mean.add(second, 1)

    np.testing.assert_array_equal(mean.result()["float32"], [3, 3])


def test_a_refused_update_leaves_the_mean_as_it_was() -> None:
    mean = WeightedMean({"float32": np.zeros(2, "float32")})
    mean.add({"float32": np.ones(2, "float32")}, 1)

    with pytest.raises(UpdateRefused):
        mean.add({"float32": np.ones(3, "float32")}, 1)

    np.testing.assert_array_equal(mean.result()["float32"], [1, 1])


@pytest.mark.parametrize("weight", [0, -20])
def test_a_weight_that_is_not_positive_is_a_mistake(weight: int) -> None:
    mean = WeightedMean({"float32": np.zeros(2, "float32")})

    with pytest.raises(ValueError, match="positive"):
        mean.add({"float32": np.ones(2, "float32")}, weight)


def test_the_mean_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="nothing"):
        WeightedMean({}).result()
