"""A hospital changes its receipt key, is cut off in the middle of it, and has to join anew once the key was stolen."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from demo.consortium import CommandFailed

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting


@pytest.mark.slow
def test_a_change_cut_off_is_finished_and_a_revoked_key_ends_it(setting: Setting) -> None:
    consortium = setting.consortium
    consortium.set_up_coordinator({"hold_s": 1.0})
    consortium.start("coordinator", until="listens")
    consortium.set_up_site("north", {})
    identity = consortium.home("north") / "identity"
    key, following = identity / "receipt.key", identity / "receipt.key.next"
    first, log_key = key.read_bytes(), consortium.site("north", "log-key")

    consortium.start("north", until="connected")
    with pytest.raises(CommandFailed, match="another site node is running"):
        consortium.site("north", "rotate-key")
    assert key.read_bytes() == first
    consortium.kill("north")

    consortium.site("north", "rotate-key")
    second = key.read_bytes()
    assert second != first
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not following.exists()
    assert consortium.site("north", "log-key") != log_key

    # The power went after the coordinator took the key, and before the site noted its answer.
    key.write_bytes(first)
    following.write_bytes(second)
    following.chmod(0o600)
    with pytest.raises(CommandFailed, match="rotate-key"):
        consortium.site("north", "serve")
    consortium.site("north", "rotate-key")
    assert (key.read_bytes(), following.exists()) == (second, False)
    consortium.start("north", until="connected")
    consortium.kill("north")

    # No answer at all: the next key stays, and is the one that is asked for again.
    consortium.kill("coordinator")
    with pytest.raises(CommandFailed, match="changing the receipt key"):
        consortium.site("north", "rotate-key")
    third = following.read_bytes()
    assert key.read_bytes() == second
    consortium.start("coordinator", until="listens")
    consortium.site("north", "rotate-key")
    assert (key.read_bytes(), following.exists()) == (third, False)

    consortium.coordinator("members", "revoke-key", "north")
    with pytest.raises(CommandFailed, match="key-revoked"):
        consortium.site("north", "rotate-key")
    assert (key.read_bytes(), following.exists()) == (third, False)
    again = setting.root / "again.json"
    consortium.coordinator("members", "invite", "north", "--to", str(again))
    consortium.site("north", "join", str(again))
    consortium.site("north", "rotate-key")
    assert key.read_bytes() != third
    consortium.start("north", until="connected")
