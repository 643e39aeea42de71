"""A patient withdraws when the hospital has handed updates over: its node tells the coordinator by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.setting import short_task

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


@pytest.mark.slow
def test_the_serving_node_tells_which_updates_hold_the_study_and_the_model_is_flagged(setting: Setting) -> None:
    run = setting.start_run(setting.ready(short_task(rounds=1)))
    setting.finish(run)
    patient = setting.patients("north")[0]

    setting.consortium.site("north", "consents", "withdraw", said=f"{patient}\n")
    setting.await_log("north", "the coordinator answered for")

    record = json.loads(setting.consortium.coordinator("runs", "show", run))
    flagged = {made["round"]: made["contains_withdrawn"] for made in record["rounds"]}
    assert [number for number, holds in flagged.items() if holds] == [1]
    assert patient not in setting.consortium.log("north") + setting.consortium.log("coordinator")
