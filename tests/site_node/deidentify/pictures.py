"""Pictures made from arrays, native or compressed, for the tests of what is done to pixels."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from site_node.deidentify.picture import Picture, picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from site_node.deidentify.blanking import Blanked

COLOURS = 3


def header(frame: NDArray[Any], syntax: str, photometric: str, **attributes: object) -> Dataset:
    """Return the image attributes of a frame of (row, column) or (row, column, sample)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.Rows, ds.Columns = frame.shape[:2]
    ds.SamplesPerPixel = COLOURS if frame.ndim == COLOURS else 1
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = ds.BitsStored = 8 * frame.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(frame.dtype.kind == "i")
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def native(
    frames: Sequence[NDArray[Any]], photometric: str = "MONOCHROME2", *, big: bool = False, **attributes: object
) -> Picture:
    """Return frames as they are stored without compression."""
    ds = header(frames[0], ExplicitVRBigEndian if big else ExplicitVRLittleEndian, photometric, **attributes)
    ds.NumberOfFrames = len(frames)
    if frames[0].dtype.kind == "f":
        del ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    planar = bool(ds.get("PlanarConfiguration"))
    stored = b"".join(
        (np.moveaxis(frame, -1, 0) if planar else frame).astype(frame.dtype.newbyteorder(">" if big else "<")).tobytes()
        for frame in frames
    )
    return picture(ds, memoryview(stored + b"\0" * (len(stored) % 2)))


def wrapped(
    coded: Sequence[bytes], frame: NDArray[Any], syntax: str, photometric: str = "MONOCHROME2", **attributes: object
) -> Picture:
    """Return compressed frames as a picture; `frame` tells their shape and type."""
    ds = header(frame, syntax, photometric, **attributes)
    ds.NumberOfFrames = len(coded)
    return picture(ds, memoryview(encapsulate(list(coded))))


def jpeg(frame: NDArray[np.uint8], **options: Any) -> bytes:  # what Pillow's writer takes
    """Return a frame as Pillow writes JPEG."""
    out = BytesIO()
    Image.fromarray(frame).save(out, "JPEG", **options)
    return out.getvalue()


def again(before: Picture, blanked: Blanked) -> Picture:
    """Return the picture that is written."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(blanked.transfer_syntax)
    ds.NumberOfFrames, ds.Rows, ds.Columns = before.frames, before.rows, before.columns
    ds.SamplesPerPixel, ds.PlanarConfiguration = before.samples, before.planar_configuration
    ds.BitsAllocated = before.bits_allocated
    if not before.floating:
        ds.BitsStored, ds.HighBit = before.bits_stored, before.high_bit
        ds.PixelRepresentation = before.pixel_representation
    # A palette's table is not needed to compare stored values.
    ds.PhotometricInterpretation = before.photometric.replace("PALETTE COLOR", "MONOCHROME2")
    for tag, value in blanked.changes.items():
        keyword = keyword_for_tag(tag)
        if value is not None and keyword != "TransferSyntaxUID":
            setattr(ds, keyword, value)
    stored = b"".join(blanked.chunks)
    assert len(stored) % 2 == 0
    assert blanked.length in (None, len(stored))
    return picture(ds, memoryview(stored), words=before.swapped)
