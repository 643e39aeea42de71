"""The record of runs: a round is closed as a whole or not at all."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sqlalchemy as sa

from consent import key_id
from coordinator import runs
from coordinator.errors import ConfigurationError, RunFailed
from coordinator.members import heads
from coordinator.runs import Closing, Contribution, RunRecord, describe, next_open
from coordinator.store import metadata
from models import layout_bytes, model_digest, task_digest
from tests.coordinator.conftest import NOON
from tests.federation import LAYOUT, UNTRAINED, Federation, site_key

if TYPE_CHECKING:
    from pathlib import Path

LATER = {**UNTRAINED, "float32": UNTRAINED["float32"] * 2}


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = Federation(tmp_path)
    made.record.start_with(UNTRAINED, LAYOUT, 1.0)
    return made


def closing(number: int, *made: Contribution) -> Closing:
    return Closing(number, "train", {"train_loss": 0.5}, 1.0, 2.0, made)


def counted(site: str, digest: str = "a" * 64) -> Contribution:
    receipt = key_id(site_key(site).public_key()).encode()
    return Contribution(site, "counted", "", 24, "", {"train_loss": 0.5}, receipt, digest)


def made_in(federation: Federation, number: int) -> dict[str, str]:
    rows: Any = describe(federation.store, federation.run)["contributions"]
    return {row["site"]: row["outcome"] for row in rows if row["round"] == number}


def close(federation: Federation, number: int, *made: Contribution) -> str:
    return federation.record.close(closing(number, *made), model_digest(UNTRAINED), LATER, 3.0)


def test_a_new_run_has_no_model(tmp_path: Path) -> None:
    assert Federation(tmp_path).record.last_round() is None


def test_a_closed_round_is_the_last_one_and_its_model_comes_back(federation: Federation) -> None:
    digest = close(federation, 1, counted("north"))

    assert federation.record.last_round() == 1
    assert model_digest(federation.record.model(1)) == digest == model_digest(LATER)
    assert model_digest(federation.record.model(0)) == model_digest(UNTRAINED)
    assert layout_bytes(federation.record.layout()) == LAYOUT


def test_a_model_that_is_not_the_one_on_record_is_not_returned(federation: Federation) -> None:
    close(federation, 1, counted("north"))
    folder = federation.record.folder
    (folder / "round-0001.safetensors").write_bytes((folder / "round-0000.safetensors").read_bytes())

    with pytest.raises(RunFailed, match="round 1 on disk is not the one on record"):
        federation.record.model(1)


@pytest.mark.parametrize("kept", [None, 0, 40])
def test_a_model_file_that_is_gone_or_cut_short_is_reported(federation: Federation, kept: int | None) -> None:
    path = federation.record.folder / "round-0000.safetensors"
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[:kept])

    with pytest.raises(RunFailed, match="round 0"):
        federation.record.model(0)


def test_a_round_opened_again_replaces_what_was_contributed_before(federation: Federation) -> None:
    short = closing(1, Contribution("north", "refused", "norm"), Contribution("west", "absent"))
    federation.record.keep_short(short)

    close(federation, 1, counted("east"), counted("north"))

    assert made_in(federation, 1) == {"east": "counted", "north": "counted"}


def test_the_measurement_of_a_model_does_not_replace_its_training(federation: Federation) -> None:
    close(federation, 1, counted("north"))

    federation.record.keep_evaluation(Closing(1, "evaluate", {}, 1.0, 2.0, [counted("west")]))

    assert made_in(federation, 1) == {"north": "counted", "west": "counted"}


def test_the_head_of_a_sites_receipts_is_the_last_that_counted(federation: Federation) -> None:
    close(federation, 1, counted("north", "1" * 64), Contribution("west", "refused", receipt_digest="2" * 64))
    federation.record.keep_evaluation(Closing(1, "evaluate", {}, 1.0, 2.0, [counted("north", "3" * 64)]))

    assert heads(federation.store) == {"north": "3" * 64}


def test_a_receipt_of_a_round_short_of_its_quorum_is_not_followed(federation: Federation) -> None:
    close(federation, 1, counted("north", "1" * 64))

    federation.record.keep_short(closing(2, counted("north", "2" * 64)))

    assert heads(federation.store) == {"north": "1" * 64}


def test_a_membership_that_begins_anew_has_no_head_even_if_a_receipt_of_the_old_one_is_counted_late(
    federation: Federation,
) -> None:
    close(federation, 1, counted("north"), counted("west"))

    federation.join_again("north")
    assert heads(federation.store) == {"west": "a" * 64}
    close(federation, 2, counted("north"), counted("west", "b" * 64))

    assert heads(federation.store) == {"west": "b" * 64}


def test_a_models_file_and_its_name_are_on_disk_before_the_row(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = list[int](), os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    close(federation, 1, counted("north"))

    folder = federation.record.folder
    assert synced == [path.stat().st_ino for path in (folder / "round-0001.safetensors", folder)]


def test_a_crash_between_the_file_and_the_row_leaves_the_round_before_in_place(federation: Federation) -> None:
    def crash(*_args: object) -> None:
        raise KeyboardInterrupt

    sa.event.listen(federation.store, "commit", crash)
    with pytest.raises(KeyboardInterrupt):
        close(federation, 1, counted("north"))
    sa.event.remove(federation.store, "commit", crash)

    again = Federation(federation.folder, run=federation.run)
    assert again.record.last_round() == 0
    assert (again.record.folder / "round-0001.safetensors").exists()
    assert model_digest(again.record.model(0)) == model_digest(UNTRAINED)
    assert (made_in(again, 1), heads(again.store)) == ({}, {})
    assert close(again, 1, counted("north")) == model_digest(LATER)


def test_a_failing_close_changes_no_row(federation: Federation) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        close(federation, 1, counted("north"), counted("north"))

    assert federation.record.last_round() == 0
    assert (made_in(federation, 1), heads(federation.store)) == ({}, {})


def test_runs_are_carried_out_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    digest = task_digest(federation.task)
    with federation.store.begin() as db:
        db.execute(sa.delete(metadata.tables["run"]))
    second, first = (runs.request(federation.store, digest, NOON + timedelta(seconds=s)) for s in (0.5, 0))

    seen = []
    for _ in range(2):
        name, task = next_open(federation.store) or ("", "")
        seen.append(name)
        assert task == digest
        RunRecord(federation.store, tmp_path / "runs", name).end("finished", "", NOON)

    assert seen == [first, second]
    assert next_open(federation.store) is None


def test_an_interrupted_run_is_still_open_and_its_first_start_counts(federation: Federation) -> None:
    federation.record.begin(NOON)
    federation.record.begin(NOON + timedelta(days=1))

    assert (next_open(federation.store) or ("", ""))[0] == federation.run
    assert describe(federation.store, federation.run)["started_at"] == NOON.isoformat()


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_a_run_that_ended_is_open_no_more_and_says_why(federation: Federation, state: str) -> None:
    federation.record.end(state, "quorum lost", NOON)

    assert next_open(federation.store) is None
    assert describe(federation.store, federation.run)["detail"] == "quorum lost"


def test_an_unknown_run_says_where_to_look(federation: Federation) -> None:
    with pytest.raises(ConfigurationError, match="runs list"):
        describe(federation.store, "run-0")


def test_no_half_written_file_is_left(federation: Federation) -> None:
    close(federation, 1, counted("north"))

    assert {path.name for path in federation.record.folder.iterdir()} == {
        "layout.json",
        "round-0000.safetensors",
        "round-0001.safetensors",
    }
    np.testing.assert_array_equal(federation.record.model(1)["float32"], LATER["float32"])
