"""What the training worker does in a job: build the untrained network, train it, or measure it.

It reads the de-identified store and the base model's file, and writes the update's file. How jobs arrive is not known
here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models import ModelsError, Task, TrainingAborted, layout_bytes, pack, parse_task
from models.learning.build import build_network, load_state, network_state
from models.learning.evaluate import evaluate
from models.learning.train import train
from site_node.catalogue import Instance, LabelledImage, Series
from site_node.cohort import Item, split
from site_node.dataset import Example, examples_from_images, examples_from_series
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Job = dict[str, Any]
# What a job may raise for reasons of its own; the worker goes on.
FAILURES = (ModelsError, UnreadableInstance, OSError, SafetensorError)

__all__ = ["FAILURES", "Examples", "Job", "Jobs", "TrainingAborted"]


class Examples:
    """Decoded examples by item, kept between rounds and dropped as soon as an item is not asked for.

    How an item is read depends on the task's labels and dimensions; those of other readings are dropped as well.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reading: tuple[object, ...] = ()
        self._kept: dict[Item, list[Example]] = {}

    def of(self, items: Sequence[Item], task: Task) -> list[Example]:
        """Return the examples of `items`, in their order."""
        if (reading := (task.labels, task.input.spatial_dims)) != self._reading:
            self._reading, self._kept = reading, {}
        return [example for item in items for example in self._of(item, task)]

    def keep_only(self, items: Sequence[Item]) -> None:
        """Forget everything that is not among `items`."""
        wanted = set(items)
        self._kept = {item: kept for item, kept in self._kept.items() if item in wanted}

    def _of(self, item: Item, task: Task) -> list[Example]:
        if item not in self._kept:
            self._kept[item] = self._read(item, task)
        return self._kept[item]

    def _read(self, item: Item, task: Task) -> list[Example]:
        if isinstance(item, LabelledImage):
            return examples_from_images([item], self._root)
        codes = {(label.code.scheme, label.code.value): label.value for label in task.labels if label.code}
        return examples_from_series(item, self._root, codes, task.input.spatial_dims)


class Jobs:
    """Does one job after the other, and keeps what the next may need again: decoded examples and the network."""

    def __init__(self, root: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._examples = Examples(root)
        self._built: tuple[str, torch.nn.Module] | None = None

    def do(self, job: Job, aborted: Callable[[], bool], progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Return what the node is told of a job that is done.

        Raises: TrainingAborted, FAILURES; nothing of the job is then kept.
        """
        try:
            return self._initialise(job) if job["do"] == "initialise" else self._learn(job, aborted, progress)
        except (TrainingAborted, *FAILURES):
            self.forget()
            raise

    def forget(self) -> None:
        """Keep nothing of what was trained on, nor of what came of it."""
        self._built = None
        self._examples.keep_only([])

    def _initialise(self, job: Job) -> dict[str, Any]:
        self._built = None  # a network that has learned something is not the untrained one
        layout, state = network_state(self._network(job["task"]))
        save_file(pack(state, layout), job["out"])
        return {"metrics": {}, "layout": layout_bytes(layout).decode()}

    def _learn(self, job: Job, aborted: Callable[[], bool], progress: Callable[[int, int], None]) -> dict[str, Any]:
        task, network = parse_task(job["task"].encode()), self._network(job["task"])
        items = [_item(item) for item in job["items"]]
        self._examples.keep_only(items)
        layout, _ = network_state(network)
        load_state(network, load_file(job["base"]), layout)
        training, validation = split(items, task.validation_fraction, task.seed)
        metrics = _measure(network, task, self._examples.of(validation, task))
        if job["do"] == "train":
            examples = self._examples.of(training, task)
            metrics |= train(network, task, examples, job["round"], aborted, progress=progress).metrics
            network.zero_grad(set_to_none=True)
            _, state = network_state(network)
            save_file(pack(state, layout), job["out"])
        return {"metrics": metrics}

    def _network(self, task: str) -> torch.nn.Module:
        """Return the task's network; its weights are the caller's to set."""
        if self._built is None or self._built[0] != task:
            self._built = (task, build_network(parse_task(task.encode())))
        return self._built[1]


def _measure(network: torch.nn.Module, task: Task, examples: Sequence[Example]) -> dict[str, float]:
    return evaluate(network, task, examples) if examples else {}


def _item(document: Mapping[str, Any]) -> Item:
    if "instance" in document:
        return LabelledImage(**{**document, "instance": Instance(**document["instance"])})
    segmentation = Instance(**document["segmentation"])
    instances = tuple(Instance(**instance) for instance in document["instances"])
    return Series(**{**document, "instances": instances, "segmentation": segmentation})
