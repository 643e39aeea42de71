"""Comments and application data put into compressed frames, where the formats allow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def comment(ds: Dataset, text: str, application: str) -> str:
    """Put `text` into a comment and `application` into application data of each frame; return where it is."""
    syntax = ds.file_meta.TransferSyntaxUID
    frames = list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)))
    if syntax in JPEG2000TransferSyntaxes:
        frames, how = [_jpeg2000(frame, text) for frame in frames], "j2k-com"
    elif syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        frames, how = [_jpeg(frame, text, application) for frame in frames], "jpeg-com"
    else:
        frames, how = [frame + text.encode() + b" " * (len(text) % 2) for frame in frames], "after-segments"
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].is_undefined_length = True
    return how


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _jpeg(frame: bytes, text: str, application: str) -> bytes:
    exif = b"Exif\0\0II*\0\x08\0\0\0" + application.encode()
    stripped = frame.rstrip(b"\0")
    return stripped[:2] + _segment(0xE1, exif) + _segment(0xFE, text.encode()) + stripped[2:]


def _jpeg2000(frame: bytes, text: str) -> bytes:
    # SOC, then SIZ with its length; comments stand anywhere after it in the main header.
    after_siz = 4 + int.from_bytes(frame[4:6], "big")
    body = b"\0\x01" + text.encode()
    return frame[:after_siz] + _segment(0x64, body) + frame[after_siz:]
