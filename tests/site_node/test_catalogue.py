"""The catalogue: which series are labelled, by what, and how much of everything there is."""

from __future__ import annotations

import sqlalchemy as sa

from site_node.catalogue import (
    Instance,
    labelled_images,
    series_with_labels,
    set_class_labels,
    summary,
)
from site_node.store import disposition, instance


def add(store: sa.Engine, uid: str, series: str, **columns: str) -> None:
    row = {
        "SOPInstanceUID": uid,
        "SeriesInstanceUID": series,
        "StudyInstanceUID": "study",
        "SOPClassUID": "class",
        "Modality": "MR",
        "patient": "P1",
        "study_date": "2026-03-12",
        "path": f"deidentified/{uid}.dcm",
        "sha256": f"sha-{uid}",
        "source_sha256": f"source-{uid}",
    }
    with store.begin() as db:
        db.execute(
            sa.insert(disposition).values(
                source_sha256=f"source-{uid}",
                outcome="accepted",
                reason="",
                kept_as=f"deidentified/{uid}.dcm",
                recorded_at="2026-11-24",
            )
        )
        db.execute(sa.insert(instance).values(row | columns))


def label(store: sa.Engine, uid: str, references: str, **columns: str) -> None:
    add(store, uid, f"series-of-{uid}", Modality="SEG", references_series=references, **columns)


def test_a_series_comes_with_its_slices_and_its_segmentation(store: sa.Engine) -> None:
    add(store, "2", "a")
    add(store, "1", "a")
    add(store, "3", "b")
    label(store, "9", "a")

    with store.connect() as db:
        first, second = series_with_labels(db, "MR")

    assert [item.SOPInstanceUID for item in first.instances] == ["1", "2"]
    assert first.segmentation == Instance("deidentified/9.dcm", "sha-9", "9")
    assert (first.SeriesInstanceUID, first.StudyInstanceUID) == ("a", "study")
    assert (first.patient, first.study_date) == ("P1", "2026-03-12")
    assert second.segmentation is None


def test_another_modality_is_not_listed(store: sa.Engine) -> None:
    add(store, "1", "a", Modality="CT")

    with store.connect() as db:
        assert series_with_labels(db, "MR") == []


def test_a_segmentation_of_another_patient_labels_nothing(store: sa.Engine) -> None:
    add(store, "1", "a")
    label(store, "9", "a", patient="P2")

    with store.connect() as db:
        (series,) = series_with_labels(db, "MR")

    assert series.segmentation is None


def test_two_segmentations_leave_a_series_unlabelled(store: sa.Engine) -> None:
    add(store, "1", "a")
    label(store, "8", "a")
    label(store, "9", "a")

    with store.connect() as db:
        (series,) = series_with_labels(db, "MR")

    assert series.segmentation is None


def test_a_series_that_two_patients_share_falls_apart_by_patient(store: sa.Engine) -> None:
    add(store, "1", "a")
    add(store, "2", "a", patient="P2")

    with store.connect() as db:
        assert [series.patient for series in series_with_labels(db, "MR")] == ["P1", "P2"]


def test_class_labels_find_their_images_and_a_later_one_replaces_an_earlier(
    store: sa.Engine,
) -> None:
    add(store, "1", "a", Modality="CR")
    add(store, "2", "a", Modality="CR")

    known = set_class_labels(store, {"1": 0, "7": 1})
    set_class_labels(store, {"1": 1})

    with store.connect() as db:
        (image,) = labelled_images(db, "CR")
    assert known == 1
    assert (image.instance.SOPInstanceUID, image.label) == ("1", 1)
    with store.connect() as db:
        assert labelled_images(db, "MR") == []


def test_the_summary_counts_outcomes_modalities_and_people(store: sa.Engine) -> None:
    add(store, "1", "a")
    add(store, "2", "a")
    add(store, "3", "b", patient="P2", StudyInstanceUID="other", Modality="CT")
    set_class_labels(store, {"3": 1, "7": 1})

    counts = summary(store)

    assert counts.outcomes == {("accepted", ""): 3}
    assert counts.instances == {"CT": 1, "MR": 2}
    assert (counts.series, counts.studies, counts.patients) == (2, 2, 2)
    assert counts.class_labels == 1


def test_the_summary_of_an_empty_site_is_zero(store: sa.Engine) -> None:
    counts = summary(store)

    assert (counts.series, counts.patients, counts.class_labels) == (0, 0, 0)
    assert counts.outcomes == {}
