"""The main job, with real processes: a patient withdraws, a site is killed, and every invariant still holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from demo.checks import check_all, search_arrivals
from demo.consortium import Consortium
from demo.stage import WITHDRAWS_IN, invented_stage
from demo.story import Story

if TYPE_CHECKING:
    from pathlib import Path

    from demo.checks import Evidence
    from demo.results import Search

# 8 of 12 patients permit; long enough epochs that a withdrawal finds the training under way.
# After the round in which a site is killed there are two: it may miss the next while it starts.
# Few of the real files: the demo takes all in, and so do the slow tests of the intake.
PATIENTS, PERMITTED, ROUNDS, EPOCHS = 12, 8, 5, 8


pytestmark = pytest.mark.timeout(1500)  # the whole story, with some hundred pictures read for text


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    root: Path = tmp_path_factory.mktemp("consortium")
    stage = invented_stage(root / "inboxes", datetime.now(UTC), lambda *_: None, PATIENTS, public=8)
    task = {**stage.task, "rounds": ROUNDS, "local_epochs": EPOCHS}
    small = replace(stage, task=task, minimum_studies=PERMITTED - 2, minimum_count=4)
    with Consortium(root / "run", "test-federation", [ward.name for ward in small.wards]) as consortium:
        consortium.root.mkdir()
        return Story(consortium, small, Console(quiet=True)).tell()


@pytest.fixture(scope="module")
def searched(told: Evidence) -> Search:
    return search_arrivals(told)


def test_every_invariant_holds_seen_from_outside(told: Evidence, searched: Search) -> None:
    broken = [f"{check.invariant}: {check.how}" for check in check_all(told, searched) if not check.held]

    assert broken == []


def test_each_hospital_uses_exactly_the_permitted_studies(told: Evidence) -> None:
    first = {
        site: [row["studies"] for row in rows if (row["round"], row["kind"]) == (1, "train")]
        for site, rows in told.rounds.items()
    }

    assert {site: [len(studies) for studies in each] for site, each in first.items()} == {
        ward.name: [PERMITTED] for ward in told.stage.wards
    }


def test_the_hospital_that_stopped_tells_no_reason_to_the_coordinator(told: Evidence) -> None:
    site, _ = told.withdrawn
    (row,) = (
        r for r in told.run["contributions"] if (r["round"], r["kind"], r["site"]) == (WITHDRAWS_IN, "train", site)
    )

    assert (row["outcome"], row["reason"], row["receipt"]) == ("abstained", "", None)
