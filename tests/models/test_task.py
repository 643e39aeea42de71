"""What a task document may say, and the exact words in which the rest is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import TaskRefused
from models.task import MAX_TASK_BYTES, canonical, metric_names, parse_task, task_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from models.task import Task

MISSING = object()
NORMALISE_LABEL = [{"name": "NormalizeIntensityd", "arguments": {"keys": ["image", "label"]}}]
FLIP_IMAGE_ALONE = [{"name": "RandFlipd", "arguments": {"keys": ["image"]}}]
RANDOM_EVALUATION = [
    {"name": "RandGaussianNoised", "arguments": {"keys": ["image"], "prob": 0.1}},
]
BLURRED_LABEL = [
    {
        "name": "Resized",
        "arguments": {
            "keys": ["image", "label"],
            "spatial_size": [64, 64],
            "mode": ["bilinear", "bilinear"],
        },
    }
]
VOLUME_SIZE = [
    {
        "name": "SpatialPadd",
        "arguments": {"keys": ["image", "label"], "spatial_size": [64, 64, 64]},
    }
]
HUGE_VOLUME = [
    {
        "name": "SpatialPadd",
        "arguments": {"keys": ["image", "label"], "spatial_size": [512, 512, 65]},
    }
]

REFUSALS: list[tuple[str, object, str]] = [
    (
        "network.name",
        "SwinUNETR",
        "network.name: 'SwinUNETR' is not installed here; choose one of ",
    ),
    ("network.name", "os.system", "network.name: 'os.system' is not installed here"),
    ("network.name", "DenseNet121", "network.arguments.channels: unknown key"),
    ("network.arguments.channels", [4, 4096], "network.arguments.channels: 4096 is above 1024"),
    ("network.arguments.channels", [4, True], "network.arguments.channels: True is not a whole"),
    ("network.arguments.channels", 4, "network.arguments.channels: 4 is not a list"),
    ("network.arguments.channels", [4], "network.arguments.channels: has 1 items, not 2 to 8"),
    ("network.arguments.strides", [2, 2], "network.arguments.strides: must have one item fewer"),
    ("network.arguments.strides", MISSING, "network.arguments.strides: missing"),
    ("network.arguments.act", "eval", "network.arguments.act: 'eval' is not offered; choose one"),
    ("network.arguments.pretrained", True, "network.arguments.pretrained: unknown key"),
    ("network.arguments.dropout", 1.5, "network.arguments.dropout: 1.5 is above 0.9"),
    ("network.arguments.dropout", "0", "network.arguments.dropout: '0' is not a number"),
    ("network.arguments.bias", 1, "network.arguments.bias: 1 is neither true nor false"),
    ("network.arguments.out_channels", 2, "network.arguments.out_channels: 2 does not fit"),
    ("network.arguments.spatial_dims", 3, "network.arguments.spatial_dims: 3 does not fit"),
    ("network._target_", "os.system", "network._target_: unknown key"),
    ("loss.name", "FocalLoss", "loss.name: 'FocalLoss' is not installed here"),
    ("optimiser.name", "Foo", "optimiser.name: 'Foo' is not installed here; choose one of Adam, "),
    ("optimiser.arguments.lr", MISSING, "optimiser.arguments.lr: missing"),
    ("optimiser.arguments.lr", 0, "optimiser.arguments.lr: 0 is below 1e-09"),
    ("optimiser.arguments.lr", 11, "optimiser.arguments.lr: 11 is above 10"),
    (
        "optimiser",
        {"name": "SGD", "arguments": {"lr": 1, "nesterov": True}},
        "optimiser.arguments.n",
    ),
    ("transforms.train", NORMALISE_LABEL, 'transforms.train[0].arguments.keys: must be ["image"]'),
    ("transforms.train", FLIP_IMAGE_ALONE, "transforms.train[0].arguments.keys: must be"),
    ("transforms.train", BLURRED_LABEL, "transforms.train[0].arguments.mode: must be one word"),
    ("transforms.train", VOLUME_SIZE, "transforms.train[0].arguments.spatial_size: does not suit"),
    (
        "transforms.train",
        HUGE_VOLUME,
        "transforms.train[0].arguments.spatial_size: holds more than",
    ),
    (
        "transforms.train.1.arguments.spatial_axis",
        2,
        "transforms.train[1].arguments.spatial_axis: 2",
    ),
    ("transforms.evaluate", RANDOM_EVALUATION, "transforms.evaluate[0].name: 'RandGaussianNoised'"),
    ("metrics", ["accuracy"], "metrics[0]: 'accuracy' is not offered for a segmentation"),
    ("metrics", ["dice", "dice"], "metrics[1]: 'dice' is not offered"),
    ("metrics", [], "metrics: has 0 items, fewer than 1"),
    ("labels.0.value", 2, "labels[0].value: 2 is out of order"),
    ("labels.0.value", 256, "labels[0].value: 256 is above 255"),
    ("kind", "classification", "labels[0].value: 1 is out of order"),
    ("kind", "detection", "kind: 'detection' is not offered; choose one of"),
    ("rounds", 1001, "rounds: 1001 is above 1000"),
    ("rounds", 0, "rounds: 0 is below 1"),
    ("rounds", "6", "rounds: '6'"),
    ("rounds", 6.5, "rounds: 6.5"),
    ("rounds", MISSING, "rounds: missing"),
    ("batch_size", 1025, "batch_size: 1025 is above 1024"),
    ("local_epochs", 101, "local_epochs: 101 is above 100"),
    ("seed", -1, "seed: -1 is below 0"),
    ("validation_fraction", 0.95, "validation_fraction: 0.95 is above 0.9"),
    ("minimum_examples", 0, "minimum_examples: 0 is below 1"),
    ("withdrawal_policy", "unlearn", "withdrawal_policy: 'unlearn' is not offered; choose one of 'keep'"),
    ("strategy.name", "Krum", "strategy.name: 'Krum' is not offered; choose one of 'FedAvg'"),
    ("strategy.quorum", 0, "strategy.quorum: 0 is below 1"),
    ("strategy.max_update_norm", 0, "strategy.max_update_norm: 0 is not above 0"),
    ("strategy.deadline_s", 604801, "strategy.deadline_s: 604801"),
    ("format", "filmroom-task/2", "format: 'filmroom-task/2' is not offered"),
    ("input.modality", "mr", "input.modality: 'mr' does not match"),
    ("purpose.purposes", [], "purpose.purposes: has 0 items"),
    ("title", "two\nlines", "title: 'two\\nlines' does not match"),
    # MONAI would evaluate these in the finished bundle's metadata.
    ("title", "$__import__('os')", "title: "),
    ("labels.1.name", "@network", "labels[1].name: "),
    ("purpose.description", "%/etc/passwd", "purpose.description: "),
    ("code", "import os", "code: unknown key"),
]


def altered(document: dict[str, Any], path: str, value: object) -> bytes:
    """Give the document's bytes with `value` at `path`."""
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = document
    for step in parents:
        place = place[step]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(("path", "value", "words"), REFUSALS)
def test_a_task_that_asks_for_something_else_is_refused_by_its_key(
    segmentation: dict[str, Any], path: str, value: object, words: str
) -> None:
    data = altered(segmentation, path, value)

    with pytest.raises(TaskRefused) as refusal:
        parse_task(data)

    assert str(refusal.value).startswith(words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "task: is not JSON in UTF-8"),
        (b"{", "task: is not JSON in UTF-8"),
        (b"\xff\xfe", "task: is not JSON in UTF-8"),
        (b'{"title": "\\ud800"}', "task: is not JSON in UTF-8"),
        (b"[" * 60_000, "task: is not JSON in UTF-8"),
        (b"9" * 6_000, "task: is not JSON in UTF-8"),
        (b"[1]", "task: "),
        (b'{"seed": 1, "seed": 2}', "seed: appears twice"),
        (b'{"seed": NaN}', "task: NaN is not a JSON number"),
        (b'{"seed": -Infinity}', "task: -Infinity is not a JSON number"),
        (b" " * (MAX_TASK_BYTES + 1), "task: is larger than 65536 bytes"),
    ],
)
def test_bytes_that_are_no_task_document_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(TaskRefused) as refusal:
        parse_task(data)

    assert str(refusal.value).startswith(words)


def test_a_number_too_large_for_a_float_is_refused(segmentation: dict[str, Any]) -> None:
    data = json.dumps(segmentation).replace('"deadline_s": 60', '"deadline_s": 1e999').encode()

    with pytest.raises(TaskRefused, match=r"strategy\.deadline_s"):
        parse_task(data)


def test_a_refusal_shows_only_the_beginning_of_a_long_value(segmentation: dict[str, Any]) -> None:
    data = altered(segmentation, "network.name", "x" * 64)

    with pytest.raises(TaskRefused) as refusal:
        parse_task(data)

    assert "x" * 40 not in str(refusal.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(order=st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_the_order_of_keys(
    segmentation: dict[str, Any], segmentation_task: Task, order: Random
) -> None:
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            keys: Sequence[str] = order.sample(sorted(value), len(value))
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    reordered = parse_task(json.dumps(shuffled(segmentation)).encode())

    assert task_digest(reordered) == task_digest(segmentation_task)


def test_a_default_written_out_does_not_change_the_digest(
    segmentation: dict[str, Any], segmentation_task: Task
) -> None:
    written = parse_task(altered(segmentation, "minimum_examples", 1))

    assert task_digest(written) == task_digest(segmentation_task)


def test_any_change_of_meaning_changes_the_digest(segmentation: dict[str, Any], segmentation_task: Task) -> None:
    changed = parse_task(altered(segmentation, "purpose.commercial", value=True))

    assert task_digest(changed) != task_digest(segmentation_task)


def test_the_canonical_form_reads_back_as_the_same_task(segmentation_task: Task) -> None:
    again = parse_task(canonical(segmentation_task))

    assert again == segmentation_task
    assert canonical(again) == canonical(segmentation_task)


def test_only_declared_metrics_may_leave(segmentation_task: Task, classification_task: Task) -> None:
    assert metric_names(segmentation_task) == (
        "train_loss",
        "validation_loss",
        "dice",
        "dice_1",
        "dice_2",
    )
    assert metric_names(classification_task) == ("train_loss", "validation_loss", "accuracy")


def test_what_becomes_of_a_model_after_a_withdrawal_is_part_of_what_is_approved(segmentation: dict[str, Any]) -> None:
    unsaid = parse_task(altered(segmentation, "minimum_examples", 1))
    digests = {
        policy: task_digest(parse_task(altered(segmentation, "withdrawal_policy", policy)))
        for policy in ("keep", "stop-distribution", "rollback-retrain")
    }

    assert len(set(digests.values())) == len(digests)
    assert digests["stop-distribution"] == task_digest(unsaid)
