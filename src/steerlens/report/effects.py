"""Figure of direct and total effects side by side, with what the model would see without each component."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from steerlens.atlas import Atlas, LensName, SiteScore
from steerlens.errors import UsageError
from steerlens.report.seen import seen_picture
from steerlens.report.sheet import clipped, heading, lay_captions, lay_tile, sheet_over
from steerlens.report.terms import TOP_K, target_words, two
from steerlens.sites import Site

_WIDTH = 7.0
"""Inches: the text width of most papers."""

_ROWS: tuple[tuple[LensName, str], ...] = (
    ("steering", "Direct: the component is amplified, everything after it is frozen"),
    (
        "total",
        "Total: amplified in the real forward pass, everything after it reacts; cosine with direct, and of changes",
    ),
    ("ablation", "Without it: the component is removed from the real forward pass; compare with the clean picture"),
)

_BELOW = 0.56
"""Inches below a picture, for its caption."""


def compared_sites(atlas: Atlas, picture: str, k: int = TOP_K) -> tuple[Site, ...]:
    """The k heads whose total effects are closest to the target; in a run without heads, its first other components."""
    heads = tuple(score.site for score in atlas.ranked("total", picture, k=k))
    return heads or atlas.sites("total", picture)[:k]


def effect_comparison(atlas: Atlas, picture: str | None = None, *, k: int = TOP_K) -> Figure:
    """Direct effect, total effect and ablation of the same components, one below the other.

    Args:
        atlas: the run.
        picture: id or name of the input; by default the first.
        k: most components.

    Raises:
        UsageError: if the run shows no total effect.
    """
    reading = atlas.reading(picture)
    sites = compared_sites(atlas, reading.id, k)
    rows: list[tuple[LensName, str]] = [
        (lens, title) for lens, title in _ROWS if any(atlas.cells(lens, site, reading.id) for site in sites)
    ]
    if not sites or not rows:
        raise UsageError("this run shows no total effect to compare with the direct one (--effect direct,total).")
    cell = _WIDTH / (k + 2)
    each = 0.3 + cell + _BELOW
    figure = Figure(figsize=(_WIDTH, each * len(rows)), facecolor="white")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    target = clipped(target_words(reading), 40)
    for number, (part, (lens, title)) in enumerate(zip(parts, rows, strict=True)):
        sheet = sheet_over(part)
        heading(part, f"{title}; similarity with {target}" if number == 0 else title)
        columns: list[tuple[Any, Sequence[str]] | None] = [(seen_picture(atlas, reading), ("input",)), None]
        if clean := atlas.clean(reading.id):
            lines = ("clean", f"sim. {two(clean[0].similarity)}", f"fid. {two(clean[0].fidelity)}")
            columns[1] = (clean[0].picture, lines)
        columns += [_tile(atlas, lens, site, reading.id) for site in sites]
        for index, tile in enumerate(columns):
            if tile is not None:  # a component keeps its column, also where one lens decoded it and another did not
                left, side = index * cell + 0.03, cell - 0.06
                bottom = each - 0.3 - side
                lay_tile(sheet, tile[0], left, bottom, side)
                lay_captions(sheet, tile[1], left, bottom - 0.035, size=6)
    return figure


def _tile(atlas: Atlas, lens: LensName, site: Site, picture: str) -> tuple[Any, Sequence[str]] | None:
    results = atlas.cells(lens, site, picture)
    return (results[0].picture, _lines(atlas.score(lens, site, picture))) if results else None


def _lines(score: SiteScore) -> Sequence[str]:
    apart = [] if score.direct_cosine is None else [f"cosine {two(score.direct_cosine)}"]
    changes = [] if score.change_cosine is None else [f"changes {two(score.change_cosine)}"]
    control = [] if score.control is None else [f"control {two(score.control)}"]
    return (score.site.label, f"sim. {two(score.similarity)}", *control, *apart, *changes)
