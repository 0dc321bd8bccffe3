"""Publication figures of an atlas, drawn with Matplotlib without pyplot's global state.

Similarities have one scale for the whole run. Decoded pictures are shown unchanged. Text stays text in SVG files.
"""

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure

from steerlens.atlas import CONTROLS, Atlas, LensName, Reading, SiteScore
from steerlens.errors import UsageError
from steerlens.printable import printable
from steerlens.report.citing import made_by
from steerlens.report.colours import SEQUENTIAL
from steerlens.report.effects import effect_comparison
from steerlens.report.scales import similarity_scale
from steerlens.report.seen import seen_picture
from steerlens.report.sheet import (
    ACCENT,
    DPI,
    INK,
    QUIET,
    RULE,
    Canvas,
    clipped,
    heading,
    lay_captions,
    lay_tile,
    plain_frame,
    sheet_over,
    size_of,
    text_at,
)
from steerlens.report.terms import LENSES, STRONG, TOP_K, is_strong, lens_names, steered_lens, target_words, two
from steerlens.report.unit_figures import unit_grid
from steerlens.report.words import words
from steerlens.sites import Site
from steerlens.storage import OwnedFolder, safe_name

WIDTH = 7.0
"""Inches: the text width of most papers."""

_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "steerlens", "font.family": "DejaVu Sans"}


def layer_strip(atlas: Atlas, picture: str | None = None, *, columns: int = 13) -> Figure:
    """The Diffusion Lens on the residual stream, layer after layer (the paper's Fig. 2).

    Args:
        atlas: the run.
        picture: id or name of the input; by default the first.
        columns: most pictures in a row.

    Raises:
        UsageError: if the run has no picture of the residual stream.
    """
    reading = atlas.reading(picture)
    rows, columns = _rows_and_columns(len(_layers(atlas, reading)) + 1, columns)
    figure = _figure(WIDTH, _strip_height(WIDTH, rows, columns, reading))
    _draw_strip(figure, atlas, reading, columns)
    return figure


def score_map(atlas: Atlas, picture: str | None = None, *, lenses: Sequence[LensName] | None = None) -> Figure:
    """Similarity with the target of every head under each lens, layers along the horizontal axis.

    A dot marks a head that beats its control under the Steering Lens, a ring a head that beats at least 95 % of all
    controls; crosses mark heads that the run did not look at.

    Raises:
        UsageError: if the run looked at no head.
    """
    reading = atlas.reading(picture)
    chosen = _with_heads(atlas, reading, lenses or lens_names(atlas))
    L, H = atlas.encoder.n_layers, atlas.encoder.n_heads
    beside = L < 24 and len(chosen) > 1
    width = WIDTH * (0.8 / len(chosen) if beside else 0.84)
    panel = min(2.6, max(0.9, width / L * H))
    figure = _figure(WIDTH, 0.95 + panel if beside else 0.5 + (panel + 0.5) * len(chosen))
    _draw_map(figure, atlas, reading, chosen, side_by_side=beside)
    return figure


def top_grid(atlas: Atlas, picture: str | None = None, *, lens: LensName = "steering", k: int = TOP_K) -> Figure:
    """The k heads whose decoded pictures are most similar to the target under one lens (the paper's Figs. 3 and 4).

    Raises:
        UsageError: if the run looked at no head under this lens.
    """
    reading = atlas.reading(picture)
    _with_heads(atlas, reading, (lens,))
    figure = _figure(WIDTH, WIDTH / (k + 2) + 0.8)
    _draw_top(figure, atlas, reading, lens, k)
    return figure


def lens_comparison(atlas: Atlas, picture: str | None = None, *, k: int = TOP_K) -> Figure:
    """`top_grid` of every lens of the run, one below the other.

    Raises:
        UsageError: if the run looked at no head.
    """
    reading = atlas.reading(picture)
    lenses = _with_heads(atlas, reading, lens_names(atlas))
    figure = _figure(WIDTH, (WIDTH / (k + 2) + 0.8) * len(lenses))
    for part, lens in zip(_stack(figure, [1.0] * len(lenses)), lenses, strict=True):
        _draw_top(part, atlas, reading, lens, k)
    return figure


def control_plot(atlas: Atlas, picture: str | None = None) -> Figure:
    """Every head's steered similarity against that of its own control; heads above the line beat their control.

    The Steering Lens, or the Total Lens of a run without it.

    Raises:
        UsageError: if the run has no controls of heads.
    """
    reading = atlas.reading(picture)
    lens = steered_lens(atlas)
    scores = [score for score in atlas.ranked(lens, reading.id) if score.control is not None]
    if not scores:
        raise UsageError("this run has no controls of heads to draw.")
    figure = _figure(3.5, 3.5)
    axes = figure.add_axes((0.17, 0.15, 0.78, 0.76))
    x, y = [np.array([getattr(score, name) for score in scores], dtype=float) for name in ("control", "similarity")]
    low, high = similarity_scale(atlas, lens_names(atlas))
    low, high = min(low, float(x.min())), max(high, float(x.max()))
    axes.plot([low, high], [low, high], color=QUIET, linewidth=0.8, zorder=1)
    strong = np.array([is_strong(atlas, score) for score in scores])
    axes.scatter(x[~strong], y[~strong], s=11, facecolor="white", edgecolor=INK, linewidth=0.7, zorder=2)
    axes.scatter(x[strong], y[strong], s=16, facecolor=ACCENT, edgecolor=INK, linewidth=0.7, zorder=3)
    for score in scores[:3]:
        text_at(axes, score.control or 0, score.similarity, f" {score.site.label}", size=6, va="center")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_xlabel(f"similarity of the control with {clipped(target_words(reading), 40)}", fontsize=7, color=INK)
    axes.set_ylabel(f"similarity of the head with {clipped(target_words(reading), 40)}", fontsize=7, color=INK)
    beaten = sum(bool(score.beats_control) for score in scores)
    axes.set_title(f"{beaten} of {len(scores)} heads beat their own control", fontsize=7, color=INK, loc="left")
    if strong.any():
        note = f"filled: beat {100 * STRONG:g} % of all controls"
        axes.annotate(note, (0.98, 0.03), xycoords="axes fraction", fontsize=6, color=QUIET, ha="right")
    plain_frame(axes)
    return figure


def overview(atlas: Atlas, picture: str | None = None) -> Figure:
    """Layer strip, top heads of each lens and map of scores on one sheet, for a README or a talk.

    Raises:
        UsageError: if the run has none of these.
    """
    reading = atlas.reading(picture)
    parts: list[tuple[float, Callable[[SubFigure], None]]] = []
    if sum(site.kind == "resid_post" for site in atlas.sites("diffusion", reading.id)) > 1:
        rows, columns = _rows_and_columns(len(_layers(atlas, reading)) + 1, 13)
        strip = partial(_draw_strip, atlas=atlas, reading=reading, columns=columns)
        parts.append((_strip_height(9, rows, columns, reading), strip))
    lenses: list[LensName] = [lens for lens in lens_names(atlas) if atlas.ranked(lens, reading.id, k=1)]
    top = 9 / (TOP_K + 2) + 0.7
    parts.extend((top, partial(_draw_top, atlas=atlas, reading=reading, lens=lens, k=TOP_K)) for lens in lenses)
    if lenses:
        panel = min(3.4, max(1.0, 0.84 / len(lenses) * 9 / atlas.encoder.n_layers * atlas.encoder.n_heads))
        parts.append((panel + 1.0, lambda part: _draw_map(part, atlas, reading, lenses, side_by_side=True)))
    if not parts:
        raise UsageError("this run has neither layers nor heads to draw.")
    figure = _figure(9, sum(height for height, _ in parts))
    for subfigure, (_, draw) in zip(_stack(figure, [height for height, _ in parts]), parts, strict=True):
        draw(subfigure)
    return figure


def save_figures(atlas: Atlas, folder: Path) -> list[Path]:
    """Draws every figure that the run has data for, for every input, as PNG and SVG; returns the files.

    Raises:
        StoreError: if a file cannot be written.
    """
    drawn: Mapping[str, Callable[[Atlas, str], Figure]] = {
        "overview": overview,
        "layers": layer_strip,
        "map": score_map,
        "heads": lens_comparison,
        "controls": control_plot,
        "effects": effect_comparison,
        "features": unit_grid,
    }
    written, own = list[Path](), OwnedFolder(folder)
    made = made_by(atlas.manifest, atlas.encoder.name)
    for index, reading in enumerate(atlas.readings):
        stem = "" if len(atlas.readings) == 1 else f"{index:02d}-{safe_name(reading.picture.name)[:40]}-"
        for name, draw in drawn.items():
            try:
                figure = draw(atlas, reading.id)
            except UsageError:
                continue  # the run has no data for this figure
            for kind in ("png", "svg"):
                written.append(own.write(render(figure, kind, made=made), f"{stem}{name}.{kind}"))
    return written


def render(figure: Figure, kind: str = "png", *, dpi: int = DPI, made: Mapping[str, str] | None = None) -> bytes:
    """Renders a figure as the bytes of a `png` or `svg` file; equal figures give equal bytes.

    Args:
        figure: the figure.
        kind: `png` or `svg`.
        dpi: pixels per inch of a png.
        made: what made it (`made_by`), for the file's metadata.
    """
    description = "; ".join(f"{name}: {value}" for name, value in (made or {}).items())
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        if kind == "svg":
            FigureCanvasSVG(figure).print_svg(
                buffer, metadata={"Date": None, "Creator": "steerlens", **_described(description)}
            )
        else:
            figure.set_dpi(dpi)
            FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "steerlens", **_described(description)})
    return buffer.getvalue()


def _described(text: str) -> dict[str, str]:
    return {"Description": text} if text else {}


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), facecolor="white")


def _stack(figure: Figure, heights: Sequence[float]) -> list[SubFigure]:
    parts = figure.subfigures(len(heights), 1, height_ratios=list(heights), squeeze=False)
    return [row[0] for row in parts]


def _rows_and_columns(n: int, most: int) -> tuple[int, int]:
    """Rows and columns for n pictures, with the last row as full as possible."""
    rows = -(-n // most)
    return rows, -(-n // rows)


def _strip_height(width: float, rows: int, columns: int, reading: Reading) -> float:
    return 0.3 + rows * (min(width / columns, 1.0) + _below(reading))


def _below(reading: Reading) -> float:
    """Inches below a picture of the strip: a line with numbers, and the longest label."""
    layers = range(reading.write_norms.shape[0])
    return 0.25 + 0.1 * max(len(_label_lines(reading, Site("resid_post", layer))) for layer in layers)


def _label_lines(reading: Reading, site: Site) -> list[str]:
    """The best label of a site in short lines, whole."""
    return [line for label in reading.top_labels(site)[:1] for line in textwrap.wrap(f"“{printable(label.name)}”", 15)]


def _layers(atlas: Atlas, reading: Reading) -> list[Site]:
    sites = sorted(site for site in atlas.sites("diffusion", reading.id) if site.kind == "resid_post")
    if len(sites) < 2:  # a single site is the clean reconstruction
        raise UsageError("this run has no pictures of the residual stream to draw.")
    return sites


def _with_heads(atlas: Atlas, reading: Reading, lenses: Sequence[LensName]) -> tuple[LensName, ...]:
    with_heads: tuple[LensName, ...] = tuple(lens for lens in lenses if atlas.ranked(lens, reading.id, k=1))
    if not with_heads:
        raise UsageError("this run looked at no head, so there is no map or ranking to draw.")
    return with_heads


def _draw_strip(canvas: Canvas, atlas: Atlas, reading: Reading, columns: int) -> None:
    width, height = size_of(canvas)
    cell = min(width / columns, 1.0)
    sheet = sheet_over(canvas)
    heading(canvas, f"Diffusion Lens on the residual stream, after each layer; similarity with {_target(reading)}")
    tiles: list[tuple[Any, Sequence[str], float | None]] = [(seen_picture(atlas, reading), ("input",), None)]
    for site in _layers(atlas, reading):
        similarity = atlas.score("diffusion", site, reading.id).similarity
        shown = atlas.cells("diffusion", site, reading.id)[0].picture
        tiles.append((shown, (f"{site.layer} · {two(similarity)}", *_label_lines(reading, site)), similarity))
    for index, (image, lines, similarity) in enumerate(tiles):
        row, column = divmod(index, columns)
        left, side = column * cell + 0.02, cell - 0.04
        bottom = height - 0.3 - row * (cell + _below(reading)) - side
        lay_tile(sheet, image, left, bottom, side)
        if similarity is not None:
            share = min(max(similarity, 0), 1)
            sheet.plot([left, left + side], [bottom - 0.03] * 2, color=RULE, linewidth=2, solid_capstyle="butt")
            sheet.plot([left, left + share * side], [bottom - 0.03] * 2, color=ACCENT, lw=2, solid_capstyle="butt")
        lay_captions(sheet, lines, left, bottom - 0.065, size=5.5)


def _draw_top(canvas: Canvas, atlas: Atlas, reading: Reading, lens: LensName, k: int) -> None:
    width, height = size_of(canvas)
    cell = width / (k + 2)
    sheet = sheet_over(canvas)
    scores = atlas.ranked(lens, reading.id, k=k)
    most = f"the {len(scores)} heads most similar" if len(scores) > 1 else "the head most similar"
    heading(canvas, f"{LENSES[lens]}: {most} to {_target(reading)}")
    tiles: list[tuple[Any, Sequence[str]]] = [(seen_picture(atlas, reading), ("input",))]
    said = words(atlas)
    if clean := atlas.clean(reading.id):
        lines = (said["short"], f"sim. {two(clean[0].similarity)}", f"{said['fid']} {two(clean[0].fidelity)}")
        tiles.append((clean[0].picture, lines))
    tiles.extend(
        (atlas.cells(lens, score.site, reading.id)[0].picture, _score_lines(score, words(atlas)["fid"]))
        for score in scores
    )
    for index, (image, lines) in enumerate(tiles):
        left, side = index * cell + 0.03, cell - 0.06
        bottom = height - 0.3 - side
        lay_tile(sheet, image, left, bottom, side)
        lay_captions(sheet, lines, left, bottom - 0.035, size=6)


def _score_lines(score: SiteScore, fidelity: str) -> Sequence[str]:
    control = [] if score.control is None else [f"control {two(score.control)}"]
    return (score.site.label, f"sim. {two(score.similarity)}", f"{fidelity} {two(score.fidelity)}", *control)


def _draw_map(
    canvas: Canvas, atlas: Atlas, reading: Reading, lenses: Sequence[LensName], *, side_by_side: bool = False
) -> None:
    _, height = size_of(canvas)
    rows, columns = (1, len(lenses)) if side_by_side else (len(lenses), 1)
    grid = canvas.add_gridspec(
        rows, columns, left=0.06, right=0.9, top=1 - 0.45 / height, bottom=0.42 / height, hspace=0.28, wspace=0.12
    )
    heading(canvas, f"Similarity with {_target(reading)}, head by head")
    colours = LinearSegmentedColormap.from_list("steerlens", list(SEQUENTIAL))
    norm = Normalize(*similarity_scale(atlas, lens_names(atlas)))
    panels: list[Axes] = []
    for index, lens in enumerate(lenses):
        axes = canvas.add_subplot(grid[(0, index) if side_by_side else (index, 0)])
        scores = atlas.score_map(lens, reading.id)
        L, H = scores.shape
        axes.imshow(scores.T, cmap=colours, norm=norm, interpolation="nearest", aspect="auto")
        _mark(axes, atlas, reading, lens, np.argwhere(np.isnan(scores)))
        axes.set_title(LENSES[lens], fontsize=7, loc="left", color=INK, pad=3)
        axes.set_xticks(range(0, L, max(1, L // 12)))
        axes.set_yticks(range(0, H, max(1, H // 8)))
        if side_by_side or index == len(lenses) - 1:
            axes.set_xlabel("layer", fontsize=7, color=INK, labelpad=2)
        if index == 0 or not side_by_side:
            axes.set_ylabel("head", fontsize=7, color=INK, labelpad=2)
        plain_frame(axes)
        panels.append(axes)
    bar = canvas.add_axes((0.925, 0.42 / height, 0.014, 1 - 0.87 / height))
    canvas.colorbar(matplotlib.cm.ScalarMappable(norm, colours), cax=bar).outline.set_linewidth(0.4)  # type: ignore[operator]
    bar.tick_params(labelsize=6, width=0.4, length=2, colors=INK)
    controlled: list[LensName] = [
        lens for lens in lenses if any(score.control is not None for score in atlas.ranked(lens, reading.id))
    ]
    if controlled:
        strong = f"   ◉ beats {100 * STRONG:g} % of all controls" if atlas.plan.strength.kind == "rho" else ""
        names = " and ".join(LENSES[lens].removeprefix("Diffusion ") for lens in controlled)
        note = f"○ beats its own control{strong} ({names})"
        canvas.text(0.9, 1 - 0.2 / height, note, fontsize=6, color=QUIET, ha="right", va="center")


def _mark(axes: Axes, atlas: Atlas, reading: Reading, lens: LensName, missing: np.ndarray) -> None:
    if len(missing):
        axes.scatter(missing[:, 0], missing[:, 1], marker="x", s=6, color=RULE, linewidth=0.6)
    if lens not in CONTROLS:
        return
    # White with a dark edge, and a dark core for strong marks: visible on every colour of the ramp, and in greyscale.
    scale = min(1.0, 12 / atlas.encoder.n_layers)
    beaten = [score for score in atlas.ranked(lens, reading.id) if score.beats_control]
    strong = [score for score in beaten if is_strong(atlas, score)]
    weak = [score for score in beaten if not is_strong(atlas, score)]
    for scores, points, colour in ((weak, 2.6, "white"), (strong, 5.5, "white"), (strong, 2.2, "black")):
        places = [[score.site.layer for score in scores], [score.site.head for score in scores]]
        axes.scatter(*places, s=(points * scale) ** 2, facecolor=colour, edgecolor="black", linewidth=0.6)


def _target(reading: Reading) -> str:
    return clipped(target_words(reading), 40)
