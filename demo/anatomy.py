"""Virtual brains: real average anatomy, synthetic variation.

The anatomy is the MNI152 average brain with its grey and white matter maps, as nilearn's wheel
brings them; every virtual patient is a random affine and a smooth warp of it, seen through one
hospital's scanner. It is no data of any person, it has no face (the average is skull-stripped), and
nothing here knows DICOM.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import nibabel as nib
import numpy as np
from scipy.ndimage import (
    gaussian_filter,
    map_coordinates,
    zoom,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE: Final = (12, 112, 96)  # (slice, row, column)
SPACING_MM: Final = (4.0, 2.0, 2.0)
GREY_MATTER: Final = 1
WHITE_MATTER: Final = 2

_MAPS: Final = {name: f"mni_icbm152_{name}_tal_nlin_sym_09a_converted" for name in ("t1", "gm", "wm")}
_ATLAS_STEP: Final = 2  # every second voxel: a 2 mm atlas
_TISSUE: Final = 0.45  # a voxel is a tissue from this probability on
_BRAIN: Final = 0.15  # and brain from this brightness on
_WARP_NODES: Final = (3, 6, 5)
_WARP_MM: Final = 3.0  # standard deviation at the nodes
_BIAS_NODES: Final = (2, 3, 3)
_FULL_SCALE: Final = 1600  # stored value of the brightest tissue
_STORED_MAX: Final = 4095  # 12 bits


@dataclass(frozen=True, slots=True)
class Look:
    """How one hospital's scanner shows a brain; `inverted` gives T2-like contrast."""

    gamma: float
    bias: float
    noise: float
    inverted: bool


@dataclass(frozen=True, slots=True)
class Brain:
    """One virtual patient's image and its label map, both (slice, row, column).

    Shape:  axial slices from feet to head; rows run to posterior, columns to the patient's left.
    Units:  `origin_mm` is the centre of the first voxel as (x, y, z) in LPS.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    origin_mm: tuple[float, float, float]


def virtual_brain(rng: np.random.Generator, look: Look) -> Brain:
    """Give a new virtual patient's brain as a scanner of this `look` shows it."""
    origin = (-95.0, -100.0, float(rng.integers(-10, 11)))
    where = _atlas_places(rng, origin)
    t1, grey, white = (map_coordinates(volume, where, order=1) for volume in _atlas())
    brain = gaussian_filter((t1 > _BRAIN).astype(np.float32), (0, 1, 1)) > 1 / 2
    labels = np.zeros(SHAPE, np.uint8)
    labels[brain & (grey > _TISSUE)] = GREY_MATTER
    labels[brain & (white > _TISSUE)] = WHITE_MATTER
    return Brain(_scan(rng, look, t1, brain), labels, origin)


@cache
def _atlas() -> tuple[NDArray[np.float32], ...]:
    """Give T1, grey and white matter as (x, y, z) in RAS, each scaled to at most 1."""
    package = importlib.util.find_spec("nilearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the demo needs nilearn: pip install 'filmroom[demo]'")
    folder = Path(package.origin).parent / "datasets" / "data"
    return tuple(_read_map(folder / f"{name}.nii.gz") for name in _MAPS.values())


def _read_map(path: Path) -> NDArray[np.float32]:
    stored = np.asarray(nib.Nifti1Image.from_filename(path).dataobj)
    volume = stored[::_ATLAS_STEP, ::_ATLAS_STEP, ::_ATLAS_STEP].astype(np.float32)
    return np.asarray(volume / volume.max(), np.float32)


_ATLAS_ORIGIN_RAS: Final = np.array([-98.0, -134.0, -72.0])  # of the maps above, in mm
_ATLAS_CENTRE_RAS: Final = np.array([0.0, -17.0, 10.0])


def _atlas_places(rng: np.random.Generator, origin: tuple[float, float, float]) -> NDArray[np.float64]:
    """Give the atlas index (x, y, z) that each voxel of the new image shows."""
    slices, rows, columns = np.indices(SHAPE, np.float64)
    lps = (
        origin[0] + columns * SPACING_MM[2],
        origin[1] + rows * SPACING_MM[1],
        origin[2] + slices * SPACING_MM[0],
    )
    ras = np.stack((-lps[0], -lps[1], lps[2])).reshape(3, -1)
    moved = _affine(rng) @ (ras - _ATLAS_CENTRE_RAS[:, None]) + _ATLAS_CENTRE_RAS[:, None]
    warp = np.stack([_smooth(rng, _WARP_NODES) * _WARP_MM for _ in range(3)]).reshape(3, -1)
    index = (moved + warp - _ATLAS_ORIGIN_RAS[:, None]) / _ATLAS_STEP
    return np.asarray(index.reshape(3, *SHAPE), np.float64)


def _affine(rng: np.random.Generator) -> NDArray[np.float64]:
    turn = rng.normal(0, (0.04, 0.04, 0.10))  # radians about x, y, z
    matrix = np.diag(1 / rng.uniform(0.90, 1.08, 3))
    for axis, angle in enumerate(turn):
        first, second = (other for other in range(3) if other != axis)
        rotation = np.eye(3)
        rotation[first, first] = rotation[second, second] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ rotation
    return np.asarray(matrix, np.float64)


def _smooth(rng: np.random.Generator, nodes: tuple[int, int, int]) -> NDArray[np.float64]:
    """Give a smooth random field of the image's shape, about 1 in size at its nodes."""
    factors = [size / count for size, count in zip(SHAPE, nodes, strict=True)]
    return np.asarray(zoom(rng.normal(0, 1, nodes), factors, order=2), np.float64)


def _scan(
    rng: np.random.Generator, look: Look, t1: NDArray[np.float32], brain: NDArray[np.bool_]
) -> NDArray[np.uint16]:
    """Give the stored values: contrast, receive-coil bias, then the noise of a magnitude image."""
    tissue = np.where(brain, 1.15 - t1, 0.15 * t1) if look.inverted else t1
    bias = 1 + look.bias * _smooth(rng, _BIAS_NODES) / 2
    signal = np.clip(tissue, 0, None) ** look.gamma * bias
    noise = rng.normal(0, look.noise, (2, *SHAPE))
    magnitude = np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.clip(magnitude * _FULL_SCALE, 0, _STORED_MAX), np.uint16)
