"""Local training: deterministic, stoppable, and one step of it averages to the pooled step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.aggregate import WeightedMean
from models.errors import TrainingAborted, TrainingFailed
from models.learning.build import build_network, network_state
from models.learning.train import batch_count, train
from models.task import Task, parse_task
from models.update import model_digest, pack

if TYPE_CHECKING:
    from models.learning.examples import Example
    from models.update import AnyArray

Document = dict[str, Any]


def never() -> bool:
    return False


def task_of(document: Document) -> Task:
    return parse_task(json.dumps(document).encode())


def trained(task: Task, examples: list[Example], round_number: int = 1) -> dict[str, AnyArray]:
    network = build_network(task)
    train(network, task, examples, round_number, never)
    return pack(network_state(network)[1])


def test_training_lowers_the_loss(segmentation: Document, segments: list[Example]) -> None:
    task = task_of(segmentation | {"local_epochs": 1})
    network = build_network(task)

    losses = [train(network, task, segments, number, never).metrics["train_loss"] for number in range(5)]

    assert losses[-1] < losses[0]


def test_the_same_round_gives_the_same_bits(segmentation_task: Task, segments: list[Example]) -> None:
    first, second = (trained(segmentation_task, segments) for _ in range(2))

    assert model_digest(first) == model_digest(second)


def test_another_round_draws_other_batches(segmentation_task: Task, segments: list[Example]) -> None:
    first, second = (trained(segmentation_task, segments, number) for number in (1, 2))

    assert model_digest(first) != model_digest(second)


def test_dropout_is_part_of_what_repeats(segmentation: Document, segments: list[Example]) -> None:
    segmentation["network"]["arguments"]["dropout"] = 0.5
    task = task_of(segmentation)

    assert model_digest(trained(task, segments)) == model_digest(trained(task, segments))


def test_training_does_not_touch_the_examples(segmentation: Document, segments: list[Example]) -> None:
    in_place = {"keys": ["image"], "nonzero": True, "channel_wise": True}
    segmentation["transforms"]["train"] = [{"name": "NormalizeIntensityd", "arguments": in_place}]
    before = [example["image"].copy() for example in segments]

    trained(task_of(segmentation), segments)

    for example, image in zip(segments, before, strict=True):
        np.testing.assert_array_equal(example["image"], image)


def test_progress_is_told_after_every_batch(segmentation_task: Task, segments: list[Example]) -> None:
    told: list[tuple[int, int]] = []
    network = build_network(segmentation_task)

    outcome = train(network, segmentation_task, segments, 1, never, progress=lambda *now: told.append(now))

    # 9 examples in batches of 4, twice: the ninth joins the batch before it.
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert outcome.batches == 4


@given(st.integers(1, 300), st.integers(1, 70))
def test_no_batch_is_of_one_unless_it_must_be(examples: int, size: int) -> None:
    batches = batch_count(examples, size)
    last = examples - (batches - 1) * size

    assert 1 <= last <= size + 1
    assert last > 1 or examples == 1 or size == 1


def test_a_stop_signal_ends_training_before_the_next_batch(segmentation_task: Task, segments: list[Example]) -> None:
    told: list[int] = []
    network = build_network(segmentation_task)

    with pytest.raises(TrainingAborted, match="batch 3 of 4"):
        train(
            network,
            segmentation_task,
            segments,
            1,
            lambda: len(told) == 2,
            progress=lambda done, _: told.append(done),
        )

    assert told == [1, 2]


def test_a_loss_that_is_not_finite_ends_training(segmentation: Document, segments: list[Example]) -> None:
    segmentation["transforms"] = {}
    segments[0]["image"][0, 0, 0] = np.nan

    with pytest.raises(TrainingFailed, match="not a finite number"):
        trained(task_of(segmentation), segments)


def test_a_framework_error_is_translated_without_its_words(segmentation_task: Task, segments: list[Example]) -> None:
    segments[0]["image"] = np.zeros((1, 8, 8), "float32")

    with pytest.raises(TrainingFailed) as failure:
        trained(segmentation_task, segments)

    assert str(failure.value) == "RuntimeError while preparing a batch"


def test_training_on_nothing_is_a_mistake(segmentation_task: Task) -> None:
    with pytest.raises(ValueError, match="no examples"):
        trained(segmentation_task, [])


def test_a_classification_trains(classification_task: Task, classes: list[Example]) -> None:
    network = build_network(classification_task)

    outcome = train(network, classification_task, classes, 1, never)

    assert outcome.metrics.keys() == {"train_loss"}


def test_one_full_batch_step_at_each_site_averages_to_the_pooled_step(
    segmentation: Document, segments: list[Example]
) -> None:
    # Instance normalisation and cross entropy see each example alone, so gradients add up.
    segmentation["network"]["arguments"]["norm"] = "instance"
    segmentation |= {
        "loss": {"name": "CrossEntropyLoss"},
        "optimiser": {"name": "SGD", "arguments": {"lr": 0.1}},
        "transforms": {},
        "local_epochs": 1,
        "batch_size": 16,
    }
    task = task_of(segmentation)
    north, east, west = segments[:2], segments[2:5], segments[5:]
    mean = WeightedMean(pack(network_state(build_network(task))[1]))

    for site in (north, east, west):
        mean.add(trained(task, site), len(site))
    pooled = trained(task, segments)

    averaged = mean.result()
    np.testing.assert_allclose(averaged["float32"], pooled["float32"], rtol=0, atol=1e-6)
    start = pack(network_state(build_network(task))[1])
    assert np.abs(pooled["float32"] - start["float32"]).max() > 1e-3


def test_training_leaves_the_callers_random_numbers_alone(segmentation_task: Task, segments: list[Example]) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    trained(segmentation_task, segments)

    assert torch.equal(torch.rand(3), expected)
