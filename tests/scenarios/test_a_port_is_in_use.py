"""Something else listens where the coordinator should."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from demo.consortium import CommandFailed

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


@pytest.mark.parametrize("port", ["fleet_port", "join_port"])
def test_the_coordinator_says_which_address_is_taken_and_ends(setting: Setting, port: str) -> None:
    setting.consortium.set_up_coordinator({})
    config = (setting.consortium.home("coordinator") / "coordinator.toml").read_text()
    found = re.search(rf"{port} = (\d+)", config)
    assert found is not None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(found[1])))
        taken.listen()

        with pytest.raises(CommandFailed) as failure:
            setting.consortium.start("coordinator", until="listens", timeout_s=60)

    assert failure.value.code == 4
    assert found[1] in failure.value.said
    assert "Traceback" not in failure.value.said
