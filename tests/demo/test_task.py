"""The demo's task is one that sites accept, and its labels are those the virtual patients carry."""

from __future__ import annotations

import json

from demo.dicom_files import SEGMENTS
from demo.task import TASK
from models import parse_task


def test_the_task_parses() -> None:
    task = parse_task(json.dumps(TASK).encode())

    assert (task.rounds, task.strategy.quorum, task.strategy.deadline_s) == (6, 2, 60)


def test_the_labels_have_the_codes_of_the_planted_segments() -> None:
    task = parse_task(json.dumps(TASK).encode())
    asked = {(label.value, label.code.scheme, label.code.value) for label in task.labels if label.code}

    assert asked == {(value, code.scheme_designator, code.value) for value, _, code in SEGMENTS}
