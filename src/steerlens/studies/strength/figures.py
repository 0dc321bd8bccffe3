"""Figures of the strength study, drawn from its summary alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from steerlens.sites import Site
from steerlens.studies.shared.caution import caution
from steerlens.studies.shared.drawing import picture_grid
from steerlens.studies.shared.greys import DARK, LIGHT, MIDDLE, STRONG
from steerlens.studies.shared.notions import INPUT
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.subjects import Subject
from steerlens.studies.strength.summary import Point, StrengthSummary
from steerlens.studies.strength.tables import ASKED, ASKED_SAME, DECODED, JUDGED

_ASIDE = 0.025
_AXIS = {"rho": "relative strength rho (share of the final residual)", "s": "factor s (times the head's write)"}


class _Line(NamedTuple):
    label: str
    colour: str
    dash: str
    marker: str
    value: Callable[[Point], Estimate | None]


def sweep_figure(summary: StrengthSummary) -> Figure:
    """Correlation with the effects, fidelity, similarity and typicality over the sweep, with 95 % intervals."""
    kinds = [kind for kind in _AXIS if any(point.kind == kind for point in summary.points)]
    unsigned = next(row.effect for row in summary.correlations if row.effect != summary.main)
    heads = f"{summary.n_decoded} heads"
    panels: list[tuple[str, list[_Line], Mapping[str, Estimate]]] = [
        (f"correlation with the\nsigned effect ({heads})", _correlations(summary, summary.main), {}),
        (f"correlation with the\nunsigned effect ({heads})", _correlations(summary, unsigned), {}),
        (
            f"cosine of decoded\npictures ({heads}) with",
            _cosines(summary),
            {"clean pictures' fidelity": summary.clean_fidelity},
        ),
        (
            f"percentile among\nreal embeddings\n({summary.n_heads} heads)",
            [
                _Line("nearest neighbour", DARK, "-", "o", lambda point: point.typicality["nearest"].percentile),
                _Line("Mahalanobis", MIDDLE, "--", "s", lambda point: point.typicality["mahalanobis"].percentile),
            ],
            {"clean embeddings (nearest)": summary.clean_typicality["nearest"].percentile},
        ),
    ]
    figure = Figure(figsize=(3.6 * len(kinds) + 1.9, 8.6), layout="constrained")
    grid = figure.subplots(len(panels), len(kinds), sharey="row", sharex="col", squeeze=False)
    for row, (label, lines, levels) in enumerate(panels):
        for column, kind in enumerate(kinds):
            axes: Axes = grid[row, column]
            points = sorted((point for point in summary.points if point.kind == kind), key=lambda point: point.value)
            for number, line in enumerate(lines):
                _draw(axes, points, line, number - (len(lines) - 1) / 2)
            for name, level in levels.items():
                axes.axhline(level.value, color=STRONG, linestyle=":", linewidth=1.2, label=name)
            _dress(axes, points, summary)
        grid[row, 0].set_ylabel(label, fontsize=8)
        handles, names = grid[row, 0].get_legend_handles_labels()
        grid[row, -1].legend(
            handles, names, fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), borderaxespad=0.2
        )
    for column, kind in enumerate(kinds):
        grid[-1, column].set_xlabel(_AXIS[kind], fontsize=8)
    figure.suptitle(
        f"{_size(summary)}\nSigned effect: {summary.main}. Bars: 95 % intervals. Broad grey line: recommended."
        f"{_warned(summary)}\n"
        "Upper two rows: similarity of the picture, or of the embedding asked for, with the input or the target.",
        fontsize=9,
    )
    return figure


def _correlations(summary: StrengthSummary, effect: str) -> list[_Line]:
    found = {
        (row.strength, row.score, row.compare): row.estimate
        for row in summary.correlations
        if row.effect == effect and row.statistic == "spearman"
    }

    def line(score: str, compare: str, colour: str, dash: str, marker: str) -> _Line:
        words = f"{'not decoded' if score == asked else score}, with the {compare}"
        return _Line(words, colour, dash, marker, lambda point: found.get((point.strength, score, compare)))

    # The same heads on both sides: a correlation over others would be another number for no fault of the decoder.
    asked = ASKED_SAME if summary.n_decoded < summary.n_heads else ASKED
    lines = [
        line(DECODED, summary.target, DARK, "-", "o"),
        line(asked, summary.target, DARK, ":", "."),
        line(DECODED, INPUT, MIDDLE, "-", "s"),
        line(asked, INPUT, MIDDLE, ":", "x"),
    ]
    judged = any(row.score == JUDGED for row in summary.correlations)
    return [*lines, line(JUDGED, INPUT, STRONG, "--", "^")] if judged else lines


def _cosines(summary: StrengthSummary) -> list[_Line]:
    target = summary.target
    return [
        _Line("what was asked for (fidelity)", DARK, "-", "o", lambda point: point.fidelity),
        _Line("the input", MIDDLE, "-", "s", lambda point: point.similarity[DECODED][INPUT]),
        _Line(f"the target ({target})", MIDDLE, "--", "^", lambda point: point.similarity[DECODED][target]),
    ]


def _draw(axes: Axes, points: Sequence[Point], line: _Line, aside: float) -> None:
    # Set off a little, lest intervals hide one another; strengths lie on a logarithmic axis.
    shown = [
        (point.value * (1 + _ASIDE * aside), estimate)
        for point in points
        if (estimate := line.value(point)) is not None
    ]
    for place, estimate in shown:
        axes.plot([place, place], [estimate.low, estimate.high], color=line.colour, linewidth=0.8, alpha=0.6)
    axes.plot(
        [place for place, _ in shown],
        [estimate.value for _, estimate in shown],
        color=line.colour,
        linestyle=line.dash,
        marker=line.marker,
        markersize=4.5,
        linewidth=1.4,
        label=line.label,
    )


def _dress(axes: Axes, points: Sequence[Point], summary: StrengthSummary) -> None:
    values = [point.value for point in points]
    if min(values) > 0:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    if low < 0 < high:
        axes.axhline(0, color=LIGHT, linewidth=0.8, zorder=0)
    for point in points:
        if point.strength == summary.recommendation.strength:
            axes.axvline(point.value, color=LIGHT, linewidth=4, alpha=0.5, zorder=0)


def choice_figure(summary: StrengthSummary) -> Figure:
    """The rule at work: every strength where it was chosen, and what it comes to on other concepts."""
    rule = summary.recommendation
    reported = {
        row.strength: row.estimate
        for row in summary.correlations
        if (row.score, row.compare, row.effect, row.statistic) == (DECODED, summary.target, summary.main, "spearman")
    }
    names = list(rule.candidates)[::-1]
    figure = Figure(figsize=(8.4, 0.36 * len(names) + 1.9), layout="constrained")
    axes, fidelity, atypical = figure.subplots(1, 3, sharey=True, width_ratios=(2.2, 1, 1))
    for place, name in enumerate(names):
        candidate, estimate = rule.candidates[name], reported[name]
        fill = DARK if candidate.within else "white"
        axes.plot([estimate.low, estimate.high], [place - 0.14] * 2, color=MIDDLE, linewidth=1.6)
        labels = ("where chosen (hollow: outside the bounds)", "on other concepts, 95 % interval")
        chosen_label, reported_label = labels if place == 0 else (None, None)
        axes.plot(estimate.value, place - 0.14, "s", color=MIDDLE, markersize=4.5, label=reported_label)
        axes.plot(
            candidate.correlation,
            place + 0.14,
            "o",
            color=DARK,
            markerfacecolor=fill,
            markersize=5.5,
            label=chosen_label,
        )
        fidelity.plot(candidate.fidelity, place, "o", color=DARK, markerfacecolor=fill, markersize=5)
        atypical.plot(candidate.atypical, place, "o", color=DARK, markerfacecolor=fill, markersize=5)
    axes.axvline(0, color=LIGHT, linewidth=0.8, zorder=0)
    words = [f"{name}  (recommended)" if name == rule.strength else name for name in names]
    axes.set_yticks(range(len(names)), words, fontsize=8)
    axes.set_xlabel("Spearman correlation with the signed effect", fontsize=8)
    fidelity.set_xlabel("fidelity, share of the clean", fontsize=8)
    atypical.set_xlabel("share of atypical embeddings", fontsize=8)
    for one, bound in ((fidelity, rule.bounds.fidelity), (atypical, rule.bounds.atypical)):
        one.axvline(bound, color=STRONG, linestyle=":", linewidth=1.2)
        one.set_xlim(-0.06, 1.06)
    for one in (axes, fidelity, atypical):
        one.tick_params(axis="x", labelsize=7)
        one.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside lower left", ncols=2)
    figure.suptitle(
        f"Chosen on {summary.n_chosen} pictures, reported on {_size(summary)}.\n"
        f"Effect: {summary.main}. Dotted: the rule's bounds.{_warned(summary)}",
        fontsize=8,
    )
    return figure


def pictures_figure(
    part: Mapping[str, Tensor], subject: Subject, sites: Sequence[Site], strengths: Sequence[str]
) -> Figure:
    """What the decoder shows of a few heads of one picture at every strength."""
    heads = [sites[place].label for place in part["heads"].tolist()]
    rows = [[None, part["clean"].numpy(), *shown.numpy()] for shown in part["shown"]]
    rows[0][0] = np.asarray(subject.image)
    title = f"{subject.concept}: single heads, steered harder and harder"
    return picture_grid(rows, heads, ["input", "unsteered", *strengths], title)


def _size(summary: StrengthSummary) -> str:
    heads = f"{summary.n_heads} heads"
    if summary.n_decoded < summary.n_heads:
        heads += f", {summary.n_decoded} of them decoded"
    seeds = "1 seed" if summary.n_seeds == 1 else f"{summary.n_seeds} seeds"
    return f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {heads}, {seeds}"


def _warned(summary: StrengthSummary) -> str:
    warned = caution(min(summary.n_concepts, summary.n_chosen_concepts))
    return f" {warned.capitalize()}." if warned else ""
