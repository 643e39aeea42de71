"""Turns what a run left behind into the plain values the report and the summary show."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from demo.checks import deidentified_study
from demo.results import (
    ConsentResult,
    Count,
    Digest,
    HospitalResult,
    Participation,
    Results,
    RoundTime,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.baselines import Baselines
    from demo.checks import Evidence
    from demo.results import Check, Participated, Search
    from demo.stage import Ward
    from demo.story import Seconds

SOFTWARE = ("filmroom", "flwr", "monai", "torch", "pydicom", "highdicom", "cryptography", "pydantic")
_STATES: dict[str, Participated] = {
    "counted": "trained",
    "abstained": "abstained",
    "absent": "offline",
    "refused": "rejected",
}


def findings(
    evidence: Evidence,
    seconds: Seconds,
    baselines: Baselines,
    search: Search,
    checks: Sequence[Check],
    wall_s: float,
) -> Results:
    """Return everything the report shows."""
    task = evidence.stage.task
    return Results(
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        told=evidence.stage.told,
        task_title=task["title"],
        labels=tuple(label["name"] for label in task["labels"]),
        rounds=task["rounds"],
        wall_s=wall_s,
        cpu_s=seconds.total_cpu,
        hospitals=tuple(_hospital(evidence, ward, baselines) for ward in evidence.stage.wards),
        curves=baselines.curves,
        participation=_participation(evidence),
        search=search,
        checks=tuple(checks),
        times=_times(evidence, seconds),
        provenance=_provenance(evidence),
        software=tuple((name, version(name)) for name in SOFTWARE),
    )


def _hospital(evidence: Evidence, ward: Ward, baselines: Baselines) -> HospitalResult:
    cohort = evidence.cohorts[ward.name]
    eligibility = Counter(cohort.values())
    return HospitalResult(
        name=ward.name,
        title=ward.title,
        files=ward.files,
        intake=tuple(Count(row["outcome"], row["reason"], row["files"]) for row in evidence.intake[ward.name]),
        consents=_consents(evidence, ward),
        eligibility=tuple(
            Count("in" if told.startswith("permit:") else "out", told, count)
            for told, count in sorted(eligibility.items())
        ),
        pictures=baselines.pictures.get(ward.name, ()),
    )


def _consents(evidence: Evidence, ward: Ward) -> tuple[ConsentResult, ...]:
    """Compare what each kind of consent must come to with what the hospital decided."""
    patients: Counter[tuple[str, str]] = Counter()
    held: Counter[tuple[str, str]] = Counter()
    for patient_id, (kind, expected) in ward.expected.items():
        told = evidence.cohorts[ward.name].get(deidentified_study(evidence, ward, patient_id), "")
        patients[kind, expected] += 1
        held[kind, expected] += told.startswith(f"{expected}:")
    return tuple(ConsentResult(*key, patients[key], held[key]) for key in sorted(patients))


def _participation(evidence: Evidence) -> tuple[Participation, ...]:
    return tuple(
        Participation(row["round"], row["site"], _STATES[row["outcome"]], row["reason"])
        for row in evidence.run["contributions"]
        if row["kind"] == "train"
    )


def _times(evidence: Evidence, seconds: Seconds) -> tuple[RoundTime, ...]:
    found = []
    for row in evidence.run["rounds"][1:]:
        number = row["round"]
        sites = [r for rows in evidence.rounds.values() for r in rows if (r["round"], r["kind"]) == (number, "train")]
        found.append(
            RoundTime(
                round=number,
                wall_s=row["closed_at"] - row["opened_at"],
                cpu_s=seconds.cpu_at[number] - seconds.cpu_at[number - 1],
                training_s=max(site["training_s"] for site in sites),
                gate_ms=1000 * max(site["gate_s"] for site in sites),
                receipt_ms=1000 * max(site["receipt_s"] for site in sites),
            )
        )
    return tuple(found)


def _provenance(evidence: Evidence) -> tuple[Digest, ...]:
    rounds = evidence.run["rounds"]
    models = [Digest(f"model after round {row['round']}", row["model_after"]) for row in rounds]
    return (Digest("task", evidence.run["task"]), *models)
