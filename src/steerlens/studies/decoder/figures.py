"""Figures of the decoder study, drawn from its summary and its stored pictures."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlens.sites import Site
from steerlens.studies.decoder.measure import SeedPicturesPart
from steerlens.studies.decoder.results import DecoderSummary, SettingRow, SettingView
from steerlens.studies.shared.plots import (
    DARK,
    LIGHT,
    MIDDLE,
    PALE,
    draw_curve,
    draw_estimate,
    picture_grid,
    plain_axes,
)
from steerlens.studies.shared.stats import Estimate, caution
from steerlens.studies.shared.subjects import Subject


class _Line(NamedTuple):
    label: str
    colour: str
    marker: str
    dash: str
    view: Callable[[SettingRow], SettingView | None]
    shift: float = 1.0


_OWN = _Line("encoder", DARK, "o", "-", lambda row: row.own)
_JUDGE = _Line("outside judge", MIDDLE, "^", "--", lambda row: row.judged, 1.03)
"""Shifted a little so that intervals do not hide each other."""


def _lines(summary: DecoderSummary) -> tuple[_Line, ...]:
    return (_OWN,) if summary.reference.judged is None else (_OWN, _JUDGE)


def summary_figures(summary: DecoderSummary) -> dict[str, Figure]:
    """Draws the figures that need no more than the summary."""
    return {"steps": steps_figure(summary), "settings": settings_figure(summary)}


def steps_figure(summary: DecoderSummary) -> Figure:
    """Draws rank correlation with the reference, agreement over seeds and fidelity over the number of steps."""
    rows = sorted((row for row in summary.rows if row.axis in ("default", "steps")), key=lambda row: row.steps)
    figure = Figure(figsize=(10.5, 3.7), layout="constrained")
    ranking, agreement, fidelity = figure.subplots(1, 3)
    for line in _lines(summary):
        _draw(ranking, rows, line, lambda view: view.rank_correlation)
        _draw(agreement, rows, line, lambda view: view.agreement)
    ceiling = summary.reference.own.rank_correlation
    ranking.axhspan(ceiling.low, ceiling.high, color=PALE, zorder=0)
    ranking.axhline(
        ceiling.value, color=MIDDLE, linewidth=1, label=f"reference's self-agreement: {summary.reference.steps} steps"
    )
    ranking.axhline(
        summary.wanted * ceiling.value, color=MIDDLE, linewidth=1, linestyle=":", label=f"{summary.wanted:g} of it"
    )
    agreement.axhline(
        summary.default.own.unrelated, color=MIDDLE, linewidth=1, linestyle="-.", label="pictures of different inputs"
    )
    _points(fidelity, [row.steps for row in rows], [row.fidelity for row in rows], _OWN)
    ranking.set_ylabel("rank correlation of heads", fontsize=8)
    agreement.set_ylabel("agreement over seeds (cosine)", fontsize=8)
    fidelity.set_ylabel("fidelity (cosine with the request)", fontsize=8)
    for axes in (ranking, agreement, fidelity):
        axes.set_xscale("log")
        axes.set_xticks([row.steps for row in rows], [str(row.steps) for row in rows])
        axes.minorticks_off()
        axes.set_xlabel("denoising steps", fontsize=8)
        axes.axvline(summary.default.steps, color=LIGHT, linewidth=4, alpha=0.5, zorder=0)
        plain_axes(axes)
    named = {
        label: handle
        for axes in (ranking, agreement)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(named.values()), list(named), fontsize=7, frameon=False, loc="outside lower center", ncols=5)
    figure.suptitle(f"{_size(summary)}\n{_bars(summary)} Broad grey line: the default.", fontsize=9)
    return figure


def settings_figure(summary: DecoderSummary) -> Figure:
    """Draws rank correlation with the reference, agreement over seeds and fidelity of every setting."""
    rows = [*summary.rows, summary.reference]
    figure = Figure(figsize=(10.5, 0.3 * len(rows) + 1.7), layout="constrained")
    ranking, agreement, fidelity = figure.subplots(1, 3, sharey=True, width_ratios=(1.3, 1, 1))
    lines = _lines(summary)
    for place, row in enumerate(reversed(rows)):
        for number, line in enumerate(lines):
            view = line.view(row)
            offset = 0.13 - 0.26 * number if len(lines) > 1 else 0.0
            if view is not None:
                label = line.label if place == 0 else None
                for axes, estimate, name in (
                    (ranking, view.rank_correlation, label),
                    (agreement, view.agreement, None),
                ):
                    draw_estimate(axes, estimate, place + offset, line.colour, line.marker, name, width=1.4)
        draw_estimate(fidelity, row.fidelity, place, _OWN.colour, _OWN.marker, width=1.4)
    ceiling = summary.reference.own.rank_correlation.value
    ranking.axvline(ceiling, color=MIDDLE, linewidth=1, label="reference's self-agreement")
    wanted = summary.wanted * ceiling
    ranking.axvline(wanted, color=MIDDLE, linewidth=1, linestyle=":", label=f"{summary.wanted:g} of it")
    names = [f"{row.name} ({row.passes} passes)" for row in rows]
    names[0] += "  default"
    names[-1] += "  reference"
    ranking.set_yticks(range(len(rows)), list(reversed(names)), fontsize=7)
    ranking.set_xlabel("rank correlation of heads", fontsize=8)
    agreement.set_xlabel("agreement over seeds (cosine)", fontsize=8)
    fidelity.set_xlabel("fidelity (cosine)", fontsize=8)
    plain_axes(ranking, agreement, fidelity)
    figure.legend(*ranking.get_legend_handles_labels(), fontsize=7, frameon=False, loc="outside lower left", ncols=4)
    figure.suptitle(f"{_size(summary)}\n{_bars(summary)}", fontsize=9)
    return figure


def seeds_figure(part: SeedPicturesPart, subject: Subject, heads: Sequence[Site], summary: DecoderSummary) -> Figure:
    """Draws a few heads of one picture with several seeds, at the default setting and as the reference."""
    rows = [
        [None, *default.numpy(), *reference.numpy()]
        for default, reference in zip(part.default, part.reference, strict=True)
    ]
    rows[0][0] = np.asarray(subject.image)
    columns = [
        f"{setting.steps} steps\nseed {seed}"
        for pictures, setting, seeds in (
            (part.default, summary.default, summary.seeds),
            (part.reference, summary.reference, summary.reference_seeds),
        )
        for seed in seeds[: pictures.shape[1]]
    ]
    names = [heads[place].label for place in part.heads.tolist()]
    return picture_grid(rows, names, ["input", *columns], f"{subject.concept}: the same embeddings with other seeds")


def _draw(axes: Axes, rows: Sequence[SettingRow], line: _Line, figure: Callable[[SettingView], Estimate]) -> None:
    measured = [(row.steps, figure(view)) for row in rows if (view := line.view(row)) is not None]
    _points(axes, [steps for steps, _ in measured], [estimate for _, estimate in measured], line)


def _points(axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], line: _Line) -> None:
    shifted = [place * line.shift for place in places]
    draw_curve(axes, shifted, estimates, line.colour, line.dash, line.marker, line.label)


def _size(summary: DecoderSummary) -> str:
    named = f"{summary.model}: " if summary.model else ""
    return (
        f"{named}{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_decoded} of "
        f"{summary.n_heads} heads, {len(summary.seeds)} seeds, {summary.strength}; ranked by "
        f"similarity with the {summary.target}"
    )


def _bars(summary: DecoderSummary) -> str:
    warning = caution(summary.n_concepts)
    return "Bars: 95 % intervals" + (f"; {warning}." if warning else ".")
