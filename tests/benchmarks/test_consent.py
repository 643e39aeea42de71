"""The measurement of consents runs from loading to re-checking, and its cohort is the plain one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.consent import measure
from benchmarks.population import NOW, first_consents, newer_versions, patient_id

if TYPE_CHECKING:
    from pathlib import Path


def test_a_small_run_measures_everything(tmp_path: Path) -> None:
    figures = measure(tmp_path, 200)

    values = {name.removeprefix("200: "): figure.value for name, figure in figures.items()}
    assert values["consents taken"] == 220
    assert values["studies asked about"] == 10
    assert 0 < values["studies permitted"] < 10
    assert all(value >= 0 for value in values.values())
    assert all(figure.bar is None for figure in figures.values())
    assert measure(tmp_path, 200).keys() < figures.keys()


def test_a_patient_has_the_same_consents_at_every_size() -> None:
    alone, among_others = list(first_consents([7])), list(first_consents(range(20)))

    assert alone == [one for one in among_others if one["id"].startswith("c7-")]
    assert {one["id"] for one in newer_versions(range(20))} < {one["id"] for one in among_others}
    assert patient_id(7) in str(alone[0])
    assert NOW.tzinfo is not None
