"""Training items, and how several become one batch of tensors.

Where examples come from is not known here; the hospital's own code reads them from its store.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from models.errors import TrainingFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from models.learning.build import Transform


class Example(TypedDict):
    """One image with its label.

    Shape:  image `(channel, *spatial)`; label `(1, *spatial)` for a segmentation, one class for a
        classification.
    """

    image: NDArray[np.float32]
    label: NDArray[np.uint8] | int


def collate(examples: Sequence[Example], transform: Transform | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give the transformed images and labels of one batch.

    Shape:  images `(example, channel, *spatial)` float32; labels `(example, 1, *spatial)` or
        `(example,)` int64.
    Raises: TrainingFailed if they do not fit together.
    """
    with framework_errors("preparing a batch"):
        items = examples if transform is None else [transform(_copy(e)) for e in examples]
        images = torch.stack([_plain(item["image"]) for item in items])
        labels = torch.stack([_plain(item["label"]) for item in items])
        return images.to(device, torch.float32), labels.to(device, torch.int64)


@contextmanager
def framework_errors(doing: str) -> Iterator[None]:
    """Turn what PyTorch and MONAI raise into TrainingFailed, without their words."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError) as error:
        raise TrainingFailed(f"{type(error).__name__} while {doing}") from error


def _copy(example: Example) -> dict[str, Any]:
    """Give a copy, because some of MONAI's transforms write into the array they were given."""
    return {key: torch.tensor(value) for key, value in example.items()}


def _plain(value: object) -> Tensor:
    """Give a plain tensor: MONAI's carries metadata through every operation and is slow for it."""
    return torch.as_tensor(value).as_subclass(torch.Tensor)
