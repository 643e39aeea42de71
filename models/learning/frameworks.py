"""PyTorch and MONAI as a process that only trains needs them: without what no task can ask for.

MONAI imports every optional package it finds on the machine, and the first PyTorch optimiser imports the whole compiler
only to tell it to keep out. Together they are most of a worker's start and half of its memory at rest. For a process of
its own: what is left out stays out until it ends.
Source: MONAI 1.6.1, `optional_import`; PyTorch 2.13, `torch/_compile.py` and `torch/optim/optimizer.py`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Packages that MONAI uses where they are installed and that no component of `models.components` needs.
OPTIONAL: Final = (
    "PIL", "clearml", "cucim", "cupy", "cv2", "einops", "fire", "gdown", "h5py", "huggingface_hub", "ignite", "itk",
    "lmdb", "lpips", "matplotlib", "mlflow", "nibabel", "nni", "onnx", "onnxruntime", "openslide", "optuna", "pandas",
    "psutil", "pyamg", "pywt", "requests", "scipy", "skimage", "sklearn", "tensorboard", "tensorboardX", "tifffile",
    "torchaudio", "torchio", "torchvision", "tqdm", "transformers", "zarr",
)  # fmt: skip
COMPILER: Final = "torch._dynamo"


class _NoCompiler(ModuleType):
    """What an optimiser asks of the compiler, where nothing is ever compiled."""

    @staticmethod
    def graph_break(msg: str = "") -> None:
        """Do nothing: there is no graph to break."""

    @staticmethod
    def disable(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
        """Return the function, which is not compiled anyway."""
        return function


def load_frameworks() -> None:
    """Import PyTorch and MONAI; call it before anything else in the process does."""
    left_out = [name for name in OPTIONAL if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type] # None: Python's own mark for "not to be had"
    sys.modules.setdefault(COMPILER, _NoCompiler(COMPILER))
    import_module("torch")
    import_module("monai")
    for name in left_out:
        del sys.modules[name]
