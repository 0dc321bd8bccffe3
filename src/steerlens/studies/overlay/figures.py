"""Figures of the overlay study: trajectories, areas, and strips of decoded pictures along an order."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlens.studies.overlay.areas import (
    BASE_CURVE,
    CURVES,
    OBJECTIVE_CURVE,
    OVERLAY_CURVE,
    PROJECTION_CURVE,
    RANDOM,
    Curve,
    random_name,
)
from steerlens.studies.overlay.joint import ATTRIBUTION, ONE_SHOT, REFERENCE
from steerlens.studies.overlay.orders import CHANGE, UNDECODED, chosen_order, retained_name
from steerlens.studies.overlay.parts import TrajectoryPart
from steerlens.studies.overlay.pictures import Overlaid
from steerlens.studies.overlay.results import OverlaySummary
from steerlens.studies.shared.candidates import LENSES, ONE_FACTOR_NAME, readable, tick_label
from steerlens.studies.shared.partial import LAYER, NORM
from steerlens.studies.shared.plots import (
    DARK,
    FAINT,
    INK,
    LIGHT,
    MIDDLE,
    PALE,
    SOFT,
    STRONG,
    draw_estimate,
    plain_axes,
)
from steerlens.studies.shared.wording import worded_figure

_STEERING, _DIFFUSION = chosen_order("steering"), chosen_order("diffusion")

_STYLES = {
    REFERENCE: (INK, "-", 1.2, ""),
    ONE_SHOT: (INK, "--", 1.2, ""),
    ATTRIBUTION: (STRONG, "--", 1.0, "x"),
    _STEERING: (DARK, "-", 2.4, "o"),
    _DIFFUSION: (MIDDLE, "-", 2.4, "s"),
    f"{_STEERING}{UNDECODED}": (DARK, "--", 1.8, "o"),
    f"{_DIFFUSION}{UNDECODED}": (MIDDLE, "--", 1.8, "s"),
    "steering, plain": (DARK, ":", 1.4, "o"),
    "diffusion, plain": (MIDDLE, ":", 1.4, "s"),
    ONE_FACTOR_NAME: (STRONG, ":", 1.4, "^"),
    CHANGE: (INK, ":", 1.2, "+"),
    RANDOM: (SOFT, "-.", 1.6, ""),
    random_name(0): (SOFT, "-.", 1.6, ""),
}
"""Grey, dash, width and marker of each line, distinct without colours."""

_BANDS = (_STEERING, RANDOM, random_name(0))
"""Lines whose intervals are drawn; more bands would cover one another."""

_AREA_LIMITS = (-2.0, 3.0)
"""Limits of the axis of normalised areas, since intervals are huge if the reference hardly beats chance."""

_UNITS = {
    OBJECTIVE_CURVE: "objective (difference of cosines)",
    OVERLAY_CURVE: "similarity with the overlay (cosine)",
    BASE_CURVE: "similarity with the base (cosine)",
    PROJECTION_CURVE: "projection (0 base, 1 with overlay)",
}


def summary_figures(summary: OverlaySummary) -> dict[str, Figure]:
    """Draws the figures that need no more than the summary, in the words of its components."""
    figures = {"plain": plain_figure(summary), "trajectories": trajectory_figure(summary)}
    if summary.decodes:
        figures["decoded"] = decoded_figure(summary)
    figures["orders"] = orders_figure(summary)
    if summary.retained_curves:
        figures["retained"] = retained_figure(summary)
    return {name: worded_figure(figure, summary.components) for name, figure in figures.items()}


def plain_figure(summary: OverlaySummary) -> Figure:
    """Draws how much of an overlay each order of heads removes: the lenses beside orders that need no lens."""
    lenses = [
        (chosen_order(lens, ending), f"{lens.capitalize()} Lens, {how}")
        for ending, how in ((UNDECODED, "before decoding"), ("", "in pictures"))
        for lens in LENSES
    ]
    no_lens = [(CHANGE, "size of the change in the write"), (NORM, "size of the write"), (LAYER, "later layers first")]
    candidates = [*lenses, *((name, f"{words} (no lens)") for name, words in no_lens)]
    candidates.append((ONE_SHOT, "true effect of each head, ablated alone"))
    areas = {row.name: row.area for row in summary.orders}
    bars = [
        (areas[name], words, MIDDLE if (name, words) in lenses else LIGHT)
        for name, words in candidates
        if name in areas
    ]
    figure = Figure(figsize=(8, 0.36 * len(bars) + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(*summary.random_range, color=PALE, zorder=0, label="range of single random orders")
    for place, (area, _, colour) in enumerate(reversed(bars)):
        axes.barh(place, area.value, 0.55, color=colour)
        axes.plot([area.low, area.high], [place, place], color=DARK, linewidth=1.2)
    for value in (0, 1):
        axes.axvline(value, color=DARK, linewidth=0.8)
    axes.set_yticks(range(len(bars)), [words for _, words, _ in reversed(bars)], fontsize=9)
    axes.set_xlabel("0: no better than random orders; 1: as a greedy search finds the heads", fontsize=9)
    axes.set_title(
        "If heads are ablated in this order, how soon does the overlay leave the embedding?\n"
        f"lines: 95 % intervals; {_size(summary)}",
        fontsize=9,
        loc="left",
    )
    figure.legend(fontsize=8, frameon=False, loc="outside lower right")
    plain_axes(axes, label_size=8)
    axes.tick_params(axis="y", labelsize=9)
    return figure


def trajectory_figure(summary: OverlaySummary) -> Figure:
    """Draws the embedding's similarity with overlay and base over the number of ablated heads."""
    return _curves_figure(summary, summary.counts, summary.curves, "Output embedding")


def retained_figure(summary: OverlaySummary) -> Figure:
    """Draws the same with the first heads retained and all others ablated."""
    return _curves_figure(
        summary,
        summary.counts,
        summary.retained_curves,
        "Output embedding with all other heads ablated",
        "heads retained",
    )


def decoded_figure(summary: OverlaySummary) -> Figure:
    """Draws the same for the decoded pictures, embedded again."""
    return _curves_figure(summary, summary.decoded_counts, summary.decoded, "Decoded picture, embedded again")


def _curves_figure(
    summary: OverlaySummary,
    counts: Sequence[int],
    curves: Mapping[str, Mapping[str, Curve]],
    what: str,
    along: str = "heads ablated",
) -> Figure:
    figure = Figure(figsize=(9.5, 6.4), layout="constrained")
    for axes, kind in zip(figure.subplots(2, 2).flat, CURVES, strict=True):
        for name, style in _STYLES.items():
            if name in curves[kind]:
                _draw(axes, counts, curves[kind][name], name, style)
        axes.axvspan(0, summary.n_heads // 4, color=FAINT, zorder=0)
        axes.set_xlabel(along, fontsize=8)
        axes.set_ylabel(_UNITS[kind], fontsize=8)
        plain_axes(axes)
    handles, names = figure.axes[0].get_legend_handles_labels()
    if along == "heads retained":
        names = [retained_name(name) for name in names]
    figure.legend(handles, names, fontsize=7, frameon=False, loc="outside lower center", ncols=4)
    figure.suptitle(
        f"{what}, mean. {_size(summary)}.\n"
        "Shaded: the first quarter, whose area counts. Bands: 95 % intervals over pairs.",
        fontsize=9,
    )
    return figure


def _draw(axes: Axes, counts: Sequence[int], curve: Curve, name: str, style: tuple[str, str, float, str]) -> None:
    colour, dash, width, marker = style
    if name in _BANDS:
        axes.fill_between(counts, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        counts,
        curve.values,
        color=colour,
        linestyle=dash,
        linewidth=width,
        marker=marker,
        markersize=3.5,
        label=readable(name),
    )


def strip_figure(pair: Overlaid, trajectory: TrajectoryPart, summary: OverlaySummary) -> Figure:
    """Draws decoded pictures along each order, to see whether the overlay disappears and the base stays."""
    names = sorted(trajectory.pictures, key=list(_STYLES).index)
    columns = len(summary.decoded_counts)
    side, left = 1.0, 1.6
    figure = Figure(figsize=(left + side * columns, side * (len(names) + 1) + 0.85))
    width, height = figure.get_size_inches()

    def tile(row: int, place: int) -> Axes:
        bottom = height - 0.55 - side * (row + 1) - (0.2 if row else 0)
        axes = figure.add_axes(
            ((left + side * place) / width, bottom / height, 0.94 * side / width, 0.94 * side / height)
        )
        axes.set_axis_off()
        return axes

    for place, (title, image) in enumerate((("input", pair.both), ("base", pair.base), ("overlay", pair.overlay))):
        axes = tile(0, place)
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=7, pad=2)
    for row, name in enumerate(names, start=1):
        for place in range(columns):
            axes = tile(row, place)
            axes.imshow(trajectory.pictures[name][place].permute(1, 2, 0).numpy(), interpolation="nearest")
            if row == 1:
                count = summary.decoded_counts[place]
                axes.set_title("1 head" if count == 1 else f"{count} heads", fontsize=7, pad=2)
            if place == 0:
                axes.text(-0.06, 0.5, readable(name), transform=axes.transAxes, ha="right", va="center", fontsize=7)
    figure.suptitle(
        f"{pair.overlay_concept} on {pair.base_concept}: decoded after ablation of some of {summary.n_heads} heads",
        fontsize=8,
    )
    return figure


def orders_figure(summary: OverlaySummary) -> Figure:
    """Draws the normalised area of every order with its interval."""
    rows = [row for row in reversed(summary.orders) if row.name != RANDOM]
    figure = Figure(figsize=(7.5, 0.34 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(*summary.random_range, color=PALE, zorder=0, label="range of single random orders")
    for offset, kind, colour, marker in (
        (0.14, OBJECTIVE_CURVE, DARK, "o"),
        (-0.14, PROJECTION_CURVE, MIDDLE, "s"),
    ):
        for place, row in enumerate(rows):
            estimate = row.area if kind == OBJECTIVE_CURVE else row.projection
            label = f"drop of the {kind}" if place == 0 else None
            draw_estimate(axes, estimate, place + offset, colour, marker, label)
    for value in (0, 1):
        axes.axvline(value, color=LIGHT, linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [tick_label(row.name) for row in rows], fontsize=8)
    axes.set_xlabel("normalised area (0 random orders, 1 greedy reference), 95 % interval over pairs", fontsize=8)
    axes.set_title(_size(summary), fontsize=9, loc="left")
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, _AREA_LIMITS[0]), min(high, _AREA_LIMITS[1]))
    axes.tick_params(axis="x", labelsize=7)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside lower center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _size(summary: OverlaySummary) -> str:
    named = f"{summary.model}: " if summary.model else ""
    size = f"{named}{summary.n_pairs} pairs, {summary.n_heads} heads, {summary.ablation} ablation"
    warning = summary.caution
    return f"{size}\n{warning}" if warning else size
