"""Task documents that are accepted as they stand, for tests to alter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.task import Task, parse_task

Document = dict[str, Any]


@pytest.fixture
def segmentation() -> Document:
    normalise = {"name": "NormalizeIntensityd", "arguments": {"keys": ["image"]}}
    flip = {
        "name": "RandFlipd",
        "arguments": {"keys": ["image", "label"], "prob": 0.5, "spatial_axis": 1},
    }
    return {
        "format": "filmroom-task/1",
        "name": "brain-tissue",
        "title": "Brain tissue on MR",
        "project": "tissue-2026",
        "kind": "segmentation",
        "purpose": {"purposes": ["CLINTRCH"], "methods_development": True},
        "input": {"modality": "MR", "spatial_dims": 2},
        "labels": [
            {
                "value": 1,
                "name": "grey matter",
                "code": {"scheme": "SCT", "value": "389081007", "meaning": "Gray matter"},
            },
            {"value": 2, "name": "white matter"},
        ],
        "network": {
            "name": "UNet",
            "arguments": {
                "spatial_dims": 2,
                "in_channels": 1,
                "out_channels": 3,
                "channels": [4, 8],
                "strides": [2],
                "norm": "batch",
            },
        },
        "loss": {"name": "DiceCELoss"},
        "optimiser": {"name": "Adam", "arguments": {"lr": 0.01}},
        "transforms": {"train": [normalise, flip], "evaluate": [normalise]},
        "metrics": ["dice"],
        "rounds": 6,
        "local_epochs": 2,
        "batch_size": 4,
        "seed": 7,
        "validation_fraction": 0.2,
        "strategy": {"name": "FedAvg", "quorum": 2, "deadline_s": 60, "max_update_norm": 1000},
    }


@pytest.fixture
def classification(segmentation: Document) -> Document:
    arguments = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "init_features": 8,
        "growth_rate": 4,
        "bn_size": 2,
    }
    return segmentation | {
        "kind": "classification",
        "labels": [{"value": 0, "name": "no lesion"}, {"value": 1, "name": "lesion"}],
        "network": {"name": "DenseNet121", "arguments": arguments},
        "loss": {"name": "CrossEntropyLoss"},
        "transforms": {},
        "metrics": ["accuracy"],
    }


@pytest.fixture
def segmentation_task(segmentation: Document) -> Task:
    return parse_task(json.dumps(segmentation).encode())


@pytest.fixture
def classification_task(classification: Document) -> Task:
    return parse_task(json.dumps(classification).encode())
