"""Frames through foreign codecs, one at a time: samples come out, or frames coded without loss.

What codecs say of a file stays out of warnings and logs, and all that they raise becomes
UnreadableInstance without their words, which may quote the file.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, JPEGLSTransferSyntaxes

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_NOISY_LOGGERS = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle")
# What pydicom and its codecs raise for bytes they cannot make sense of.
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_RUST = "pyo3_runtime"  # where PanicException lives, which cannot be imported
UNDECODABLE = "PixelData: cannot be decoded"

_PLUGIN = "pylibjpeg"
_FAST_JPEG_LS = "pyjpegls"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a codec must know of a frame; the fields are the attributes of those names."""

    transfer_syntax: str
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric: str

    def options(self) -> dict[str, Any]:
        """Return the options of pydicom's codecs for one frame, pixel by pixel."""
        options: dict[str, Any] = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples,
            "bits_allocated": self.bits_allocated,
            "bits_stored": self.bits_stored,
            "pixel_representation": self.pixel_representation,
            "photometric_interpretation": self.photometric,
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
        }
        if self.samples > 1:
            options["planar_configuration"] = 0
        return options


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what DICOM libraries say about a file, values included, out of warnings and logs."""
    # The loggers of their modules hand on to these, past a level or a `disabled` set here.
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # else the handler of last resort would speak
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.propagate = propagate


@contextmanager
def _no_panic() -> Iterator[None]:
    """Make a fault of what a codec in Rust throws, which no handler of exceptions would catch."""
    try:
        yield
    except BaseException as fault:
        if type(fault).__module__ != _RUST:
            raise
        raise RuntimeError from None


def decode(coded: bytes, layout: Layout, *, whole: bool) -> tuple[NDArray[Any], str]:
    """Return a coded frame's samples as its header means them, and their photometric interpretation.

    `whole` says that the frame's markers could be followed up to its end.
    Shape:  (row, column) or (row, column, sample).
    Raises: UnreadableInstance.
    """
    # CharLS is five times as fast, but never comes back from some streams that are cut off.
    fast = whole and UID(layout.transfer_syntax) in JPEGLSTransferSyntaxes
    try:
        with quiet(), _no_panic():
            samples, properties = get_decoder(layout.transfer_syntax).as_array(
                encapsulate([coded], has_bot=False),
                index=0,
                raw=True,
                decoding_plugin=_FAST_JPEG_LS if fast else _PLUGIN,
                **layout.options(),
            )
    except FAULTS:
        raise UnreadableInstance(UNDECODABLE) from None
    return samples, str(properties["photometric_interpretation"])


def encode(samples: NDArray[Any], layout: Layout) -> bytes:
    """Return a frame coded without loss in `layout`'s transfer syntax.

    Raises: UnreadableInstance.
    """
    try:
        with quiet(), _no_panic():
            return get_encoder(layout.transfer_syntax).encode(np.ascontiguousarray(samples), **layout.options())
    except FAULTS:
        raise UnreadableInstance("PixelData: cannot be encoded") from None
