"""Every installed component builds; networks are equal in every process; weights load in place."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from models.components import LOSSES, NETWORKS, OPTIMISERS, TRANSFORMS
from models.errors import UpdateFault, UpdateRefused
from models.learning.build import (
    build_loss,
    build_network,
    build_optimiser,
    build_transforms,
    load_state,
    network_state,
)
from models.learning.evaluate import predict
from models.task import Task, canonical, parse_task
from models.update import model_digest, pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from models.components import Component

Document = dict[str, Any]

BOTH = ["image", "label"]
# Every argument that a task may give is given here, so that each is known to the class.
NETWORK_ARGUMENTS: Document = {
    "UNet": {
        "channels": [4, 8],
        "strides": [2],
        "kernel_size": 3,
        "up_kernel_size": 3,
        "num_res_units": 1,
        "act": "prelu",
        "norm": "instance",
        "dropout": 0.1,
        "bias": False,
    },
    "BasicUNet": {
        "features": [4, 4, 4, 4, 4, 4],
        "act": "gelu",
        "norm": "batch",
        "dropout": 0.1,
        "bias": True,
        "upsample": "nontrainable",
    },
    "SegResNet": {
        "init_filters": 8,
        "dropout_prob": 0.1,
        "blocks_down": [1, 1],
        "blocks_up": [1],
        "upsample_mode": "deconv",
    },
    "DenseNet121": {
        "init_features": 8,
        "growth_rate": 4,
        "bn_size": 2,
        "act": "swish",
        "norm": "batch",
        "dropout_prob": 0.1,
    },
}
DICE = {
    "include_background": False,
    "squared_pred": True,
    "jaccard": True,
    "batch": True,
    "smooth_nr": 1e-4,
    "smooth_dr": 1e-4,
}
LOSS_ARGUMENTS: Document = {
    "DiceLoss": DICE,
    "DiceCELoss": DICE | {"lambda_dice": 1, "lambda_ce": 0.5, "label_smoothing": 0.1},
    "CrossEntropyLoss": {"label_smoothing": 0.1},
}
ADAM = {"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0.1, "amsgrad": True}
OPTIMISER_ARGUMENTS: Document = {
    "Adam": ADAM,
    "AdamW": ADAM,
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
}
TRANSFORM_ARGUMENTS: Document = {
    "NormalizeIntensityd": {"keys": ["image"], "nonzero": True, "channel_wise": True},
    "ScaleIntensityd": {"keys": ["image"], "minv": -1, "maxv": 1, "channel_wise": True},
    "ScaleIntensityRangePercentilesd": {
        "keys": ["image"],
        "lower": 1,
        "upper": 99,
        "b_min": 0,
        "b_max": 1,
        "clip": True,
        "channel_wise": True,
    },
    "RandGaussianNoised": {"keys": ["image"], "prob": 1, "mean": 0.1, "std": 0.2},
    "RandScaleIntensityd": {"keys": ["image"], "prob": 1, "factors": 0.2},
    "RandShiftIntensityd": {"keys": ["image"], "prob": 1, "offsets": 0.2},
    "Resized": {"keys": BOTH, "spatial_size": [16, 16], "mode": ["bilinear", "nearest"]},
    "ResizeWithPadOrCropd": {"keys": BOTH, "spatial_size": [16, 16]},
    "SpatialPadd": {"keys": BOTH, "spatial_size": [16, 16]},
    "CenterSpatialCropd": {"keys": BOTH, "roi_size": [16, 16]},
    "RandFlipd": {"keys": BOTH, "prob": 1, "spatial_axis": 0},
    "RandRotate90d": {"keys": BOTH, "prob": 1, "max_k": 3, "spatial_axes": [0, 1]},
    "RandAffined": {
        "keys": BOTH,
        "prob": 1,
        "rotate_range": [0.2],
        "shear_range": [0.1, 0.1],
        "translate_range": [2, 2],
        "scale_range": [0.1, 0.1],
        "mode": ["bilinear", "nearest"],
        "padding_mode": "zeros",
    },
}


def task_of(document: Document) -> Task:
    return parse_task(json.dumps(document).encode())


def digest(network: nn.Module) -> str:
    return model_digest(pack(network_state(network)[1]))


@pytest.mark.parametrize(
    ("table", "examples"),
    [
        (NETWORKS, NETWORK_ARGUMENTS),
        (LOSSES, LOSS_ARGUMENTS),
        (OPTIMISERS, OPTIMISER_ARGUMENTS),
        (TRANSFORMS, TRANSFORM_ARGUMENTS),
    ],
)
def test_every_argument_that_is_offered_is_tried_below(table: Mapping[str, Component], examples: Document) -> None:
    common = {"spatial_dims", "in_channels", "out_channels"} if table is NETWORKS else set()

    offered = {name: set(entry.arguments) - common for name, entry in table.items()}

    assert offered == {name: set(arguments) for name, arguments in examples.items()}


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_builds_and_predicts(
    segmentation: Document, classification: Document, name: str, spatial_dims: int
) -> None:
    segments = "segmentation" in NETWORKS[name].kinds
    document = segmentation if segments else classification
    given = {"spatial_dims": spatial_dims, "in_channels": 1, "out_channels": 3 if segments else 2}
    document["network"] = {"name": name, "arguments": given | NETWORK_ARGUMENTS[name]}
    document["input"]["spatial_dims"] = spatial_dims
    document["transforms"] = {}
    task = task_of(document)
    side = 16 if segments else 32  # DenseNet121 halves an image five times

    found = predict(build_network(task), task, np.ones((1, *[side] * spatial_dims), "float32"))

    assert found.shape == ((side,) * spatial_dims if segments else ())
    assert found.dtype == np.uint8


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_least_where_the_labels_are_met(segmentation: Document, name: str) -> None:
    segmentation["loss"] = {"name": name, "arguments": LOSS_ARGUMENTS[name]}
    loss = build_loss(task_of(segmentation))
    labels = torch.tensor([0, 1, 2, 1]).reshape(1, 1, 2, 2)
    good = torch.nn.functional.one_hot(labels[:, 0], 3).permute(0, 3, 1, 2) * 5.0

    assert loss(good, labels) < loss(-good, labels)


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_every_optimiser_moves_weights_downhill(segmentation: Document, name: str) -> None:
    segmentation["optimiser"] = {"name": name, "arguments": OPTIMISER_ARGUMENTS[name]}
    weight = torch.nn.Parameter(torch.ones(1))
    optimiser = build_optimiser(task_of(segmentation), [weight])

    torch.autograd.backward((weight**2).sum())
    optimiser.step()

    assert weight.item() < 1


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform_alters_the_image_and_keeps_the_label_whole(segmentation: Document, name: str) -> None:
    chosen = {"name": name, "arguments": TRANSFORM_ARGUMENTS[name]}
    segmentation["transforms"] = {"train": [chosen], "evaluate": []}
    transform = build_transforms(task_of(segmentation), "train", seed=1)
    side = 12 if name == "SpatialPadd" else 20
    image = np.random.default_rng(5).normal(size=(1, side, side)).astype("float32")
    label = (image > 0).astype("uint8")

    assert transform is not None
    found = transform({"image": torch.tensor(image), "label": torch.tensor(label)})

    same_shape = found["image"].shape == image.shape
    assert not (same_shape and np.array_equal(found["image"].numpy(), image))
    assert found["label"].shape == found["image"].shape
    assert set(np.unique(found["label"].numpy())) <= {0, 1}


def test_image_and_label_are_moved_alike(segmentation: Document) -> None:
    chosen = {"name": "RandRotate90d", "arguments": TRANSFORM_ARGUMENTS["RandRotate90d"]}
    segmentation["transforms"] = {"train": [chosen]}
    transform = build_transforms(task_of(segmentation), "train", seed=2)
    image = torch.arange(16.0).reshape(1, 4, 4)

    assert transform is not None
    for _ in range(5):
        found = transform({"image": image, "label": image.to(torch.uint8)})
        np.testing.assert_array_equal(found["image"].numpy(), found["label"].numpy())


def test_a_task_without_transforms_has_none(classification_task: Task) -> None:
    assert build_transforms(classification_task, "train") is None


def test_two_processes_build_the_same_network(segmentation_task: Task) -> None:
    program = (
        "import sys; from models.learning.build import build_network, network_state\n"
        "from models.task import parse_task; from models.update import model_digest, pack\n"
        "task = parse_task(sys.stdin.buffer.read())\n"
        "print(model_digest(pack(network_state(build_network(task))[1])))"
    )

    other = subprocess.run(
        [sys.executable, "-c", program],
        input=canonical(segmentation_task),
        capture_output=True,
        check=True,
    )

    assert other.stdout.decode().strip() == digest(build_network(segmentation_task))


def test_another_seed_gives_another_network(segmentation: Document) -> None:
    first = build_network(task_of(segmentation))

    assert digest(build_network(task_of(segmentation | {"seed": 8}))) != digest(first)


def test_building_leaves_the_callers_random_numbers_alone(segmentation_task: Task) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    build_network(segmentation_task)

    assert torch.equal(torch.rand(3), expected)


def test_loading_writes_into_the_networks_own_memory(segmentation: Document) -> None:
    source = build_network(task_of(segmentation | {"seed": 8}))
    target = build_network(task_of(segmentation))
    layout, state = network_state(source)
    packed = pack(state)
    for array in packed.values():
        array.flags.writeable = False
    before = [tensor.data_ptr() for tensor in target.state_dict().values()]

    load_state(target, packed, layout)

    assert digest(target) == digest(source)
    assert [tensor.data_ptr() for tensor in target.state_dict().values()] == before


def test_another_networks_layout_is_refused(segmentation: Document) -> None:
    target = build_network(task_of(segmentation))
    segmentation["network"]["arguments"]["channels"] = [4, 16]
    layout, state = network_state(build_network(task_of(segmentation)))
    before = digest(target)

    with pytest.raises(UpdateRefused) as refusal:
        load_state(target, pack(state), layout)

    assert refusal.value.fault is UpdateFault.ARRAY_SET
    assert digest(target) == before
