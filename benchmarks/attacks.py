"""What attackers and hospitals do to image files, each on one file in place: all a detector has to tell apart."""

from __future__ import annotations

import base64
import os
import random
from typing import TYPE_CHECKING, Final

import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pydicom.uid import UID

    Change = Callable[[Path], None]

_KIB: Final = 1024
_HEADER: Final = 4096  # longer than the headers of what is attacked


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 -- stands for what a cipher makes


def _overwrite(path: Path, *places: tuple[int, int]) -> None:
    with path.open("r+b") as file:
        for start, size in places:
            file.seek(start)
            file.write(_noise(size))


def _places(path: Path, start: int) -> list[tuple[int, int]]:
    size = path.stat().st_size
    return [(at, min(16 * _KIB, size - at)) for at in range(start, size, 64 * _KIB)]


def encrypt(path: Path) -> None:
    """Encrypt all of a file."""
    path.write_bytes(_noise(path.stat().st_size))


def _encrypt_and_rename(path: Path) -> None:
    encrypt(path)
    path.rename(path.with_name(f"{path.name}.locked"))


def _base64(path: Path) -> None:
    path.write_bytes(base64.b64encode(_noise(path.stat().st_size)))


def _zero(path: Path) -> None:
    ds = dcmread(path)
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(path)


def _flip_a_bit(path: Path) -> None:
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # and hide it


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _compress_first(change: Change) -> Change:
    change.__dict__["compressed"] = True
    return change


def _encrypt_behind_the_header(path: Path) -> None:
    _overwrite(path, (_HEADER, path.stat().st_size - _HEADER))


@_compress_first
def _encrypt_jpeg_ls(path: Path) -> None:
    _encrypt_behind_the_header(path)


def edit_header(path: Path) -> None:
    """Merge a patient: names, numbers and a length are others, pixels are the same."""
    ds = dcmread(path)
    ds.PatientName, ds.PatientID, ds.OtherPatientIDs = "MERGED^PATIENT", "M-1", "OLD-1"
    ds.save_as(path)


@_compress_first
def _edit_jpeg_ls(path: Path) -> None:
    edit_header(path)


def _transcode(path: Path, syntax: UID) -> None:
    ds = dcmread(path)
    ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(path)


def to_jpeg_ls(path: Path) -> None:
    """Compress with JPEG-LS, without loss, under the same UID."""
    _transcode(path, JPEGLSLossless)


def _to_jpeg_2000(path: Path) -> None:
    _transcode(path, JPEG2000Lossless)


def _to_htj2k(path: Path) -> None:
    ds = dcmread(path)
    samples = ds.pixel_array
    ds.PixelData = encapsulate([bytes(imagecodecs.htj2k_encode(np.ascontiguousarray(samples)))])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = HTJ2KLossless
    ds.save_as(path)


def _to_implicit(path: Path) -> None:
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(path, implicit_vr=True, little_endian=True)


def _rename(path: Path) -> None:
    path.rename(path.with_suffix(".renamed"))


def _copy_away(path: Path) -> None:
    folder = path.parent / "moved"
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    path.unlink()


def is_compressed(change: Change) -> bool:
    """Return whether the change is one of a file that is compressed."""
    return "compressed" in change.__dict__


ATTACKS: Final[Mapping[str, Change]] = {
    "all encrypted": encrypt,
    "first 1 KiB kept": lambda path: _overwrite(path, (_KIB, path.stat().st_size - _KIB)),
    "16 KiB of each 64 KiB": lambda path: _overwrite(path, *_places(path, 0)),
    "16 KiB of each 64 KiB, header kept": lambda path: _overwrite(path, *_places(path, _HEADER)),
    "first 64 KiB only": lambda path: _overwrite(path, (0, 64 * _KIB)),
    "one block of 4 KiB": lambda path: _overwrite(path, (path.stat().st_size // 2, 4 * _KIB)),
    "encrypted, base64": _base64,
    "JPEG-LS, header kept": _encrypt_jpeg_ls,
    "pixels zeroed": _zero,
    # Of our own.
    "encrypted and renamed": _encrypt_and_rename,
    "one bit of a pixel, time set back": _flip_a_bit,
    "cut off": _truncate,
}
BENIGN: Final[Mapping[str, Change]] = {
    "header merge": edit_header,
    "to JPEG 2000": _to_jpeg_2000,
    "to JPEG-LS": to_jpeg_ls,
    "to HTJ2K": _to_htj2k,
    "header merge of JPEG-LS": _edit_jpeg_ls,
    # Of our own.
    "to implicit VR": _to_implicit,
    "renamed": _rename,
    "copied elsewhere and deleted": _copy_away,
    "touched": lambda path: path.touch(),
}
