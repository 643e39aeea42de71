"""What the coordinator owes to a site that abstains: the ids are those of docs/consent.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coordinator import runs
from coordinator.errors import RunFailed
from models import WeightedMean, model_digest
from tests.federation import Federation

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
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    before = model_digest(federation.record.model(1))
    for name in ("north", "west"):
        federation.site(name).fails()

    with pytest.raises(RunFailed, match="round 2 stayed short of its quorum of 2"):
        federation.train(rounds=2)

    assert federation.record.last_round() == 1
    assert model_digest(federation.record.model(1)) == before
    assert runs.describe(federation.store, federation.run)["state"] != "finished"
    assert federation.outcome(2, "north") == ("abstained", "")
