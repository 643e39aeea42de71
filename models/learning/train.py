"""One site's part of one round: some epochs over its examples, from the global weights on.

On a CPU the result depends on the task, the round and the examples alone. Which examples may be
used is decided elsewhere, and what may leave afterwards as well.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from models.errors import TrainingAborted, TrainingFailed
from models.learning.build import build_loss, build_optimiser, build_transforms
from models.learning.examples import collate, framework_errors
from models.task import task_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from models.learning.examples import Example
    from models.task import Task


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What training reports beside the network it changed."""

    metrics: Mapping[str, float]
    batches: int


def train(
    network: nn.Module,
    task: Task,
    examples: Sequence[Example],
    round_number: int,
    aborted: Callable[[], bool],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> TrainOutcome:
    """Train the network in place for the task's local epochs, with a new optimiser.

    `aborted` is asked before every batch; `progress` hears how many batches are done, of how many.

    Raises: TrainingAborted, TrainingFailed; the network is then half trained and of no use.
        ValueError if there are no examples.
    """
    if not examples:
        raise ValueError("no examples")
    seed = round_seed(task, round_number)
    device = next(network.parameters()).device
    step = _step_of(network, task)
    transform = build_transforms(task, "train", seed)
    total = task.local_epochs * batch_count(len(examples), task.batch_size)
    seen, summed = 0, 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for done, batch in enumerate(_batches(examples, task), start=1):
            if aborted():
                raise TrainingAborted(f"before batch {done} of {total}")
            loss = step(*collate(batch, transform, device))
            seen, summed = seen + len(batch), summed + loss * len(batch)
            if progress is not None:
                progress(done, total)
    return TrainOutcome({"train_loss": summed / seen}, total)


def round_seed(task: Task, round_number: int) -> int:
    """Give the seed of everything random in one round of a task."""
    digest = hashlib.sha256(f"{task_digest(task)}:{round_number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def batch_count(examples: int, batch_size: int) -> int:
    """Give the number of batches in an epoch; a last batch of one joins the batch before it."""
    full, rest = divmod(examples, batch_size)
    return full + (rest > 1 or not full)


def _batches(examples: Sequence[Example], task: Task) -> Iterator[Sequence[Example]]:
    """Give every epoch's batches in a new order.

    A batch of one cannot be normalised over the batch where the image has shrunk to one pixel.
    """
    batches = batch_count(len(examples), task.batch_size)
    for _ in range(task.local_epochs):
        order = torch.randperm(len(examples)).tolist()
        for number in range(batches):
            start = number * task.batch_size
            stop = start + task.batch_size if number < batches - 1 else len(examples)
            yield [examples[place] for place in order[start:stop]]


def _step_of(network: nn.Module, task: Task) -> Callable[[Tensor, Tensor], float]:
    network.train()
    loss_of = build_loss(task)
    optimiser = build_optimiser(task, network.parameters())

    def step(images: Tensor, labels: Tensor) -> float:
        with framework_errors("training on a batch"):
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(network(images), labels)
            torch.autograd.backward(loss)
            optimiser.step()
            value = loss.item()
        if not math.isfinite(value):
            raise TrainingFailed("the loss is not a finite number")
        return value

    return step
