"""A hospital's node is killed in the middle of a round and started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from tests.scenarios.setting import counted, short_task, wait_until

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


@pytest.mark.slow
def test_the_run_goes_on_and_the_site_takes_part_again(setting: Setting) -> None:
    run = setting.start_run(setting.ready(short_task(rounds=4, local_epochs=3, quorum=1)))

    setting.await_log("north", "round 2")
    _, worker = setting.consortium.pids()["north"]
    setting.consortium.kill("north")
    wait_until(lambda: not psutil.pid_exists(worker), "the worker ends with its node", 20)
    setting.consortium.start("north", until="connected")
    record = setting.finish(run)

    assert record["state"] == "finished"
    assert counted(record, 1) == ["east", "north"]
    assert "north" in counted(record, 4)
    released = [row["nonce"] for row in setting.rounds("north") if row["outcome"] == "released"]
    assert len(released) == len(set(released))
    assert list((setting.consortium.home("north") / "outbox").iterdir()) == []
