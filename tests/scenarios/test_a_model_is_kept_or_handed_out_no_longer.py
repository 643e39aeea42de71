"""A patient withdraws after a model was made: it is handed out with a flag, or no longer, as its task says."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import httpx
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from coordinator import partner, runs, tasks
from coordinator.app import open_coordinator
from coordinator.provenance import provenance, write_bundle
from coordinator.store import member
from demo.consortium import CommandFailed, Consortium
from site_node.link import post_notice
from tests.coordinator.parts import new_identity
from tests.federation import NAME, Federation
from tests.scenarios.setting import Setting, short_task, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from site_node.config import Identity

REFUSAL: Final = "a contribution to it was withdrawn, and its task says that the model is then not handed out"
WEIGHTS: Final = "models/model.pt"
ACCESS: Final = "acme.json"
NOW: Final = datetime.now(UTC)
STANDING: Final = {
    "keep": ("finished", "from round 1", "yes"),
    "stop-distribution": ("finished", "from round 1", "refused"),
}


def fetch(setting: Setting, run: str, to: str) -> Path:
    """Fetch a run's bundle as a partner does; return where it lies."""
    folder = setting.root / to
    setting.consortium.coordinator("models", "fetch", run, str(folder), "--access", str(setting.root / ACCESS))
    return folder


def written(setting: Setting, run: str) -> Path:
    """Return where the coordinator wrote a run's bundle when the run ended."""
    return setting.consortium.home("coordinator") / "runs" / run / "bundle"


def raw(setting: Setting, run: str) -> httpx.Response:
    """Return the coordinator's answer to a partner who asks for a bundle."""
    access = partner.read_access(setting.root / ACCESS)
    context = ssl.create_default_context(cadata=access.authority)
    with httpx.Client(verify=context, timeout=30) as client:
        return client.get(f"{access.url}/v1/runs/{run}/bundle", headers={"authorization": f"Bearer {access.token}"})


def check_flagged(before: Path, after: Path) -> None:
    """Check that the bundle is the one from before, and now says what it contains."""
    flagged = b"contains a withdrawn contribution"
    for name in ("docs/README.md", "configs/metadata.json"):
        assert flagged not in (before / name).read_bytes()
        assert flagged in (after / name).read_bytes()
    versions = [json.loads((folder / "configs/metadata.json").read_text())["version"] for folder in (before, after)]
    assert versions == ["1.0.0", "1.0.1"]
    said = [
        json.loads((folder / "docs/provenance.json").read_text())["contains_withdrawn"] for folder in (before, after)
    ]
    assert said == [False, True]
    assert (before / WEIGHTS).read_bytes() == (after / WEIGHTS).read_bytes()


def check_withheld(setting: Setting, run: str) -> None:
    """Check that a partner gets a reason and nothing of the model, and that it is kept for auditors."""
    with pytest.raises(CommandFailed) as refused:
        fetch(setting, run, "withheld")
    assert (refused.value.code, f"refused (410): {run}: {REFUSAL}" in refused.value.said) == (5, True)
    assert not (setting.root / "withheld").exists()
    answer = raw(setting, run)
    assert (answer.status_code, answer.json()) == (410, {"detail": f"{run}: {REFUSAL}"})
    assert (written(setting, run) / WEIGHTS).is_file()


def standing(setting: Setting) -> dict[str, tuple[str, str, str]]:
    """Return of each policy how its model stands, as the consortium reads it."""
    rows = json.loads(setting.consortium.coordinator("models", "list", "--json"))
    return {row["policy"]: (row["state"], row["contains_withdrawn"], row["handed_out"]) for row in rows}


def made_in_memory(home: Path, policy: str, like: Federation | None = None) -> Federation:
    """Return a finished run in the coordinator's folder, made by hospitals in memory."""
    run = None
    if like is not None:
        document = json.dumps({**json.loads(like.document), "withdrawal_policy": policy}).encode()
        run = runs.request(like.store, tasks.submit(like.store, document, "acme", NOW), NOW)
    federation = Federation(home, run=run, withdrawal_policy=policy)
    federation.record.begin(NOW)
    federation.train()
    write_bundle(
        federation.record, federation.task, provenance(federation.store, NAME, federation.run, federation.task)
    )
    assert federation.record.end("finished", "", NOW)
    return federation


def identity_of_north(setting: Setting) -> Identity:
    """Return the keys with which north reaches the coordinator."""
    opened = open_coordinator(setting.consortium.home("coordinator"))
    address = f"{opened.config.host}:{opened.config.fleet_port}"
    made = new_identity(setting.root / "north", opened.authority, address, "north")
    shown = x509.load_pem_x509_certificate(made.tls_certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    with opened.store.begin() as db:
        db.execute(sa.update(member).where(member.c.site == "north").values(certificate_sha256=shown))
    return made


def test_a_signed_notice_to_a_running_coordinator_flags_one_model_and_withholds_the_other(tmp_path: Path) -> None:
    with Consortium(tmp_path, NAME, ()) as consortium:
        setting, home = Setting(consortium), consortium.home("coordinator")
        consortium.set_up_coordinator({})
        kept = made_in_memory(home, "keep")
        stopped = made_in_memory(home, "stop-distribution", kept)
        north = identity_of_north(setting)
        access = str(setting.root / ACCESS)
        consortium.coordinator("partners", "add", "reader", "--to", access)
        for federation in (kept, stopped):
            tasks.submit(federation.store, federation.document, "reader", NOW)
        consortium.start("coordinator", until="listens")
        assert raw(setting, stopped.run).status_code == 200

        for federation in (kept, stopped):
            post_notice(north.fleet_address, north, federation.notice("north", 1))

        check_flagged(written(setting, kept.run), fetch(setting, kept.run, "flagged"))
        check_withheld(setting, stopped.run)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_patient_withdraws_and_each_finished_model_is_treated_as_its_task_says(setting: Setting) -> None:
    setting.open_coordinator()
    digests = [
        setting.submit(short_task(rounds=1, quorum=1) | {"withdrawal_policy": policy})
        for policy in ("keep", "stop-distribution")
    ]
    setting.admit("north")
    setting.approve("north", digests[0])
    setting.consortium.site("north", "tasks", "approve", digests[1], "brain-mr", "--by", "manager")
    setting.consortium.start("north", until="connected")
    names = [setting.start_run(digest) for digest in digests]
    before = {}
    for run in names:
        setting.finish(run)
        before[run] = fetch(setting, run, run)

    setting.consortium.site("north", "consents", "withdraw", said=f"{setting.patients('north')[0]}\n")
    wait_until(lambda: standing(setting) == STANDING, "the coordinator is told")

    kept, stopped = names
    check_flagged(before[kept], fetch(setting, kept, "flagged"))
    check_withheld(setting, stopped)
    for run in names:
        setting.consortium.coordinator("audit", run)
