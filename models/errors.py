"""Errors of the mathematics.

ModelsError
├── TaskRefused       a task document asks for something that is not offered here
├── UpdateRefused     arrays are not what the layout or the base model says they must be
├── TrainingAborted   training was told to stop; nothing of it may be used
└── TrainingFailed    training or evaluation could not give a finite result
"""

from __future__ import annotations

from enum import StrEnum


class ModelsError(Exception):
    """Root of what this package raises; its text names keys and arrays, never image content."""


class TaskRefused(ModelsError):
    """A task asks, under `key`, for something this installation does not do."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why


class UpdateFault(StrEnum):
    """What is wrong with an update; the codes that go to the ledger."""

    ARRAY_SET = "array-set"
    DTYPE = "dtype"
    SHAPE = "shape"
    NON_FINITE = "non-finite"
    NORM = "norm"
    INTEGERS_CHANGED = "integers-changed"


class UpdateRefused(ModelsError):
    """Arrays break the rule named by `fault`."""

    def __init__(self, fault: UpdateFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault


class TrainingAborted(ModelsError):
    """The caller's stop signal was seen between two batches."""


class TrainingFailed(ModelsError):
    """The framework failed, or the loss stopped being a finite number."""
