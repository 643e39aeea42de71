"""Model weights as they travel: one flat array for each dtype, with a layout, digests and a check.

A model of hundreds of tensors becomes two or three arrays, keyed by dtype name; the layout says
where each tensor lies. Nothing here knows torch, files or the network.
"""

from __future__ import annotations

import hashlib
import json
import math
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import rfc8785
from numpy.lib.format import dtype_to_descr, write_array_header_1_0

from models.errors import UpdateFault, UpdateRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

DTYPES: Final = (
    "bool",
    "float16",
    "float32",
    "float64",
    "int16",
    "int32",
    "int64",
    "int8",
    "uint8",
)
CHUNK: Final = 2**16  # elements; a chunk and its difference stay in the processor's cache
MAX_LAYOUT_BYTES: Final = 4 * 1024 * 1024
MAX_TENSORS: Final = 100_000

AnyArray: TypeAlias = "NDArray[Any]"
Arrays: TypeAlias = "Mapping[str, AnyArray]"


class Slot(NamedTuple):
    """One tensor's place: its name in the state dictionary, its shape and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


Layout: TypeAlias = tuple[Slot, ...]


def layout_of(state: Arrays) -> Layout:
    """Give the layout of a state dictionary, in its own order.

    Raises: UpdateRefused for a dtype that does not travel.
    """
    slots = tuple(Slot(name, array.shape, array.dtype.name) for name, array in state.items())
    for slot in slots:
        _require_dtype(slot.dtype)
    return slots


def layout_bytes(layout: Layout) -> bytes:
    """Give the layout as canonical JSON: a list of `[name, [shape…], dtype]`."""
    return rfc8785.dumps([[slot.name, list(slot.shape), slot.dtype] for slot in layout])


def parse_layout(data: bytes) -> Layout:
    """Read what `layout_bytes` wrote.

    Raises: UpdateRefused if it is not exactly that.
    """
    malformed = UpdateRefused(UpdateFault.ARRAY_SET, "the layout is malformed")
    if len(data) > MAX_LAYOUT_BYTES:
        raise malformed
    try:
        layout = tuple(Slot(name, tuple(shape), dtype) for name, shape, dtype in json.loads(data))
        faithful = all(map(_is_slot, layout)) and layout_bytes(layout) == data
    except (ValueError, TypeError, RecursionError) as error:
        raise malformed from error
    if not faithful or len({slot.name for slot in layout}) != len(layout):
        raise malformed
    return layout


def layout_digest(layout: Layout) -> str:
    """Give the SHA-256 of `layout_bytes`, in hexadecimal."""
    return hashlib.sha256(layout_bytes(layout)).hexdigest()


def pack(state: Arrays, layout: Layout | None = None) -> dict[str, AnyArray]:
    """Give one flat array for each dtype; a lone contiguous tensor of its dtype is not copied.

    Shape:  each array is 1-D and C-contiguous; tensors follow one another in the layout's order.
    Raises: UpdateRefused if `layout` is given and the state differs from it.
    """
    found = layout_of(state)
    if layout is not None and found != layout:
        raise UpdateRefused(UpdateFault.ARRAY_SET, "the state differs from the layout")
    groups: dict[str, list[AnyArray]] = {}
    for slot in found:
        groups.setdefault(slot.dtype, []).append(state[slot.name].reshape(-1))
    return {dtype: _joined(group) for dtype, group in groups.items()}


def unpack(arrays: Arrays, layout: Layout) -> dict[str, AnyArray]:
    """Give the state dictionary as views into `arrays`.

    Raises: UpdateRefused if the arrays are not exactly what the layout needs.
    """
    _require_packed(arrays, layout)
    position = dict.fromkeys(arrays, 0)
    state: dict[str, AnyArray] = {}
    for slot in layout:
        start = position[slot.dtype]
        position[slot.dtype] = start + slot.size
        state[slot.name] = arrays[slot.dtype][start : start + slot.size].reshape(slot.shape)
    return state


def npy_bytes(array: AnyArray) -> bytes:
    """Give a contiguous array as an npy 1.0 file; its elements are copied once.

    Source: NEP 1, "A Simple File Format for NumPy Arrays".
    """
    return b"".join((_npy_header(array.dtype.name, array.shape), array.reshape(-1).data))


def npy_array(data: bytes, dtype: str, shape: tuple[int, ...]) -> AnyArray:
    """Give the array that lies in an npy 1.0 file, read-only and without copying it.

    The header is not parsed: it is the one that `npy_bytes` would write, or it is refused.

    Raises: ValueError if the file is anything else than exactly such an array.
    """
    if dtype not in DTYPES or not all(type(axis) is int and axis >= 0 for axis in shape):
        raise ValueError("an array is of a dtype that does not travel, or has no shape")
    header = _npy_header(dtype, shape)
    if not data.startswith(header) or len(data) - len(header) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError("an array is not what it is said to be")
    return np.ndarray(shape, dtype, data, len(header))


def model_digest(arrays: Arrays) -> str:
    """Give the SHA-256 over dtype names, lengths and little-endian bytes, in hexadecimal.

    Raises: UpdateRefused if an array is not flat, contiguous, little-endian and named for its
        dtype.
    """
    return _hash_model(arrays).hexdigest()


def update_digest(arrays: Arrays, metrics: Mapping[str, float]) -> str:
    """Give the SHA-256 that binds the arrays and the metrics together; a receipt's subject.

    Raises: UpdateRefused as `model_digest` does, and for a metric that is not finite.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UpdateRefused(UpdateFault.NON_FINITE, f"metric {name}")
    both = _hash_model(arrays)
    both.update(b"metrics\n" + rfc8785.dumps(dict(metrics)))
    return both.hexdigest()


def require_like(arrays: Arrays, base: Arrays) -> None:
    """Pass if `arrays` has the names, dtypes and lengths of `base`.

    Raises: UpdateRefused with the fault.
    """
    if arrays.keys() != base.keys():
        raise UpdateRefused(UpdateFault.ARRAY_SET, "other arrays than the base model's")
    for name, array in arrays.items():
        if array.dtype != base[name].dtype:
            raise UpdateRefused(UpdateFault.DTYPE, name)
        if array.shape != base[name].shape:
            raise UpdateRefused(UpdateFault.SHAPE, name)


def check_update(arrays: Arrays, base: Arrays, max_norm: float) -> float:
    """Give the L2 norm of `arrays - base` over all floating-point arrays together.

    Units:  of the weights.
    Raises: UpdateRefused if the arrays differ in kind from the base, hold a number that is not
        finite, or lie further than `max_norm` from it; or if an array of another kind, such as
        the batch counters of a normalisation layer, is not the base's: it would count examples.
    """
    require_like(arrays, base)
    for name in sorted(arrays):
        if not is_floating(arrays[name]) and not np.array_equal(arrays[name], base[name]):
            raise UpdateRefused(UpdateFault.INTEGERS_CHANGED, name)
    floating = [name for name in sorted(arrays) if is_floating(arrays[name])]
    norm = math.sqrt(sum(_squared_distance(name, arrays[name], base[name]) for name in floating))
    if not norm <= max_norm:
        raise UpdateRefused(UpdateFault.NORM, f"{norm:.6g} is above {max_norm:.6g}")
    return norm


def is_floating(array: AnyArray) -> bool:
    """Tell whether the array holds floating-point numbers."""
    return array.dtype.kind == "f"


def working_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Give the dtype to calculate in: never narrower than float32."""
    return np.result_type(dtype, np.float32)


def chunks(length: int) -> Iterator[slice]:
    """Give slices of at most `CHUNK` elements that cover `length`."""
    return (slice(start, start + CHUNK) for start in range(0, length, CHUNK))


def _squared_distance(name: str, array: AnyArray, base: AnyArray) -> float:
    working = working_dtype(array.dtype)
    buffer = np.empty(min(CHUNK, array.size), working)
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for part in chunks(array.size):
            difference = buffer[: len(array[part])]
            np.subtract(array[part], base[part], out=difference, dtype=working)
            squared = float(np.dot(difference, difference))
            total += squared if math.isfinite(squared) else _exact(name, array[part], base[part])
    return total


def _exact(name: str, array: AnyArray, base: AnyArray) -> float:
    """Tell large from not finite where a chunk overflowed its working precision."""
    wide: NDArray[np.float64] = array.astype(np.float64)
    if not np.isfinite(wide).all():
        raise UpdateRefused(UpdateFault.NON_FINITE, name)
    difference = wide - base.astype(np.float64)
    return float(np.dot(difference, difference))


def _hash_model(arrays: Arrays) -> hashlib._Hash:
    digest = hashlib.sha256(b"filmroom-model/1\n")
    for name in sorted(arrays):
        array = arrays[name]
        _require_flat(name, array)
        digest.update(f"{name} {array.size}\n".encode())
        digest.update(array.data)
    return digest


def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    header = BytesIO()
    described = {"descr": dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    write_array_header_1_0(header, described)
    return header.getvalue()


def _require_flat(name: str, array: AnyArray) -> None:
    if array.dtype.name != name or not array.dtype.isnative:
        raise UpdateRefused(UpdateFault.DTYPE, name)
    if array.ndim != 1 or not array.flags.c_contiguous:
        raise UpdateRefused(UpdateFault.SHAPE, name)


def _require_packed(arrays: Arrays, layout: Layout) -> None:
    sizes: dict[str, int] = {}
    for slot in layout:
        sizes[slot.dtype] = sizes.get(slot.dtype, 0) + slot.size
    if arrays.keys() != sizes.keys():
        raise UpdateRefused(UpdateFault.ARRAY_SET, "other arrays than the layout's")
    for dtype, size in sizes.items():
        _require_flat(dtype, arrays[dtype])
        if arrays[dtype].size != size:
            raise UpdateRefused(UpdateFault.SHAPE, dtype)


def _require_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise UpdateRefused(UpdateFault.DTYPE, f"{dtype} does not travel")


def _is_slot(slot: Slot) -> bool:
    sizes = all(type(axis) is int and axis >= 0 for axis in slot.shape)
    return type(slot.name) is str and sizes and slot.dtype in DTYPES


def _joined(group: list[AnyArray]) -> AnyArray:
    return np.ascontiguousarray(group[0]) if len(group) == 1 else np.concatenate(group)
