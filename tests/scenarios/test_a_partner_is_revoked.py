"""The consortium parts with an AI partner while the coordinator serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.consortium import CommandFailed
from tests.scenarios.setting import short_task

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


def test_its_access_file_opens_nothing_from_that_moment_on(setting: Setting) -> None:
    setting.open_coordinator()
    digest = setting.submit(short_task())

    setting.consortium.coordinator("partners", "revoke", "acme")

    with pytest.raises(CommandFailed, match=r"refused \(403\): the partner's token is not known here") as failure:
        setting.submit(short_task(rounds=3))
    assert failure.value.code == 5
    assert digest in setting.consortium.coordinator("tasks", "list", "--json")
