"""Packing, digests and the check of an update."""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.errors import UpdateFault, UpdateRefused
from models.update import (
    CHUNK,
    DTYPES,
    Slot,
    check_update,
    layout_bytes,
    layout_digest,
    layout_of,
    model_digest,
    npy_array,
    npy_bytes,
    pack,
    parse_layout,
    unpack,
    update_digest,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
tensors = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))
states = st.dictionaries(st.text(max_size=8), tensors, max_size=6)


def model(*values: float) -> dict[str, NDArray[Any]]:
    return {"float32": np.array(values, "float32"), "int64": np.array([3, 4])}


@given(states)
def test_packing_then_unpacking_is_the_identity_to_the_last_bit(
    state: dict[str, NDArray[Any]],
) -> None:
    layout = layout_of(state)

    again = unpack(pack(state, layout), layout)

    assert list(again) == list(state)
    for name, array in state.items():
        assert again[name].dtype == array.dtype
        assert again[name].shape == array.shape
        assert again[name].tobytes() == array.tobytes()


@given(states)
def test_a_packed_model_is_one_flat_array_for_each_dtype(state: dict[str, NDArray[Any]]) -> None:
    packed = pack(state)

    assert packed.keys() == {array.dtype.name for array in state.values()}
    assert all(array.ndim == 1 and array.flags.c_contiguous for array in packed.values())


def test_unpacking_copies_nothing() -> None:
    state = {"a": np.zeros((2, 3), "float32"), "b": np.ones(4, "float32")}
    packed = pack(state)

    assert all(np.shares_memory(view, packed["float32"]) for view in unpack(packed, layout_of(state)).values())


@given(states)
def test_a_layout_written_reads_back_as_itself(state: dict[str, NDArray[Any]]) -> None:
    layout = layout_of(state)

    assert parse_layout(layout_bytes(layout)) == layout


@pytest.mark.parametrize(
    "document",
    [
        {},
        [["a", [2], "float32"], ["a", [2], "float32"]],
        [["a", [-1], "float32"]],
        [["a", [True], "float32"]],
        [["a", [2.5], "float32"]],
        [["a", 2, "float32"]],
        [["a", [2], "object"]],
        [["a", [2]]],
        [[1, [2], "float32"]],
        7,
    ],
)
def test_a_malformed_layout_is_refused(document: object) -> None:
    with pytest.raises(UpdateRefused, match="layout"):
        parse_layout(json.dumps(document, separators=(",", ":")).encode())


def test_a_layout_that_is_not_canonical_is_refused() -> None:
    with pytest.raises(UpdateRefused):
        parse_layout(b'[["a", [2], "float32"]]')


def test_the_layout_digest_tells_names_shapes_dtypes_and_order_apart() -> None:
    layouts = [
        (Slot("a", (2, 3), "float32"), Slot("b", (1,), "float32")),
        (Slot("b", (1,), "float32"), Slot("a", (2, 3), "float32")),
        (Slot("a", (3, 2), "float32"), Slot("b", (1,), "float32")),
        (Slot("a", (2, 3), "float64"), Slot("b", (1,), "float32")),
        (Slot("c", (2, 3), "float32"), Slot("b", (1,), "float32")),
    ]

    assert len(set(map(layout_digest, layouts))) == len(layouts)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({}, UpdateFault.ARRAY_SET),
        ({"float64": np.zeros(6)}, UpdateFault.ARRAY_SET),
        ({"float32": np.zeros(6)}, UpdateFault.DTYPE),
        ({"float32": np.zeros(6, ">f4")}, UpdateFault.DTYPE),
        ({"float32": np.zeros(5, "float32")}, UpdateFault.SHAPE),
        ({"float32": np.zeros(7, "float32")}, UpdateFault.SHAPE),
        ({"float32": np.zeros((2, 3), "float32")}, UpdateFault.SHAPE),
        ({"float32": np.zeros(12, "float32")[::2]}, UpdateFault.SHAPE),
    ],
)
def test_arrays_that_do_not_fit_the_layout_are_not_unpacked(
    arrays: dict[str, NDArray[Any]], fault: UpdateFault
) -> None:
    with pytest.raises(UpdateRefused) as refusal:
        unpack(arrays, (Slot("a", (2, 3), "float32"),))

    assert refusal.value.fault is fault


def test_a_state_that_differs_from_the_layout_is_not_packed() -> None:
    with pytest.raises(UpdateRefused):
        pack({"a": np.zeros(2, "float32")}, (Slot("a", (3,), "float32"),))


def test_a_dtype_that_does_not_travel_is_not_packed() -> None:
    with pytest.raises(UpdateRefused, match="complex64"):
        pack({"a": np.zeros(2, "complex64")})


@given(states, st.data())
def test_the_model_digest_changes_with_any_byte(state: dict[str, NDArray[Any]], data: st.DataObject) -> None:
    packed = {name: array.copy() for name, array in pack(state).items() if array.size}
    before = model_digest(packed)
    if not packed:
        return
    raw = packed[data.draw(st.sampled_from(sorted(packed)))].view("uint8")
    place = data.draw(st.integers(0, raw.size - 1))

    raw[place] ^= 1

    assert model_digest(packed) != before


def test_the_model_digest_does_not_depend_on_the_order_of_arrays() -> None:
    forwards = model(1.0, 2.0)

    assert model_digest(dict(reversed(forwards.items()))) == model_digest(forwards)


def test_the_model_digest_tells_where_one_array_ends() -> None:
    one = {"int8": np.zeros(1, "int8"), "uint8": np.zeros(2, "uint8")}
    other = {"int8": np.zeros(2, "int8"), "uint8": np.zeros(1, "uint8")}

    assert model_digest(one) != model_digest(other)


def test_the_update_digest_binds_arrays_and_metrics() -> None:
    digests = {
        update_digest(model(1.0), {"dice": 0.5}),
        update_digest(model(2.0), {"dice": 0.5}),
        update_digest(model(1.0), {"dice": 0.6}),
        update_digest(model(1.0), {}),
        model_digest(model(1.0)),
    }

    assert len(digests) == 5


def test_a_metric_that_is_not_finite_has_no_digest() -> None:
    with pytest.raises(UpdateRefused, match="metric dice"):
        update_digest(model(1.0), {"dice": math.nan})


@given(
    hnp.arrays("float32", st.integers(0, 50), elements=st.floats(-1e3, 1e3, width=32)),
    st.integers(0, 2**32 - 1),
)
def test_the_norm_agrees_with_the_slow_exact_formula(base: NDArray[np.float32], seed: int) -> None:
    update = base + np.random.default_rng(seed).normal(size=base.shape).astype("float32")
    exact = math.sqrt(math.fsum((float(u) - float(b)) ** 2 for u, b in zip(update, base, strict=True)))

    norm = check_update({"float32": update}, {"float32": base}, 1e9)

    assert norm == pytest.approx(exact, rel=1e-4, abs=1e-6)


def test_the_norm_is_over_all_chunks_and_all_floating_arrays() -> None:
    base = {name: np.zeros(CHUNK + 5, name) for name in ("float16", "float32", "float64", "int64")}
    update = {name: np.ones(CHUNK + 5, name) for name in base} | {"int64": base["int64"]}

    norm = check_update(update, base, 1e9)

    assert norm == pytest.approx(math.sqrt(3 * (CHUNK + 5)))


@pytest.mark.parametrize(
    ("update", "fault"),
    [
        ({"float32": np.zeros(2, "float32")}, UpdateFault.ARRAY_SET),
        (model(0, 0) | {"float64": np.zeros(1)}, UpdateFault.ARRAY_SET),
        ({"float32": np.zeros(2), "int64": np.array([3, 4])}, UpdateFault.DTYPE),
        (model(0), UpdateFault.SHAPE),
        (model(0, 0, 0), UpdateFault.SHAPE),
        (model(0, math.nan), UpdateFault.NON_FINITE),
        (model(math.inf, 0), UpdateFault.NON_FINITE),
        (model(-math.inf, math.inf), UpdateFault.NON_FINITE),
        (model(3e38, 0), UpdateFault.NORM),
        (model(30, 40.001), UpdateFault.NORM),
        (model(0, 0) | {"int64": np.array([3, 5])}, UpdateFault.INTEGERS_CHANGED),
        (model(0, 0) | {"int64": np.array([2, 4])}, UpdateFault.INTEGERS_CHANGED),
        (model(0, 0) | {"int64": np.array([3, -(2**63)])}, UpdateFault.INTEGERS_CHANGED),
    ],
)
def test_an_update_that_breaks_a_rule_is_refused_with_its_code(
    update: dict[str, NDArray[Any]], fault: UpdateFault
) -> None:
    with pytest.raises(UpdateRefused) as refusal:
        check_update(update, model(0, 0), max_norm=50)

    assert refusal.value.fault is fault


def test_an_update_exactly_at_the_bound_passes() -> None:
    assert check_update(model(30, 40), model(0, 0), max_norm=50) == 50


def test_checking_reads_arrays_that_may_not_be_written() -> None:
    frozen = np.frombuffer(np.ones(4, "float32").tobytes(), "float32")

    assert check_update({"float32": frozen}, {"float32": frozen}, 1.0) == 0


@given(states)
def test_an_array_travels_as_the_file_numpy_would_save(state: dict[str, NDArray[Any]]) -> None:
    for array in pack(state).values():
        saved = BytesIO()
        np.save(saved, array, allow_pickle=False)

        made = npy_bytes(array)
        again = npy_array(made, array.dtype.name, array.shape)

        assert made == saved.getvalue()
        assert again.tobytes() == array.tobytes()
        assert (again.dtype, again.shape, again.flags.writeable) == (array.dtype, array.shape, False)


def test_reading_an_array_copies_nothing() -> None:
    made = npy_bytes(np.arange(1000, dtype=np.float32))

    assert np.shares_memory(npy_array(made, "float32", (1000,)), np.frombuffer(made, np.uint8))


_NPY = npy_bytes(np.arange(4, dtype=np.float32))


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (_NPY, "float32", (3,)),
        (_NPY, "float32", (2, 2)),
        (_NPY, "int32", (4,)),
        (_NPY, "object", (4,)),
        (_NPY, "float32", (2.0, "x")),
        (_NPY[:-1], "float32", (4,)),
        (_NPY + b"hidden", "float32", (4,)),
        (_NPY.replace(b"(4,)", b"(9,)"), "float32", (9,)),
        (_NPY.replace(b"False", b"True "), "float32", (4,)),
        (_NPY.replace(b"'<f4'", b"'>f4'"), "float32", (4,)),
        (_NPY.replace(b"'<f4'", b"'|O8'"), "float32", (4,)),
        (b"\x93NUMPY\x02\x00" + _NPY[8:], "float32", (4,)),
        (_NPY[:20], "float32", (4,)),
        (b"", "float32", (4,)),
        (_NPY[:10] + b"(" * 300 + _NPY[10:], "float32", (4,)),
        (_NPY[:10] + b"-" * 9000 + b"1", "float32", (4,)),
        (_NPY, "float32", (-4,)),
        (_NPY, "float32", (True,)),
    ],
)
def test_what_is_not_exactly_the_array_it_is_said_to_be_is_refused(data: bytes, dtype: str, shape: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- numpy's own words or ours
        npy_array(data, dtype, shape)
