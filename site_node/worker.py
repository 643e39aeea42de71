"""The process that trains: long-lived, started by the hospital, fed by lines of JSON.

It reads the de-identified store and the base model's file, writes the update's file, and says how it went. It has no
line out and no keys. It ends when its standard input ends, so it never outlives the node.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import monai  # noqa: F401 -- all of it now, so that the first job need not wait
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

Job = dict[str, Any]


class Desk:
    """Where jobs arrive and answers leave; an abort overtakes the jobs."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.aborted = threading.Event()
        threading.Thread(target=self._read, name="jobs", daemon=True).start()

    def say(self, event: str, **detail: object) -> None:
        """Write one answer."""
        sys.stdout.write(json.dumps({"event": event, **detail}) + "\n")
        sys.stdout.flush()

    def _read(self) -> None:
        for line in sys.stdin:
            job = json.loads(line)
            if job["do"] == "abort":
                self.aborted.set()
            else:
                self.jobs.put(job)
        os._exit(0)  # the node is gone; whatever is being computed is void


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


def main() -> None:
    """Serve jobs until the node closes the desk."""
    root = Path(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    desk, examples = Desk(), Examples(root)
    desk.say("ready")
    while True:
        job = desk.jobs.get()
        desk.aborted.clear()
        try:
            DOING[job["do"]](job, examples, desk)
        except TrainingAborted:
            examples.keep_only([])
            desk.say("aborted")
        except (ModelsError, UnreadableInstance, OSError, SafetensorError) as error:
            desk.say("failed", kind=type(error).__name__)
        _give_memory_back()


def _give_memory_back() -> None:
    """Return what a job used to the system; the allocator would keep it, and the node idles for long."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _initialise(job: Job, _examples: Examples, desk: Desk) -> None:
    network = build_network(parse_task(job["task"].encode()))
    layout, state = network_state(network)
    save_file(pack(state, layout), job["out"])
    desk.say("done", metrics={}, layout=layout_bytes(layout).decode())


def _train(job: Job, examples: Examples, desk: Desk) -> None:
    task = parse_task(job["task"].encode())
    items = [_item(item) for item in job["items"]]
    examples.keep_only(items)
    network = build_network(task)
    layout, _ = network_state(network)
    load_state(network, load_file(job["base"]), layout)
    training, validation = split(items, task.validation_fraction, task.seed)
    metrics = _measure(network, task, examples.of(validation, task))
    if job["do"] == "train":
        outcome = train(
            network,
            task,
            examples.of(training, task),
            job["round"],
            desk.aborted.is_set,
            progress=lambda done, total: desk.say("progress", done=done, total=total),
        )
        metrics |= outcome.metrics
        layout, state = network_state(network)
        save_file(pack(state, layout), job["out"])
    desk.say("done", metrics=metrics)


def _measure(network: torch.nn.Module, task: Task, examples: Sequence[Example]) -> dict[str, float]:
    return evaluate(network, task, examples) if examples else {}


def _item(document: Mapping[str, Any]) -> Item:
    if "instance" in document:
        return LabelledImage(**{**document, "instance": Instance(**document["instance"])})
    segmentation = Instance(**document["segmentation"])
    instances = tuple(Instance(**instance) for instance in document["instances"])
    return Series(**{**document, "instances": instances, "segmentation": segmentation})


DOING: Mapping[str, Callable[[Job, Examples, Desk], None]] = {
    "initialise": _initialise,
    "train": _train,
    "evaluate": _train,
}

if __name__ == "__main__":
    main()
