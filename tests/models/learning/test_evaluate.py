"""Metrics against slow exact counting."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from models.errors import TrainingFailed
from models.learning.build import build_network
from models.learning.evaluate import evaluate, predict
from models.task import Task, metric_names, parse_task

if TYPE_CHECKING:
    from models.learning.examples import Example


class Known(torch.nn.Module):
    """A network whose prediction is the rounded image itself."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Give one-hot logits."""
        found = images[:, 0].round().long()
        one_hot = torch.nn.functional.one_hot(found, len(self.scale)) * self.scale
        return one_hot.movedim(-1, 1)


def plain(document: dict[str, Any]) -> Task:
    return parse_task(json.dumps(document | {"transforms": {}}).encode())


def test_dice_counts_all_pixels_of_all_examples_together(segmentation: dict[str, Any]) -> None:
    rng = np.random.default_rng(6)
    found, truth = rng.integers(0, 3, (2, 9, 1, 16, 16))
    pairs = zip(found, truth, strict=True)
    examples: list[Example] = [{"image": f.astype("float32"), "label": t.astype("uint8")} for f, t in pairs]

    metrics = evaluate(Known(3), plain(segmentation), examples)

    for label in (1, 2):
        both = np.sum((found == label) & (truth == label))
        exact = 2 * both / (np.sum(found == label) + np.sum(truth == label))
        assert metrics[f"dice_{label}"] == pytest.approx(exact)
    assert metrics["dice"] == pytest.approx((metrics["dice_1"] + metrics["dice_2"]) / 2)


def test_a_label_that_occurs_nowhere_has_no_dice(segmentation: dict[str, Any]) -> None:
    ones: Example = {
        "image": np.ones((1, 16, 16), "float32"),
        "label": np.ones((1, 16, 16), "uint8"),
    }

    metrics = evaluate(Known(3), plain(segmentation), [ones])

    assert "dice_2" not in metrics
    assert metrics["dice"] == metrics["dice_1"] == 1


def test_accuracy_is_the_share_of_examples_that_are_right(classification: dict[str, Any]) -> None:
    class First(Known):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """Give the logits of the first pixel."""
            return super().forward(images)[:, :, 0, 0]

    labels = [0, 1, 1, 0, 0]
    examples: list[Example] = [{"image": np.full((1, 2, 2), 1, "float32"), "label": label} for label in labels]

    metrics = evaluate(First(2), plain(classification), examples)

    assert metrics["accuracy"] == pytest.approx(2 / 5)


def test_metrics_are_only_those_that_may_leave(segmentation_task: Task, segments: list[Example]) -> None:
    metrics = evaluate(build_network(segmentation_task), segmentation_task, segments)

    assert metrics.keys() <= set(metric_names(segmentation_task))
    assert "validation_loss" in metrics


def test_evaluation_changes_nothing_and_repeats(segmentation_task: Task, segments: list[Example]) -> None:
    network = build_network(segmentation_task)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    first = evaluate(network, segmentation_task, segments)
    second = evaluate(network, segmentation_task, segments)

    assert first == second
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_a_label_outside_the_task_ends_evaluation(segmentation_task: Task, segments: list[Example]) -> None:
    segments[0]["label"] = np.full((1, 16, 16), 3, "uint8")

    with pytest.raises(TrainingFailed):
        evaluate(build_network(segmentation_task), segmentation_task, segments)


def test_evaluating_nothing_is_a_mistake(segmentation_task: Task) -> None:
    with pytest.raises(ValueError, match="no examples"):
        evaluate(build_network(segmentation_task), segmentation_task, [])


def test_a_prediction_is_a_label_map(segmentation: dict[str, Any]) -> None:
    image = np.random.default_rng(7).integers(0, 3, (1, 16, 16)).astype("float32")

    found = predict(Known(3), plain(segmentation), image)

    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, image[0])
