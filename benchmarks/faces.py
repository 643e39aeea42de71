"""What defacing does to heads whose brain is known: figures for docs/deidentification.md.

Heads offline are few, so each real one is warped into many: smooth random displacements make
identities, turns and noise make visits. `figures` takes any head with its brain; `main` reads those
it is given a folder for (Debian's mricron-data and invesalius-examples, unpacked; not shipped).
"""

from __future__ import annotations

import argparse
import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from site_node.deidentify.defacing import Defaced, deface

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Mask = NDArray[np.bool_]
    Matrix = NDArray[np.float64]

_SPACING = 1.5  # mm, of the warped heads
_KNOTS = 35.0  # mm between the knots of a displacement field


@dataclass(frozen=True, slots=True)
class Head:
    """A scan with the truth: (slice, row, column), its affine to LPS mm, its brain, skin above `skin`."""

    name: str
    modality: str
    volume: Floats
    affine: Matrix
    brain: Mask
    skin: float
    face: tuple[float, float]  # from brow to chin (or the end of the scan), as z in mm


@dataclass(frozen=True, slots=True)
class Visit:
    """A head as one scanner saw it, and where it was: `pose` takes head mm to visit mm."""

    head: Head
    pose: Matrix


def warped(head: Head, identity: np.random.Generator, visit: np.random.Generator, amplitude: float = 3.0) -> Visit:
    """Return `head` with another shape (mm standard deviation `amplitude`), turned, moved and noisy."""
    shape = np.array(head.volume.shape)
    spacing = np.linalg.norm(head.affine[:3, :3], axis=0)
    knots = np.ceil(shape * spacing / _KNOTS).astype(int) + 3
    fields = [identity.normal(0, amplitude, knots) for _ in range(3)]
    stretch = np.diag([*identity.normal(1, 0.04, 3), 1.0])
    pose = _turn(visit) @ stretch
    size = np.ceil(shape * spacing / _SPACING).astype(int)
    grid = np.diag([_SPACING] * 3 + [1.0])
    # Keep the original's axes, so that the visit is a plain stack.
    to_mm = head.affine @ np.diag([*(1 / spacing), 1.0]) @ grid
    centre = (head.affine @ np.array([*(shape / 2), 1.0]))[:3]
    about = np.eye(4)
    about[:3, 3] = centre
    pose = about @ pose @ np.linalg.inv(about)
    back = np.linalg.inv(head.affine) @ np.linalg.inv(pose) @ to_mm
    at = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size), indexing="ij"))
    index = np.tensordot(back[:3, :3].astype(np.float32), at, 1) + back[:3, 3].astype(np.float32)[:, None, None, None]
    place = index * (spacing / _KNOTS).astype(np.float32)[:, None, None, None] + 1
    moved = np.stack(
        [index[i] + ndimage.map_coordinates(fields[i], place, order=3, mode="nearest") / spacing[i] for i in range(3)]
    )
    floor = float(head.volume.min())
    volume = ndimage.map_coordinates(head.volume, moved, order=1, cval=floor).astype(np.float32)
    noise = 12.0 if head.modality == "CT" else 0.02 * float(np.percentile(head.volume, 99))
    volume += visit.normal(0, noise, volume.shape).astype(np.float32)
    brain = ndimage.map_coordinates(head.brain.astype(np.uint8), moved, order=0) > 0
    return Visit(Head(head.name, head.modality, volume, to_mm, brain, head.skin, head.face), pose)


def _turn(rng: np.random.Generator) -> Matrix:
    nod, lean, shake = np.deg2rad(rng.normal(0, (8.0, 4.0, 4.0)))
    about_x = [[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]]
    about_y = [[np.cos(lean), 0, np.sin(lean)], [0, 1, 0], [-np.sin(lean), 0, np.cos(lean)]]
    about_z = [[np.cos(shake), -np.sin(shake), 0], [np.sin(shake), np.cos(shake), 0], [0, 0, 1]]
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(about_x) @ np.array(about_y) @ np.array(about_z)
    matrix[:3, 3] = rng.normal(0, 5.0, 3)
    return matrix


def depth_map(visit: Visit, mask: Mask | None = None) -> tuple[Floats, Mask]:
    """Return how deep each ray from the front goes before skin, and which rays are of the face.

    The rays stand in the head's own frame: an attacker who aligns perfectly.

    Shape: (z, x) at 3 mm; mm, infinite where nothing is hit.
    """
    head = visit.head
    picture = head.volume if mask is None else np.where(mask, head.volume.min(), head.volume)
    skin = ndimage.binary_opening(picture > head.skin, iterations=2)
    labels, _ = ndimage.label(skin)
    skin = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    z, y, x = np.arange(-150, 100, 3.0), np.arange(-140, 60, 1.5), np.arange(-75, 76, 3.0)
    middle = _middle(head, visit)
    points = np.stack([*np.meshgrid(z, y, x, indexing="ij")])
    mm = np.stack([points[2] + middle[0], points[1] + middle[1], points[0] + middle[2], np.ones_like(points[0])])
    index = np.tensordot(np.linalg.inv(head.affine) @ visit.pose, mm, 1)[:3]
    hit = ndimage.map_coordinates(skin.astype(np.uint8), index, order=0) > 0
    depth = np.where(hit.any(1), y[np.argmax(hit, axis=1)], np.inf).astype(np.float32)
    low, high = head.face
    face = ((z + middle[2] >= low) & (z + middle[2] <= high))[:, None] & (np.abs(x) <= 60)[None, :] & (depth < -20)  # noqa: PLR2004 -- mm
    return depth, face


def _middle(head: Head, visit: Visit) -> Matrix:
    """Return the middle of the brain in the head's frame."""
    centre = np.array([*ndimage.center_of_mass(head.brain), 1.0])
    middle: Matrix = (np.linalg.inv(visit.pose) @ head.affine @ centre)[:3]
    return middle


def _rank(seen: tuple[Floats, Mask], others: list[tuple[Floats, Mask]], *, whole: bool) -> int:
    """Return the one of `others` whose surface is nearest to `seen`."""
    distances = []
    for depth, face in others:
        rays = np.isfinite(depth) & np.isfinite(seen[0]) & (face | whole)
        gap = np.abs(depth[rays] - seen[0][rays])
        distances.append(float(np.mean(np.minimum(gap, 15))) if gap.size else np.inf)
    return int(np.argmin(distances))


def figures(head: Head, count: int, seed: int) -> dict[str, Any]:
    """Return what defacing does to `count` identities made from `head`."""
    gallery = [
        depth_map(warped(head, np.random.default_rng((seed, i)), np.random.default_rng((seed, i, 1))))
        for i in range(count)
    ]
    refused: list[str] = []
    seconds, removed, kept = [], [], []
    before: list[list[bool]] = []
    after: list[list[bool]] = []
    for i in range(count):
        visit = warped(head, np.random.default_rng((seed, i)), np.random.default_rng((seed, i, 2)))
        began = time.process_time()
        result = deface(visit.head.volume, visit.head.affine, visit.head.modality)
        seconds.append(time.process_time() - began)
        if not isinstance(result, Defaced):
            refused.append(result.reason)
            continue
        mask = np.stack(list(result.masks()))
        depth, face = depth_map(visit)
        left, _ = depth_map(visit, mask)
        still = face & np.isfinite(left)
        still[still] = np.abs(left[still] - depth[still]) < 3  # noqa: PLR2004 -- mm
        removed.append(float(1 - still.sum() / face.sum()))
        kept.append(float(1 - (mask & visit.head.brain).sum() / visit.head.brain.sum()))
        before.append([_rank((depth, face), gallery, whole=w) == i for w in (False, True)])
        after.append([_rank((left, face), gallery, whole=w) == i for w in (False, True)])
    return {
        "head": head.name,
        "identities": count,
        "refused": refused,
        "face_removed": {"least": min(removed, default=None), "median": float(np.median(removed))},
        "brain_kept": {"least": min(kept, default=None), "median": float(np.median(kept))},
        "matched_before": dict(zip(("face", "whole front"), np.mean(before, axis=0).tolist(), strict=True)),
        "matched_after": dict(zip(("face", "whole front"), np.mean(after, axis=0).tolist(), strict=True)),
        "chance": 1 / count,
        "cpu_seconds": {"median": float(np.median(seconds)), "most": max(seconds)},
    }


def real_heads(folder: Path) -> Iterator[Head]:
    """Yield the heads of Debian's mricron-data (T1, cut below the nose) and invesalius-examples (CT)."""
    templates = folder / "usr/share/mricron/templates"
    scan, brain = (nib.Nifti1Image.from_filename(templates / name) for name in ("ch2.nii.gz", "ch2bet.nii.gz"))
    turn = np.zeros((4, 4))
    turn[0, 2] = turn[1, 1] = turn[2, 0] = turn[3, 3] = 1
    affine = np.diag([-1, -1, 1, 1.0]) @ scan.affine @ turn
    volume = np.asarray(scan.dataobj).transpose(2, 1, 0).astype(np.float32)
    own = ndimage.binary_opening(np.asarray(brain.dataobj).transpose(2, 1, 0) > 0)
    yield Head("Colin27 T1", "MR", volume, affine, own, 35.0, (-56.0, -22.0))  # turned, the cut itself reaches -62
    with tarfile.open(folder / "usr/share/doc/invesalius-examples/examples/Cranium.inv3") as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith("matrix.dat"))
        stored = archive.extractfile(member)
        assert stored is not None  # noqa: S101 -- a file, not a folder
        values = np.frombuffer(stored.read(), "<i2").reshape(108, 256, 256)
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = -0.957, -0.957, 1.5, 1
    smooth = ndimage.gaussian_filter(values.astype(np.float32), (0.7, 1, 1))
    soft = (smooth > -15) & (smooth < 110)  # noqa: PLR2004 -- HU of brain
    labels, _ = ndimage.label(ndimage.binary_erosion(soft, iterations=7))
    core = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    own = ndimage.binary_dilation(core, iterations=7) & soft
    yield Head("InVesalius cranium CT", "CT", values.astype(np.float32), affine, own, -300.0, (2.0, 92.0))


def main() -> None:
    """Print the figures as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the two Debian packages are unpacked")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for head in real_heads(options.folder):
        print(json.dumps(figures(head, options.count, options.seed)), flush=True)


if __name__ == "__main__":
    main()
