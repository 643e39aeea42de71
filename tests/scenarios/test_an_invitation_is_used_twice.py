"""Somebody found an invitation file that was used already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.consortium import CommandFailed

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


def test_the_second_use_is_refused_and_leaves_no_trace(setting: Setting) -> None:
    setting.open_coordinator()
    setting.consortium.set_up_site("north", {})
    setting.consortium.site("thief", "init", "--name", "north")

    with pytest.raises(CommandFailed) as failure:
        setting.consortium.site("thief", "join", str(setting.root / "north.invitation.json"))

    assert failure.value.code == 5
    assert "used, expired or not its own" in failure.value.said
    assert [path.name for path in (setting.consortium.home("thief") / "identity").iterdir()] == ["pseudonym.key"]
    setting.consortium.site("north", "check")
