"""The consortium parts with a hospital whose node is running, and later takes it in again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from demo.consortium import CommandFailed

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


def test_its_node_says_so_once_and_ends_and_a_new_invitation_brings_it_back(setting: Setting) -> None:
    consortium = setting.consortium
    consortium.set_up_coordinator({"hold_s": 1.0})
    consortium.start("coordinator", until="listens")
    consortium.set_up_site("north", {})
    consortium.start("north", until="connected")

    consortium.coordinator("members", "revoke", "north")

    setting.await_log("north", "ask it for a new invitation")
    time.sleep(2)
    assert consortium.log("north").count("403") == 1
    assert "trying again" not in consortium.log("north")
    for command in (("check",), ("tasks", "list"), ("serve",)):
        with pytest.raises(CommandFailed, match="this site is no member of it, or no longer") as failure:
            consortium.site("north", *command)
        assert failure.value.code == 5

    consortium.kill("north")  # it has ended; this clears it away
    again = setting.root / "again.json"
    consortium.coordinator("members", "invite", "north", "--to", str(again))
    consortium.site("north", "join", str(again))

    consortium.start("north", until="connected")
    with pytest.raises(CommandFailed, match="used, expired or not its own"):
        consortium.site("north", "join", str(again))
    consortium.site("north", "check")
