"""What the coordinator owes to a site that abstains: the ids are those of docs/consent.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinator import runs
from coordinator.errors import RunFailed
from coordinator.members import heads
from coordinator.provenance import audit, provenance, write_bundle
from coordinator.strategy import ROUND_ATTEMPTS
from models import WeightedMean, model_digest
from tests.coordinator.conftest import NOON
from tests.federation import NAME, SITES, Federation

if TYPE_CHECKING:
    from pathlib import Path


def test_I12_a_round_that_a_site_abstains_from_stays_valid_while_the_quorum_holds(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    mean = WeightedMean(federation.record.model(1))
    federation.site("north").fails()  # the one error code of every abstention

    made = federation.train(rounds=2)

    assert [federation.outcome(2, site)[0] for site in ("east", "north", "west")] == ["counted", "abstained", "counted"]
    for name in ("east", "west"):
        sent = federation.site(name).history[2]
        mean.add(sent.arrays, sent.claim["weight"])
    assert model_digest(made) == model_digest(mean.result())


def test_I12_a_round_short_of_its_quorum_is_void_and_no_success(tmp_path: Path) -> None:
    """Asked as often as it may be, it leaves no model and no receipt that anything follows; the run has failed."""
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    before = heads(federation.store)
    for name in ("north", "west"):
        federation.site(name).fails()

    with pytest.raises(RunFailed, match="round 2 stayed short of its quorum of 2") as failed:
        federation.train()
    assert federation.record.end("failed", str(failed.value), NOON)

    assert [federation.site(name).asked.count("train 2") for name in SITES] == [ROUND_ATTEMPTS] * 3
    assert [federation.outcome(2, name) for name in ("north", "west")] == [("abstained", "")] * 2
    assert federation.record.last_round() == 1
    assert sorted(path.name for path in federation.record.folder.glob("round-*")) == [
        "round-0000.safetensors",
        "round-0001.safetensors",
    ]
    assert list(federation.record.folder.rglob("open/*")) == []
    assert heads(federation.store) == before
    assert runs.describe(federation.store, federation.run)["state"] == "failed"
    with pytest.raises(RunFailed, match="round 3"):
        write_bundle(
            federation.record, federation.task, provenance(federation.store, NAME, federation.run, federation.task)
        )
    assert audit(federation.store, federation.run, federation.folder / "runs") == []


def test_I12_after_a_void_opening_the_round_is_done_again_to_the_bit(tmp_path: Path) -> None:
    """What was sent in the void opening counts for nothing: the run is one in which nobody ever abstained."""
    federation, control = Federation(tmp_path / "run"), Federation(tmp_path / "control")
    for name in ("north", "west"):
        federation.site(name).silent_once_in(2)

    federation.train()
    control.train()

    assert federation.site("east").asked.count("train 2") == 2
    assert federation.digests() == control.digests()
    assert audit(federation.store, federation.run, federation.folder / "runs") == []
