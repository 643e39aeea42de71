"""The hospital's disk is full: while images come in, and while the node takes part in a round."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from demo.consortium import CommandFailed
from tests.scenarios.setting import SITES, counted, short_task, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.setting import Setting

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")

SMALL, LARGE = "1m", "64m"


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """Make `folder` a disk of its own until the block ends."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],  # noqa: S607 -- the system's own
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("this system lets nobody mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607 -- the system's own


def resize(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)  # noqa: S607 -- the system's own


def fill(path: Path) -> None:
    """Let one file take all the room there is."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))


def test_taking_in_stops_with_its_own_code_and_goes_on_when_there_is_room(setting: Setting) -> None:
    setting.open_coordinator()
    with disk(setting.root / "north", SMALL):
        with pytest.raises(CommandFailed) as failure:
            setting.admit("north")
        assert failure.value.code == 6
        assert "No space left" in failure.value.said or "full" in failure.value.said
        assert "Traceback" not in failure.value.said

        resize(setting.root / "north", LARGE)
        summary = json.loads(setting.consortium.site("north", "ingest", str(setting.root / "inbox/north"), "--json"))
        intake = json.loads(setting.consortium.site("north", "intake", "--json"))

        files = sum(path.is_file() for path in (setting.root / "inbox/north").rglob("*"))
        assert sum(row["files"] for row in intake) == files, summary
        assert sum(row["files"] for row in intake if row["outcome"] == "accepted") >= 6 * 13


@pytest.mark.slow
def test_a_node_without_room_releases_nothing_and_takes_part_again_when_there_is_some(setting: Setting) -> None:
    with disk(setting.root / "north", LARGE):
        run = setting.start_run(setting.ready(short_task(rounds=5, local_epochs=3, quorum=1)))
        setting.await_log("north", "round 1: released")
        filler = setting.root / "north" / "filler"
        fill(filler)
        node = setting.consortium.pids()["north"][0]

        wait_until(lambda: ended(node) or "abstained" in setting.consortium.log("north"), "the node notices", 60)
        filler.unlink()
        if ended(node):
            setting.consortium.kill("north")
            setting.consortium.start("north", until="connected")
        record = setting.finish(run)

        assert "Traceback" not in setting.consortium.log("north")
        assert counted(record, 1) == sorted(SITES)
        assert all(counted(record, number) for number in range(1, 6))
        assert list((setting.root / "north" / "outbox").iterdir()) == []
        setting.consortium.stop()


def ended(pid: int) -> bool:
    """Return whether the process is gone, or waits to be asked how it ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 -- not a file on a disk
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
