"""DICOM files (PS3.10) read with distrust: what comes out can be used, anything else raises.

Checks identity, size and decodability; does not judge content. DICOM libraries quote values in
their warnings and logs, so both are silenced while they read.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import config, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import get_expected_length, pixel_array
from pydicom.uid import UID, MediaStorageDirectoryStorage

from site_node.deidentify.headers import IDENTITY_UIDS
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom.dataset import Dataset

NOT_DICOM = "not-dicom"
DICOMDIR = "dicomdir-index"

_PREAMBLE = 128  # PS3.10 7.1
_NOISY_LOGGERS = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle")
# What pydicom and its codecs raise for bytes they cannot make sense of (recursion: RuntimeError).
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what DICOM libraries say about a file, values included, out of warnings and logs."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def read_instance(content: bytes) -> Dataset:
    """Return the data set of a DICOM file whose identity is complete.

    Raises: UnreadableInstance with a reason that names an attribute, never a value.
    """
    if content[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        raise UnreadableInstance(NOT_DICOM)
    try:
        ds = dcmread(BytesIO(content))
        meta_class, syntax = (
            str(ds.file_meta.get(keyword, "")) for keyword in ("MediaStorageSOPClassUID", "TransferSyntaxUID")
        )
        identity = {keyword: UID(str(ds.get(keyword, "")), config.IGNORE) for keyword in IDENTITY_UIDS}
    except InvalidDicomError:
        raise UnreadableInstance(NOT_DICOM) from None
    except FAULTS:
        # Without the cause: its text may quote the file.
        raise UnreadableInstance("data set cannot be parsed") from None
    if meta_class == MediaStorageDirectoryStorage:
        raise UnreadableInstance(DICOMDIR)
    if not syntax:
        raise UnreadableInstance("TransferSyntaxUID: absent")
    for keyword, uid in identity.items():
        if not uid.is_valid:
            raise UnreadableInstance(f"{keyword}: absent or not a UID")
    return ds


def check_pixels(ds: Dataset) -> None:
    """Check that PixelData holds exactly the image that the header describes.

    A compressed image's first frame is decoded.
    Raises: UnreadableInstance naming the attribute.
    Source: PS3.5 section 8, PS3.3 C.7.6.3.
    """
    try:
        if not isinstance(ds.get("PixelData"), bytes):
            raise UnreadableInstance("PixelData: absent")
        expected = get_expected_length(ds)
        if not expected:
            raise UnreadableInstance("Rows, Columns or NumberOfFrames: zero")
        if UID(ds.file_meta.TransferSyntaxUID).is_encapsulated:
            pixel_array(ds, index=0)
            return
        stored = len(ds.PixelData)
    except FAULTS:
        raise UnreadableInstance("PixelData: cannot be decoded") from None
    if stored not in (expected, expected + expected % 2):
        raise UnreadableInstance("PixelData: length differs from Rows, Columns and NumberOfFrames")
