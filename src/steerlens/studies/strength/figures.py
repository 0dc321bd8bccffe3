"""Figures of the strength study, drawn from its summary and its stored pictures."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlens.sites import Site
from steerlens.studies.shared.effects import Effect
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
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.strength.measure import SweepPicturesPart
from steerlens.studies.strength.results import StrengthSummary, SweepPoint
from steerlens.studies.strength.scores import DECODED, JUDGED, MAHALANOBIS, NEAREST, UNDECODED, UNDECODED_SAME

_SHIFT = 0.025
_AXIS = {"rho": "relative strength rho (share of the final residual)", "s": "factor s (times the head's write)"}


class _Line(NamedTuple):
    label: str
    colour: str
    dash: str
    marker: str
    value: Callable[[SweepPoint], Estimate | None]


def summary_figures(summary: StrengthSummary) -> dict[str, Figure]:
    """Draws the figures that need no more than the summary."""
    return {"sweep": sweep_figure(summary), "choice": choice_figure(summary)}


def sweep_figure(summary: StrengthSummary) -> Figure:
    """Draws correlations with the effects, fidelity, similarity and typicality over the sweep."""
    kinds = [kind for kind in _AXIS if any(point.kind == kind for point in summary.points)]
    unsigned = summary.main.unsigned
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
                _Line("nearest neighbour", DARK, "-", "o", lambda point: point.typicality[NEAREST].percentile),
                _Line("Mahalanobis", MIDDLE, "--", "s", lambda point: point.typicality[MAHALANOBIS].percentile),
            ],
            {"clean embeddings (nearest)": summary.clean_typicality[NEAREST].percentile},
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
        f"{_warning(summary)}\n"
        "Upper two rows: similarity of the picture, or of the requested embedding, with the input or the target.",
        fontsize=9,
    )
    return figure


def _correlations(summary: StrengthSummary, effect: Effect) -> list[_Line]:
    # The same heads on both sides, so that only the decoder makes a difference.
    undecoded = UNDECODED_SAME if summary.n_decoded < summary.n_heads else UNDECODED

    def line(score: str, compare: str, colour: str, dash: str, marker: str) -> _Line:
        label = f"{UNDECODED if score == undecoded else score}, with the {compare}"

        def value(point: SweepPoint) -> Estimate | None:
            return summary.correlation(point.strength, score, compare, effect, "spearman")

        return _Line(label, colour, dash, marker, value)

    lines = [
        line(DECODED, summary.target, DARK, "-", "o"),
        line(undecoded, summary.target, DARK, ":", "."),
        line(DECODED, INPUT, MIDDLE, "-", "s"),
        line(undecoded, INPUT, MIDDLE, ":", "x"),
    ]
    judged = any(row.score == JUDGED for row in summary.correlations)
    return [*lines, line(JUDGED, INPUT, STRONG, "--", "^")] if judged else lines


def _cosines(summary: StrengthSummary) -> list[_Line]:
    target = summary.target
    return [
        _Line("the request (fidelity)", DARK, "-", "o", lambda point: point.fidelity),
        _Line("the input", MIDDLE, "-", "s", lambda point: point.similarity[DECODED][INPUT]),
        _Line(f"the target ({target})", MIDDLE, "--", "^", lambda point: point.similarity[DECODED][target]),
    ]


def _draw(axes: Axes, points: Sequence[SweepPoint], line: _Line, offset: float) -> None:
    # Shifted a little so that intervals do not hide each other; strengths lie on a logarithmic axis.
    measured = [
        (point.value * (1 + _SHIFT * offset), estimate)
        for point in points
        if (estimate := line.value(point)) is not None
    ]
    places, estimates = [place for place, _ in measured], [estimate for _, estimate in measured]
    draw_curve(axes, places, estimates, line.colour, line.dash, line.marker, line.label)


def _dress(axes: Axes, points: Sequence[SweepPoint], summary: StrengthSummary) -> None:
    values = [point.value for point in points]
    if min(values) > 0:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    plain_axes(axes)
    low, high = axes.get_ylim()
    if low < 0 < high:
        axes.axhline(0, color=LIGHT, linewidth=0.8, zorder=0)
    for point in points:
        if point.strength == summary.recommendation.strength:
            axes.axvline(point.value, color=LIGHT, linewidth=4, alpha=0.5, zorder=0)


def choice_figure(summary: StrengthSummary) -> Figure:
    """Draws the rule applied: every strength on the selection, and on the concepts to report on."""
    rule = summary.recommendation
    names = list(rule.candidates)[::-1]
    figure = Figure(figsize=(8.4, 0.36 * len(names) + 1.9), layout="constrained")
    axes, fidelity, atypical = figure.subplots(1, 3, sharey=True, width_ratios=(2.2, 1, 1))
    for place, name in enumerate(names):
        candidate = rule.candidates[name]
        estimate = summary.correlation(name, DECODED, summary.target, summary.main, "spearman")
        fill = DARK if candidate.within else "white"
        labels = ("on the selection (hollow: outside the bounds)", "on other concepts, 95 % interval")
        selection_label, reported_label = labels if place == 0 else (None, None)
        if estimate is not None:
            draw_estimate(axes, estimate, place - 0.14, MIDDLE, "s", reported_label)
        axes.plot(
            candidate.correlation,
            place + 0.14,
            "o",
            color=DARK,
            markerfacecolor=fill,
            markersize=5.5,
            label=selection_label,
        )
        fidelity.plot(candidate.fidelity, place, "o", color=DARK, markerfacecolor=fill, markersize=5)
        atypical.plot(candidate.atypical, place, "o", color=DARK, markerfacecolor=fill, markersize=5)
    axes.axvline(0, color=LIGHT, linewidth=0.8, zorder=0)
    labels = [f"{name}  (recommended)" if name == rule.strength else name for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_xlabel("Spearman correlation with the signed effect", fontsize=8)
    fidelity.set_xlabel("fidelity, share of clean", fontsize=8)
    atypical.set_xlabel("share of atypical embeddings", fontsize=8)
    for panel, bound in ((fidelity, rule.bounds.fidelity), (atypical, rule.bounds.atypical)):
        panel.axvline(bound, color=STRONG, linestyle=":", linewidth=1.2)
        panel.set_xlim(-0.06, 1.06)
    for panel in (axes, fidelity, atypical):
        panel.tick_params(axis="x", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside lower left", ncols=2)
    figure.suptitle(
        f"{_size(summary)}. The strength was chosen on {summary.n_selection} other pictures.\n"
        f"Effect: {summary.main}. Dotted: the rule's bounds.{_warning(summary)}",
        fontsize=8,
    )
    return figure


def pictures_figure(
    part: SweepPicturesPart, subject: Subject, sites: Sequence[Site], strengths: Sequence[str]
) -> Figure:
    """Draws decoded pictures of a few heads of one picture at every strength."""
    heads = [sites[place].label for place in part.heads.tolist()]
    rows = [[None, part.clean.numpy(), *shown.numpy()] for shown in part.shown]
    rows[0][0] = np.asarray(subject.image)
    title = f"{subject.concept}: single heads at increasing strength"
    return picture_grid(rows, heads, ["input", "unsteered", *strengths], title)


def _size(summary: StrengthSummary) -> str:
    heads = f"{summary.n_heads} heads"
    if summary.n_decoded < summary.n_heads:
        heads += f", {summary.n_decoded} of them decoded"
    seeds = "1 seed" if summary.n_seeds == 1 else f"{summary.n_seeds} seeds"
    named = f"{summary.model}: " if summary.model else ""
    return f"{named}{summary.n_pictures} pictures of {summary.n_concepts} concepts, {heads}, {seeds}"


def _warning(summary: StrengthSummary) -> str:
    warning = caution(min(summary.n_concepts, summary.n_selection_concepts))
    return f" {warning.capitalize()}." if warning else ""
