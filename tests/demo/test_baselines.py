"""The comparisons learn by the task's own functions and only from the hospitals they may see."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from demo.anatomy import virtual_brain
from demo.baselines import (
    Baselines,
    SiteExamples,
    load_baselines,
    picture,
    read_site,
    score,
    train_alone,
    train_pooled,
)
from demo.consents import consent_kinds, make_consents
from demo.hospitals import HOSPITALS, make_inbox
from demo.task import TASK
from models import Task, parse_task
from models.learning.build import build_network
from site_node import consents
from site_node.dataset import Example
from site_node.deidentify.pseudonym import Pseudonymiser
from site_node.intake.folder import ingest
from site_node.store import open_store
from tests.site_node.hospital import intake_of

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 6, 1, tzinfo=UTC)
RECIPIENT = "urn:filmroom:federation|demo"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task() -> Task:
    return parse_task(json.dumps({**TASK, "rounds": 2, "local_epochs": 2}).encode())


@pytest.fixture(scope="module")
def sites() -> dict[str, SiteExamples]:
    return {name: SiteExamples(examples(name, 0), examples(name, 1)[:3]) for name in ("north", "east")}


def examples(name: str, patient: int) -> tuple[Example, ...]:
    look = {key: hospital.t1.look for key, hospital in HOSPITALS.items()}[name]  # type: ignore[index] # a str
    brain = virtual_brain(np.random.default_rng(patient), look)
    return tuple(
        Example(image=image[np.newaxis].astype(np.float32), label=label[np.newaxis])
        for image, label in zip(brain.image, brain.labels, strict=True)
    )


def test_every_model_is_scored_at_every_hospital_after_every_round(task: Task, sites: dict[str, SiteExamples]) -> None:
    curves = [*train_alone(task, sites), *train_pooled(task, sites)]

    assert [(curve.trained_on, curve.held_out_at) for curve in curves] == [
        (model, place) for model in ("north", "east", "pooled") for place in ("north", "east")
    ]
    assert {len(curve.scores) for curve in curves} == {task.rounds}
    assert all(curve.scores[-1].dice > 0.3 for curve in curves)


def test_a_model_trained_alone_does_not_depend_on_the_other_hospital(
    task: Task, sites: dict[str, SiteExamples]
) -> None:
    both = train_alone(task, sites)
    without = {**sites, "east": SiteExamples((sites["east"].train[0],), sites["east"].held_out)}

    assert train_alone(task, without)[:2] == both[:2]
    assert train_alone(task, without)[2:] != both[2:]


def test_a_hospital_without_held_out_patients_has_no_curve(task: Task, sites: dict[str, SiteExamples]) -> None:
    bare = {**sites, "east": SiteExamples(sites["east"].train, ())}

    assert {curve.held_out_at for curve in train_pooled(task, bare)} == {"north"}


def test_the_mean_of_a_score_is_the_mean_of_its_labels(task: Task, sites: dict[str, SiteExamples]) -> None:
    found = score(build_network(task), task, sites["north"].held_out)

    assert len(found.by_label) == 2
    assert found.dice == pytest.approx(sum(found.by_label) / 2)


def test_what_is_written_is_read_again(task: Task, sites: dict[str, SiteExamples]) -> None:
    network = build_network(task)
    shown = picture(network, task, sites["north"].held_out[0], "a slice")
    found = Baselines(tuple(train_pooled(task, sites)), {"north": (shown,)})

    assert load_baselines(json.dumps(asdict(found)).encode()) == found
    assert np.array(shown.image).shape == np.array(shown.predicted).shape == (112, 96)
    assert np.array_equal(np.array(shown.truth), np.asarray(sites["north"].held_out[0]["label"])[0])


def test_only_studies_whose_consent_permits_are_read(task: Task, tmp_path: Path) -> None:
    inbox = make_inbox("north", tmp_path / "inbox", patients=5, seed=7)
    home = tmp_path / "home"
    home.mkdir()
    store, pseudonymiser = open_store(home / "site.db"), Pseudonymiser(bytes(32))
    ingest(tmp_path / "inbox" / "virtual", intake_of(home, store, pseudonymiser), AT)
    consents.load(store, make_consents(inbox, AT), pseudonymiser, AT)
    store.dispose()
    permitted = [kind for kind in consent_kinds(inbox).values() if kind.outcome == "permit"]

    site = read_site(home, task, RECIPIENT, AT)

    assert len(permitted) == 3
    assert len(site.train) + len(site.held_out) == 12 * len(permitted)
    assert {int(value) for each in (*site.train, *site.held_out) for value in np.unique(each["label"])} == {0, 1, 2}
