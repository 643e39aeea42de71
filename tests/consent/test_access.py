"""Decisions of people hold from their moment until they expire or are revoked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from consent.access import (
    DatasetApproval,
    Deny,
    Grant,
    Permit,
    TaskApproval,
    permits_dataset,
    permits_project,
    permits_sources,
    permits_task,
)

AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
GRANT: Final = Grant("chest", "pneumonia", AT - DAY, AT + DAY)
TASK: Final = TaskApproval("ab" * 32, AT - DAY)
DATASET: Final = DatasetApproval("chest", AT - DAY)


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        (GRANT, Permit()),
        (replace(GRANT, granted_at=AT), Permit()),
        (replace(GRANT, granted_at=AT + DAY), Deny("grant: not yet in force")),
        (replace(GRANT, expires_at=AT), Deny("grant: expired")),
        (replace(GRANT, revoked_at=AT), Deny("grant: revoked")),
        (replace(GRANT, revoked_at=AT + DAY), Permit()),
        (replace(GRANT, dataset="brain"), Deny("grant: never approved here")),
        (replace(GRANT, project="other"), Deny("grant: never approved here")),
    ],
)
def test_a_grant_holds_between_its_bounds(grant: Grant, expected: Permit | Deny) -> None:
    assert permits_project([grant], "chest", "pneumonia", AT) == expected


def test_no_grant_is_no_permission() -> None:
    assert permits_project([], "chest", "pneumonia", AT) == Deny("grant: never approved here")


def test_a_new_grant_holds_beside_a_revoked_one() -> None:
    revoked = replace(GRANT, revoked_at=AT)

    assert permits_project([GRANT, revoked], "chest", "pneumonia", AT) == Permit()


@pytest.mark.parametrize(
    ("approval", "expected"),
    [
        (TASK, Permit()),
        (replace(TASK, digest="cd" * 32), Deny("task: never approved here")),
        (replace(TASK, approved_at=AT + DAY), Deny("task: not yet in force")),
        (replace(TASK, revoked_at=AT), Deny("task: revoked")),
    ],
)
def test_a_task_is_approved_by_its_digest(approval: TaskApproval, expected: Permit | Deny) -> None:
    assert permits_task([approval], "ab" * 32, AT) == expected


@pytest.mark.parametrize(
    ("approval", "expected"),
    [
        (DATASET, Permit()),
        (replace(DATASET, dataset="brain"), Deny("dataset: never approved here")),
        (replace(DATASET, revoked_at=AT - DAY), Deny("dataset: revoked")),
    ],
)
def test_a_dataset_is_approved_by_its_name(approval: DatasetApproval, expected: Permit | Deny) -> None:
    assert permits_dataset([approval], "chest", AT) == expected


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"ehr": AT}, Permit()),
        ({"ehr": AT - DAY}, Permit()),
        ({"ehr": AT - DAY - timedelta(microseconds=1)}, Deny("consent: not read within 24 h: ehr")),
        ({"ehr": AT, "paper": AT - 2 * DAY}, Deny("consent: not read within 24 h: paper")),
        ({"paper": AT - 3 * DAY, "ehr": AT - 2 * DAY}, Deny("consent: not read within 24 h: ehr, paper")),
        ({"ehr": AT + DAY}, Permit()),
        ({"ehr": AT + 2 * DAY}, Deny("consent: not read within 24 h: ehr")),
        ({}, Deny("consent: no source of consents was ever read")),
    ],
)
def test_every_source_of_consents_was_read_recently(sources: dict[str, datetime], expected: Permit | Deny) -> None:
    assert permits_sources(sources, DAY, AT) == expected
