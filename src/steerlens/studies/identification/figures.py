"""Figures of the identification study, drawn from its summary and its stored pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from steerlens.sites import Site
from steerlens.studies.identification.conclusion import BAR, CHANCE, lens_words
from steerlens.studies.identification.measure import DIFFUSION, PicturesPart, shown_rows
from steerlens.studies.identification.results import VIEW_WORDS, IdentificationSummary
from steerlens.studies.identification.scores import STEERING, STEERING_NEUTRAL
from steerlens.studies.shared.plots import (
    DARK,
    LIGHT,
    MIDDLE,
    STRONG,
    draw_curve,
    draw_estimate,
    picture_grid,
    plain_axes,
)
from steerlens.studies.shared.stats import Estimate, caution
from steerlens.studies.shared.subjects import Subject

_STYLES = {
    (STEERING, "decoded"): (DARK, "-", "o"),
    (STEERING, "requested"): (DARK, ":", "."),
    (DIFFUSION, "decoded"): (MIDDLE, "-", "s"),
    (DIFFUSION, "requested"): (MIDDLE, ":", "x"),
}


def summary_figures(summary: IdentificationSummary) -> dict[str, Figure]:
    """Draws the figures that need no more than the summary."""
    return {"shares": shares_figure(summary)}


def shares_figure(summary: IdentificationSummary) -> Figure:
    """Draws how often the own write is closer to the input, over all heads and by layer."""
    figure = Figure(figsize=(9.4, 3.9), layout="constrained")
    overall, by_layer = figure.subplots(1, 2, width_ratios=(1.15, 1))
    bars: list[tuple[str, Estimate, str, str]] = []
    for lens in (STEERING, STEERING_NEUTRAL, DIFFUSION):
        for view in ("decoded", "requested"):
            row = summary.row(lens, view)
            if row is not None:
                colour, marker = (DARK, "o") if view == "decoded" else (MIDDLE, "s")
                bars.append((f"{lens_words(lens)}, {VIEW_WORDS[view]}", row.share, colour, marker))
    random = summary.main.foil_against_random
    if random is not None:
        control = "control: another picture's write\ncloser than a random direction"
        bars.append((f"{control}, {VIEW_WORDS[summary.main_view]}", random, STRONG, "^"))
    for place, (_, estimate, colour, marker) in enumerate(reversed(bars)):
        draw_estimate(overall, _percent(estimate), place, colour, marker)
        overall.text(100 * estimate.value, place + 0.2, f"{estimate.value:.0%}", fontsize=7, ha="center", color=colour)
    overall.set_yticks(range(len(bars)), [name for name, *_ in reversed(bars)], fontsize=7.5)
    overall.set_ylim(-0.6, len(bars) - 0.3)
    overall.axvline(100 * CHANCE, color=STRONG, linestyle="--", linewidth=1)
    overall.axvline(100 * BAR, color=STRONG, linestyle=":", linewidth=1)
    overall.set_xlabel(
        "own write closer to the input, % of comparisons\n(dashed: guessing; dotted: the bar)", fontsize=8
    )
    for (lens, view), (colour, dash, marker) in _STYLES.items():
        row = summary.row(lens, view)
        if row is not None:
            label = f"{lens_words(lens)}, {VIEW_WORDS[view]}"
            draw_curve(by_layer, summary.layers, [*map(_percent, row.by_layer)], colour, dash, marker, label)
    by_layer.axhline(100 * CHANCE, color=STRONG, linestyle="--", linewidth=1)
    by_layer.axhline(100 * BAR, color=STRONG, linestyle=":", linewidth=1)
    by_layer.set_xlabel("layer of the head", fontsize=8)
    by_layer.set_ylabel("own write closer to the input, %", fontsize=8)
    by_layer.legend(fontsize=6.5, frameon=False, loc="upper left", bbox_to_anchor=(-0.1, -0.16), ncols=2)
    for axes, low in ((overall, overall.get_xlim()[0]), (by_layer, by_layer.get_ylim()[0])):
        axes.grid(color=LIGHT, linewidth=0.3)
        axes.set_axisbelow(True)
        (axes.set_xlim if axes is overall else axes.set_ylim)(min(low, 45), 102)
    plain_axes(overall, by_layer)
    overall.tick_params(axis="y", labelsize=7.5)
    warning = caution(summary.n_concepts)
    figure.suptitle(
        f"{summary.model or 'This pair'}: a head's picture, and the same head's picture with its write for another "
        f"input. Which is closer to the input?\n{summary.n_pictures} pictures, {summary.n_studied} heads, "
        f"{summary.strength}. Bars: 95 % intervals.{f' {warning.capitalize()}.' if warning else ''}",
        fontsize=9,
    )
    return figure


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def pictures_figure(
    part: PicturesPart, subjects: Sequence[Subject], foils: Sequence[Sequence[int]], sites: Sequence[Site]
) -> Figure:
    """Draws a few heads, each of another input: steered with the own write, another picture's, and at random."""
    rows = shown_rows(len(subjects), len(sites))
    pictures = [
        [
            np.asarray(subjects[place].image),
            *shown.numpy(),
            np.asarray(subjects[foils[place][0]].image),
        ]
        for (place, _), shown in zip(rows, part.shown, strict=True)
    ]
    names = [sites[head].label for _, head in rows]
    columns = ["input", "steered with\nits own write", "with the write\nfor that picture", "with a random\ndirection"]
    title = "Is the second closer to the input than the third?"
    return picture_grid(pictures, names, [*columns, "that picture"], title)
