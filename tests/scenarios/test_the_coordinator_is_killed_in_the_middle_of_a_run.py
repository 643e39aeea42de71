"""The coordinator is killed in the middle of a run and started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scenarios.setting import SITES, counted, short_task

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


@pytest.mark.slow
def test_the_models_are_bit_for_bit_those_of_an_undisturbed_run(setting: Setting) -> None:
    digest = setting.ready(short_task(rounds=3, local_epochs=2))
    undisturbed = setting.finish(setting.start_run(digest))

    run = setting.start_run(digest)
    setting.await_log("north", f"train: run {run}, round 2")
    setting.consortium.kill("coordinator")
    setting.consortium.start("coordinator", until="listens")
    record = setting.finish(run)

    for number in (1, 2, 3):
        assert counted(record, number) == counted(undisturbed, number) == sorted(SITES)
    models = [[row["model_after"] for row in each["rounds"]] for each in (record, undisturbed)]
    assert models[0] == models[1]
    assert len(set(models[0])) == len(models[0])
