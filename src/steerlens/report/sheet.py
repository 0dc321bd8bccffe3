"""Sheets: axes over a whole canvas, measured in inches, for pictures and captions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from steerlens.printable import printable
from steerlens.report.embed import PIXEL_SIDE

DPI = 200
"""Pixels per inch of PNG files."""

INK, QUIET, RULE, ACCENT = "#1d2026", "#646a73", "#c9c6be", "#225ea8"
"""Colours of text, secondary text, lines and emphasis."""

Canvas = Figure | SubFigure


def size_of(canvas: Canvas) -> tuple[float, float]:
    """Width and height in inches."""
    box = canvas.bbox
    dpi = float(canvas.dpi)
    return float(box.width) / dpi, float(box.height) / dpi


def sheet_over(canvas: Canvas) -> Axes:
    """Adds axes over the whole canvas, measured in inches, for pictures and captions."""
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    width, height = size_of(canvas)
    axes.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
    return axes


def lay_tile(sheet: Axes, image: Image.Image | np.ndarray, left: float, bottom: float, side: float) -> None:
    """Draws a picture in a square, at the top if the picture is not square."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    # Without interpolation, vector files contain the pixels themselves. Small pictures are enlarged by repeating
    # pixels, so that a viewer that smooths does not blur them; larger ones are scaled to the size of their tile.
    if max(picture.size) <= PIXEL_SIDE:
        factor = max(1, 256 // max(picture.size))
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    else:
        picture = picture.copy()
        picture.thumbnail((round(side * DPI), round(side * DPI)), Image.Resampling.LANCZOS)
    width, height = (side * length / max(picture.size) for length in picture.size)
    top, inset = bottom + side, (side - width) / 2
    extent = (left + inset, left + inset + width, top - height, top)
    sheet.imshow(np.asarray(picture), interpolation="none", extent=extent, aspect="auto", zorder=1)
    sheet.set_autoscale_on(False)


def lay_captions(sheet: Axes, lines: Sequence[str], left: float, top: float, *, size: float) -> None:
    """Draws lines of text below a picture, the first darker than the others; `size` in points."""
    # A text per line: within a text, the tallest glyph sets the line spacing.
    for index, line in enumerate(lines):
        colour = INK if index == 0 else QUIET
        sheet.text(left, top - index * size * 1.24 / 72, line, fontsize=size, color=colour, va="top", parse_math=False)


def heading(canvas: Canvas, text: str) -> None:
    """Draws a heading along the top of a canvas."""
    _, height = size_of(canvas)
    canvas.text(0.004, 1 - 0.15 / height, text, fontsize=7.5, color=INK, va="center", parse_math=False)


def text_at(axes: Axes, x: float, y: float, text: str, *, size: float, va: str) -> None:
    """Draws a text at data coordinates, without reading dollar signs as formulas."""
    axes.text(x, y, text, fontsize=size, color=INK, va=va, parse_math=False)  # type: ignore[arg-type]


def plain_frame(axes: Axes) -> None:
    """Reduces the frame to thin lines on the left and below, with small numbers."""
    axes.tick_params(labelsize=6, width=0.4, length=2, colors=INK)
    for name, spine in axes.spines.items():
        spine.set_linewidth(0.5)
        spine.set_visible(name in ("left", "bottom"))


def clipped(text: str, length: int) -> str:
    """Shortens a text to a number of characters, all of them visible."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
