"""What a task may be made of: networks, losses, optimisers, transforms, and their bounds.

A name or an argument that is not in these tables does not exist for a task. The import paths stand
here and are never taken from a task. Nothing is imported or built here: `models.learning.build`
does that.
Source: the signatures of MONAI 1.6.1 and PyTorch; bounds are ours, chosen so that a task cannot
    exhaust a site.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from models.errors import TaskRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHOWN_CHARACTERS: Final = 40
MAX_VOXELS: Final = 2**24  # of one resized or padded image: 256 cubed, 4096 squared
GROUP_NORM_GROUPS: Final = 8  # SegResNet normalises in this many groups

SEGMENTATION: Final = frozenset({"segmentation"})
CLASSIFICATION: Final = frozenset({"classification"})
ANY_KIND: Final = SEGMENTATION | CLASSIFICATION


def shown(value: object) -> str:
    """Give `value` as a message may show it: short and on one line."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


class Bound(Protocol):
    """The values one argument may take."""

    def check(self, key: str, value: object) -> None:
        """Refuse `value`, naming `key`, if it is outside this bound."""


def _require_range(key: str, value: float, low: float, high: float) -> None:
    if not value >= low:
        raise TaskRefused(key, f"{shown(value)} is below {low:g}")
    if not value <= high:
        raise TaskRefused(key, f"{shown(value)} is above {high:g}")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def check(self, key: str, value: object) -> None:
        """Refuse what is not a whole number in range."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise TaskRefused(key, f"{shown(value)} is not a whole number")
        _require_range(key, value, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number from `low` to `high`."""

    low: float
    high: float

    def check(self, key: str, value: object) -> None:
        """Refuse what is not a number in range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TaskRefused(key, f"{shown(value)} is not a number")
        _require_range(key, value, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def check(self, key: str, value: object) -> None:
        """Refuse what is neither true nor false."""
        if not isinstance(value, bool):
            raise TaskRefused(key, f"{shown(value)} is neither true nor false")


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    options: tuple[str, ...]

    def check(self, key: str, value: object) -> None:
        """Refuse a word that is not offered."""
        if value not in self.options:
            choice = ", ".join(self.options)
            raise TaskRefused(key, f"{shown(value)} is not offered; choose one of {choice}")


@dataclass(frozen=True, slots=True)
class MultipleOf:
    """A positive multiple of `step`, at most `high`."""

    step: int
    high: int

    def check(self, key: str, value: object) -> None:
        """Refuse what is not such a multiple."""
        Whole(self.step, self.high).check(key, value)
        if not isinstance(value, int) or value % self.step:
            raise TaskRefused(key, f"{shown(value)} is not a multiple of {self.step}")


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of `shortest` to `longest` items, each within `item`."""

    item: Bound
    shortest: int
    longest: int

    def check(self, key: str, value: object) -> None:
        """Refuse what is not such a list."""
        if not isinstance(value, list):
            raise TaskRefused(key, f"{shown(value)} is not a list")
        if not self.shortest <= len(value) <= self.longest:
            raise TaskRefused(key, f"has {len(value)} items, not {self.shortest} to {self.longest}")
        for each in value:
            self.item.check(key, each)


Arguments: TypeAlias = "Mapping[str, object]"
Misfit: TypeAlias = tuple[str, str]  # the argument, and why it does not fit the others


def _no_misfit(_: Arguments) -> Misfit | None:
    return None


@dataclass(frozen=True, slots=True)
class Component:
    """One installed thing: where its class is, and what a task may say to it.

    `fixed` is given to the class beside the task's arguments. `spatial` transforms move pixels, and
    so must move the label map as well; `random` transforms belong to training alone.
    """

    path: str
    arguments: Mapping[str, Bound]
    required: tuple[str, ...] = ()
    kinds: frozenset[str] = ANY_KIND
    misfit: Callable[[Arguments], Misfit | None] = _no_misfit
    fixed: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    spatial: bool = False
    random: bool = False


def check_component(table: Mapping[str, Component], key: str, name: str, arguments: Arguments) -> Component:
    """Give the installed component `name`, after checking every argument against its bound.

    Raises: TaskRefused, naming the key below `key`.
    """
    component = table.get(name)
    if component is None:
        choice = ", ".join(sorted(table))
        raise TaskRefused(f"{key}.name", f"{shown(name)} is not installed here; choose one of {choice}")
    _check_arguments(component, f"{key}.arguments", arguments)
    return component


def _check_arguments(component: Component, key: str, arguments: Arguments) -> None:
    for name, value in arguments.items():
        bound = component.arguments.get(name)
        if bound is None:
            raise TaskRefused(f"{key}.{shown(name)[1:-1]}", "unknown key")
        bound.check(f"{key}.{name}", value)
    for name in component.required:
        if name not in arguments:
            raise TaskRefused(f"{key}.{name}", "missing")
    misfit = component.misfit(arguments)
    if misfit is not None:
        raise TaskRefused(f"{key}.{misfit[0]}", misfit[1])


# How long a list may be, and which words are offered, in images of this many dimensions.
_LENGTHS: Final[Mapping[int, Mapping[str, tuple[int, int]]]] = MappingProxyType(
    {
        2: {
            "spatial_size": (2, 2),
            "roi_size": (2, 2),
            "rotate_range": (1, 1),
            "shear_range": (1, 2),
            "translate_range": (1, 2),
            "scale_range": (1, 2),
        },
        3: {
            "spatial_size": (3, 3),
            "roi_size": (3, 3),
            "rotate_range": (1, 3),
            "shear_range": (1, 6),
            "translate_range": (1, 3),
            "scale_range": (1, 3),
        },
    }
)


def check_dimensions(key: str, arguments: Arguments, spatial_dims: int) -> None:
    """Refuse a transform's arguments that do not suit images of `spatial_dims` dimensions.

    Raises: TaskRefused, naming the key below `key`.
    """
    for name, (shortest, longest) in _LENGTHS[spatial_dims].items():
        if name in arguments and not shortest <= _length(arguments[name]) <= longest:
            raise TaskRefused(f"{key}.{name}", f"does not suit {spatial_dims} dimensions")
    for name in ("spatial_axis", "spatial_axes"):
        axes = arguments.get(name, 0)
        for axis in axes if isinstance(axes, list) else [axes]:
            Whole(0, spatial_dims - 1).check(f"{key}.{name}", axis)


def for_image_alone(arguments: Arguments) -> dict[str, object]:
    """Give a transform's arguments for an image that comes without its label."""
    mode = arguments.get("mode")
    alone = {"mode": mode[:1]} if isinstance(mode, list) else {}
    return {**arguments, "keys": ["image"], **alone}


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _unet_misfit(arguments: Arguments) -> Misfit | None:
    if _length(arguments["strides"]) != _length(arguments["channels"]) - 1:
        return "strides", "must have one item fewer than channels"
    return None


def _segresnet_misfit(arguments: Arguments) -> Misfit | None:
    down = arguments.get("blocks_down", [1, 2, 2, 4])
    up = arguments.get("blocks_up", [1, 1, 1])
    if _length(up) != _length(down) - 1:
        return "blocks_up", "must have one item fewer than blocks_down"
    return None


def _sgd_misfit(arguments: Arguments) -> Misfit | None:
    if arguments.get("nesterov") and not arguments.get("momentum"):
        return "nesterov", "needs a momentum above 0"
    return None


def _size_misfit(name: str) -> Callable[[Arguments], Misfit | None]:
    def misfit(arguments: Arguments) -> Misfit | None:
        size = arguments[name]
        if isinstance(size, list) and math.prod(size) > MAX_VOXELS:
            return name, f"holds more than {MAX_VOXELS} voxels"
        return None

    return misfit


_NORM = OneOf(("batch", "instance"))
_ACT = OneOf(("relu", "leakyrelu", "prelu", "elu", "gelu", "swish", "mish"))
_DROPOUT = Real(0, 0.9)
_IN_OUT: Final[Mapping[str, Bound]] = {
    "spatial_dims": Whole(2, 3),
    "in_channels": Whole(1, 16),
    "out_channels": Whole(2, 256),
}

NETWORKS: Final[Mapping[str, Component]] = MappingProxyType(
    {
        "UNet": Component(
            "monai.networks.nets.unet:UNet",
            {
                **_IN_OUT,
                "channels": ListOf(Whole(1, 1024), 2, 8),
                "strides": ListOf(Whole(1, 4), 1, 7),
                "kernel_size": Whole(1, 7),
                "up_kernel_size": Whole(1, 7),
                "num_res_units": Whole(0, 8),
                "act": _ACT,
                "norm": _NORM,
                "dropout": _DROPOUT,
                "bias": Flag(),
            },
            required=(*_IN_OUT, "channels", "strides"),
            kinds=SEGMENTATION,
            misfit=_unet_misfit,
        ),
        "BasicUNet": Component(
            "monai.networks.nets.basic_unet:BasicUNet",
            {
                **_IN_OUT,
                "features": ListOf(Whole(1, 1024), 6, 6),
                "act": _ACT,
                "norm": _NORM,
                "dropout": _DROPOUT,
                "bias": Flag(),
                "upsample": OneOf(("deconv", "pixelshuffle", "nontrainable")),
            },
            required=tuple(_IN_OUT),
            kinds=SEGMENTATION,
        ),
        "SegResNet": Component(
            "monai.networks.nets.segresnet:SegResNet",
            {
                **_IN_OUT,
                "init_filters": MultipleOf(GROUP_NORM_GROUPS, 128),
                "dropout_prob": _DROPOUT,
                "blocks_down": ListOf(Whole(1, 8), 2, 6),
                "blocks_up": ListOf(Whole(1, 8), 1, 5),
                "upsample_mode": OneOf(("deconv", "nontrainable", "pixelshuffle")),
            },
            required=tuple(_IN_OUT),
            kinds=SEGMENTATION,
            misfit=_segresnet_misfit,
        ),
        "DenseNet121": Component(
            "monai.networks.nets.densenet:DenseNet121",
            {
                **_IN_OUT,
                "init_features": Whole(2, 256),
                "growth_rate": Whole(1, 128),
                "bn_size": Whole(1, 8),
                "act": OneOf(("relu", "leakyrelu", "elu", "swish")),
                "norm": _NORM,
                "dropout_prob": _DROPOUT,
            },
            required=tuple(_IN_OUT),
            kinds=CLASSIFICATION,
        ),
    }
)

_DICE: Final[Mapping[str, Bound]] = {
    "include_background": Flag(),
    "squared_pred": Flag(),
    "jaccard": Flag(),
    "batch": Flag(),
    "smooth_nr": Real(0, 1),
    "smooth_dr": Real(1e-12, 1),
}
# Label maps hold one class a pixel, so classes exclude each other and are one-hot for the loss
# alone.
_DICE_FIXED: Final = MappingProxyType({"to_onehot_y": True, "softmax": True})

LOSSES: Final[Mapping[str, Component]] = MappingProxyType(
    {
        "DiceLoss": Component("monai.losses.dice:DiceLoss", _DICE, kinds=SEGMENTATION, fixed=_DICE_FIXED),
        "DiceCELoss": Component(
            "monai.losses.dice:DiceCELoss",
            {
                **_DICE,
                "lambda_dice": Real(0, 100),
                "lambda_ce": Real(0, 100),
                "label_smoothing": Real(0, 0.5),
            },
            kinds=SEGMENTATION,
            fixed=_DICE_FIXED,
        ),
        "CrossEntropyLoss": Component("torch.nn:CrossEntropyLoss", {"label_smoothing": Real(0, 0.5)}),
    }
)

_LEARNING_RATE = Real(1e-9, 10)
_WEIGHT_DECAY = Real(0, 1)
_ADAM: Final[Mapping[str, Bound]] = {
    "lr": _LEARNING_RATE,
    "betas": ListOf(Real(0, 0.99999), 2, 2),
    "eps": Real(1e-12, 1),
    "weight_decay": _WEIGHT_DECAY,
    "amsgrad": Flag(),
}

# One pass over the weights instead of one for each step of the formula.
_FUSED: Final = MappingProxyType({"fused": True})

OPTIMISERS: Final[Mapping[str, Component]] = MappingProxyType(
    {
        "Adam": Component("torch.optim:Adam", _ADAM, required=("lr",), fixed=_FUSED),
        "AdamW": Component("torch.optim:AdamW", _ADAM, required=("lr",), fixed=_FUSED),
        "SGD": Component(
            "torch.optim:SGD",
            {
                "lr": _LEARNING_RATE,
                "momentum": Real(0, 0.9999),
                "weight_decay": _WEIGHT_DECAY,
                "nesterov": Flag(),
            },
            required=("lr",),
            misfit=_sgd_misfit,
            fixed=_FUSED,
        ),
    }
)

_KEYS: Final[Mapping[str, Bound]] = {"keys": ListOf(OneOf(("image", "label")), 1, 2)}
_PROBABLY: Final[Mapping[str, Bound]] = {**_KEYS, "prob": Real(0, 1)}
_SIZE = ListOf(Whole(1, 4096), 2, 3)


def _intensity(name: str, arguments: Mapping[str, Bound], required: tuple[str, ...]) -> Component:
    random = name.startswith("Rand")
    return Component(
        f"monai.transforms.intensity.dictionary:{name}",
        {**(_PROBABLY if random else _KEYS), **arguments},
        required=("keys", *required),
        random=random,
    )


def _sized(module: str, name: str, size: str, more: Mapping[str, Bound]) -> Component:
    return Component(
        f"monai.transforms.{module}.dictionary:{name}",
        {**_KEYS, size: _SIZE, **more},
        required=("keys", size, *more),
        misfit=_size_misfit(size),
        spatial=True,
    )


def _moved(name: str, arguments: Mapping[str, Bound], required: tuple[str, ...] = ()) -> Component:
    return Component(
        f"monai.transforms.spatial.dictionary:{name}",
        {**_PROBABLY, **arguments},
        required=("keys", *required),
        spatial=True,
        random=True,
    )


_AFFINE_MODE = ListOf(OneOf(("bilinear", "nearest")), 1, 2)
_RESIZE_MODE = ListOf(OneOf(("area", "bilinear", "trilinear", "nearest")), 1, 2)
_INTENSITY = Real(-1e6, 1e6)

TRANSFORMS: Final[Mapping[str, Component]] = MappingProxyType(
    {
        "NormalizeIntensityd": _intensity("NormalizeIntensityd", {"nonzero": Flag(), "channel_wise": Flag()}, ()),
        "ScaleIntensityd": _intensity(
            "ScaleIntensityd", {"minv": _INTENSITY, "maxv": _INTENSITY, "channel_wise": Flag()}, ()
        ),
        "ScaleIntensityRangePercentilesd": _intensity(
            "ScaleIntensityRangePercentilesd",
            {
                "lower": Real(0, 49),
                "upper": Real(51, 100),
                "b_min": _INTENSITY,
                "b_max": _INTENSITY,
                "clip": Flag(),
                "channel_wise": Flag(),
            },
            ("lower", "upper", "b_min", "b_max"),
        ),
        "RandGaussianNoised": _intensity("RandGaussianNoised", {"mean": _INTENSITY, "std": Real(0, 1e6)}, ()),
        "RandScaleIntensityd": _intensity("RandScaleIntensityd", {"factors": Real(0, 1)}, ("factors",)),
        "RandShiftIntensityd": _intensity("RandShiftIntensityd", {"offsets": Real(0, 1e6)}, ("offsets",)),
        "Resized": _sized("spatial", "Resized", "spatial_size", {"mode": _RESIZE_MODE}),
        "ResizeWithPadOrCropd": _sized("croppad", "ResizeWithPadOrCropd", "spatial_size", {}),
        "SpatialPadd": _sized("croppad", "SpatialPadd", "spatial_size", {}),
        "CenterSpatialCropd": _sized("croppad", "CenterSpatialCropd", "roi_size", {}),
        "RandFlipd": _moved("RandFlipd", {"spatial_axis": Whole(0, 2)}),
        "RandRotate90d": _moved("RandRotate90d", {"max_k": Whole(1, 3), "spatial_axes": ListOf(Whole(0, 2), 2, 2)}),
        "RandAffined": _moved(
            "RandAffined",
            {
                "rotate_range": ListOf(Real(0, math.pi), 1, 3),  # radians
                "shear_range": ListOf(Real(0, 0.5), 1, 6),
                "translate_range": ListOf(Real(0, 256), 1, 3),  # pixels
                "scale_range": ListOf(Real(0, 0.5), 1, 3),
                "mode": _AFFINE_MODE,
                "padding_mode": OneOf(("zeros", "border", "reflection")),
            },
            ("mode",),
        ),
    }
)
