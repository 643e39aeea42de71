"""The face goes, the brain stays, and doubt is a refusal; on heads made from the shipped average."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from site_node.deidentify import defacing
from site_node.deidentify.defacing import Defaced, Refused, deface

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float64]

_SPACING = np.array((2.5, 2.0, 2.0))
_SHAPE = (100, 128, 112)


def a_head(modality: str, nod: float = 0.0, tilt: float = 0.0, seed: int = 1) -> tuple[Floats, Matrix, Mask, Mask]:
    """Return an average head, turned, moved and noisy: volume, affine, its brain, its nose and chin."""
    picture, brain, head = defacing._template()  # noqa: SLF001 -- the only head there is
    angle = np.deg2rad(nod)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) @ np.diag(_SPACING)
    affine[1, 0] = np.tan(np.deg2rad(tilt)) * _SPACING[0]
    affine[:3, 3] = (-112, -128 - tilt, -150)
    grid = np.zeros((4, 4))
    grid[0, 2] = grid[1, 1] = grid[2, 0] = 3.0
    grid[:3, 3], grid[3, 3] = (-105, -129, -147), 1
    pose = np.eye(4)
    pose[:3, :3] = turn
    back = np.linalg.inv(grid) @ np.linalg.inv(pose) @ affine

    def place(values: npt.NDArray[np.generic], order: int = 1) -> Floats:
        moved: Floats = ndimage.affine_transform(
            values.astype(np.float32), back[:3, :3], back[:3, 3], output_shape=_SHAPE, order=order
        )
        return moved

    rng = np.random.default_rng(seed)
    outside = ndimage.distance_transform_edt(~brain, sampling=3.0)
    skull = head & (outside > 4) & (outside < 11)  # mm; the average's own is blurred away
    if modality == "CT":
        tissue = np.where(head, 40.0, -1000.0)
        tissue[skull] = 900.0
        volume = place(tissue + 1000) - 1000 + rng.normal(0, 8, _SHAPE).astype(np.float32)
    else:
        volume = place(np.where(skull, 0.1, picture)) * 800 + np.abs(rng.normal(0, 12, _SHAPE)).astype(np.float32)
    front = np.zeros_like(brain)
    front[10:40, :16] = True  # below z = -30, in front of y = -81: nose, mouth, chin
    return volume, affine, place(brain, 0) > 0, place(front & head, 0) > 0


@pytest.mark.parametrize(("modality", "nod", "tilt"), [("MR", 12.0, 0.0), ("CT", -10.0, 0.0), ("CT", 0.0, 15.0)])
def test_the_face_goes_and_the_brain_stays(modality: str, nod: float, tilt: float) -> None:
    volume, affine, brain, front = a_head(modality, nod, tilt)

    found = deface(volume, affine, modality)

    assert isinstance(found, Defaced)
    mask = np.stack(list(found.masks()))
    assert mask.shape == volume.shape
    assert (mask & brain).sum() <= 0.001 * brain.sum()
    assert (mask & front).sum() >= 0.99 * front.sum()
    assert np.array_equal(found.mask(30), mask[30])
    assert found.air == (-1000.0 if modality == "CT" else volume.min())


def test_a_volume_of_noise_is_refused() -> None:
    noise = np.random.default_rng(3).normal(100, 10, (60, 80, 80)).astype(np.float32)

    assert isinstance(deface(noise, np.diag([3.0, 3.0, 3.0, 1.0]), "MR"), Refused)


def test_a_body_is_refused() -> None:
    _, r, c = np.indices((80, 120, 160))
    body = np.where(((r - 60) / 45) ** 2 + ((c - 80) / 65) ** 2 < 1, 40.0, -1000.0).astype(np.float32)
    affine = np.array([[0, 0, 3, 0], [0, 3, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1]], float)

    assert isinstance(deface(body, affine, "CT"), Refused)


def test_a_face_without_its_brain_is_refused() -> None:
    volume, affine, _, _ = a_head("CT")

    assert isinstance(deface(volume[:35], affine, "CT"), Refused)


@pytest.mark.parametrize(
    ("modality", "count", "reason"), [("PT", 60, defacing.NOT_CT_OR_MR), ("MR", 4, defacing.TOO_SMALL)]
)
def test_what_is_never_tried_says_why(modality: str, count: int, reason: str) -> None:
    assert deface(np.zeros((count, 8, 8)), np.eye(4), modality) == Refused(reason)


def test_an_empty_volume_holds_no_head() -> None:
    assert deface(np.full((40, 40, 40), -1000.0), np.diag([3.0, 3.0, 3.0, 1.0]), "CT") == Refused(defacing.NO_HEAD)


def test_a_volume_has_three_axes() -> None:
    with pytest.raises(ValueError, match="three axes"):
        deface(np.zeros((4, 4)), np.eye(4), "CT")
