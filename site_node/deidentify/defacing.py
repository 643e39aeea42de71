"""Finds the voxels of a head that show its face, so that they can be blanked and nothing else.

A template of the head is laid over the volume (affine, by mutual information); what lies in the
template's face and clear of its brain is the region. Whether that was right is then judged on the
volume itself: its own skin, its own brain. Any doubt is a refusal. Does not decide which series
need this (`faces`), and touches no pixel: it says which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813 -- the name its manual uses
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Mask = NDArray[np.bool_]
    Matrix = NDArray[np.float64]

NOT_CT_OR_MR = "face-in-a-modality-not-defaced"
TOO_SMALL = "face-volume-too-small"
NO_HEAD = "face-no-head-found"
NOT_ALIGNED = "face-template-does-not-fit"
BRAIN_TOUCHED = "face-removal-would-touch-the-brain"
FACE_LEFT = "face-removal-incomplete"

# The template: millimetres LPS about the anterior commissure, as the ICBM 152 average lies.
_STEP = 3.0
_ORIGIN = np.array((-105.0, -129.0, -147.0))
_HIGHEST = 250.0  # mm: a head is no taller; what lies below its vertex by more is neck and body

# The face in the template (its brow ridge lies at z = -15, its nose tip at y = -95, z = -80, its
# chin at z = -122, its ears at |x| = 80, y = 20). Wider than the average on every side: people differ.
_BROW, _CHIN = -4.0, -146.0
_CHEEKS, _ORBITS = -15.0, -28.0  # everything in front of this coronal plane, below and above the next
_ORBIT_FLOOR = -48.0
_EAR_SIDE, _EARS = 76.0, ((-4.0, 50.0), (-80.0, 6.0))  # |x| beyond; ranges of y and z
_BRAIN_MARGIN = 6.0  # mm kept around the template's brain

# Judgement. Brain and skin are measured on a grid of 3 mm.
_BRAIN_KEPT = 0.999
_FACE_REMOVED = 0.99
_HEAD_OVERLAP = 0.85  # Dice of the template's and the volume's head, in the common field of view
_BRAIN_FOUND = 0.7  # Dice of the volume's own brain with the template's: below, neither proves the other
_BRAIN_SEEN = 0.5  # share of the template's brain in the field of view: with less, nothing holds the template
_SCALES = (0.75, 1.3)  # per axis: adults and older children against the adult average
_TURN = 50.0  # degrees
_LEAST_SLICES, _LEAST_HEAD_MM3 = 10, 500_000.0

# Hounsfield units to the look of a T1-weighted image: air and bone dark, fat bright.
_HU = (-1024.0, -300.0, -110.0, -60.0, 20.0, 80.0, 250.0, 3000.0)
_AS_T1 = (0.0, 0.0, 0.9, 0.9, 0.55, 0.55, 0.12, 0.05)
_CT_BRAIN = (0.47, 0.7)  # about -15 to 110 HU: brain, cerebrospinal fluid, blood
_AIR_HU = -1000.0
_SKIN_HU = -300.0

_PITCHES = (-24.0, -12.0, 0.0, 12.0, 24.0)  # degrees: chin up to chin down
_LIFTS = (-24.0, 0.0, 24.0)  # mm
_TRIED = 4  # of the first guesses, the best
_SEED = 20_261_126


@dataclass(frozen=True, slots=True)
class Figures:
    """How well the region fits, each a share from 0 to 1; all are measured on the volume itself."""

    face_removed: float  # of the skin that is seen from the front, brow to chin
    brain_kept: float
    head_overlap: float


@dataclass(frozen=True, slots=True)
class Defaced:
    """What to blank: `mask(index)` for each slice, with `air` (in the volume's own units) as the fill."""

    shape: tuple[int, int, int]
    air: float
    figures: Figures
    to_template: Matrix = field(repr=False)  # (slice, row, column, 1) to template millimetres

    def mask(self, index: int) -> Mask:
        """Return the voxels of slice `index` that show the face.

        Shape: (row, column).
        """
        rows, columns = np.meshgrid(
            np.arange(self.shape[1], dtype=np.float32), np.arange(self.shape[2], dtype=np.float32), indexing="ij"
        )
        m = self.to_template.astype(np.float32)
        x, y, z = (m[i, 0] * index + m[i, 1] * rows + m[i, 2] * columns + m[i, 3] for i in range(3))
        return _face(x, y, z)

    def masks(self) -> Iterator[Mask]:
        """Yield the mask of every slice in order, one at a time."""
        return map(self.mask, range(self.shape[0]))


@dataclass(frozen=True, slots=True)
class Refused:
    """The face cannot be removed with certainty; `reason` is safe to show."""

    reason: str
    figures: Figures | None = None


def deface(volume: NDArray[np.generic], affine: Matrix, modality: str) -> Defaced | Refused:
    """Return the voxels of `volume` to blank so that no face is left, or why that is not certain.

    Shape:  `volume` is (slice, row, column), of any numeric type; `affine` takes (slice, row, column, 1)
            to millimetres LPS and may shear (a tilted gantry).
    Units:  CT in Hounsfield units; MR in any.
    Raises: ValueError if `affine` or `volume` has another form.
    """
    if volume.ndim != 3 or affine.shape != (4, 4):  # noqa: PLR2004 -- three axes, homogeneous
        raise ValueError("a volume has three axes and a 4 x 4 affine")
    if modality not in {"CT", "MR"} or volume.shape[0] < _LEAST_SLICES:
        return Refused(TOO_SMALL if modality in {"CT", "MR"} else NOT_CT_OR_MR)
    scan = _scan(volume, affine, modality)
    onto = None if scan is None else _align(scan)
    if scan is None or onto is None:
        return Refused(NO_HEAD if scan is None else NOT_ALIGNED)
    figures = _judge(scan, onto)
    reason = NOT_ALIGNED if figures is None else _objection(figures)
    if figures is None or reason is not None:
        return Refused(reason or NOT_ALIGNED, figures)
    air = _AIR_HU if modality == "CT" else float(volume.min())
    slices, rows, columns = volume.shape
    return Defaced((slices, rows, columns), air, figures, np.linalg.inv(onto) @ affine)


def _objection(figures: Figures) -> str | None:
    for good, reason in (
        (figures.head_overlap >= _HEAD_OVERLAP, NOT_ALIGNED),
        (figures.brain_kept >= _BRAIN_KEPT, BRAIN_TOUCHED),
        (figures.face_removed >= _FACE_REMOVED, FACE_LEFT),
    ):
        if not good:
            return reason
    return None


# The template


@cache
def _template() -> tuple[Floats, Mask, Mask]:
    """Return the average head, its brain with a margin, and its whole outline, each (z, y, x)."""
    path = resources.files("site_node.deidentify") / "templates" / "head.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        picture = stored["picture"].astype(np.float32) / 255
        brain = np.unpackbits(stored["brain"], count=picture.size).reshape(picture.shape).astype(bool)
    return picture, brain, _outline(picture > _skin_of(picture))


@cache
def _kept_brain() -> Mask:
    brain = _template()[1]
    return np.asarray(ndimage.distance_transform_edt(~brain, sampling=_STEP) <= _BRAIN_MARGIN)


def _face(x: Floats, y: Floats, z: Floats) -> Mask:
    """Return which template coordinates (mm) lie in the face and clear of the brain."""
    front = np.where(z > _ORBIT_FLOOR, y <= _ORBITS, y <= _CHEEKS) & (z <= _BROW)
    (y0, y1), (z0, z1) = _EARS
    ears = (np.abs(x) >= _EAR_SIDE) & (y >= y0) & (y <= y1) & (z >= z0) & (z <= z1)
    face: Mask = (front | ears) & (z >= _CHIN)
    at = np.nonzero(face)
    face[at] = ~_look_up(_kept_brain(), x[at], y[at], z[at])
    return face


def _look_up(mask: Mask, x: Floats, y: Floats, z: Floats) -> Mask:
    """Return `mask` (z, y, x) of the template at coordinates in mm; False outside."""
    index = [np.rint((c - o) / _STEP).astype(np.intp) for c, o in zip((z, y, x), _ORIGIN[::-1], strict=True)]
    inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(index, mask.shape, strict=True)])
    found = np.zeros(x.shape, bool)
    found[inside] = mask[tuple(i[inside] for i in index)]
    return found


# The volume on a coarse grid


@dataclass(frozen=True, slots=True)
class _Scan:
    """A volume on a 3 mm grid of LPS millimetres: its look and its head."""

    picture: Floats  # (z, y, x), 0 to 1; CT like a T1-weighted image
    head: Mask
    seen: Mask  # in the field of view
    origin: Matrix
    brain_look: tuple[float, float] | None  # the range of brain in `picture`, where it is known beforehand


def _image(values: NDArray[np.generic], origin: Matrix) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
    image.SetSpacing([_STEP] * 3)
    image.SetOrigin([float(v) for v in origin])
    return image


def _scan(volume: NDArray[np.generic], affine: Matrix, modality: str) -> _Scan | None:
    coarse, to_mm = _shrink(volume, affine)
    corners = np.array([[k, r, c, 1] for k in (0, 1) for r in (0, 1) for c in (0, 1)], float)
    corners[:, :3] *= np.array(coarse.shape) - 1
    points = (corners @ to_mm.T)[:, :3]
    low, high = points.min(0), points.max(0)
    size = np.ceil((high - low) / _STEP).astype(int) + 1
    # From grid (z, y, x) to LPS to the coarse volume's own index.
    grid = np.zeros((4, 4))
    grid[0, 2] = grid[1, 1] = grid[2, 0] = _STEP
    grid[:3, 3], grid[3, 3] = low, 1
    back = np.linalg.inv(to_mm) @ grid
    outside = -2000.0 if modality == "CT" else -1.0
    shape = (int(size[2]), int(size[1]), int(size[0]))
    values = ndimage.affine_transform(
        coarse.astype(np.float32), back[:3, :3], back[:3, 3], output_shape=shape, order=1, cval=outside
    )
    seen = ndimage.affine_transform(
        np.ones(coarse.shape, np.float32), back[:3, :3], back[:3, 3], output_shape=shape, order=0, cval=0.0
    ).astype(bool)
    if modality == "CT":
        picture = np.interp(values, _HU, _AS_T1).astype(np.float32)
        head = _outline((values > _SKIN_HU) & seen)
    else:
        dark, bright = np.percentile(values[seen], (1, 99.5))
        picture = np.clip((values - dark) / max(float(bright - dark), 1e-6), 0, 1).astype(np.float32)
        head = _outline((picture > _skin_of(picture[seen])) & seen)
    top = _vertex(head)
    if top is None or head.sum() * _STEP**3 < _LEAST_HEAD_MM3:
        return None
    first = max(0, top - round(_HIGHEST / _STEP))
    part = np.s_[first:]
    origin = low + np.array((0, 0, first * _STEP))
    return _Scan(picture[part], head[part], seen[part], origin, _CT_BRAIN if modality == "CT" else None)


def _shrink(volume: NDArray[np.generic], affine: Matrix) -> tuple[NDArray[np.generic], Matrix]:
    """Return block means of about 3 mm and their affine, without a float copy of the whole volume."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    by = [max(1, min(int(_STEP / s), n)) for s, n in zip(spacing, volume.shape, strict=True)]
    shape = [n // k for n, k in zip(volume.shape, by, strict=True)]
    means = np.empty(shape, np.float32)
    for k in range(shape[0]):
        block = volume[k * by[0] : (k + 1) * by[0], : shape[1] * by[1], : shape[2] * by[2]]
        blocks = block.reshape(by[0], shape[1], by[1], shape[2], by[2])
        means[k] = blocks.mean(axis=(0, 2, 4), dtype=np.float32)
    step = np.diag([*map(float, by), 1.0])
    step[:3, 3] = (np.array(by) - 1) / 2
    return means, affine @ step


def _skin_of(picture: Floats) -> float:
    """Return the value between air and skin: Otsu's threshold, halved, for skin is darker than brain."""
    counts, edges = np.histogram(picture, 128, (0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(float)
    above = below[-1] - below
    mean = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mean / below - (mean[-1] - mean) / above) ** 2
    return float(centres[np.nanargmax(between)]) / 2


def _outline(skin: Mask) -> Mask:
    """Return the largest body in `skin`, its hollows filled: no table, no head rest."""
    ball = ndimage.generate_binary_structure(3, 1)
    opened = ndimage.binary_opening(skin, ball, iterations=2)
    labels, count = ndimage.label(opened)
    if not count:
        return np.zeros_like(skin)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    grown = ndimage.binary_dilation(largest, ball, iterations=2) & skin
    closed = ndimage.binary_closing(np.pad(grown, 4), ball, iterations=3)[4:-4, 4:-4, 4:-4]
    return np.stack([ndimage.binary_fill_holes(section) for section in closed])


def _vertex(head: Mask) -> int | None:
    """Return the highest section that holds more than 10 cm2 of the head."""
    areas = head.sum(axis=(1, 2)) * _STEP**2
    large = np.nonzero(areas > 1000)[0]  # noqa: PLR2004 -- mm2
    return int(large[-1]) if large.size else None


# Laying the template over the volume


def _align(scan: _Scan) -> Matrix | None:
    """Return the affine from template to scan millimetres, or None if none was found.

    Source: Mattes et al. 2003, "PET-CT image registration in the chest using free-form deformations"
        (the metric); the template's use for defacing: pydeface, Poldrack lab.
    """
    picture, _, head = _template()
    around = ndimage.binary_dilation(head, iterations=4)
    fine = _Pair(_image(picture, _ORIGIN), _image(scan.picture, scan.origin), _image(around, _ORIGIN))
    coarse = fine.shrunk()
    try:
        ranked = sorted(_starts(scan, head), key=lambda start: _fit(coarse, start))
        ends = [_refine(coarse, start, 4.0, 0.4) for start in ranked[:_TRIED]]
        best = min(ends, key=lambda end: end[0])[1]
        _, transform = _refine(fine, best, 1.0, 0.08)
    except RuntimeError:  # SimpleITK's own: the images do not overlap
        return None
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    centre = np.array(transform.GetCenter())
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - matrix[:3, :3] @ centre
    return matrix


@dataclass(frozen=True, slots=True)
class _Pair:
    """Template, scan, and where on the template the two are compared."""

    template: sitk.Image
    scan: sitk.Image
    around: sitk.Image

    def shrunk(self) -> _Pair:
        template, scan = (
            sitk.Shrink(sitk.SmoothingRecursiveGaussian(i, _STEP), [2] * 3) for i in (self.template, self.scan)
        )
        return _Pair(template, scan, sitk.Shrink(self.around, [2] * 3))


def _fit(pair: _Pair, transform: sitk.Transform) -> float:
    """Return the metric of a transform; lower is better."""
    method = _method(pair, 0.4)
    method.SetInitialTransform(transform)
    try:
        return float(method.MetricEvaluate(pair.template, pair.scan))
    except RuntimeError:  # no overlap: the worst of starts
        return np.inf


def _refine(pair: _Pair, start: sitk.AffineTransform, step: float, share: float) -> tuple[float, sitk.AffineTransform]:
    transform = sitk.AffineTransform(start)
    method = _method(pair, share)
    method.SetOptimizerAsRegularStepGradientDescent(step, 0.02, 80)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(pair.template, pair.scan)
    return float(method.GetMetricValue()), transform


def _method(pair: _Pair, share: float) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # the same sums in the same order: the same result everywhere
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(share, _SEED)
    method.SetMetricFixedMask(sitk.Cast(pair.around, sitk.sitkUInt8))
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _starts(scan: _Scan, head: Mask) -> Iterator[sitk.AffineTransform]:
    """Yield first guesses: crowns level and heads over each other, nodding and lifted a little."""
    template_at, scan_at = _crown(head, _ORIGIN), _crown(scan.head, scan.origin)
    for pitch in _PITCHES:
        for lift in _LIFTS:
            start = sitk.AffineTransform(3)
            start.SetCenter([float(v) for v in template_at])
            start.Rotate(1, 2, float(np.deg2rad(pitch)))
            start.SetTranslation([float(v) for v in scan_at - template_at + np.array((0, 0, lift))])
            yield start


def _crown(head: Mask, origin: Matrix) -> Matrix:
    """Return the middle of the uppermost 100 mm of a head, in mm."""
    top = _vertex(head)
    first = max(0, (top or 0) - round(100 / _STEP))
    z, y, x = ndimage.center_of_mass(head[first:])
    middle: Matrix = origin + _STEP * np.array((x, y, z + first))
    return middle


# Judging the result on the volume itself


def _judge(scan: _Scan, onto: Matrix) -> Figures | None:
    """Return how well the region fits the scan, or None if the alignment is of no head."""
    if not _is_plausible(onto):
        return None
    picture, brain, template_head = _template()
    # From the template's grid (z, y, x) to the scan's.
    grid = np.zeros((4, 4))
    grid[0, 2] = grid[1, 1] = grid[2, 0] = _STEP
    grid[:3, 3], grid[3, 3] = _ORIGIN, 1
    scan_grid = grid.copy()
    scan_grid[:3, 3] = scan.origin
    back = np.linalg.inv(scan_grid) @ onto @ grid

    def over_template(values: NDArray[np.generic], order: int) -> Floats:
        moved: Floats = ndimage.affine_transform(
            values.astype(np.float32), back[:3, :3], back[:3, 3], output_shape=picture.shape, order=order, cval=0
        )
        return moved

    seen, head = over_template(scan.seen, 0) > 0, over_template(scan.head, 0) > 0
    if (seen & brain).sum() < _BRAIN_SEEN * brain.sum():
        return None
    above = np.zeros_like(seen)
    above[round((-60 - _ORIGIN[2]) / _STEP) :] = True  # the neck and jaw move on their own
    common = seen & above
    overlap = _dice(head & common, template_head & common)
    z, y, x = (
        (np.arange(n, dtype=np.float32) * np.float32(_STEP) + np.float32(o))
        for n, o in zip(picture.shape, _ORIGIN[::-1], strict=True)
    )
    shape = picture.shape
    region = _face(
        np.broadcast_to(x[None, None, :], shape),
        np.broadcast_to(y[None, :, None], shape),
        np.broadcast_to(z[:, None, None], shape),
    )
    own = _own_brain(over_template(scan.picture, 1), brain, scan.brain_look)
    if _dice(own, brain & seen) < _BRAIN_FOUND:
        return None
    kept = 1 - (own & region).sum() / max(1, own.sum())
    skin = _front_skin(head & seen, z, x)
    removed = (skin & region).sum() / skin.sum() if skin.any() else 1.0
    return Figures(round(float(removed), 4), round(float(kept), 5), round(overlap, 4))


def _dice(one: Mask, other: Mask) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def _is_plausible(onto: Matrix) -> bool:
    left, scales, right = np.linalg.svd(onto[:3, :3])
    angle = np.rad2deg(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1)))
    within = bool(scales.min() >= _SCALES[0] and scales.max() <= _SCALES[1])
    return within and np.linalg.det(onto[:3, :3]) > 0 and angle <= _TURN


def _own_brain(picture: Floats, brain: Mask, look: tuple[float, float] | None) -> Mask:
    """Return the scan's brain by its own tissue: what looks like brain and hangs together inside the skull.

    The skull's dark shell parts brain from scalp and face; openings narrower than 18 mm are closed by
    the erosion. It grows back by less, or it would leap over thin bone into the temporal muscle: the
    outermost 3 mm of brain are not judged. Growth stops 12 mm outside the template's brain, or it would
    follow the spinal canal.
    """
    ball = ndimage.generate_binary_structure(3, 1)
    picture = ndimage.median_filter(picture, size=3)
    if look is None:
        low, high = np.percentile(picture[ndimage.binary_erosion(brain, ball, iterations=2)], (10, 97))
        look = (0.9 * float(low), 1.1 * float(high))
    tissue = (picture > look[0]) & (picture < look[1])
    labels, count = ndimage.label(ndimage.binary_erosion(tissue, ball, iterations=3))
    if not count:
        return np.zeros_like(brain)
    inside = np.bincount(labels[brain], minlength=count + 1)
    inside[0] = 0
    core = labels == int(np.argmax(inside))
    grown = ndimage.binary_dilation(core, ball, iterations=2) & tissue
    own: Mask = grown & ndimage.binary_dilation(brain, ball, iterations=4)
    return own


def _front_skin(head: Mask, z: Floats, x: Floats) -> Mask:
    """Return the skin one sees from the front between brow and chin.

    Shape: (z, y, x) of the template; each ray runs along y.
    """
    first = np.argmax(head, axis=1)
    hit = head.any(axis=1) & ((z >= -120) & (z <= -18))[:, None] & (np.abs(x) <= 60)[None, :]  # noqa: PLR2004 -- mm
    # A ray that misses the face ends on neck or ear, far behind it.
    hit &= first * _STEP + _ORIGIN[1] <= _ORBITS
    skin = np.zeros_like(head)
    at = np.nonzero(hit)
    skin[at[0], first[at], at[1]] = True
    return skin
