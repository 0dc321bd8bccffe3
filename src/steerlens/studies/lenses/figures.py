"""Figures of the study of candidate lenses, drawn from its summary and its stored pictures."""

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlens.sites import Site
from steerlens.studies.lenses.measure import PicturesPart
from steerlens.studies.lenses.results import LensesSummary
from steerlens.studies.shared.plots import DARK, LIGHT, MIDDLE, STRONG, draw_estimate, picture_grid, plain_axes
from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.subjects import Subject

_STYLES = {"decoded": (DARK, "o"), "requested": (MIDDLE, "s"), "judged": (STRONG, "^")}


def summary_figures(summary: LensesSummary) -> dict[str, Figure]:
    """Draws the figures that need no more than the summary."""
    return {"scores": scores_figure(summary)}


def scores_figure(summary: LensesSummary) -> Figure:
    """Draws the correlation of each lens with the effects on names, and transfer over the size of the change."""
    figure = Figure(figsize=(9.4, 0.3 * len(summary.rows) + 1.9), layout="constrained")
    panels = 2 if summary.transfer else 1
    scores, *others = figure.subplots(1, panels, width_ratios=(1.4, 1)[:panels], squeeze=False)[0]
    names: list[str] = []
    for place, row in enumerate(reversed(summary.rows)):
        colour, marker = _STYLES[row.view] if row.setting else (STRONG, "x")
        draw_estimate(scores, row.correlation, place, colour, marker)
        names.append(row.label)
    scores.set_yticks(range(len(names)), names)
    scores.axvline(0, color=STRONG, linewidth=0.8, zorder=0)
    scores.set_xlabel("does the head's picture show which names it adds?\n(correlation with ablation)", fontsize=8)
    for axes in others:
        _draw_transfer(axes, summary)
    for axes in (scores, *others):
        axes.grid(color=LIGHT, linewidth=0.3)
        axes.set_axisbelow(True)
    plain_axes(scores, *others)
    warning = caution(summary.n_concepts)
    figure.suptitle(
        f"{summary.model or 'This pair'}: {summary.n_pictures} pictures, {summary.n_studied} heads, {summary.n_names} "
        f"names. Bars: 95 % intervals.{f' {warning.capitalize()}.' if warning else ''}",
        fontsize=9,
    )
    return figure


def _draw_transfer(returned: Axes, summary: LensesSummary) -> None:
    """Draws how much of a requested change decoded pictures return, over its size."""
    for kind, colour, marker, label in (
        ("scene", MIDDLE, "s", "towards another scene"),
        ("head", DARK, "o", "along a head's write"),
    ):
        rows = [row for row in summary.transfer if row.kind == kind]
        for row in rows:
            low, high = row.transfer.low, row.transfer.high
            returned.plot([row.size, row.size], [low, high], color=colour, linewidth=1.2)
        sizes, values = [row.size for row in rows], [row.transfer.value for row in rows]
        returned.plot(sizes, values, marker, color=colour, markersize=5, label=label)
    returned.set_xlabel("size of the requested change\n(1: the distance between two scenes)", fontsize=8)
    returned.set_ylabel("cosine with the change that comes back", fontsize=8)
    returned.set_xlim(left=0)
    returned.set_ylim(min(0.0, returned.get_ylim()[0]), 1)
    returned.legend(fontsize=7, frameon=False)


def pictures_figure(part: PicturesPart, subject: Subject, sites: tuple[Site, ...]) -> Figure:
    """Draws contrast pairs of a few heads, and the real pictures along their changes."""
    rows: list[list[UInt8[np.ndarray, "height width 3"] | None]] = []
    for place, pair in enumerate(part.pairs):
        row: list[UInt8[np.ndarray, "height width 3"] | None] = [None, *pair.numpy()]
        for side in (part.gained, part.lost):
            row += [] if side is None else list(side[place].numpy())
        rows.append(row)
    rows[0][0] = np.asarray(subject.image)
    columns = ["input", "steered\nalong", "steered\nagainst"]
    for side, name in ((part.gained, "near only\nalong"), (part.lost, "near only\nagainst")):
        columns += [] if side is None else [name] + [""] * (side.shape[1] - 1)
    names = [sites[place].label for place in part.heads.tolist()]
    return picture_grid(rows, names, columns, f"{subject.concept}: contrast pairs, and real pictures along the change")
