"""The mathematics: what is trained, how updates combine, and how a finished model is handed over.

No I/O, no clock. PyTorch and MONAI are imported by `models.learning` alone, which is not imported
here.
"""

from __future__ import annotations

from models.aggregate import WeightedMean
from models.bundle import bundle_files, bundle_texts
from models.changes import Change, task_changes
from models.checkpoint import checkpoint_bytes
from models.errors import (
    ModelsError,
    TaskRefused,
    TrainingAborted,
    TrainingFailed,
    UpdateFault,
    UpdateRefused,
)
from models.task import (
    MAX_TASK_BYTES,
    Task,
    canonical,
    class_count,
    metric_names,
    parse_task,
    task_digest,
)
from models.update import (
    Layout,
    Slot,
    check_update,
    layout_bytes,
    layout_digest,
    layout_of,
    model_digest,
    npy_array,
    npy_bytes,
    pack,
    parse_layout,
    unpack,
    update_digest,
)

__all__ = [
    "MAX_TASK_BYTES",
    "Change",
    "Layout",
    "ModelsError",
    "Slot",
    "Task",
    "TaskRefused",
    "TrainingAborted",
    "TrainingFailed",
    "UpdateFault",
    "UpdateRefused",
    "WeightedMean",
    "bundle_files",
    "bundle_texts",
    "canonical",
    "check_update",
    "checkpoint_bytes",
    "class_count",
    "layout_bytes",
    "layout_digest",
    "layout_of",
    "metric_names",
    "model_digest",
    "npy_array",
    "npy_bytes",
    "pack",
    "parse_layout",
    "parse_task",
    "task_changes",
    "task_digest",
    "unpack",
    "update_digest",
]
