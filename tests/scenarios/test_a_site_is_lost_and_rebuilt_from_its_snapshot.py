"""A hospital loses its site node, rebuilds it from a snapshot, and goes on in the federation under its own identity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.consortium import CommandFailed
from tests.scenarios.setting import counted, short_task, wait_until

if TYPE_CHECKING:
    from tests.scenarios.setting import Setting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("restic") is None or not Path("/usr/sbin/Orthanc").exists(), reason="needs restic and orthanc"
    ),
]


def test_the_rebuilt_site_takes_part_in_a_round(setting: Setting) -> None:
    digest = setting.ready(short_task(rounds=2))
    consortium, home = setting.consortium, setting.consortium.home("north")
    with (home / "site.toml").open("a") as file:
        file.write(f'\n[archive]\nrepository = "{setting.root}/repository"\noriginals = "{setting.root}/inbox/north"\n')
        file.write("[drills]\nfull_every_h = 0\nattack_every_h = 0\nfailover_every_h = 0\n")
    before = setting.finish(setting.start_run(digest))
    consortium.site("north", "archive", "init")
    consortium.site("north", "archive", "snapshot")
    ledger, log_key = consortium.site("north", "ledger"), consortium.site("north", "log-key")

    report = json.loads(consortium.site("north", "drill", "full", "--json"))
    assert report["problems"] == []
    assert set(report["rebuilt"].values()) == {True, 0}
    assert report["files"]["proved"] > 100

    # The building burns down; what is left lies elsewhere: the repository, the password and the recovery key.
    consortium.kill("north")
    safe, lost = setting.root / "safe", setting.root / "lost"
    shutil.copytree(home / "archive", safe, ignore=shutil.ignore_patterns("staging", "cache", "index.db*"))
    toml = (home / "site.toml").read_text()
    home.rename(lost)
    consortium.site("north", "init", "--name", "north")
    (home / "site.toml").write_text(toml)
    shutil.copytree(safe, home / "archive")
    back = setting.root / "back"
    consortium.site("north", "archive", "restore", str(back), "--everything", "--state")
    home.rename(setting.root / "empty")
    (back / "site").rename(home)
    for name in ("deidentified", "review", "quarantine"):
        if (back / name).exists():
            (back / name).rename(home / name)
    shutil.copytree(safe, home / "archive")

    told = [json.loads(line) for line in consortium.site("north", "ledger").splitlines()]
    then = [json.loads(line) for line in ledger.splitlines()]
    # The entry of the snapshot itself comes after the database was copied: the restore makes it.
    assert told[:-1] == then[: len(told) - 1]
    assert told[-1]["entry"] == "site:archive:snapshot-taken"
    assert len(then) - len(told) <= 1
    consortium.site("north", "audit")
    consortium.start("north", until="connected")
    after = setting.finish(setting.start_run(digest))

    for record in (before, after):
        assert record["state"] == "finished"
        assert all(counted(record, number) == ["east", "north"] for number in (1, 2))
    assert consortium.site("north", "log-key") == log_key


def test_the_node_drills_by_itself_and_says_when_one_fails(setting: Setting) -> None:
    setting.open_coordinator()
    setting.admit("north")
    consortium, home = setting.consortium, setting.consortium.home("north")
    with (home / "site.toml").open("a") as file:
        file.write(f'\n[archive]\nrepository = "{setting.root}/repository"\noriginals = "{setting.root}/inbox/north"\n')
        file.write("[drills]\nfull_every_h = 0\nattack_every_h = 0\nfailover_every_h = 0\n")
    consortium.site("north", "archive", "init")
    consortium.site("north", "archive", "snapshot")
    for pack in (setting.root / "repository" / "data").rglob("*"):
        if pack.is_file() and pack.stat().st_size > 100_000:
            pack.chmod(0o600)
            pack.write_bytes(pack.read_bytes()[:-40_000])
    consortium.start("north", until="connected")

    wait_until(lambda: "drill sample FAILED" in consortium.log("north"), "the drill fails", 240)
    with pytest.raises(CommandFailed) as failed:
        consortium.site("north", "drill", "status")
    assert failed.value.code == 8
    assert "drill sample of" in failed.value.said
