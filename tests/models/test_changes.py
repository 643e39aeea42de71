"""Two versions of a task differ in the keys a person is shown, and in no other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.task import TASK
from models import Change, Task, parse_task, task_changes, task_digest

if TYPE_CHECKING:
    from collections.abc import Callable


def made(change: Callable[[dict[str, Any]], object] = lambda _document: None) -> Task:
    document = json.loads(json.dumps(TASK))
    change(document)
    return parse_task(json.dumps(document).encode())


def more_rounds(document: dict[str, Any]) -> None:
    document["rounds"] += 5


def another_loss(document: dict[str, Any]) -> None:
    document["loss"] = {"name": "DiceLoss", "arguments": {}}


def one_transform_less(document: dict[str, Any]) -> None:
    del document["transforms"]["train"][0]


def for_profit(document: dict[str, Any]) -> None:
    document["purpose"]["for_profit"] = True


def another_rate(document: dict[str, Any]) -> None:
    document["optimiser"]["arguments"]["lr"] = 0.5


EDITS = (more_rounds, another_loss, one_transform_less, for_profit, another_rate)


def test_the_same_task_has_no_changes() -> None:
    assert task_changes(made(), made()) == ()


@pytest.mark.parametrize(
    ("edit", "key", "part"),
    [
        (more_rounds, "rounds", "rounds"),
        (another_loss, "loss.name", "loss"),
        (one_transform_less, "transforms.train[0]", "transforms"),
        (for_profit, "purpose.for_profit", "purpose"),
        (another_rate, "optimiser.arguments.lr", "optimiser"),
    ],
)
def test_an_edit_is_named_by_its_key(edit: Callable[[dict[str, Any]], None], key: str, part: str) -> None:
    changes = task_changes(made(), made(edit))

    assert key in {change.key for change in changes}
    assert {change.part for change in changes} == {part}


def test_a_value_is_told_before_and_after() -> None:
    (change,) = task_changes(made(), made(more_rounds))

    assert change == Change("rounds", str(TASK["rounds"]), str(TASK["rounds"] + 5))


def test_a_transform_taken_out_is_one_change() -> None:
    (change,) = task_changes(made(), made(one_transform_less))

    assert change.after == "-"
    assert json.loads(change.before)["name"] == TASK["transforms"]["train"][0]["name"]


def test_what_cannot_be_seen_is_escaped() -> None:
    turned = made(lambda document: document.update(title="a\u202etitle in Köln"))

    (change,) = task_changes(made(), turned)

    assert change.after == '"a\\u202etitle in Köln"'


@settings(deadline=None)
@given(st.sets(st.sampled_from(EDITS)), st.sets(st.sampled_from(EDITS)))
def test_two_tasks_have_changes_exactly_if_their_digests_differ(one: set[Any], other: set[Any]) -> None:
    def edited(edits: set[Any]) -> Task:
        return made(lambda document: [edit(document) for edit in EDITS if edit in edits])

    before, after = edited(one), edited(other)

    assert (task_changes(before, after) == ()) == (task_digest(before) == task_digest(after))
    assert [change.key for change in task_changes(before, after)] == list(
        dict.fromkeys(change.key for change in task_changes(before, after))
    )
