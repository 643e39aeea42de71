"""A state dictionary as the file `torch.save` would write, made without PyTorch.

The coordinator hands over models and does not install PyTorch. Only this writer is here: nothing in
this project unpickles. The bytes are the same for the same state.
Source: PyTorch's zip format as `torch.serialization._save` writes it and
    `torch._weights_only_unpickler` reads it; pickle protocol 2 (PEP 307).
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from typing import TYPE_CHECKING, Final

import numpy as np

from models.errors import UpdateFault, UpdateRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.update import AnyArray, Arrays

STORAGES: Final = {
    "bool": "BoolStorage",
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int16": "ShortStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
}
ALIGNMENT: Final = 64  # bytes; lets a reader map the file into memory
LOCAL_HEADER_BYTES: Final = 30  # APPNOTE.TXT 4.3.7, before name and extra field
PADDING_FIELD: Final = b"FB"  # the extra field's id that PyTorch pads with
FORMAT_VERSION: Final = b"3\n"

_MARK, _TUPLE, _REDUCE, _STOP = b"(", b"t", b"R", b"."
_PROTOCOL_2, _SETITEMS, _PERSISTENT_ID, _FALSE = b"\x80\x02", b"u", b"Q", b"\x89"
_ORDERED_DICT = b"ccollections\nOrderedDict\n" + b")" + _REDUCE
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def checkpoint_bytes(state: Arrays) -> bytes:
    """Give a file that `torch.load(weights_only=True)` reads as this state dictionary.

    Raises: UpdateRefused for a dtype PyTorch has no storage for.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, buffer.tell(), "archive/data.pkl", _pickled(state))
        _write(archive, buffer.tell(), "archive/byteorder", b"little")
        for key, array in enumerate(state.values()):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            _write(archive, buffer.tell(), f"archive/data/{key}", little.tobytes())
        _write(archive, buffer.tell(), "archive/version", FORMAT_VERSION)
    return buffer.getvalue()


def _write(archive: zipfile.ZipFile, offset: int, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # dated 1980: the bytes depend on nothing but the state
    start = offset + LOCAL_HEADER_BYTES + len(name) + len(PADDING_FIELD) + 2
    padding = -start % ALIGNMENT
    entry.extra = PADDING_FIELD + struct.pack("<H", padding) + bytes(padding)
    archive.writestr(entry, content)


def _pickled(state: Arrays) -> bytes:
    items = b"".join(_text(name) + _tensor(str(key), array) for key, (name, array) in enumerate(state.items()))
    return _PROTOCOL_2 + _ORDERED_DICT + _MARK + items + _SETITEMS + _STOP


def _tensor(key: str, array: AnyArray) -> bytes:
    """Give `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
    arguments = (
        _storage(key, array),
        _whole(0),
        _tuple(map(_whole, array.shape)),
        _tuple(map(_whole, strides)),
        _FALSE,
        _ORDERED_DICT,
    )
    return _REBUILD + _tuple(arguments) + _REDUCE


def _storage(key: str, array: AnyArray) -> bytes:
    kind = STORAGES.get(array.dtype.name)
    if kind is None:
        raise UpdateRefused(UpdateFault.DTYPE, f"{array.dtype.name} has no storage")
    named = f"ctorch\n{kind}\n".encode()
    parts = (_text("storage"), named, _text(key), _text("cpu"), _whole(array.size))
    return _tuple(parts) + _PERSISTENT_ID


def _tuple(items: Iterable[bytes]) -> bytes:
    return _MARK + b"".join(items) + _TUPLE


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _whole(value: int) -> bytes:
    """Give a signed 4-byte BININT, or a LONG1 of 8 bytes for what does not fit."""
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)
