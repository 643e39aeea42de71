"""Decides whether a series may show a face, and whether the face can be taken out.

Pure rules over what the headers of all instances of one series say. Every doubt counts as a head: a
part that is not named, a part that is named but contradicted. Does not look at pixels (`defacing`
does) nor at photographs (`visible_light`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydicom.dataset import Dataset

# Why there is nothing to remove.
NO_HEAD = "no-head-in-view"
DECLARED = "declared-without-recognisable-features"
PROJECTION = "projection-or-count-image"
NO_SURFACE = "too-few-or-too-thick-sections-for-a-surface"

# Why a person has to look.
LOCALISER = "face-in-localiser"
PROFILE = "face-profile-in-section"
RENDERING = "face-in-rendering"
PET = "face-in-pet"
NOT_A_STACK = "face-geometry-not-a-stack"
SECTIONS_MISSING = "face-sections-missing-or-uneven"
TOO_LITTLE = "face-too-few-sections-to-remove-it"

SECTIONS = frozenset({"CT", "MR", "PT"})  # modalities whose sections rebuild a skin

# Face recognition on rebuilt surfaces is published for sections of 0.6 to 2.5 mm (Mazura 2012, Parks
# and Monson 2017, Schwarz 2019). We try to remove the face down to sections three times as coarse, and
# claim nothing of what is coarser still.
_THICKEST = 7.5  # mm between sections
_FEWEST = 10  # sections of a stack
# A plain chest, abdomen and pelvis is shorter; a longer scan of the body may begin at the eyes.
_LONGEST_TRUNK = 750.0  # mm
_EVEN = 0.1  # of the spacing
_AXIS, _SIDEWAYS = 0.8, 0.5  # |cosine| of the normal with the body's axis, with left to right

# PS3.16 annex L, and what scanners write. A section of any other part may show the face.
_PARTS_WITHOUT_FACE = """
    ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM BLADDER BREAST CALCANEUS CHEST CHESTABDOMEN CHESTABDPELVIS
    CLAVICLE COCCYX COLON ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HEART HIP HUMERUS KIDNEY KNEE
    LEG LIVER LOWERLEG LSPINE LSSPINE LUNG PANCREAS PELVIS PROSTATE RIB SCAPULA SHOULDER SIJOINT SPLEEN
    SSPINE STERNUM THIGH THORAX THUMB TIBIAFIBULA TLSPINE TOE TSPINE UTERUS WRIST
"""
PARTS_WITHOUT_FACE = frozenset(_PARTS_WITHOUT_FACE.split())
# Words of names and descriptions that put a head in view, whatever else is said.
_HEAD = re.compile(
    r"""\b(?:
    HEAD | BRAIN | CEREBR | CEREBELL | CRANI | NEUROCRAN | SKULL | CALVARI | FACE | FACIAL | MAXILLOFACIAL | ORBIT | EYE
    | SINUS | PARANASAL | NOSE | NASAL | NASO | JAW | MANDIB | MAXILL | DENTAL | TOOTH | TEETH | TMJ | EARS?\b | IACS?\b
    | MASTOID | TEMPORAL | PETROUS | PITUIT | SELLA | HYPOPHYS | NEURO | STROKE | WILLIS | CAROTID | NECK | CSPINE
    | C\ SPINE | CTSPINE | CERVIC | TONGUE | PAROTID | LARYN | PHARYN | OROPHAR | HYPOPHAR | WHOLE\ ?BODY | WB\b
    | MPRAGE | FLAIR | BRAVO\b | TOF\b | DTI\b | FMRI | VERTEX
    | KOPF | SCHADEL | HIRN | GEHIRN | GESICHT | HALS | HWS\b | NASEN | NNH\b | TETE\b | CERVEAU | CRANE\b | ENCEPH
    | ENCEF | CABEZA | CARA\b | CUELLO | TESTA\b | COLLO\b | HOOFD | SCHEDEL | HERSEN | HOVED | HJERNE | HUVUD
    | HJARNA | GLOWA
    )""",
    re.VERBOSE,
)
# The same words for parts of other bones and organs.
_NOT_A_HEAD = re.compile(
    r"\b(?:(?:FEMORAL|FEMUR|HUMERAL|HUMERUS|RADIAL|FIBULAR?|PANCREAS|PANCREATIC|METATARSAL|METACARPAL) (?:HEAD|NECK)"
    r"|CORONARY SINUS|BLADDER NECK|CERVIX)\b"
)
# Words that put another part in view where no part is named.
_ELSEWHERE = re.compile(
    r"\b(?:ABDOM\w*|PELVI\w*|CHEST|THORA\w*|LUNGS?|LIVER|KIDNEYS?|KNEES?|HIPS?|ANKLES?|FOOT|FEET|WRISTS?|HANDS?|ELBOWS?"
    r"|SHOULDERS?|LUMBAR|L ?SPINE|T ?SPINE|PROSTATE|BREASTS?|CARDIAC|HEART|FEMURS?|THIGHS?)\b"
)
# Values of ImageType, whole: pictures of a surface, and of the plan of the scan (PS3.3 C.8.2.1, C.8.3.1).
_RENDERED = frozenset({"VRT", "SSD", "SURFACE", "3D", "VOLUME_RENDERED", "SURFACE_RENDERED", "VXTL STATE"})
_LOCALISERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM"})


@dataclass(frozen=True, slots=True)
class SliceGeometry:
    """What the header of one section (an instance, or a frame of one) says of what it may show."""

    modality: str
    body_parts: tuple[str, ...] = ()  # BodyPartExamined and the meanings of the anatomic region codes
    words: tuple[str, ...] = ()  # descriptions and protocol names
    image_type: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0
    pixel_spacing: tuple[float, float] | None = None  # mm between rows, between columns
    orientation: tuple[float, ...] | None = None  # ImageOrientationPatient, LPS
    position: tuple[float, ...] | None = None  # ImagePositionPatient, LPS mm
    thickness: float | None = None  # mm
    declared_without: bool = False  # whoever made it says that it has no recognisable features


@dataclass(frozen=True, slots=True)
class Clear:
    """Nothing has to be removed; `claim` is what may be said in RecognizableVisualFeatures, if anything.

    Source: PS3.3 C.7.6.1 (0028,0302): whether the image, or a reconstruction from a set of images, can
        identify the patient. It is NO only where no head is in view.
    """

    reason: str
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class Deface:
    """The sections make a volume: `stack` holds, from one end to the other, the indices at each place.

    More than one index at a place is more than one volume (time, diffusion, echoes) of the same head:
    one region serves all.
    """

    stack: tuple[tuple[int, ...], ...]
    affine: tuple[tuple[float, ...], ...]  # (slice, row, column, 1) to LPS mm


@dataclass(frozen=True, slots=True)
class Hold:
    """A face may be in view and cannot be taken out by rule; `reason` is safe to show."""

    reason: str


def plan(slices: Sequence[SliceGeometry]) -> Clear | Deface | Hold:
    """Return what to do about faces in one series, judged from all of its sections.

    Raises: ValueError if there are no slices.
    Source: PS3.15 E.3.2 (Clean Recognizable Visual Features Option).
    """
    if not slices:
        raise ValueError("a series has at least one instance")
    if not any(s.modality in SECTIONS for s in slices):
        return Clear(PROJECTION)
    if not any(map(_may_show_head, slices)) and _extent(slices) <= _LONGEST_TRUNK:
        return Clear(NO_HEAD, "NO")
    if all(s.declared_without for s in slices):
        return Clear(DECLARED, "NO")
    types = {value for s in slices for value in s.image_type}
    for true, reason in (
        (types & _RENDERED, RENDERING),
        (types & _LOCALISERS, LOCALISER),
        (any(s.modality == "PT" for s in slices), PET),
    ):
        if true:
            return Hold(reason)
    return _volume(slices)


def may_show_face(ds: Dataset) -> bool:
    """Return whether an instance may be part of a head, so that its whole series decides."""
    return any(_may_show_head(one) and not one.declared_without for one in geometries(ds))


def claim(ds: Dataset) -> str | None:
    """Return what may be said in RecognizableVisualFeatures of an instance that shows no head, or None."""
    found = plan(geometries(ds))
    return found.claim if isinstance(found, Clear) else None


def _may_show_head(one: SliceGeometry) -> bool:
    """Return whether a head may be in view: said, or not ruled out."""
    parts = [_plain(part) for part in one.body_parts if part.strip()]
    words = " ".join(_plain(word) for word in one.words)
    if _HEAD.search(_NOT_A_HEAD.sub(" ", " ".join((*parts, words)))):
        return True
    if parts:
        return not all(part.replace(" ", "") in PARTS_WITHOUT_FACE or _ELSEWHERE.search(part) for part in parts)
    return not _ELSEWHERE.search(words)


def _plain(text: str) -> str:
    """Return upper case letters and digits, without accents, words apart."""
    letters = unicodedata.normalize("NFKD", text.upper())
    kept = "".join(c if c.isalnum() else " " for c in letters if not unicodedata.combining(c))
    return " ".join(kept.split())


def _extent(slices: Sequence[SliceGeometry]) -> float:
    """Return how far the series reaches along the body, in mm."""
    heights = [h for s in slices for h in _heights(s)]
    return max(heights) - min(heights) if heights else 0.0


def _heights(one: SliceGeometry) -> tuple[float, ...]:
    if one.position is None:
        return ()
    z = one.position[2]
    if one.orientation is None or one.pixel_spacing is None:
        return (z,)
    down = one.orientation[5] * one.pixel_spacing[0] * one.rows
    across = one.orientation[2] * one.pixel_spacing[1] * one.columns
    return (z, z + down, z + across, z + down + across)


def _volume(slices: Sequence[SliceGeometry]) -> Clear | Deface | Hold:
    first = slices[0]
    if first.orientation is None or first.pixel_spacing is None or any(s.position is None for s in slices):
        return Hold(NOT_A_STACK)
    alike = all(
        s.orientation is not None
        and np.allclose(s.orientation, first.orientation, atol=1e-3)
        and s.pixel_spacing is not None
        and np.allclose(s.pixel_spacing, first.pixel_spacing, rtol=1e-3)
        and (s.rows, s.columns) == (first.rows, first.columns)
        for s in slices
    )
    if not alike:
        return Hold(NOT_A_STACK)
    along_row, along_column = (np.array(first.orientation[i : i + 3]) for i in (0, 3))
    normal = np.cross(along_row, along_column)
    positions = np.array([s.position for s in slices], float)
    places = _places(positions @ normal)
    if places is None:
        return Hold(SECTIONS_MISSING)
    ends = [positions[place[0]] for place in (places[0], places[-1])]
    step = (ends[1] - ends[0]) / max(1, len(places) - 1)
    if len(places) < _FEWEST or np.linalg.norm(step) > _THICKEST:
        return _sparse(normal)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = (
        step,
        along_column * first.pixel_spacing[0],
        along_row * first.pixel_spacing[1],
        ends[0],
    )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-6:  # noqa: PLR2004 -- a flat volume
        return Hold(NOT_A_STACK)
    return Deface(places, tuple(tuple(map(float, row)) for row in affine))


def _sparse(normal: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Clear | Hold:
    """Return what to do with sections that make no surface: only a cut across the body is harmless.

    A sagittal section draws the profile in its own plane, however few there are.
    """
    if abs(normal[2]) >= _AXIS:
        return Clear(NO_SURFACE)
    return Hold(PROFILE if abs(normal[0]) >= _SIDEWAYS else TOO_LITTLE)


def _places(along: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[tuple[int, ...], ...] | None:
    """Return the indices at each place along the normal, in order; None if places are uneven."""
    order = np.argsort(along, kind="stable")
    groups: list[list[int]] = []
    for i in order:
        if groups and along[i] - along[groups[-1][0]] < 1e-2:  # noqa: PLR2004 -- mm: the same place
            groups[-1].append(int(i))
        else:
            groups.append([int(i)])
    gaps = np.diff([along[group[0]] for group in groups])
    if gaps.size and np.ptp(gaps) > _EVEN * float(np.median(gaps)) + 1e-2:  # rounding of decimal strings
        return None
    return tuple(map(tuple, groups))


# Reading the header


def geometries(ds: Dataset) -> tuple[SliceGeometry, ...]:
    """Return the facts of each section of an instance: one, or one a frame of an enhanced multi-frame.

    Source: PS3.3 C.7.6.16 (functional groups); a frame's own group goes before the shared one.
    """
    shared = next(iter(ds.get("SharedFunctionalGroupsSequence") or ()), None)
    frames = list(ds.get("PerFrameFunctionalGroupsSequence") or ())
    if not frames:
        return (_geometry(ds, ()),)
    return tuple(_geometry(ds, tuple(group for group in (frame, shared) if group is not None)) for frame in frames)


_WORDS = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "SequenceName",
    "ImageComments",
)
_REGIONS = "AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"


def _geometry(ds: Dataset, groups: tuple[Dataset, ...]) -> SliceGeometry:
    plane = _macro(groups, "PlaneOrientationSequence") or ds
    place = _macro(groups, "PlanePositionSequence") or ds
    measures = _macro(groups, "PixelMeasuresSequence") or ds
    anatomy = _macro(groups, "FrameAnatomySequence")
    holders = [ds] if anatomy is None else [ds, anatomy]
    regions = [item for holder in holders for keyword in _REGIONS for item in holder.get(keyword) or ()]
    spacing = _numbers(measures, "PixelSpacing", 2)
    thickness = _numbers(measures, "SliceThickness", 1)
    return SliceGeometry(
        modality=str(ds.get("Modality") or ""),
        body_parts=(str(ds.get("BodyPartExamined") or ""), *(str(item.get("CodeMeaning") or "") for item in regions)),
        words=tuple(str(ds.get(keyword) or "") for keyword in _WORDS),
        image_type=tuple(str(value).strip().upper() for value in _values(ds, "ImageType")),
        rows=int(ds.get("Rows") or 0),
        columns=int(ds.get("Columns") or 0),
        pixel_spacing=cast("tuple[float, float] | None", spacing),
        orientation=_numbers(plane, "ImageOrientationPatient", 6),
        position=_numbers(place, "ImagePositionPatient", 3),
        thickness=None if thickness is None else thickness[0],
        declared_without=ds.get("RecognizableVisualFeatures") == "NO",
    )


def _macro(groups: tuple[Dataset, ...], keyword: str) -> Dataset | None:
    return next((item for group in groups for item in group.get(keyword) or ()), None)


def _values(ds: Dataset, keyword: str) -> Iterator[object]:
    value = ds.get(keyword)
    if value is None:
        return
    if isinstance(value, str):
        yield from value.split("\\")
    else:
        yield from value


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return the numbers of an attribute, or None unless there are `count` finite ones."""
    value = ds.get(keyword)
    items = [] if value is None else [value] if count == 1 else list(value)
    try:
        numbers = tuple(float(item) for item in items)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None
