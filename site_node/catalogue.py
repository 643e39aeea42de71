"""What the site has: accepted series and images with their labels, and counts of all that came in.

Asks the database only; whether anything may be used is decided elsewhere (cohort, consent).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import sqlalchemy as sa

from consent import Study
from site_node.store import class_label, disposition, instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SEGMENTATION = "SEG"


@dataclass(frozen=True, slots=True)
class Instance:
    """A de-identified file: its path below the site folder, and what its bytes must hash to."""

    path: str
    sha256: str
    SOPInstanceUID: str


@dataclass(frozen=True, slots=True)
class Series:
    """An image series of one patient, with the segmentation that labels it.

    Two segmentations of one series leave it unlabelled: which is meant is not ours to guess.
    """

    SeriesInstanceUID: str
    StudyInstanceUID: str
    patient: str
    study_date: str | None
    instances: tuple[Instance, ...]
    segmentation: Instance | None


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image with a class label."""

    instance: Instance
    StudyInstanceUID: str
    patient: str
    study_date: str | None
    label: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of what came in and of what may be read."""

    outcomes: Mapping[tuple[str, str], int]  # by outcome and reason
    instances: Mapping[str, int]  # by Modality
    series: int
    studies: int
    patients: int
    class_labels: int  # of accepted images


def series_with_labels(db: sa.Connection, modality: str) -> list[Series]:
    """Return every series of `modality` in the order of its UID, labelled or not.

    A segmentation belongs to a series that it references and whose patient it shares.
    """
    columns = instance.c
    rows = db.execute(
        sa.select(instance)
        .where(columns.Modality.in_((modality, _SEGMENTATION)))
        .order_by(columns.SeriesInstanceUID, columns.SOPInstanceUID)
    ).all()
    images: dict[tuple[str, str, str], list[sa.Row[tuple[object, ...]]]] = defaultdict(list)
    labels: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for row in rows:
        if row.Modality == _SEGMENTATION:
            labels[row.patient, row.references_series].append(_instance(row))
        else:
            images[row.SeriesInstanceUID, row.StudyInstanceUID, row.patient].append(row)
    return [
        Series(
            *key,
            study_date=members[0].study_date,
            instances=tuple(map(_instance, members)),
            segmentation=_only(labels[key[2], key[0]]),
        )
        for key, members in images.items()
    ]


def labelled_images(db: sa.Connection, modality: str) -> list[LabelledImage]:
    """Return the images of `modality` that have a class label, in the order of their UID."""
    columns = instance.c
    of_file = (columns.path, columns.sha256, columns.SOPInstanceUID)
    rows = db.execute(
        sa.select(*of_file, columns.StudyInstanceUID, columns.patient, columns.study_date, class_label.c.value)
        .join(class_label, columns.SOPInstanceUID == class_label.c.SOPInstanceUID)
        .where(columns.Modality == modality)
        .order_by(columns.SOPInstanceUID)
    ).all()
    return [LabelledImage(Instance(path, sha256, uid), *rest) for path, sha256, uid, *rest in rows]


def holds_all(db: sa.Connection, items: Iterable[Series | LabelledImage]) -> bool:
    """Return whether every file of the items is in the catalogue still, and is the same file."""
    wanted = {(file.SOPInstanceUID, file.sha256) for item in items for file in files_of(item)}
    columns, listed = instance.c, sa.func.json_each(json.dumps(dict(wanted))).table_valued("key", "value")
    held = sa.tuple_(columns.SOPInstanceUID, columns.sha256).in_(sa.select(listed.c.key, listed.c.value))
    # A UID is in the catalogue once: of two contents that are wanted under one, at least one is not there.
    return db.scalar(sa.select(sa.func.count()).where(held)) == len(wanted)


def files_of(item: Series | LabelledImage) -> tuple[Instance, ...]:
    """Return every file that training reads for an item."""
    if isinstance(item, LabelledImage):
        return (item.instance,)
    return item.instances if item.segmentation is None else (*item.instances, item.segmentation)


def set_class_labels(store: sa.Engine, labels: Mapping[str, int]) -> int:
    """Keep the label of each de-identified SOPInstanceUID; return how many are accepted images.

    A label may come before its image; a later one replaces an earlier.
    """
    with store.begin() as db:
        for uid, value in labels.items():
            db.execute(sa.delete(class_label).where(class_label.c.SOPInstanceUID == uid))
            db.execute(sa.insert(class_label).values(SOPInstanceUID=uid, value=value))
        known = set(db.scalars(sa.select(instance.c.SOPInstanceUID)))
    return len(known & labels.keys())


def studies_of(db: sa.Connection, patient: str) -> list[Study]:
    """Return the studies of `patient` (pseudonym), one for each modality of its images."""
    columns = instance.c
    query = (
        sa.select(columns.StudyInstanceUID, columns.study_date, columns.Modality)
        .where(columns.patient == patient, columns.Modality != _SEGMENTATION)
        .distinct()
    )
    return [
        Study(patient, uid, date.fromisoformat(day) if day else None, modality=modality)
        for uid, day, modality in db.execute(query)
    ]


def summary(store: sa.Engine) -> Summary:
    """Return the counts of the whole site."""
    columns = instance.c
    with store.connect() as db:
        outcomes = db.execute(
            sa.select(disposition.c.outcome, disposition.c.reason, sa.func.count())
            .group_by(disposition.c.outcome, disposition.c.reason)
            .order_by(disposition.c.outcome, disposition.c.reason)
        ).all()
        modalities = db.execute(
            sa.select(columns.Modality, sa.func.count()).group_by(columns.Modality).order_by(columns.Modality)
        ).all()
        series, studies, patients = (
            db.scalar(sa.select(sa.func.count(column.distinct()))) or 0
            for column in (columns.SeriesInstanceUID, columns.StudyInstanceUID, columns.patient)
        )
        labelled = db.scalar(sa.select(sa.func.count()).where(columns.SOPInstanceUID == class_label.c.SOPInstanceUID))
    return Summary(
        outcomes={(outcome, reason): count for outcome, reason, count in outcomes},
        instances={row.Modality: row[1] for row in modalities},
        series=series,
        studies=studies,
        patients=patients,
        class_labels=labelled or 0,
    )


def _instance(row: sa.Row[tuple[object, ...]]) -> Instance:
    return Instance(row.path, row.sha256, row.SOPInstanceUID)


def _only(candidates: list[Instance]) -> Instance | None:
    return candidates[0] if len(candidates) == 1 else None
