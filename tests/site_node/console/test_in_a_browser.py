"""The console as its users have it: the public command, in a real Chromium, and axe finds nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa

from consent import RequestState
from site_node import access_requests, accounts, sources
from site_node.access_requests import Numbered
from site_node.accounts import Role
from site_node.store import consent_record
from tests.coordinator.parts import free_port
from tests.site_node.console.browser import PASSWORD, entries, outcome
from tests.site_node.hospital import PROJECT, Hospital, bundle, consent_of, form_of
from tests.site_node.test_cli import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVER = Path(__file__).parents[2] / "browser" / "drive.mjs"
START_S = 60.0


@pytest.fixture
def address(open_hospital: Hospital, tmp_path: Path) -> Iterator[str]:
    """Yield where the console of a hospital with something in every list listens."""
    moment = datetime.now(UTC)
    for name in ("mara", "nils"):
        accounts.add(open_hospital.store, name, Role.CONSENT_MANAGER, PASSWORD, moment)
    refusal, unclear = consent_of("N1", kind="deny", id="refusal-N1"), {"period": {"start": "2026-01-01"}}
    open_hospital.load(refusal, consent_of("N3", provision=unclear))
    sources.note(open_hospital.store, "archive", moment - timedelta(days=400), moment)
    port = free_port()
    with (tmp_path / "console.log").open("wb") as log:
        command = [str(PROGRAM), "--home", str(open_hospital.home.root), "console", "serve", "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + START_S
        while not _answers(port):
            assert time.monotonic() < end, (tmp_path / "console.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/sign-in", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def drive(address: str, *steps: dict[str, Any]) -> list[dict[str, Any]]:
    """Do the steps in a browser and return what was seen after each."""
    node, chromium = shutil.which("node"), shutil.which("chromium")
    assert node, "node is not installed"
    assert chromium, "chromium is not installed"
    assert (DRIVER.parent / "node_modules").is_dir(), "the browser's driver is not installed: run `make browser`"
    asked = json.dumps({"base": address, "browser": chromium, "steps": steps})
    done = subprocess.run([node, DRIVER], input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


def test_a_consent_manager_does_the_days_work(open_hospital: Hospital, address: str, tmp_path: Path) -> None:
    file = tmp_path / "consents.json"
    file.write_bytes(bundle(consent_of("N2", kind="deny", dateTime="2026-02-01T00:00:00Z"), consent_of("", id="x")))
    pictures = Path(os.environ.get("PICTURES", tmp_path))
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M}"

    seen = drive(
        address,
        {"go": "/", "picture": f"{pictures}/sign-in.png"},
        {"write": "mara"},
        {"press": "Tab"},
        {"write": "wrong"},
        {"enter": True, "picture": f"{pictures}/refused.png"},
        {"write": "mara"},
        {"press": "Tab"},
        {"write": PASSWORD},
        {"enter": True, "picture": f"{pictures}/inbox.png"},
        {"press": "Tab"},
        {"link": "Load consents"},
        {"choose": {"File": str(file)}},
        {"type": {"Source": "archive", "Complete up to (UTC)": yesterday}},
        {"button": "Load", "picture": f"{pictures}/load.png"},
        {"link": "Studies in and out", "picture": f"{pictures}/tasks.png"},
        {"link": "brain-tissue", "picture": f"{pictures}/why.png"},
        {"link": "Withdrawals", "picture": f"{pictures}/withdrawals.png"},
        {"type": {"PatientID": "N0"}},
        {"check": "Only a part"},
        {"check": PROJECT},
        {"check": "magnetic"},
        {"button": "See what it will do", "picture": f"{pictures}/preview.png"},
        {"button": "Record the withdrawal", "picture": f"{pictures}/withdrawn.png"},
        {"link": "The page for the patient,", "picture": f"{pictures}/page.png"},
        {"print": f"{pictures}/page.pdf"},
        {"go": "/withdrawals"},
        {"button": "Sign out"},
        {"go": "/"},
    )

    titles = [step["title"].partition(" ·")[0] for step in seen]
    assert titles == [
        *["Sign in"] * 8,
        *["Inbox"] * 2,
        *["Load consents"] * 4,
        "Studies in and out",
        "brain-tissue",
        *["Withdrawals"] * 5,
        "What the withdrawal will do",
        "Withdrawal 8",
        *["Confirmation of withdrawal north-W00008"] * 2,
        "Withdrawals",
        *["Sign in"] * 2,
    ]
    assert [(step["title"], step["violations"]) for step in seen if step["violations"]] == []
    # A refused sign-in is an answer 403, which a browser calls an error.
    assert [said for step in seen for said in step["complaints"] if "403" not in said] == []
    assert "Not signed in" in seen[4]["text"]
    assert [words in seen[8]["text"] for words in ("archive", "consent-N3", "refusal-N1", "brain-mr")] == [True] * 4
    assert seen[9]["focus"] == "Skip to content"
    assert "denies this use" in seen[15]["text"]
    assert "1 loaded, 0 unchanged, 1 not loaded" in seen[13]["text"]
    assert [outcome(open_hospital, patient) for patient in ("N0", "N2")] == ["DENY", "DENY"]
    assert not [step["address"] for step in seen if "N0" in step["address"] or "?" in step["address"]]
    assert f"any further use in the research project {PROJECT}, of images of the kind magnetic" in seen[-4]["text"]
    assert (pictures / "page.pdf").read_bytes().startswith(b"%PDF")
    assert "N0" not in (tmp_path / "console.log").read_text()


def test_two_consent_managers_decide_by_keyboard(open_hospital: Hospital, address: str, tmp_path: Path) -> None:
    moment = datetime.now(UTC)
    made = access_requests.draft(open_hospital.store, form_of("brain-mr"), "anna", moment)
    assert isinstance(made, Numbered)
    access_requests.submit(open_hospital.store, made.number, "anna", moment)
    open_hospital.load(consent_of("N2", patient={"display": "nobody"}))
    request = f"/requests/{made.number}"
    pictures = Path(os.environ.get("PICTURES", tmp_path))
    sign_in: list[dict[str, Any]] = [{"write": "mara"}, {"press": "Tab"}, {"write": PASSWORD}, {"enter": True}]

    seen = drive(
        address,
        {"go": "/"},
        *sign_in,
        {"focus": "Look at consent-N2"},
        {"enter": True, "picture": f"{pictures}/doubt.png"},
        {"focus": "Let it count again"},
        {"enter": True, "picture": f"{pictures}/confirmed.png"},
        {"go": "/requests", "picture": f"{pictures}/requests.png"},
        {"focus": f"Request {made.number}"},
        {"enter": True},
        {"focus": "Approve"},
        {"press": "Enter"},
        {"press": "Tab"},
        {"write": "06302099"},
        {"press": "Tab"},
        {"press": "Tab"},
        {"write": "no export"},
        {"press": "Tab"},
        {"press": "Tab", "picture": f"{pictures}/approve.png"},
        {"enter": True, "picture": f"{pictures}/approved.png"},
        {"open": "Confirm the approval"},
        {"button": "Confirm the approval", "picture": f"{pictures}/same-account.png"},
        {"button": "Sign out"},
        {"write": "nils"},
        *sign_in[1:],
        {"go": request},
        {"open": "Confirm the approval"},
        {"button": "Confirm the approval", "picture": f"{pictures}/granted.png"},
        {"go": "/nowhere"},
    )

    assert [(step["address"], step["violations"]) for step in seen if step["violations"]] == []
    # A refused decision is an answer 422, and what is not there 404, which a browser calls errors.
    faults = ("422", "404")
    assert [said for step in seen for said in step["complaints"] if not any(fault in said for fault in faults)] == []
    confirmed = [detail for entry, detail in entries(open_hospital) if entry == "site:consent:confirmed"]
    with open_hospital.store.connect() as db:
        held = sa.select(consent_record.c.number).where(consent_record.c.consent_id == "consent-N2")
        doubted = db.scalars(held.where(consent_record.c.doubt.is_not(None))).one()
    assert confirmed == [{"record": doubted, "by": "mara"}]
    (refused,) = [step["text"] for step in seen if "Not done" in step["text"] and step["address"] != "/nowhere"]
    assert "who approved it first cannot confirm it: another person must" in refused
    with open_hospital.store.connect() as db:
        granted = access_requests.find(db, made.number)
        by = [event.by for event in access_requests.history(db, made.number)]
    assert (granted.state, granted.conditions, by[2:]) == (RequestState.APPROVED, ("no export",), ["mara", "nils"])
    assert f"{granted.expires_at:%Y-%m-%d}" == "2099-06-30"
    assert not [step["address"] for step in seen if "N2" in step["address"] or "?" in step["address"]]
    assert (tmp_path / "console.log").read_text().count("\n") == 1
