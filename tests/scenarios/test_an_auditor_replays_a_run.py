"""Real processes: an auditor finds nothing after an honest run, and one changed byte afterwards, on either side."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from demo.consortium import CommandFailed
from tests.scenarios.setting import counted, short_task

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.setting import Setting


def changed(database: Path, table: str, column: str, where: str) -> None:
    """Change one byte of one value, without the program."""
    with closing(sqlite3.connect(database)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        row = db.execute(f"SELECT rowid, {column} FROM {table} WHERE {where} LIMIT 1").fetchone()  # noqa: S608 -- own names
        value = bytearray(row[1] if isinstance(row[1], bytes) else row[1].encode())
        value[-9] ^= 1
        new = bytes(value) if isinstance(row[1], bytes) else value.decode()
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, row[0]))  # noqa: S608 -- as above
        db.commit()


@pytest.mark.slow
def test_an_honest_run_passes_both_audits_and_a_changed_byte_fails_them(setting: Setting) -> None:
    consortium = setting.consortium
    digest = setting.ready(short_task(rounds=2))
    run = setting.start_run(digest)
    record = setting.finish(run)
    consortium.stop()
    assert [counted(record, number) for number in (1, 2)] == [["east", "north"]] * 2

    found: list[dict[str, Any]] = json.loads(consortium.site("north", "audit", run, "--json"))
    assert [one for one in found if one["faults"]] == []
    assert {one["what"]: one["checked"] for one in found}["receipts against log and verdicts"] == 3
    sampled = consortium.site("north", "audit", run, "--sample", "2", "--nonce", "a word")
    assert "decisions made again" in sampled

    site = consortium.root / "north" / "site.db"
    changed(site, "consent_record", "resource", "number = 1")
    with pytest.raises(CommandFailed, match="consent record 1: it is not what its leaf was made of"):
        consortium.site("north", "audit")
    changed(consortium.root / "coordinator" / "coordinator.db", "contribution", "receipt", "outcome = 'counted'")
    with pytest.raises(CommandFailed, match="receipt"):
        consortium.coordinator("audit", run)
