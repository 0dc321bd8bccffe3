"""Figures of the overlay study: trajectories, and strips of decoded pictures along the way."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from steerlens.studies.overlay import Overlaid
from steerlens.studies.removal import ONE_SHOT, REFERENCE
from steerlens.studies.removal_summary import RANDOM, RemovalSummary

_STYLES = {
    REFERENCE: ("#000000", "-", 1.2),
    ONE_SHOT: ("#000000", "--", 1.2),
    "steering, chosen": ("#222222", "-", 2.6),
    "diffusion, chosen": ("#888888", "-", 2.6),
    "steering, plain": ("#222222", ":", 1.6),
    "diffusion, plain": ("#888888", ":", 1.6),
    RANDOM: ("#aaaaaa", "-.", 1.4),
}
"""Grey, dash and width of a line: told apart without colours."""


def trajectory_figure(summary: RemovalSummary) -> Figure:
    """How much overlay and base are left as more and more heads are ablated."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    quarter = summary.n_heads // 4
    kinds = ("objective", "similarity with the overlay", "similarity with the base")
    for axes, kind in zip(figure.subplots(1, 3), kinds, strict=True):
        for name, (colour, dash, width) in _STYLES.items():
            values = summary.curves[kind][name]
            axes.plot(summary.counts, values, color=colour, linestyle=dash, linewidth=width, label=name)
        axes.axvspan(0, quarter, color="#f0f0f0", zorder=0)
        axes.set_xlabel("heads ablated")
        axes.set_ylabel(f"{kind} (cosine)", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=7, frameon=False)
    figure.suptitle(
        f"Mean over {summary.n_pairs} pairs, {summary.n_heads} heads, {summary.ablation} ablation; "
        "shaded: the first quarter, whose area counts",
        fontsize=9,
    )
    return figure


def strip_figure(pair: Overlaid, way: Mapping[str, Tensor], summary: RemovalSummary) -> Figure:
    """What the decoder shows along each order: does the overlay leave, does the base stay?"""
    names = [name.removeprefix("strip.") for name in way if name.startswith("strip.")]
    columns = len(summary.decoded_counts)
    figure = Figure(figsize=(1.1 * (columns + 2.4), 1.18 * len(names) + 0.5), layout="constrained")
    grid = figure.subplots(len(names), columns + 2, squeeze=False)
    for row, name in enumerate(names):
        for axes in grid[row]:
            axes.set_axis_off()
        if row == 0:
            for axes, picture, title in zip(grid[0], (pair.both, pair.base), ("input", "base"), strict=False):
                axes.imshow(picture)
                axes.set_title(title, fontsize=7)
        for place in range(columns):
            axes = grid[row][place + 2]
            axes.imshow(way[f"strip.{name}"][place].permute(1, 2, 0).numpy())
            if row == 0:
                axes.set_title(f"{summary.decoded_counts[place]} heads", fontsize=7)
        grid[row][2].text(-0.08, 0.5, name, transform=grid[row][2].transAxes, ha="right", va="center", fontsize=7)
    figure.suptitle(f"{pair.overlay_concept} on {pair.base_concept}: decoded after ablation", fontsize=8)
    return figure


def orders_figure(summary: RemovalSummary) -> Figure:
    """The normalised area of every order with its interval."""
    rows = sorted(summary.orders, key=lambda row: row.area.value)
    figure = Figure(figsize=(7.5, 0.3 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot([row.area.low, row.area.high], [place, place], color="#222222", linewidth=1.6)
        axes.plot(row.area.value, place, "o", color="#222222", markersize=4.5)
    for value in (0, 1):
        axes.axvline(value, color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axes.set_xlabel("normalised area (0 random orders, 1 greedy reference), 95 % interval over pairs")
    axes.set_title(
        f"{summary.n_pairs} pairs, {summary.n_heads} heads, {summary.ablation} ablation", fontsize=9, loc="left"
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def strip_pairs(
    pairs: Sequence[Overlaid], ways: Sequence[Mapping[str, Tensor]]
) -> list[tuple[Overlaid, Mapping[str, Tensor]]]:
    """The pairs whose pictures along the way were kept."""
    return [
        (pair, way) for pair, way in zip(pairs, ways, strict=True) if any(name.startswith("strip.") for name in way)
    ]
