"""Greys, intervals and picture grids that the figures of studies share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlens.studies.shared.stats import Estimate

INK, DARK, STRONG, MIDDLE, SOFT, LIGHT, PALE, FAINT = (
    "#000000",
    "#222222",
    "#555555",
    "#888888",
    "#aaaaaa",
    "#bbbbbb",
    "#eeeeee",
    "#f3f3f3",
)
"""Greys from black to nearly white, distinct in print: the first four for lines, the others for backgrounds."""


def plain_axes(*axes: Axes, label_size: int = 7) -> None:
    """Removes the top and right spines, and sets the size of tick labels."""
    for panel in axes:
        panel.tick_params(labelsize=label_size)
        panel.spines[["top", "right"]].set_visible(False)


def draw_estimate(
    axes: Axes, estimate: Estimate, place: float, colour: str, marker: str, label: str | None = None, width: float = 1.6
) -> None:
    """Draws an estimate as a marker on its horizontal 95 % interval."""
    axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=width)
    axes.plot(estimate.value, place, marker, color=colour, markersize=4.5, label=label)


def draw_curve(
    axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], colour: str, dash: str, marker: str, label: str
) -> None:
    """Draws estimates as a line with vertical 95 % intervals."""
    for place, estimate in zip(places, estimates, strict=True):
        axes.plot([place, place], [estimate.low, estimate.high], color=colour, linewidth=0.8, alpha=0.6)
    axes.plot(
        places,
        [estimate.value for estimate in estimates],
        color=colour,
        linestyle=dash,
        marker=marker,
        markersize=4.5,
        linewidth=1.4,
        label=label,
    )


def picture_grid(
    pictures: Sequence[Sequence[UInt8[np.ndarray, "height width 3"] | None]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
) -> Figure:
    """Draws rows of pictures with a name before each row and above each column; None leaves a place empty."""
    side, left = 0.95, 0.12 + 0.068 * max(map(len, row_names))
    top = 0.34 + 0.13 * max(name.count("\n") + 1 for name in column_names)
    figure = Figure(figsize=(left + side * len(column_names) + 0.1, top + side * len(pictures) + 0.1))
    width, height = figure.get_size_inches()
    for row, tiles in enumerate(pictures):
        for place, pixels in enumerate(tiles):
            box = (left + side * place, height - top - side * (row + 1), 0.95 * side, 0.95 * side)
            if row == 0:
                middle = ((box[0] + box[2] / 2) / width, (box[1] + box[3] + 0.03) / height)
                figure.text(*middle, column_names[place], fontsize=7, ha="center", va="bottom")
            if place == 0:
                middle = ((box[0] - 0.05) / width, (box[1] + box[3] / 2) / height)
                figure.text(*middle, row_names[row], fontsize=7, ha="right", va="center")
            if pixels is not None:
                axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
                axes.set_axis_off()
                axes.imshow(pixels, interpolation="nearest")
    figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=8, va="top")
    return figure
