"""Figures fit for a paper: drawn from an atlas with Matplotlib, without pyplot's global state.

Similarities have one fixed scale, 0 to 1; decoded pictures are shown as they came out. Text stays text in SVG files.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from steerlens.errors import UsageError
from steerlens.report.colours import SEQUENTIAL
from steerlens.report.content import LENSES, STRONG, TOP_K, lens_names, target_words
from steerlens.sites import Site
from steerlens.sweep.atlas import Atlas, Reading, SiteScore
from steerlens.sweep.files import atomic_write
from steerlens.sweep.plan import LensName

WIDTH = 7.0
"""Inches: the text width of most papers."""

_INK, _QUIET, _RULE, _ACCENT = "#1d2026", "#646a73", "#c9c6be", "#225ea8"
_STYLE: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "steerlens", "font.family": "DejaVu Sans"}

Canvas = Figure | SubFigure


def layer_strip(atlas: Atlas, picture: str | None = None, *, columns: int = 12) -> Figure:
    """The Diffusion Lens on the residual stream, layer after layer (the paper's Fig. 2).

    Args:
        atlas: the run.
        picture: id or name of the input; the first one by default.
        columns: layers in a row.

    Raises:
        UsageError: if the run holds no picture of the residual stream.
    """
    reading = atlas.reading(picture)
    rows = -(-(len(_layers(atlas, reading)) + 1) // columns)
    figure = _figure(WIDTH, 0.3 + rows * (WIDTH / columns + (0.48 if reading.labels else 0.34)))
    _draw_strip(figure, atlas, reading, columns)
    return figure


def score_map(atlas: Atlas, picture: str | None = None, *, lenses: Sequence[LensName] | None = None) -> Figure:
    """Similarity with the target of every head under each lens, layers along the horizontal axis.

    A dot marks a head that beats its control under the Steering Lens, a ring one that beats at least 95 % of all
    controls; crosses mark heads that were not looked at.

    Raises:
        UsageError: if the run looked at no head.
    """
    reading = atlas.reading(picture)
    chosen = _with_heads(atlas, reading, lenses or lens_names(atlas))
    L, H = atlas.encoder.n_layers, atlas.encoder.n_heads
    panel = min(3.4, max(1.0, 0.86 * WIDTH / L * H))
    figure = _figure(WIDTH, 0.75 + (panel + 0.5) * len(chosen))
    _draw_map(figure, atlas, reading, chosen)
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
    """Every head's Steering Lens similarity against that of its own control; above the line it beats its control.

    Raises:
        UsageError: if the run has no controls of heads.
    """
    reading = atlas.reading(picture)
    scores = [score for score in atlas.ranked("steering", reading.id) if score.control is not None]
    if not scores:
        raise UsageError("this run has no controls of heads to draw.")
    figure = _figure(3.5, 3.5)
    axes = figure.add_axes((0.17, 0.15, 0.78, 0.76))
    x, y = [np.array([getattr(score, name) for score in scores], dtype=float) for name in ("control", "similarity")]
    low = min(0.0, float(np.floor(min(x.min(), y.min()) * 10) / 10))
    axes.plot([low, 1], [low, 1], color=_QUIET, linewidth=0.8, zorder=1)
    strong = np.array([(score.control_share or 0) >= STRONG for score in scores])
    axes.scatter(x[~strong], y[~strong], s=11, facecolor="white", edgecolor=_INK, linewidth=0.7, zorder=2)
    axes.scatter(x[strong], y[strong], s=16, facecolor=_ACCENT, edgecolor=_INK, linewidth=0.7, zorder=3)
    for score in scores[:3]:
        _text(axes, score.control or 0, score.similarity, f" {score.site.label}", size=6, va="center")
    axes.set(xlim=(low, 1), ylim=(low, 1), aspect="equal")
    axes.set_xlabel(f"similarity of the control with {_clip(target_words(reading), 24)}", fontsize=7, color=_INK)
    axes.set_ylabel(f"similarity of the head with {_clip(target_words(reading), 24)}", fontsize=7, color=_INK)
    beaten = sum(bool(score.beats_control) for score in scores)
    axes.set_title(
        f"{beaten} of {len(scores)} heads beat their control; filled: {STRONG:.0%} of all", fontsize=7, color=_INK, loc="left"
    )
    _plain(axes)
    return figure


def overview(atlas: Atlas, picture: str | None = None) -> Figure:
    """Layer strip, top heads of each lens and map of scores on one sheet: what a README or a talk shows.

    Raises:
        UsageError: if there is nothing of all that in the run.
    """
    reading = atlas.reading(picture)
    parts: list[tuple[float, Callable[[SubFigure], None]]] = []
    columns = 13
    if any(site.kind == "resid_post" for site in atlas.sites("diffusion", reading.id)):
        rows = -(-(len(_layers(atlas, reading)) + 1) // columns)
        height = 0.3 + rows * (9 / columns + (0.48 if reading.labels else 0.34))
        parts.append((height, lambda part: _draw_strip(part, atlas, reading, columns)))
    lenses = [lens for lens in lens_names(atlas) if atlas.ranked(lens, reading.id, k=1)]
    for lens in lenses:
        parts.append((9 / (TOP_K + 2) + 0.7, lambda part, lens=lens: _draw_top(part, atlas, reading, lens, TOP_K)))
    if lenses:
        panel = min(3.4, max(1.0, 0.42 * 9 / atlas.encoder.n_layers * atlas.encoder.n_heads))
        parts.append((panel + 1.0, lambda part: _draw_map(part, atlas, reading, lenses, side_by_side=True)))
    if not parts:
        raise UsageError("this run holds neither layers nor heads to draw.")
    figure = _figure(9, sum(height for height, _ in parts))
    for subfigure, (_, draw) in zip(_stack(figure, [height for height, _ in parts]), parts, strict=True):
        draw(subfigure)
    return figure


def save_figures(atlas: Atlas, folder: Path) -> list[Path]:
    """Draws every figure that the run has data for, of every input, as PNG and SVG; returns the files.

    Raises:
        StoreError: if a file cannot be written.
    """
    drawn: Mapping[str, Callable[[Atlas, str], Figure]] = {
        "overview": overview,
        "layers": layer_strip,
        "map": score_map,
        "heads": lens_comparison,
        "controls": control_plot,
    }
    written: list[Path] = []
    for index, reading in enumerate(atlas.readings):
        stem = "" if len(atlas.readings) == 1 else f"{index:02d}-{_slug(reading.picture.name)}-"
        for name, draw in drawn.items():
            try:
                figure = draw(atlas, reading.id)
            except UsageError:
                continue  # this run has no data for this figure
            for kind in ("png", "svg"):
                written.append(folder / f"{stem}{name}.{kind}")
                atomic_write(written[-1], render(figure, kind))
    return written


def render(figure: Figure, kind: str = "png", *, dpi: int = 200) -> bytes:
    """A figure as the bytes of a `png` or `svg` file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        if kind == "svg":
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": "steerlens"})
        else:
            figure.set_dpi(dpi)
            FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "steerlens"})
    return buffer.getvalue()


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), facecolor="white")


def _stack(figure: Figure, heights: Sequence[float]) -> list[SubFigure]:
    parts = figure.subfigures(len(heights), 1, height_ratios=list(heights), squeeze=False)
    return [row[0] for row in parts]


def _size(canvas: Canvas) -> tuple[float, float]:
    """Width and height in inches."""
    box = canvas.bbox
    dpi = float(canvas.dpi)
    return float(box.width) / dpi, float(box.height) / dpi


def _layers(atlas: Atlas, reading: Reading) -> list[Site]:
    sites = sorted(site for site in atlas.sites("diffusion", reading.id) if site.kind == "resid_post")
    if not sites:
        raise UsageError("this run holds no picture of the residual stream to draw.")
    return sites


def _with_heads(atlas: Atlas, reading: Reading, lenses: Sequence[LensName]) -> tuple[LensName, ...]:
    found = tuple(lens for lens in lenses if atlas.ranked(lens, reading.id, k=1))
    if not found:
        raise UsageError("this run looked at no head, so there is no map or ranking to draw.")
    return found


def _draw_strip(canvas: Canvas, atlas: Atlas, reading: Reading, columns: int) -> None:
    width, height = _size(canvas)
    sites = _layers(atlas, reading)
    below = 0.48 if reading.labels else 0.34
    cell = width / columns
    _heading(canvas, f"Diffusion Lens on the residual stream, after each layer; similarity with {_target(reading)}")
    tiles: list[tuple[Any, Sequence[str], float | None]] = [(reading.picture.image, ("input",), None)]
    for site in sites:
        similarity = atlas.score("diffusion", site, reading.id).similarity
        label = [f"“{_clip(top.name, 13)}”" for top in reading.top_labels(site)[:1]]
        shown = atlas.cells("diffusion", site, reading.id)[0].picture
        tiles.append((shown, (f"{site.layer} · {similarity:.2f}", *label), similarity))
    for index, (image, lines, similarity) in enumerate(tiles):
        row, column = divmod(index, columns)
        top = height - 0.3 - row * (cell + below)
        axes = _tile(canvas, image, column * cell + 0.02, top - cell + 0.04, cell - 0.04)
        if similarity is not None:
            axes.plot([0, 1], [-0.045] * 2, transform=axes.transAxes, color=_RULE, linewidth=2, clip_on=False)
            shown = [0, min(max(similarity, 0), 1)]
            axes.plot(shown, [-0.045] * 2, transform=axes.transAxes, color=_ACCENT, linewidth=2, clip_on=False)
        _captions(axes, lines, size=5.5, start=-0.1)


def _draw_top(canvas: Canvas, atlas: Atlas, reading: Reading, lens: LensName, k: int) -> None:
    width, height = _size(canvas)
    cell = width / (k + 2)
    _heading(canvas, f"{LENSES[lens]}: the {k} heads most similar to {_target(reading)}")
    tiles: list[tuple[Any, Sequence[str]]] = [(reading.picture.image, ("input",))]
    if clean := atlas.clean(reading.id):
        tiles.append((clean[0].picture, ("clean", f"sim. {clean[0].similarity:.2f}", f"fid. {clean[0].fidelity:.2f}")))
    for score in atlas.ranked(lens, reading.id, k=k):
        tiles.append((atlas.cells(lens, score.site, reading.id)[0].picture, _score_lines(score)))
    for index, (image, lines) in enumerate(tiles):
        axes = _tile(canvas, image, index * cell + 0.03, height - 0.3 - cell + 0.06, cell - 0.06)
        _captions(axes, lines, size=6)


def _score_lines(score: SiteScore) -> Sequence[str]:
    control = [] if score.control is None else [f"control {score.control:.2f}"]
    return (score.site.label, f"sim. {score.similarity:.2f}", f"fid. {score.fidelity:.2f}", *control)


def _draw_map(
    canvas: Canvas, atlas: Atlas, reading: Reading, lenses: Sequence[LensName], *, side_by_side: bool = False
) -> None:
    _, height = _size(canvas)
    rows, columns = (1, len(lenses)) if side_by_side else (len(lenses), 1)
    grid = canvas.add_gridspec(
        rows, columns, left=0.06, right=0.9, top=1 - 0.45 / height, bottom=0.42 / height, hspace=0.42, wspace=0.12
    )
    _heading(canvas, f"Similarity with {_target(reading)}, head by head")
    colours = LinearSegmentedColormap.from_list("steerlens", list(SEQUENTIAL))
    norm = Normalize(0, 1)
    panels: list[Axes] = []
    for index, lens in enumerate(lenses):
        axes = canvas.add_subplot(grid[(0, index) if side_by_side else (index, 0)])
        scores = atlas.score_map(lens, reading.id)
        L, H = scores.shape
        axes.imshow(scores.T, cmap=colours, norm=norm, interpolation="nearest", aspect="auto")
        _mark(axes, atlas, reading, lens, np.argwhere(np.isnan(scores)))
        axes.set_title(LENSES[lens], fontsize=7, loc="left", color=_INK, pad=3)
        axes.set_xticks(range(0, L, max(1, L // 12)))
        axes.set_yticks(range(0, H, max(1, H // 8)))
        if side_by_side or index == len(lenses) - 1:
            axes.set_xlabel("layer", fontsize=7, color=_INK, labelpad=2)
        if index == 0 or not side_by_side:
            axes.set_ylabel("head", fontsize=7, color=_INK, labelpad=2)
        _plain(axes)
        panels.append(axes)
    bar = canvas.add_axes((0.925, 0.42 / height, 0.014, 1 - 0.87 / height))
    canvas.colorbar(matplotlib.cm.ScalarMappable(norm, colours), cax=bar).outline.set_linewidth(0.4)  # type: ignore[operator]
    bar.tick_params(labelsize=6, width=0.4, length=2, colors=_INK)
    if any(score.control is not None for score in atlas.ranked("steering", reading.id)):
        note = f"○ beats its control   ◉ beats {STRONG:.0%} of all controls (Steering Lens)"
        canvas.text(0.9, 1 - 0.2 / height, note, fontsize=6, color=_QUIET, ha="right", va="center")


def _mark(axes: Axes, atlas: Atlas, reading: Reading, lens: LensName, missing: np.ndarray) -> None:
    if len(missing):
        axes.scatter(missing[:, 0], missing[:, 1], marker="x", s=6, color=_RULE, linewidth=0.6)
    if lens != "steering":
        return
    # White with a dark edge, a dark core for strong ones: seen on every colour of the ramp, and in greyscale.
    size = min(1.0, 12 / atlas.encoder.n_layers)
    for score in atlas.ranked(lens, reading.id):
        if score.beats_control:
            strong = score.control_share is not None and score.control_share >= STRONG
            place = (score.site.layer, score.site.head)
            marker = {"markerfacecolor": "white", "markeredgecolor": "black", "markeredgewidth": 0.6}
            axes.plot(*place, "o", markersize=(5.5 if strong else 2.6) * size, **marker)
            if strong:
                axes.plot(*place, "o", markersize=2.2 * size, color="black")


def _tile(canvas: Canvas, image: Image.Image | np.ndarray, left: float, bottom: float, side: float) -> Axes:
    """A picture in a square frame, placed in inches."""
    width, height = _size(canvas)
    axes = canvas.add_axes((left / width, bottom / height, side / width, side / height))
    if isinstance(image, Image.Image) and max(image.size) > 512:
        image = image.copy()
        image.thumbnail((512, 512))
    pixels = np.asarray(image)
    smooth = max(pixels.shape[:2]) > 96
    axes.imshow(pixels, interpolation="antialiased" if smooth else "nearest")
    axes.set_axis_off()
    axes.set_anchor("N")
    return axes


def _captions(axes: Axes, lines: Sequence[str], *, size: float, start: float = -0.04) -> None:
    # One text a line: a text of several lines would be centred and stretched by the tallest glyph.
    for index, line in enumerate(lines):
        axes.annotate(
            line,
            (0, start),
            xytext=(0, -index * size * 1.22),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=size,
            color=_INK if index == 0 else _QUIET,
            va="top",
            annotation_clip=False,
            parse_math=False,
        )


def _heading(canvas: Canvas, text: str) -> None:
    _, height = _size(canvas)
    canvas.text(0.004, 1 - 0.15 / height, text, fontsize=7.5, color=_INK, va="center", parse_math=False)


def _text(axes: Axes, x: float, y: float, text: str, *, size: float, va: str) -> None:
    axes.text(x, y, text, fontsize=size, color=_INK, va=va, parse_math=False)  # type: ignore[arg-type]


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=6, width=0.4, length=2, colors=_INK)
    for name, spine in axes.spines.items():
        spine.set_linewidth(0.5)
        spine.set_visible(name in ("left", "bottom"))


def _target(reading: Reading) -> str:
    return _clip(target_words(reading), 40)


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "input"
