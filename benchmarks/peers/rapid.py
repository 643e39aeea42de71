"""Bare RapidOCR at its defaults: every frame is read, and every box in which it reads something is blanked."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian
from rapidocr import RapidOCR

from benchmarks.peers.runner import run

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

logging.disable()
READER = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": 1, "Global.log_level": "critical"})


def treat(source: Path, target: Path) -> None:
    """Write the file, uncompressed, with every box blanked on every frame."""
    ds = pydicom.dcmread(source)
    values = ds.pixel_array.copy()
    frames = values if int(ds.get("NumberOfFrames") or 1) > 1 else values[None]
    # A frame that is as the one before needs no second reading.
    new = [frame for at, frame in enumerate(frames) if at == 0 or not np.array_equal(frame, frames[at - 1])]
    boxes = [box for frame in new for box in _boxes(_view(frame, ds))]
    for box in boxes:
        top, left, bottom, right = (
            int(edge) for edge in (*np.floor(box.min(axis=0))[::-1], *np.ceil(box.max(axis=0))[::-1])
        )
        frames[:, max(top, 0) : bottom + 1, max(left, 0) : right + 1] = frames.min()
    ds.set_pixel_data(values, "RGB" if values.ndim > 2 and ds.SamplesPerPixel > 1 else _grey(ds), int(ds.BitsStored))  # noqa: PLR2004 -- colour
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(target)


def _boxes(view: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    found = getattr(READER(view), "boxes", None)
    return [] if found is None else list(found)


def _view(frame: NDArray[np.generic], ds: pydicom.Dataset) -> NDArray[np.uint8]:
    """Return a frame as a person sees it, in eight bits."""
    values = frame.astype(np.float32)
    if values.ndim == 2:  # noqa: PLR2004 -- grey
        low, high = np.percentile(values, (0.5, 99.5))
        values = np.clip((values - low) / max(high - low, 1.0), 0, 1) * 255
    return (255 - values if _grey(ds) == "MONOCHROME1" else values).astype(np.uint8)


def _grey(ds: pydicom.Dataset) -> str:
    return str(ds.PhotometricInterpretation)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(treat)
