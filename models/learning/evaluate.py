"""How well a network does, in a few numbers; and its prediction for one image.

The numbers are counted over all pixels of all examples together, so no number speaks of one
patient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from models.errors import TrainingFailed
from models.learning.build import build_loss, build_transforms
from models.learning.examples import collate, framework_errors
from models.task import class_count, metric_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from models.learning.examples import Example
    from models.task import Task


def evaluate(network: nn.Module, task: Task, examples: Sequence[Example]) -> dict[str, float]:
    """Give the task's metrics and the loss.

    A label that occurs neither in the truth nor in the prediction has no Dice.

    Raises: TrainingFailed; ValueError if there are no examples.
    """
    if not examples:
        raise ValueError("no examples")
    network.eval()
    device = next(network.parameters()).device
    loss_of, transform = build_loss(task), build_transforms(task, "evaluate")
    confusion = torch.zeros(class_count(task) ** 2, dtype=torch.int64, device=device)
    summed = 0.0
    with torch.inference_mode():
        for start in range(0, len(examples), task.batch_size):
            batch = examples[start : start + task.batch_size]
            images, labels = collate(batch, transform, device)
            with framework_errors("evaluating a batch"):
                logits = network(images)
                summed += loss_of(logits, labels).item() * len(batch)
                confusion += _count_pairs(logits, labels, class_count(task))
    metrics = _metrics(task, confusion.reshape(class_count(task), -1).cpu().numpy())
    return _only_declared({**metrics, "validation_loss": summed / len(examples)}, task)


def predict(network: nn.Module, task: Task, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Give the most likely class of every pixel, or of the image for a classification.

    Shape:  image `(channel, *spatial)`; result `(*spatial)` as the evaluation transforms leave it,
        or `()`.
    Raises: TrainingFailed.
    """
    network.eval()
    device = next(network.parameters()).device
    transform = build_transforms(task, "predict")
    with torch.inference_mode(), framework_errors("predicting"):
        images, _ = collate([{"image": image, "label": 0}], transform, device)
        classes = network(images).argmax(dim=1)[0]
    return cast("NDArray[np.uint8]", classes.cpu().numpy().astype(np.uint8))


def _count_pairs(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count how often each true class met each predicted class, true class first."""
    if labels.min() < 0 or labels.max() >= classes:
        raise TrainingFailed("a label is not among the task's classes")
    truth, found = labels.flatten(), logits.argmax(dim=1).flatten()
    return torch.bincount(truth * classes + found, minlength=classes**2)


def _metrics(task: Task, confusion: NDArray[np.int64]) -> dict[str, float]:
    if task.kind == "classification":
        return {"accuracy": float(np.trace(confusion) / confusion.sum())}
    dice = {
        f"dice_{label.value}": 2 * int(confusion[label.value, label.value]) / size
        for label in task.labels
        if (size := int(confusion[label.value].sum() + confusion[:, label.value].sum()))
    }
    return {**dice, "dice": sum(dice.values()) / len(dice)} if dice else {}


def _only_declared(metrics: dict[str, float], task: Task) -> dict[str, float]:
    if not all(map(math.isfinite, metrics.values())):
        raise TrainingFailed("a metric is not a finite number")
    return {name: metrics[name] for name in metric_names(task) if name in metrics}
