"""Photographs: which must be seen by a person, where faces are, and plain files without what they carry.

Everything a camera writes beside the picture (place, time, serial numbers, thumbnails, captions) goes
by building the file anew from its pixels. Faces are found, not blanked: a photograph with a face is
held. Text in photographs is `burned_in`'s; comments in DICOM codestreams are `picture`'s.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom import uid

from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    View = NDArray[np.uint8]

SLIDE_LABEL = "slide-label-in-image"
FACE = "face-in-photograph"
HEAD = "photograph-of-a-head"
NOT_A_PHOTOGRAPH = "not-a-photograph"

# What a picture of it always, sometimes or never shows of a face.
SLIDES = frozenset({uid.VLWholeSlideMicroscopyImageStorage, uid.VLSlideCoordinatesMicroscopicImageStorage})
CAMERAS = frozenset(
    {
        uid.VLPhotographicImageStorage,
        uid.VideoPhotographicImageStorage,
        uid.VLEndoscopicImageStorage,
        uid.VideoEndoscopicImageStorage,
        uid.VLMicroscopicImageStorage,
        uid.VideoMicroscopicImageStorage,
        uid.DermoscopicPhotographyImageStorage,
        uid.OphthalmicPhotography8BitImageStorage,
        uid.OphthalmicPhotography16BitImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
_CAPTURES = frozenset({uid.SecondaryCaptureImageStorage, uid.MultiFrameTrueColorSecondaryCaptureImageStorage})
_PHOTOGRAPHS = frozenset({uid.VLPhotographicImageStorage, uid.VideoPhotographicImageStorage})
_WITH_LABEL = frozenset({"LABEL", "OVERVIEW"})  # PS3.3 C.8.12.4.1.1: both show the slide's label
_HEADS = frozenset("HEAD FACE SKULL EYE EAR NOSE JAW MAXILLA MANDIBLE NECK ORBIT TEETH MOUTH LIP".split())  # noqa: SIM905 -- a list of words


@dataclass(frozen=True, slots=True)
class Clear:
    """The header does not speak against the photograph; `look` says whether faces must be looked for."""

    look: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A person has to look at the photograph first; `reason` is safe to show."""

    reason: str


class Found(NamedTuple):
    """A face: half-open, in pixels of the view."""

    top: int
    left: int
    bottom: int
    right: int


def screen(ds: Dataset) -> Clear | Held:
    """Return what the header says of a visible-light image.

    A slide's tiles show no face; its label and overview show the patient's name in handwriting or
    print. A photograph of a named head is held whatever a detector finds: an eye alone is a person.

    Source: PS3.3 C.7.6.1.1.2 (ImageType), C.8.12.4 (SpecimenLabelInImage), PS3.15 E.3.1, E.3.2.
    """
    sop_class = str(ds.get("SOPClassUID") or "")
    types = {str(value).strip().upper() for value in ds.get("ImageType") or ()}
    if types & _WITH_LABEL or str(ds.get("SpecimenLabelInImage") or "").strip().upper() == "YES":
        return Held(SLIDE_LABEL)
    if sop_class in SLIDES:
        return Clear(look=False)
    if sop_class not in CAMERAS:
        return Held(NOT_A_PHOTOGRAPH)
    part = str(ds.get("BodyPartExamined") or "").strip().upper()
    regions = " ".join(str(item.get("CodeMeaning") or "").upper() for item in ds.get("AnatomicRegionSequence") or ())
    if sop_class in _PHOTOGRAPHS and (part in _HEADS or _HEADS & set(regions.split())):
        return Held(HEAD)
    # A capture without colour is of a section or projection, whose noise a detector takes for faces.
    return Clear(look=sop_class not in _CAPTURES or int(ds.get("SamplesPerPixel") or 1) > 1)


# Faces

_SURE = 0.45  # of 1; the weakest of our true faces, turned and small, had 0.6, the strongest other thing 0.33
_SIDES = (640, 256)  # pixels: small faces, faces that fill the picture
_MULTIPLE = 32  # the network halves five times
_STRIDE = 4
_SMALLEST_VIEW = 16  # pixels


@cache
def _detector() -> onnxruntime.InferenceSession:
    model = (resources.files("site_node.deidentify") / "templates" / "face.onnx").read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # intake runs a process for each core
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def faces(view: View) -> tuple[Found, ...]:
    """Return where `view` shows faces, upright, lying or on their head, overlapping finds included.

    Shape:  `view` is (row, column) or (row, column, 3), 8 bit, as a person sees it.
    Source: Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point",
        section 3 (the heat map's peak is a face's middle; sizes are logarithmic).
    """
    if min(view.shape[:2]) < _SMALLEST_VIEW:
        return ()
    picture = Image.fromarray(view).convert("RGB")
    found = []
    for turns in range(4):
        turned = picture.rotate(90 * turns, expand=True)
        for side in _SIDES:
            for top, left, bottom, right in _upright_faces(turned, side):
                found.append(_turn_back((top, left, bottom, right), turns, picture.size))
    return tuple(dict.fromkeys(found))


def _upright_faces(picture: Image.Image, side: int) -> list[tuple[float, float, float, float]]:
    scale = side / max(picture.size)
    width, height = (max(_MULTIPLE, round(n * scale / _MULTIPLE) * _MULTIPLE) for n in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    heat, size, shift = (
        np.asarray(plane)[0]
        for plane in _detector().run(["heat", "size", "shift"], {"image": pixels.transpose(2, 0, 1)[None]})
    )
    down, across = picture.height / height, picture.width / width
    boxes = []
    for r, c in zip(*np.nonzero(heat[0] >= _SURE), strict=True):
        tall, wide = np.exp(size[:, r, c]) * _STRIDE
        y, x = (r + shift[0, r, c] + 0.5) * _STRIDE, (c + shift[1, r, c] + 0.5) * _STRIDE
        boxes.append(((y - tall / 2) * down, (x - wide / 2) * across, (y + tall / 2) * down, (x + wide / 2) * across))
    return boxes


def _turn_back(box: tuple[float, float, float, float], turns: int, size: tuple[int, int]) -> Found:
    """Return a box of the picture turned counter-clockwise `turns` times, in the picture as it was."""
    width, height = size
    top, left, bottom, right = box
    for turn in range(turns, 0, -1):
        across = width if turn % 2 else height  # the width before this turn
        top, left, bottom, right = left, across - bottom, right, across - top
    return Found(
        max(0, int(np.floor(top))),
        max(0, int(np.floor(left))),
        min(height, int(np.ceil(bottom))),
        min(width, int(np.ceil(right))),
    )


# Plain files

_FORMATS = {"JPEG": "JPEG", "PNG": "PNG", "TIFF": "TIFF", "MPO": "JPEG", "BMP": "PNG"}
_MODES = {"L", "RGB", "I;16"}
_MOST_PIXELS = 100_000_000
_MOST_BYTES = 512 * 2**20
_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An image file made of pixels alone; `lossy_again` says whether it was compressed anew with loss."""

    data: bytes
    format: str
    lossy_again: bool


def rebuild(data: bytes, most_pixels: int = _MOST_PIXELS) -> Rebuilt:
    """Return the picture in a JPEG, PNG, TIFF or BMP file as a new file without anything beside it.

    The camera's orientation is applied first, for its tag goes too. Only the first picture stays: the
    others in a TIFF or MPO are previews or pages that nobody asked for. Transparency goes; what it hid
    would otherwise come back.

    Raises: UnreadableInstance if the file is none of these, is damaged, or is larger than the bounds.
    """
    if len(data) > _MOST_BYTES:
        raise UnreadableInstance("image file too large")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd tags, none of which are kept
            with Image.open(io.BytesIO(data), formats=tuple(_FORMATS)) as opened:
                kind = str(opened.format)
                if opened.width * opened.height > most_pixels:
                    raise UnreadableInstance("image too large")
                picture = ImageOps.exif_transpose(opened)
                picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError) as error:
        # The library's message can quote the file: it is not passed on.
        raise UnreadableInstance("image file cannot be read") from error
    if picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info:
        ground = Image.new("RGBA", picture.size, "black")
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    if picture.mode not in _MODES:
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    clean = Image.fromarray(np.asarray(picture).copy())  # new: no info, no tags
    out, target = io.BytesIO(), _FORMATS[kind]
    if target == "JPEG":
        clean.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    elif target == "PNG":
        clean.save(out, "PNG")
    else:
        clean.save(out, "TIFF", compression="tiff_adobe_deflate")
    return Rebuilt(out.getvalue(), target, target == "JPEG")
