"""The demo's task, as hospitals are asked to approve it: grey and white matter in brain slices.

A document for `filmroom-coordinator tasks submit`; it is data and trains nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from demo.anatomy import GREY_MATTER, WHITE_MATTER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_IMAGE: Final = ["image"]
_BOTH: Final = ["image", "label"]
_NORMALISE: Final = {"name": "NormalizeIntensityd", "arguments": {"keys": _IMAGE}}
_LEFT_RIGHT: Final = 1  # of (row, column)

TASK: Final[dict[str, Any]] = {
    "format": "filmroom-task/1",
    "name": "brain-tissue",
    "title": "Grey and white matter in axial MR slices of the brain",
    "project": "brain-tissue-demo",
    "kind": "segmentation",
    "purpose": {
        "purposes": ["CLINTRCH"],
        "description": "A demonstration: measure tissue volumes in routine brain images.",
        "research": "health",
        "diseases": [],
        "ancestry": False,
        "clinical_care": False,
        "commercial": False,
        "for_profit": False,
        "methods_development": True,
    },
    "input": {"modality": "MR", "spatial_dims": 2},
    "labels": [
        {
            "value": GREY_MATTER,
            "name": "grey matter",
            "code": {"scheme": "SCT", "value": "389081007", "meaning": "Gray matter"},
        },
        {
            "value": WHITE_MATTER,
            "name": "white matter",
            "code": {"scheme": "SCT", "value": "389080008", "meaning": "White matter"},
        },
    ],
    "network": {
        "name": "UNet",
        "arguments": {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 3,
            "channels": [8, 16, 32, 64],
            "strides": [2, 2, 2],
            "num_res_units": 2,
            "norm": "instance",
        },
    },
    "loss": {"name": "DiceCELoss", "arguments": {"batch": True}},
    "optimiser": {"name": "AdamW", "arguments": {"lr": 0.002}},
    "transforms": {
        "train": [
            _NORMALISE,
            {
                "name": "RandFlipd",
                "arguments": {"keys": _BOTH, "prob": 0.5, "spatial_axis": _LEFT_RIGHT},
            },
        ],
        "evaluate": [_NORMALISE],
    },
    "metrics": ["dice"],
    "rounds": 6,
    "local_epochs": 3,
    "batch_size": 8,
    "seed": 7,
    "validation_fraction": 0.25,
    "strategy": {"name": "FedAvg", "quorum": 2, "deadline_s": 60, "max_update_norm": 1000.0},
    "withdrawal_policy": "keep",
}


def task_for(modality: str, labels: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> dict[str, Any]:
    """Give the demo's task for images of another modality, with other labels, fitted to (rows, columns)."""
    network = {**TASK["network"]["arguments"], "out_channels": len(labels) + 1}
    fit = {"name": "ResizeWithPadOrCropd", "arguments": {"keys": _BOTH, "spatial_size": list(size)}}
    transforms = {stage: [fit, *steps] for stage, steps in TASK["transforms"].items()}
    return {
        **TASK,
        "name": "own-data",
        "title": f"{', '.join(label['name'] for label in labels)} in {modality} slices",
        "input": {"modality": modality, "spatial_dims": 2},
        "labels": list(labels),
        "network": {"name": "UNet", "arguments": network},
        "transforms": transforms,
    }
