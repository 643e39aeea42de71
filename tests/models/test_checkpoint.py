"""Our checkpoint file, read by PyTorch itself."""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.checkpoint import ALIGNMENT, STORAGES, _whole, checkpoint_bytes
from models.errors import UpdateRefused
from models.update import DTYPES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
tensors = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, shapes))


def loaded(state: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(io.BytesIO(checkpoint_bytes(state)), weights_only=True)
    return content


@given(st.dictionaries(st.text(max_size=8), tensors, max_size=4))
def test_pytorch_reads_back_every_bit(state: dict[str, NDArray[Any]]) -> None:
    back = loaded(state)

    assert list(back) == list(state)
    for name, array in state.items():
        assert back[name].numpy().dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].numpy().tobytes() == array.tobytes()


def test_every_dtype_that_travels_has_a_storage() -> None:
    assert STORAGES.keys() == set(DTYPES)


def test_a_transposed_and_a_big_endian_array_are_written_by_value() -> None:
    state = {
        "transposed": np.arange(6, dtype="float32").reshape(2, 3).T,
        "big": np.arange(3, dtype=">f4"),
        "scalar": np.array(7),
    }

    back = loaded(state)

    for name, array in state.items():
        np.testing.assert_array_equal(back[name].numpy(), array)


def test_a_number_beyond_32_bits_is_written_in_full() -> None:
    for value in (0, 2**31 - 1, 2**31, 2**40):
        assert next(pickletools.genops(_whole(value) + b"."))[1] == value


def test_the_bytes_depend_on_the_state_alone() -> None:
    state = {"weight": np.arange(5, dtype="float32")}

    assert checkpoint_bytes(state) == checkpoint_bytes(state)


def test_storages_are_aligned_so_that_the_file_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(checkpoint_bytes({f"n{i}": np.arange(i, dtype="float64") for i in range(9)}))

    mapped = torch.load(path, weights_only=True, mmap=True)

    torch.testing.assert_close(mapped["n8"], torch.arange(8, dtype=torch.float64))
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            start = entry.header_offset + 30 + len(entry.filename) + len(entry.extra)
            assert start % ALIGNMENT == 0


def test_a_dtype_pytorch_cannot_store_is_refused() -> None:
    with pytest.raises(UpdateRefused, match="complex64"):
        checkpoint_bytes({"a": np.zeros(1, "complex64")})
