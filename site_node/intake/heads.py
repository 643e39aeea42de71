"""Heads judged by their whole series: what is decided about a face needs every section of it.

Reads the originals that wait; says for each what is decided, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from site_node import away
from site_node.deidentify import faces
from site_node.deidentify.defacing import Refused, deface
from site_node.deidentify.instance import FACE, Decision, header, pixels_of
from site_node.deidentify.picture import Box
from site_node.deidentify.stream import read
from site_node.deidentify.transcoding import quiet
from site_node.errors import UnreadableInstance
from site_node.intake.judging import Job, source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from site_node.away import Recall


LATE = "face-sections-came-after-their-series"
_CT = "CT"


@dataclass(frozen=True, slots=True)
class Section:
    """An original that waits with its series; `boxes` is text found on it."""

    path: Path
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a section's pixels are: its file, and its frame there."""

    section: Section
    frame: int


def jobs(sections: Sequence[Section], recall: Recall = away.nowhere) -> list[Job] | str:
    """Return the jobs that let the files of one series in, or why a person has to look at all of them.

    Sections that are away are recalled first.

    Source: PS3.15 E.3.2 (Clean Recognizable Visual Features Option).
    """
    for section in sections:
        if away.is_away(section.path):
            recall(section.path)
    try:
        decided = _judge_series(sections)
    except UnreadableInstance as fault:
        return f"face-{fault}"
    return decided if isinstance(decided, str) else [Job(path, decision) for path, decision in decided.items()]


def _judge_series(sections: Sequence[Section]) -> Mapping[Path, Decision] | str:
    geometries: list[faces.SliceGeometry] = []
    places: list[_Place] = []
    for section in sections:
        with source(section.path) as content, quiet():
            found = faces.geometries(header(read(content)))
        geometries += found
        places += (_Place(section, frame) for frame in range(len(found)))
    plan = faces.plan(geometries)
    if isinstance(plan, faces.Hold):
        return plan.reason
    if isinstance(plan, faces.Clear):
        return {each.path: _decision(each, claim=plan.claim) for each in sections}
    return _defaced(sections, places, plan, geometries[0].modality)


def _defaced(
    sections: Sequence[Section], places: Sequence[_Place], plan: faces.Deface, modality: str
) -> Mapping[Path, Decision] | str:
    volume = np.stack([_values(places[indices[0]], modality) for indices in plan.stack])
    found = deface(volume, np.array(plan.affine), modality)
    if isinstance(found, Refused):
        return found.reason
    blanked: dict[Path, dict[int, tuple[Box, ...]]] = {each.path: {} for each in sections}
    for mask, indices in zip(found.masks(), plan.stack, strict=True):
        runs = tuple(_runs(mask))
        for index in indices:
            blanked[places[index].section.path][places[index].frame] = runs
    return {each.path: _decision(each, blanked[each.path], "NO") for each in sections}


def _decision(
    section: Section, blanked: Mapping[int, tuple[Box, ...]] | None = None, claim: str | None = None
) -> Decision:
    return Decision(section.boxes, blanked, frozenset({FACE}), claim)


def _values(place: _Place, modality: str) -> NDArray[np.generic]:
    """Return a section's values: Hounsfield units of CT, stored values of the others."""
    with source(place.section.path) as content, quiet():
        original = read(content)
        shown, ds = pixels_of(original)
        stored = shown.decode(place.frame)
        if modality != _CT:
            return stored.astype(np.float32)
        return stored.astype(np.float32) * float(ds.get("RescaleSlope") or 1) + float(ds.get("RescaleIntercept") or 0)


def _runs(mask: NDArray[np.bool_]) -> Iterator[Box]:
    """Yield the mask as boxes one row high."""
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    for row, start, stop in zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True):
        yield Box(row, start, row + 1, stop)
