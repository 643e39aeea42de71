"""Rounds with misbehaving members: each bad answer is dropped with its reason, and the others make the model."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array
from numpy.lib.format import write_array_header_1_0

from consent import witness_verifier
from coordinator import members, provenance
from coordinator.errors import RunFailed
from coordinator.runs import describe
from coordinator.strategy import ROUND_ATTEMPTS
from models import WeightedMean, model_digest
from tests.federation import SITES, UNTRAINED, Federation, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WITNESS = witness_verifier("witness.example", Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()).text
REFUSED, ABSENT = "refused", "no answer before the deadline"


def npy(claimed: tuple[int, ...], carried: bytes) -> bytes:
    file = BytesIO()
    write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": claimed})
    return file.getvalue() + carried


def array(data: bytes, shape: tuple[int, ...] = (6,), dtype: str = "float32") -> Array:
    return Array(dtype, shape, "numpy.ndarray", data)


FAULTS: dict[str, tuple[Callable[[Site], None], tuple[str, str]]] = {
    "replays its last update": (Site.replay_last_update, (REFUSED, "another-round")),
    "names another base model": (lambda site: site.claims(base_model="0" * 64), (REFUSED, "another-base-model")),
    "names another nonce": (lambda site: site.claims(nonce="guessed"), (REFUSED, "another-nonce")),
    "speaks for another site": (lambda site: site.claims(site="west"), (REFUSED, "another-site")),
    "breaks its chain": (lambda site: site.claims(prev="7" * 64), (REFUSED, "receipt-chain-broken")),
    "signs other bytes": (lambda site: site.claims(update="c" * 64), (REFUSED, "update-differs-from-receipt")),
    "forges the signature": (Site.forged_signature, (REFUSED, "receipt-bad-signature")),
    "has too few studies": (Site.too_few, (REFUSED, "too-few-studies")),
    "decides by another policy": (
        lambda site: site.says_of_its_studies(policy="0" * 64),
        (REFUSED, "policy-not-allowed"),
    ),
    "decides by another engine": (
        lambda site: site.says_of_its_studies(engine="0" * 64),
        (REFUSED, "engine-not-allowed"),
    ),
    "asks for another purpose": (
        lambda site: site.says_of_its_studies(purposes=("HRESCH",)),
        (REFUSED, "another-purpose"),
    ),
    "asks for others": (
        lambda site: site.says_of_its_studies(recipients=("Organization/other",)),
        (REFUSED, "another-recipient"),
    ),
    "pads by its count": (lambda site: site.says_of_its_studies(padded_size=257), (REFUSED, "padding-tells-a-count")),
    "rewrites its log": (Site.rewrites_its_log, (REFUSED, "consent-log-forked")),
    "leaves a proof out": (lambda site: site.shows_of_its_log(consistency=()), (REFUSED, "consent-log-inconsistent")),
    "signs no log": (lambda site: site.shows_of_its_log(recheck="a note"), (REFUSED, "checkpoint-not-signed")),
    "releases late": (Site.dawdles, (REFUSED, "released-too-late")),
    "sends what is no number": (lambda site: site.sends(float32=np.full(6, np.nan, "f4")), (REFUSED, "non-finite")),
    "sends another shape": (lambda site: site.sends(float32=np.zeros(7, "f4")), (REFUSED, "shape")),
    "sends one array more": (lambda site: site.sends(float64=np.zeros(1)), (REFUSED, "array-set")),
    "moves too far": (lambda site: site.sends(float32=np.full(6, 1e6, "f4")), (REFUSED, "norm")),
    "counts its batches": (lambda site: site.sends(int64=np.array([41])), (REFUSED, "integers-changed")),
    "reports another metric": (lambda site: site.reports(patients=17.0), (REFUSED, "malformed")),
    "reports an infinite loss": (Site.reports_infinity, (REFUSED, "non-finite")),
    "sends an empty array": (lambda site: site.serialises(array(b"")), (REFUSED, "malformed")),
    "sends an archive": (lambda site: site.serialises(array(b"PK\x03\x04" * 20)), (REFUSED, "malformed")),
    "sends text": (lambda site: site.serialises(array(b"not an array at all, but text")), (REFUSED, "malformed")),
    "sends objects": (lambda site: site.serialises(array(b"\x80\x04." * 9, dtype="object")), (REFUSED, "malformed")),
    "claims a terabyte": (
        lambda site: site.serialises(array(npy((2**40,), bytes(24)), (2**40,))),
        (REFUSED, "malformed"),
    ),
    "hides a terabyte": (lambda site: site.serialises(array(npy((2**40,), bytes(24)))), (REFUSED, "malformed")),
    "answers with an error": (Site.fails, ("abstained", "")),
    "is silent": (Site.silent, ("absent", ABSENT)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_site_that_misbehaves_is_dropped_with_its_reason_and_the_others_are_averaged(
    tmp_path: Path, fault: str
) -> None:
    misbehave, expected = FAULTS[fault]
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    base = federation.record.model(1)
    misbehave(federation.site("north"))

    made = federation.train(rounds=2)

    assert federation.outcome(2, "north") == expected
    mean = WeightedMean(base)
    for name in ("east", "west"):
        sent = federation.site(name).history[2]
        mean.add(sent.arrays, sent.claim["weight"])
    assert model_digest(made) == model_digest(mean.result())


def test_a_log_that_too_few_witnesses_cosigned_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    told = {"witnesses": (WITNESS,), "witness_urls": ("https://witness.example",), "witness_quorum": 1}
    federation.config = replace(federation.config, **told)  # type: ignore[arg-type] # its fields

    with pytest.raises(RunFailed):
        federation.train()

    assert {federation.outcome(1, name) for name in SITES} == {(REFUSED, "too-few-witnesses")}


def test_the_state_of_the_log_that_counts_is_that_of_the_last_counted_receipt(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    before = members.logs(federation.store)["north"]
    federation.site("north").forged_signature()

    federation.train(rounds=2)

    assert members.logs(federation.store)["north"] == before
    assert members.logs(federation.store)["east"][0] > before[0] == 4 * 64
    federation.join_again("north")
    assert "north" not in members.logs(federation.store)


def test_a_site_that_was_refused_counts_again_once_it_behaves(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.site("north").forged_signature()
    federation.train(rounds=1)
    federation.site("north").behave()

    federation.train(rounds=2)

    assert federation.outcome(2, "north") == ("counted", "")


def test_the_initial_model_is_that_of_the_sites_and_each_counts_by_its_weight(tmp_path: Path) -> None:
    federation = Federation(tmp_path)

    made = federation.train(rounds=1)

    assert model_digest(federation.record.model(0)) == model_digest(UNTRAINED)
    sent = {name: site.history[1] for name, site in federation.sites.items()}
    weights = {name: answer.claim["weight"] for name, answer in sent.items()}
    exact = sum(weights[name] * sent[name].arrays["float32"].astype("f8") for name in SITES) / sum(weights.values())
    np.testing.assert_allclose(made["float32"], exact, rtol=1e-5)
    np.testing.assert_array_equal(made["int64"], UNTRAINED["int64"])


def test_a_run_short_of_its_quorum_is_tried_again_and_then_fails(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    federation.site("north").forged_signature()
    federation.site("west").fails()
    federation.site("east").asked.clear()

    with pytest.raises(RunFailed, match="round 2 stayed short of its quorum of 2"):
        federation.train(rounds=2)

    assert federation.site("east").asked == ["train 2"] * ROUND_ATTEMPTS
    assert federation.record.last_round() == 1
    assert federation.outcome(2, "north") == (REFUSED, "receipt-bad-signature")


@pytest.mark.parametrize("answers", SITES)
def test_updates_leave_the_disk_with_the_round_even_if_it_fails(tmp_path: Path, answers: str) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    spooled = list(federation.record.folder.rglob("open/*"))
    for name in set(SITES) - {answers}:
        federation.site(name).silent()

    with pytest.raises(RunFailed):
        federation.train(rounds=2)

    assert spooled == list(federation.record.folder.rglob("open/*")) == []


ORDERS: dict[str, Callable[[Sequence[Site]], Sequence[Site]]] = {
    "reversed": lambda sites: sites[::-1],
    "rotated": lambda sites: [*sites[1:], *sites[:1]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_participation_in_another_order_gives_the_same_bits(tmp_path: Path, order: str) -> None:
    usual = Federation(tmp_path / "usual").train()

    other = Federation(tmp_path / "other", arrival=ORDERS[order]).train()

    assert model_digest(other) == model_digest(usual)


def test_a_second_answer_of_a_site_in_the_same_round_changes_nothing(tmp_path: Path) -> None:
    usual = Federation(tmp_path / "usual").train()

    other = Federation(tmp_path / "other", arrival=lambda sites: [*sites, *sites]).train()

    assert model_digest(other) == model_digest(usual)


def test_a_run_that_goes_on_after_a_restart_ends_with_the_undisturbed_model(tmp_path: Path) -> None:
    undisturbed = Federation(tmp_path / "undisturbed").train()
    interrupted = Federation(tmp_path / "interrupted")
    interrupted.train(rounds=1)

    restarted = Federation(tmp_path / "interrupted", run=interrupted.run)
    resumed = restarted.train()

    assert model_digest(resumed) == model_digest(undisturbed)
    assert "initialise 0" not in restarted.site("north").asked


def test_the_final_model_is_measured_and_the_measurement_is_on_record(tmp_path: Path) -> None:
    federation = Federation(tmp_path)

    federation.train()

    rows: Any = describe(federation.store, federation.run)["contributions"]
    measured = {row["site"]: row["metrics"] for row in rows if row["kind"] == "evaluate"}
    assert measured == {site: {"dice": 0.75} for site in SITES}


def test_a_huge_loss_of_one_site_leaves_the_record_deliverable(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.site("north").reports(train_loss=1.7e308)

    federation.train()

    document = provenance.provenance(federation.store, "north-sea", federation.run, federation.task)
    folder = provenance.write_bundle(federation.record, federation.task, document)
    read = json.loads((folder / "docs" / "provenance.json").read_text())
    assert 1e307 < read["rounds"][1]["metrics"]["train_loss"] < 1.7e308


def test_the_untrained_model_of_a_dissenting_site_is_not_used(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.site("east").untrained = {**UNTRAINED, "float32": UNTRAINED["float32"] + 1}

    federation.train(rounds=1)

    assert model_digest(federation.record.model(0)) == model_digest(UNTRAINED)


def test_sites_that_disagree_on_the_untrained_model_do_not_start(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    for step, name in enumerate(SITES):
        federation.site(name).untrained = {**UNTRAINED, "float32": UNTRAINED["float32"] + step}

    with pytest.raises(RunFailed, match="1 sites agree on the untrained model"):
        federation.train()

    assert federation.record.last_round() is None


@pytest.mark.parametrize("handed_over", [{"float32": np.zeros(6, "f4")}, {"other": np.zeros(6, "f4")}])
def test_a_site_that_hands_over_another_untrained_model_than_agreed_is_passed_over(
    tmp_path: Path, handed_over: dict[str, Any]
) -> None:
    federation = Federation(tmp_path)
    federation.site("east").handed_over = handed_over

    federation.train(rounds=1)

    assert model_digest(federation.record.model(0)) == model_digest(UNTRAINED)


def test_nobody_hands_over_the_untrained_model_they_agreed_on(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    for site in federation.sites.values():
        site.handed_over = {"float32": np.zeros(6, "f4")}

    with pytest.raises(RunFailed, match="no site handed over"):
        federation.train()


def test_a_layout_that_does_not_fit_the_model_is_found_before_the_first_round(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    for site in federation.sites.values():
        site.layout = b'[["conv.weight",[5],"float32"],["norm.count",[],"int64"]]'

    with pytest.raises(RunFailed, match="no site handed over"):
        federation.train()


def test_a_run_without_a_quorum_online_says_how_many_are(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.grid.online = {100}

    with pytest.raises(RunFailed, match="1 sites are online; the quorum is 2"):
        federation.train()


def test_the_deadline_counts_from_when_a_quorum_is_online(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.train(rounds=1)
    federation.grid.come_online_after(0.7)

    federation.train(rounds=2)

    # Counted from the start, no more than 0.3 s of the deadline's 1.0 s would be left.
    assert federation.site("north").time_left["train"] > 0.3
