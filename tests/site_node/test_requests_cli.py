"""`filmroom-site requests` and `tasks diff`: what a person types, reads, and is refused."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from demo.task import TASK
from site_node import permissions
from site_node.app import create_site
from site_node.config import SiteHome
from site_node.store import open_store
from tests.site_node.hospital import PROJECT, TASK_DOCUMENT, TERMS
from tests.site_node.test_cli import PROGRAM, refused, run

if TYPE_CHECKING:
    from pathlib import Path

ASKING = TERMS | {"modifiers": [{"code": "DUO:0000021"}]}  # needs an ethics approval, which a task does not state
UNTIL = ("--until", "2099-01-01")


@pytest.fixture
def home(root: Path) -> Path:
    """Return the folder of a site with two datasets."""
    create_site(root, "north")
    store = open_store(SiteHome(root).database)
    now = datetime.now(UTC)
    permissions.register_dataset(store, "mr", TERMS, "MR", "steward", now)
    permissions.register_dataset(store, "asking", ASKING, "MR", "steward", now)
    store.dispose()
    return root


def offer(home: Path, document: bytes = TASK_DOCUMENT) -> str:
    store = open_store(SiteHome(home).database)
    digest = permissions.keep_task(store, document, datetime.now(UTC))
    store.dispose()
    return digest


def drafted(home: Path, dataset: str = "mr") -> str:
    done = run(home, "requests", "draft", dataset, "--task", offer(home), "--by", "anna", "--submit")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_request_goes_its_way_in_three_commands(home: Path) -> None:
    number = drafted(home)

    first = run(home, "requests", "approve", number, *UNTIL, "--condition", "no export", "--by", "ben")
    second = run(home, "requests", "confirm", number, "--by", "carla")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "waits for a second" in first.stderr
    assert "request 1 is approved" in second.stderr
    shown = json.loads(run(home, "requests", "show", number, "--json").stdout)
    assert (shown["state"], shown["until"], shown["project"]) == ("approved", "2099-01-01", PROJECT)
    assert [(event["act"], event["by"], event["agreement"]) for event in shown["events"]] == [
        ("drafted", "anna", None),
        ("submitted", "anna", None),
        ("approved", "ben", "agrees"),
        ("confirmed", "carla", "agrees"),
    ]
    assert shown["events"][2]["conditions"] == ["no export"]
    assert shown["events"][2]["assessment"]["decision"] == "APPROVE"

    assert run(home, "requests", "revoke", number, "--reason", "over", "--by", "dora").returncode == 0
    (row,) = json.loads(run(home, "requests", "list", "--json").stdout)
    assert row["state"] == "revoked"


def test_who_asks_is_refused_by_policy(home: Path) -> None:
    number = drafted(home)

    refused(run(home, "requests", "approve", number, *UNTIL, "--by", "Anna"), 3, "another person must")
    refused(run(home, "requests", "approve", "9", *UNTIL, "--by", "ben"), 4, "there is no such request")


def test_what_the_terms_leave_open_is_shown_and_answered_with_a_reason(home: Path) -> None:
    number = drafted(home, "asking")

    shown = run(home, "requests", "show", number).stdout
    assert "MANUAL" in shown
    assert re.search(r"HMB\W+approve\b", shown)
    assert re.search(r"IRB\W+manual\b", shown)

    refused(run(home, "requests", "approve", number, *UNTIL, "--by", "ben"), 3, "IRB: manual", "with a reason")
    done = run(home, "requests", "approve", number, *UNTIL, "--by", "ben", "--reason", "vote 17/2026")
    assert done.returncode == 0
    assert "left to people" in run(home, "requests", "show", number).stdout


def test_a_purpose_may_come_from_a_file_and_a_returned_request_is_written_anew(home: Path) -> None:
    number = drafted(home, "asking")
    run(home, "requests", "return", number, "--reason", "the ethics vote is missing", "--by", "rolf")
    purpose = home.parent / "purpose.json"
    purpose.write_text('{"kind": "health", "methods_development": true, "ethics_approved_until": "2099-01-01"}')

    done = run(home, "requests", "draft", "asking", "--project", PROJECT, "--purpose", purpose, "--again", number,
               "--by", "anna", "--submit")  # fmt: skip

    assert done.returncode == 0, done.stderr
    (row,) = json.loads(run(home, "requests", "list", "--json").stdout)
    assert (row["state"], row["terms"], row["version"]) == ("submitted", "APPROVE", 5)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--project", "p"), 2, "give --task or --purpose"),
        (("--task", "0" * 64), 4, "is not known here"),
        (("--project", "p", "--purpose", "purpose.json"), 4, "methods_development"),
        (("--project", "p", "--purpose", "none.json"), 6, "none.json"),
    ],
)
def test_a_draft_that_says_too_little_is_told_what_is_missing(
    home: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (home.parent / "purpose.json").write_text('{"kind": "health"}')
    given = [str(home.parent / word) if word.endswith(".json") else word for word in arguments]

    refused(run(home, "requests", "draft", "mr", "--by", "anna", *given), code, said)


def test_a_decision_on_an_older_version_is_refused(home: Path) -> None:
    number = drafted(home)

    refused(run(home, "requests", "approve", number, *UNTIL, "--by", "ben", "--seen", "1"), 3, "it is at version 2")
    assert run(home, "requests", "approve", number, *UNTIL, "--by", "ben", "--seen", "2").returncode == 0


def test_an_approver_at_a_terminal_reads_the_request_and_may_say_no(home: Path) -> None:
    number = drafted(home)

    said = at_a_terminal(home, "n\n", "requests", "approve", number, *UNTIL, "--by", "ben")

    assert f"{PROJECT} asks for mr" in said
    assert "approve it until 2099-01-01?" in said
    (row,) = json.loads(run(home, "requests", "list", "--json").stdout)
    assert row["state"] == "submitted"


def test_what_is_new_in_a_task_is_shown_before_it_is_approved(home: Path) -> None:
    first = offer(home)
    done = run(home, "tasks", "approve", first, "mr", "--by", "ben")
    assert "no version of this task was approved here before" in done.stdout
    second = offer(home, json.dumps(TASK | {"rounds": 77}).encode())

    done = run(home, "tasks", "approve", second, "mr", "--by", "ben")

    assert done.returncode == 0, done.stderr
    assert done.stdout.index("rounds") < done.stdout.index("may run on mr")
    assert "77" in done.stdout
    told = json.loads(run(home, "tasks", "diff", second, first, "--json").stdout)
    assert told["changes"] == [{"key": "rounds", "before": str(TASK["rounds"]), "after": "77"}]
    recorded = [json.loads(line) for line in run(home, "ledger").stdout.splitlines()]
    assert recorded[-1] | {"at": ""} == {
        "at": "",
        "entry": "site:task:approved",
        "task": second,
        "dataset": "mr",
        "by": "ben",
        "follows": first,
        "changed": "rounds",
    }
    refused(run(home, "tasks", "diff", "0" * 64), 4, "is not known here")


def test_a_task_is_not_approved_by_who_says_no_at_a_terminal(home: Path) -> None:
    digest = offer(home)

    said = at_a_terminal(home, "n\n", "tasks", "approve", digest, "mr", "--by", "ben")

    assert "approve it?" in said
    store = open_store(SiteHome(home).database)
    with store.connect() as db:
        assert permissions.tasks(db)[digest].approval is None
    store.dispose()


def at_a_terminal(home: Path, typed: str, *arguments: str) -> str:
    """Run the program as a person does, and return what the terminal showed."""
    terminal, other_end = pty.openpty()
    command: list[str | Path] = [PROGRAM, "--home", home, *arguments]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdin=other_end, stdout=other_end, stderr=other_end, env=environment):
        os.close(other_end)
        os.write(terminal, typed.encode())
        said = b"".join(iter(lambda: _read(terminal), b""))
    os.close(terminal)
    return said.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a terminal says that the other end is gone
        return b""
