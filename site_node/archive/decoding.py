"""The digest of decoded pixels: the same in every transfer syntax that keeps them without loss.

Under one SOP Instance UID pixels never change: what is compressed with loss has a new UID (PS3.3 C.7.6.1.1.5). So the
digest of the stored values, however they are coded, tells an attack from an edit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydicom import dcmread
from pydicom.pixels.utils import iter_pixels

from site_node.deidentify.transcoding import FAULTS as CODEC_FAULTS
from site_node.deidentify.transcoding import quiet
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from numpy.typing import NDArray

FAULTS = (*CODEC_FAULTS, OSError, EOFError)
UNREADABLE = ""
_RUST = "pyo3_runtime"
_LIMIT_S = 300.0  # some streams that were cut off never end in a codec
_SLOWEST_BYTES_S = 1 << 20  # of coded pixels, on a busy machine
_START_S = 300.0
_UNITS = ((8, "<u1"), (16, "<u2"), (32, "<u4"))


class native_digest:  # noqa: N801 -- used as hashlib's constructors are
    """A SHA-256 over stored values, frame by frame.

    Each value is its lowest `bits_stored` bits, in the fewest whole bytes, little endian, pixel by pixel.
    """

    def __init__(self, rows: int, columns: int, samples: int) -> None:
        self._samples = samples
        self._digest = hashlib.sha256(f"{rows} {columns} {samples}\n".encode())

    def add(self, values: NDArray[Any], bits_stored: int, *, planes: bool = False) -> None:
        """Take one frame in; `planes` says that each sample has a plane of its own."""
        if planes and self._samples > 1:
            values = values.reshape(self._samples, -1).T.reshape(-1)
        unsigned = values.view(values.dtype.str.replace("i", "u"))
        kept = unsigned & unsigned.dtype.type((1 << bits_stored) - 1)
        unit = next(unit for bits, unit in _UNITS if bits_stored <= bits)
        self._digest.update(np.ascontiguousarray(kept, unit).data)

    def hexdigest(self) -> str:
        """Return the digest."""
        return self._digest.hexdigest()


def coded_digest(path: Path) -> str:
    """Return the digest of pixels in any syntax; empty if they cannot be decoded."""
    try:
        with quiet():
            ds = dcmread(path, stop_before_pixels=True, defer_size=1 << 16)
            digest = native_digest(int(ds.Rows), int(ds.Columns), int(ds.SamplesPerPixel))
            frames = 0
            for frame in iter_pixels(path, raw=True):
                digest.add(np.ascontiguousarray(frame).reshape(-1), int(ds.BitsStored))
                frames += 1
    except FAULTS:
        return UNREADABLE
    except BaseException as fault:
        if type(fault).__module__ != _RUST:  # what a codec in Rust throws is not an Exception
            raise
        return UNREADABLE
    return digest.hexdigest() if frames else UNREADABLE


class Decoder:
    """Decodes in a process of its own: a file that kills its reader, or never lets it go, is unreadable."""

    def __init__(self, limit_s: float = _LIMIT_S) -> None:
        self._limit_s = limit_s
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        """Begin; the process starts with the first file."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._end()

    def __call__(self, path: Path) -> str:
        """Return the digest of the pixels of a file; empty if they cannot be decoded.

        Raises: ArchiveError if no process can be started: that says nothing of the file.
        """
        limit_s = self._limit_s + path.stat().st_size / _SLOWEST_BYTES_S
        try:
            return self._begun().submit(coded_digest, path).result(limit_s)
        except TimeoutError:
            self._end()
            return UNREADABLE
        except BrokenProcessPool:
            self._end()
        try:  # once more: what killed it may have been the system, short of memory
            return self._begun().submit(coded_digest, path).result(limit_s)
        except (BrokenProcessPool, TimeoutError):
            self._end()
            return UNREADABLE

    def _begun(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _begin)
            try:
                self._pool.submit(int).result(_START_S)
            except (BrokenProcessPool, TimeoutError) as error:
                self._end()
                raise ArchiveError("no process could be started to decode pixels") from error
        return self._pool

    def _end(self) -> None:
        if self._pool is None:
            return
        for process in list((self._pool._processes or {}).values()):  # noqa: SLF001 -- the only way to end a worker that hangs
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


def _begin() -> None:
    """Prepare the process: codecs say nothing, and it ends with the one that started it, however that ended."""
    logging.disable(logging.CRITICAL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
