"""The same training without a federation: one process, one thread, nothing but PyTorch and MONAI's network.

Reads `north.npz` and so on from the folder it is given; prints one JSON object. The yardstick, so it does no more than
the mathematics asks for: no validation, no checks, no copies beyond the average.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets.densenet import DenseNet121

from benchmarks.inputs import BATCH, LEARNING_RATE, ROUNDS, SEED, SITES

State = dict[str, torch.Tensor]
Data = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    """Train every site in turn, average, and do it again for each round."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    folder = Path(sys.argv[1])
    sites = [_load(folder / f"{name}.npz") for name in SITES]
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)
    average = _copy(network.state_dict())
    losses = []
    for _ in range(ROUNDS):
        states, summed = [], 0.0
        for images, labels in sites:
            network.load_state_dict(average)
            summed += _epoch(network, images, labels)
            states.append(_copy(network.state_dict()))
        average = {name: _mean([state[name] for state in states]) for name in average}
        losses.append(summed / len(sites))
    print(json.dumps({"losses": losses}))


def _load(path: Path) -> Data:
    with np.load(path) as file:
        images = torch.from_numpy(file["images"].astype(np.float32))[:, None]
        return images, torch.from_numpy(file["labels"])


def _epoch(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.train()
    loss_of = torch.nn.CrossEntropyLoss()
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    summed = 0.0
    for batch in torch.split(torch.randperm(len(images)), BATCH):
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(network(images[batch]), labels[batch])
        loss.backward()
        optimiser.step()
        summed += loss.item() * len(batch)
    return summed / len(images)


def _copy(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def _mean(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(tensors).double().mean(0).to(tensors[0].dtype)


if __name__ == "__main__":
    main()
