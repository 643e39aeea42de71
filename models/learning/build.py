"""A task's parts as PyTorch and MONAI objects, and a network's weights as arrays.

Classes come from the tables of `models.components`; a task chooses among them by name and cannot
name a path. MONAI is slow to import, so a class is imported when a task first asks for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import torch

from models.components import LOSSES, NETWORKS, OPTIMISERS, TRANSFORMS, for_image_alone
from models.errors import UpdateFault, UpdateRefused
from models.update import Slot, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from models.components import Component as Installed
    from models.task import Component, Task
    from models.update import AnyArray, Arrays, Layout

Stage: TypeAlias = Literal["train", "evaluate", "predict"]
Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
Transform: TypeAlias = "Callable[[dict[str, Any]], dict[str, Any]]"


def build_network(task: Task) -> nn.Module:
    """Give the task's network with its first weights, the same in every process.

    In two dimensions the weights lie channels last: convolutions of many channels are a quarter faster for it, and
    none is slower (`docs/adr/0009`). In three it makes no difference.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        network = cast("nn.Module", _build(NETWORKS, task.network))
    if task.input.spatial_dims == 2:  # noqa: PLR2004 -- 2-D
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # PyTorch's stub lacks it
    return network


def build_loss(task: Task) -> Loss:
    """Give the loss of logits and labels.

    Shape:  logits `(example, class, *spatial)`; labels `(example, 1, *spatial)` for a segmentation,
        `(example,)` for a classification, int64.
    """
    loss = cast("Loss", _build(LOSSES, task.loss))
    if task.loss.name == "CrossEntropyLoss" and task.kind == "segmentation":
        return lambda logits, labels: loss(logits, labels[:, 0])
    return loss


def build_optimiser(task: Task, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Give a new optimiser for `parameters`, without memory of earlier rounds."""
    return cast("torch.optim.Optimizer", _build(OPTIMISERS, task.optimiser, parameters))


def build_transforms(task: Task, stage: Stage, seed: int = 0) -> Transform | None:
    """Give the transform of one example, or none if the task has none.

    `seed` decides the random draws. For "predict" the evaluation transforms are made for an image
    that has no label.
    """
    chosen = task.transforms.train if stage == "train" else task.transforms.evaluate
    if not chosen:
        return None
    compose = importlib.import_module("monai.transforms.compose").Compose
    alone = stage == "predict"
    transform = compose([_build_transform(component, alone=alone) for component in chosen])
    transform.set_random_state(seed)
    # The bare method, because asking MONAI's Compose for its truth or length seeds it anew.
    return cast("Transform", transform.__call__)


def network_state(network: nn.Module) -> tuple[Layout, dict[str, AnyArray]]:
    """Give the layout and the state dictionary; on a CPU the arrays are the network's memory."""
    state = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    return _layout(network), state


def load_state(network: nn.Module, arrays: Arrays, layout: Layout) -> None:
    """Write packed arrays into the network's own memory.

    Raises: UpdateRefused if the layout is not this network's or the arrays do not fit it; nothing
        is altered then.
    """
    if layout != _layout(network):
        raise UpdateRefused(UpdateFault.ARRAY_SET, "the layout is not this network's")
    state = unpack(arrays, layout)
    for name, tensor in network.state_dict().items():
        _fill(tensor, state[name])


def _build(table: Mapping[str, Installed], chosen: Component, *positional: object) -> object:
    installed = table[chosen.name]
    return _class(installed)(*positional, **chosen.arguments, **installed.fixed)


def _build_transform(chosen: Component, *, alone: bool) -> object:
    arguments = for_image_alone(chosen.arguments) if alone else chosen.arguments
    return _class(TRANSFORMS[chosen.name])(**arguments)


def _class(installed: Installed) -> Callable[..., object]:
    module, _, name = installed.path.partition(":")
    return cast("Callable[..., object]", getattr(importlib.import_module(module), name))


def _layout(network: nn.Module) -> Layout:
    return tuple(
        Slot(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in network.state_dict().items()
    )


def _fill(tensor: Tensor, array: AnyArray) -> None:
    if tensor.is_cpu:
        np.copyto(tensor.numpy(), array)
    else:
        tensor.copy_(torch.tensor(array))
