"""Datasets, grants and task approvals: who decided what, by four eyes, and taken back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from consent import Deny
from models import TaskRefused
from site_node import permissions
from site_node.consents import current_epoch
from site_node.errors import ConfigurationError
from site_node.gate import Snapshot
from site_node.store import ledger
from tests.site_node.hospital import NOON, TASK_DOCUMENT, TERMS

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from tests.site_node.hospital import Hospital


def register(store: sa.Engine, name: str = "mr") -> None:
    permissions.register_dataset(store, name, TERMS, "MR", "steward", NOON)


def epoch(store: sa.Engine) -> int:
    with store.connect() as db:
        return current_epoch(db)


def test_who_registered_a_dataset_cannot_approve_it(store: sa.Engine) -> None:
    register(store)

    with pytest.raises(ConfigurationError, match="another must approve"):
        permissions.approve_dataset(store, "mr", "steward", NOON)

    with store.connect() as db:
        assert permissions.datasets(db)["mr"].approval is None


def test_a_dataset_is_registered_once(store: sa.Engine) -> None:
    register(store)

    with pytest.raises(ConfigurationError, match="already registered"):
        register(store)


def test_terms_that_cannot_be_read_are_refused(store: sa.Engine) -> None:
    with pytest.raises(ConfigurationError, match="dataset mr: "):
        permissions.register_dataset(store, "mr", {"permission": 1}, "MR", "steward", NOON)

    assert epoch(store) == 0


def test_every_decision_begins_an_epoch(store: sa.Engine) -> None:
    digest = permissions.keep_task(store, TASK_DOCUMENT, NOON)
    steps: list[Callable[[], None]] = [
        lambda: register(store),
        lambda: permissions.approve_dataset(store, "mr", "manager", NOON),
        lambda: permissions.approve_task(store, digest, "mr", "manager", NOON),
        lambda: permissions.revoke_task(store, digest, "manager", NOON),
        lambda: permissions.revoke_dataset(store, "mr", "manager", NOON),
    ]
    for number, step in enumerate(steps, 1):
        step()
        assert epoch(store) == number


@pytest.mark.parametrize(
    "decide",
    [
        lambda store: permissions.approve_dataset(store, "ct", "manager", NOON),
        lambda store: permissions.approve_task(store, "0" * 64, "mr", "manager", NOON),
        lambda store: permissions.revoke_task(store, "0" * 64, "manager", NOON),
        lambda store: permissions.revoke_dataset(store, "mr", "manager", NOON),
    ],
    ids=[
        "approve unknown",
        "approve unknown task",
        "revoke unknown task",
        "revoke unapproved dataset",
    ],
)
def test_a_decision_about_nothing_is_refused_and_changes_nothing(
    store: sa.Engine, decide: Callable[[sa.Engine], None]
) -> None:
    register(store)

    with pytest.raises(ConfigurationError):
        decide(store)

    assert epoch(store) == 1


def test_a_task_runs_only_on_a_dataset_that_is_known(store: sa.Engine) -> None:
    digest = permissions.keep_task(store, TASK_DOCUMENT, NOON)

    with pytest.raises(ConfigurationError, match="dataset ct is not known here"):
        permissions.approve_task(store, digest, "ct", "manager", NOON)


def test_an_offered_task_is_kept_once_and_approved_by_nobody(store: sa.Engine) -> None:
    digest = permissions.keep_task(store, TASK_DOCUMENT, NOON)

    assert permissions.keep_task(store, TASK_DOCUMENT.replace(b", ", b",  "), NOON) == digest
    with store.connect() as db:
        assert [offered.approval for offered in permissions.tasks(db).values()] == [None]


def test_a_task_with_parts_that_are_not_installed_is_not_kept(store: sa.Engine) -> None:
    with pytest.raises(TaskRefused):
        permissions.keep_task(store, TASK_DOCUMENT.replace(b'"UNet"', b'"os.system"'), NOON)

    with store.connect() as db:
        assert permissions.tasks(db) == {}


def test_a_revoked_dataset_can_be_approved_anew_and_who_did_it_is_in_the_ledger(hospital: Hospital) -> None:
    store = hospital.store
    for _ in range(2):
        permissions.revoke_dataset(store, "brain-mr", "director", NOON)
        assert hospital.gate.snapshot(hospital.task, NOON) == Deny("dataset: revoked")
        permissions.approve_dataset(store, "brain-mr", "manager", NOON)

        assert isinstance(hospital.gate.snapshot(hospital.task, NOON), Snapshot)

    entries = [(row["entry"], row["detail"]) for row in hospital.rows(ledger) if "revoked" in row["entry"]]
    assert entries == 2 * [("site:dataset:revoked", '{"dataset": "brain-mr", "by": "director"}')]


def test_a_revoked_task_can_be_approved_again(store: sa.Engine) -> None:
    register(store)
    digest = permissions.keep_task(store, TASK_DOCUMENT, NOON)
    permissions.approve_task(store, digest, "mr", "manager", NOON)
    permissions.revoke_task(store, digest, "manager", NOON)

    permissions.approve_task(store, digest, "mr", "manager", NOON + timedelta(days=1))

    with store.connect() as db:
        approval = permissions.tasks(db)[digest].approval
    assert approval is not None
    assert approval.revoked_at is None
