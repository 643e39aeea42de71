"""The report's figures, as data URLs: pictures with their label maps, and learning curves.

Colours are told apart by line style as well, and every figure is described in words beside it.
Which numbers are drawn is decided in `demo.report`.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

INK: Final = "#1b2733"
LABEL_COLOURS: Final = (
    "#e8a33d",
    "#3f8fd2",
)  # of the labels 1, 2, …; distinct to colour-blind eyes
WRONG: Final = "#d6336c"
_OVERLAY: Final = 0.55
_SETTINGS: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 11,
    "svg.fonttype": "none",
    "svg.hashsalt": "filmroom",
    "axes.edgecolor": "#8492a0",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

Emphasis = Literal["federated", "pooled", "alone here", "alone elsewhere"]
_LINES: Final[dict[str, dict[str, Any]]] = {
    "federated": {"color": "#0b5cad", "linewidth": 2.8, "marker": "o", "zorder": 4},
    "pooled": {"color": "#3d4852", "linewidth": 1.8, "linestyle": (0, (5, 2)), "zorder": 3},
    "alone here": {
        "color": "#b3541e",
        "linewidth": 1.8,
        "marker": "s",
        "markersize": 4,
        "zorder": 2,
    },
    "alone elsewhere": {"color": "#c08a63", "linewidth": 1.2, "linestyle": ":", "zorder": 1},
}


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a panel, one value a round, and how it is drawn."""

    emphasis: Emphasis
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves over one hospital's held-out patients."""

    title: str
    lines: tuple[Line, ...]


def learning_curves(panels: Sequence[Panel]) -> str:
    """Give the panels side by side with one scale, as an SVG data URL."""
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(3.6 * len(panels), 3.7), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            _draw_panel(ax, panel)
        axes[0].set_ylim(_floor(panels), 1)
        axes[0].set_ylabel("Dice on held-out patients")
        lines = {line.get_label(): line for ax in axes for line in ax.get_lines()}
        names = [name for name in _LINES if name in lines]
        figure.legend(
            [lines[name] for name in names],
            names,
            loc="outside lower center",
            ncols=4,
            frameon=False,
        )
        return _svg(figure)


def _floor(panels: Sequence[Panel]) -> float:
    """Give a round number below every value, so that the curves use the whole height."""
    values = [value for panel in panels for line in panel.lines for value in line.values]
    return max(0.0, math.floor(min(values, default=0.0) * 10 - 0.5) / 10)


def _draw_panel(ax: Axes, panel: Panel) -> None:
    for line in panel.lines:
        rounds = range(1, len(line.values) + 1)
        ax.plot(rounds, line.values, label=line.emphasis, **_LINES[line.emphasis])
    ax.set_title(panel.title, fontsize=12, fontweight="bold", loc="left")
    ax.set_xlabel("round")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y", color="#dde3e9")
    ax.spines[["top", "right"]].set_visible(False)


def tissue_pictures(image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> str:
    """Give image, truth, prediction and where they differ in one row, as a PNG data URL.

    Shape:  all are `(row, column)`; the label maps hold 0 for background.
    """
    grey = np.repeat(image[..., None] / 255, 3, axis=-1)
    wrong = (truth != predicted).astype(np.uint8)
    tiles = (
        grey,
        _overlay(grey, truth, LABEL_COLOURS),
        _overlay(grey, predicted, LABEL_COLOURS),
        _overlay(grey, wrong, (WRONG,)),
    )
    gap = np.ones((image.shape[0], 2, 3))
    row = np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis=1)
    return _png(np.repeat(np.repeat(row, 2, axis=0), 2, axis=1))


def _overlay(grey: NDArray[np.float64], labels: NDArray[np.uint8], colours: Sequence[str]) -> NDArray[np.float64]:
    shown = grey.copy()
    for value, colour in enumerate(colours, start=1):
        there = labels == value
        shown[there] = (1 - _OVERLAY) * grey[there] + _OVERLAY * np.array(to_rgb(colour))
    return shown


def _png(pixels: NDArray[np.float64]) -> str:
    buffer = BytesIO()
    imsave(buffer, np.round(pixels * 255).astype(np.uint8), format="png")
    return _data_url("image/png", buffer.getvalue())


def _svg(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_url("image/svg+xml", buffer.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
