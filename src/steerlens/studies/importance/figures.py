"""Figures of the importance study, drawn from its summary and its table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlens.studies.importance.results import ImportanceSummary, Row
from steerlens.studies.importance.scores import PLAIN_KIND, UNDECODED
from steerlens.studies.shared.candidates import LENSES, readable, tick_label
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.oracle import oracle_name
from steerlens.studies.shared.partial import GIVEN_BOTH, LAYER, NORM
from steerlens.studies.shared.plots import DARK, LIGHT, MIDDLE, draw_estimate, plain_axes
from steerlens.studies.shared.targets import TEXT
from steerlens.studies.shared.wording import HEADS, worded_figure


def summary_figures(summary: ImportanceSummary) -> dict[str, Figure]:
    """Draws the figures that need no more than the summary, in the words of its components."""
    components = summary.setup.components
    figures = {"plain": plain_figure(summary), "correlations": correlation_figure(summary)}
    if components == HEADS:  # features of one autoencoder share their layer
        figures["layers"] = layer_figure(summary)
    return {name: worded_figure(figure, components) for name, figure in figures.items()}


def correlation_figure(summary: ImportanceSummary) -> Figure:
    """Draws the correlation of every score with the main effect, with and without head and picture means."""
    rows = {(row.score, row.statistic): row for row in summary.rows if row.effect == summary.main}
    names = list(dict.fromkeys(score for score, _ in rows))
    order = sorted(names, key=lambda name: _place(rows[name, "spearman"]))
    figure = Figure(figsize=(9, 0.34 * len(order) + 1.8), layout="constrained")
    axes = figure.subplots()
    for offset, statistic, colour, marker, label in (
        (0.16, "spearman", DARK, "o", "over heads"),
        (-0.16, "interaction", MIDDLE, "s", "head and picture means removed"),
    ):
        for place, name in enumerate(order):
            legend = label if place == 0 else None
            if (row := rows.get((name, statistic))) is not None:
                draw_estimate(axes, row.estimate, place + offset, colour, marker, legend)
    axes.axvline(0, color=LIGHT, linewidth=1, zorder=0)
    labels = [f"{tick_label(name)}{' *' if _marked(rows, name) else ''}" for name in order]
    axes.set_yticks(range(len(order)), labels, fontsize=9)
    axes.set_xlabel("Spearman correlation with the effect, mean over pictures, 95 % interval", fontsize=9)
    note = "\n* check of consistency: compared with the effect's own target"
    marked = any(_marked(rows, name) for name in order)
    axes.set_title(f"{summary.main}\n{_size(summary, summary.main)}{note if marked else ''}", fontsize=9, loc="left")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def scatter_figure(summary: ImportanceSummary, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws mean main effect over mean score, a point per head and a panel per setting; darker in later layers."""
    columns = ("steering, chosen", "diffusion, chosen", "steering, plain", "diffusion, plain")
    names = [name for name in columns if name in rows[0]]
    names = names or [name for name in (f"{column}, {UNDECODED}" for column in columns) if name in rows[0]]
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    effect = f"effect: {summary.main}"
    sites = list(dict.fromkeys(row["site"] for row in rows))
    layers = np.array([next(row["layer"] for row in rows if row["site"] == site) for site in sites])
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        points = np.array([[_mean(rows, site, name), _mean(rows, site, effect)] for site in sites])
        shade = 0.85 - 0.85 * layers / max(1, layers.max())
        axes.scatter(points[:, 0], points[:, 1], c=shade, cmap="gray", vmin=0, vmax=1, s=18, edgecolors="black", lw=0.4)
        axes.axhline(0, color=LIGHT, linewidth=0.8, zorder=0)
        axes.set_title(readable(name), fontsize=9)
        axes.set_xlabel("similarity (cosine)", fontsize=8)
        plain_axes(axes)
    figure.axes[0].set_ylabel("effect of ablation (cosine)", fontsize=8)
    figure.suptitle(
        f"Effect: {summary.main}. Each point is one of {summary.n_heads} heads, mean over {summary.n_pictures} "
        f"pictures{'; darker: later layer' if summary.setup.components == HEADS else ''}",
        fontsize=9,
    )
    return figure


def layer_figure(summary: ImportanceSummary) -> Figure:
    """Draws the mean effect of a head by layer, and the share of heads that beat their control."""
    figure = Figure(figsize=(7.5, 2.9), layout="constrained")
    panels = figure.subplots(1, 2 if summary.beats_by_layer else 1, squeeze=False)[0]
    layers = range(len(summary.effect_by_layer))
    left = panels[0]
    left.bar(layers, summary.effect_by_layer, color=MIDDLE)
    left.set_ylabel("mean effect of a head (cosine)")
    if _counted(summary, summary.main) < summary.n_pictures:
        left.set_title(f"{_counted(summary, summary.main)} recognised pictures", fontsize=8)
    if summary.beats_by_layer:
        _draw_controls(panels[1], summary.beats_by_layer)
    for axes in panels:
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain_axes(axes)
    figure.suptitle(f"{summary.main}; {_size(summary)}", fontsize=9)
    return figure


def _draw_controls(axes: Axes, shares: Sequence[float]) -> None:
    axes.bar(range(len(shares)), shares, color=MIDDLE)
    axes.axhline(0.5, color=DARK, linewidth=1, linestyle="--", label="chance (50 %)")
    axes.set_ylabel("share closer than its control")
    axes.set_ylim(0, 1)
    axes.legend(loc="upper right", fontsize=8)


def plain_figure(summary: ImportanceSummary) -> Figure:
    """Draws the answer to the paper's claim beside baselines that need no lens, raw and given the baselines."""
    effect = summary.published
    candidates = [
        (f"{lens}, {PLAIN_KIND}{ending}", f"{lens.capitalize()} Lens, {how}")
        for ending, how in ((f", {UNDECODED}", "before decoding"), ("", "in pictures"))
        for lens in LENSES
    ]
    candidates += [(NORM, "size of the head's write (no lens)")]
    if summary.setup.components == HEADS:  # features of one autoencoder share their layer
        candidates += [(LAYER, "number of its layer (no lens)")]
    candidates += [(oracle_name("one factor"), "the true effect itself, in pictures"), ("random", "random numbers")]
    bars = [(name, words) for name, words in candidates if summary.row(name, effect) is not None]
    figure = Figure(figsize=(8, 0.42 * len(bars) + 1.5), layout="constrained")
    axes = figure.subplots()
    for place, (name, _) in enumerate(reversed(bars)):
        raw, left = (summary.row(name, effect, statistic) for statistic in ("spearman", GIVEN_BOTH))
        if raw is not None:
            axes.barh(place + 0.17, raw.estimate.value, 0.32, color=MIDDLE, label="as it is" if place == 0 else None)
            axes.plot([raw.estimate.low, raw.estimate.high], [place + 0.17] * 2, color=DARK, linewidth=1.2)
        if left is not None and name not in (NORM, LAYER):
            axes.barh(place - 0.17, left.estimate.value, 0.32, color=LIGHT, label=None)
            axes.plot([left.estimate.low, left.estimate.high], [place - 0.17] * 2, color=DARK, linewidth=1.2)
    axes.barh(0, 0, color=LIGHT, label="with size and layer held fixed")
    axes.axvline(0, color=DARK, linewidth=0.8)
    axes.set_yticks(range(len(bars)), [words for _, words in reversed(bars)], fontsize=9)
    axes.set_xlabel("0: tells nothing of a head's importance; 1: tells it perfectly (rank correlation)", fontsize=9)
    axes.set_title(
        f"How well does each score tell how far ablating a head moves the embedding?\n"
        f"{_size(summary)}, {effect.ablation} ablation; lines: 95 % intervals",
        fontsize=9,
        loc="left",
    )
    axes.legend(loc="best", fontsize=8, frameon=False)
    plain_axes(axes, label_size=8)
    return figure


def _place(row: Row) -> float:
    """Sort key of a score; undefined scores come last."""
    value = row.estimate.value
    return value if np.isfinite(value) else -2.0


def _marked(rows: Mapping[tuple[str, str], Row], name: str) -> bool:
    return rows[name, "spearman"].by_construction


def _mean(rows: Sequence[Mapping[str, Any]], site: str, name: str) -> float:
    return float(np.mean([row[name] for row in rows if row["site"] == site]))


def _counted(summary: ImportanceSummary, effect: Effect) -> int:
    """Number of pictures that count for an effect: towards labels, those that the encoder recognises."""
    return summary.n_counted if effect.target == TEXT and summary.n_recognised >= 0 else summary.n_pictures


def _size(summary: ImportanceSummary, effect: Effect | None = None) -> str:
    """Size of the study, or of the part of it that counts for an effect."""
    named = f"{summary.setup.model}: " if summary.setup.model else ""
    if effect is not None and (counted := _counted(summary, effect)) < summary.n_pictures:
        return f"{named}{counted} recognised pictures of {summary.n_pictures}, {summary.n_heads} heads"
    return f"{named}{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_heads} heads"
