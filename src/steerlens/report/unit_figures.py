"""Figure of features and neurons: where each is active, alone, steered, and its control."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from steerlens.atlas import Atlas, LensName, Reading, UnitReading
from steerlens.errors import UsageError
from steerlens.report.seen import seen_picture
from steerlens.report.sheet import clipped, heading, lay_captions, lay_tile, sheet_over
from steerlens.report.terms import target_words, two

_COLUMNS = 8
"""Most features in a figure, errors and biases among them."""

_WIDTH, _MARGIN, _CAPTION = 7.0, 0.62, 0.2
"""Inches: the figure, the names of rows on the left, the line below a row."""


def unit_grid(atlas: Atlas, picture: str | None = None) -> Figure:
    """Draws the strongest features and neurons, a column each, with error and bias of autoencoders last.

    Rows: where on the input each is active, its picture under the Diffusion Lens, steered, and its control.

    Raises:
        UsageError: if the run has no picture of a feature or neuron.
    """
    reading = atlas.reading(picture)
    shown = [unit for unit in reading.units if any(atlas.cells(lens, unit.site, reading.id) for lens in _LENSES)]
    if not shown:
        raise UsageError("this run has no picture of a feature or neuron to draw.")
    rest = [unit for unit in shown if unit.activation is None]
    units = [*[unit for unit in shown if unit.activation is not None][: max(1, _COLUMNS - len(rest))], *rest][:_COLUMNS]
    rows = list(_rows(atlas, reading, units))
    # Few columns keep the size of many, so that pictures are not blown up.
    cell = (_WIDTH - _MARGIN) / max(len(units), 6)
    height = 0.55 + len(rows) * (cell + _CAPTION)
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    heading(
        figure, f"Features and neurons of {clipped(reading.picture.name, 40)}; similarity with {target_words(reading)}"
    )
    sheet = sheet_over(figure)
    for column, unit in enumerate(units):
        lines = (
            (clipped(unit.site.label, 16),)
            if unit.activation is None
            else (clipped(unit.site.label, 16), f"active {two(unit.activation)}")
        )
        lay_captions(sheet, lines, _MARGIN + column * cell + 0.03, height - 0.26, size=5.5)
    for row, (name, tiles) in enumerate(rows):
        bottom = height - 0.5 - (row + 1) * cell - row * _CAPTION
        lay_captions(sheet, (name,), 0.04, bottom + cell / 2, size=6)
        for column, tile in enumerate(tiles):
            if tile is not None:
                image, caption = tile
                left = _MARGIN + column * cell + 0.03
                lay_tile(sheet, image, left, bottom, cell - 0.06)
                lay_captions(sheet, (caption,), left, bottom - 0.035, size=5.5)
    return figure


_LENSES: tuple[LensName, ...] = ("diffusion", "steering", "control", "total")

_NAMES = {"diffusion": "alone", "steering": "steered", "control": "control", "total": "total"}

_Tile = tuple[Image.Image | np.ndarray, str]


def _rows(atlas: Atlas, reading: Reading, units: list[UnitReading]) -> Iterator[tuple[str, list[_Tile | None]]]:
    maps = [_where(atlas, reading, unit) for unit in units]
    if any(tile is not None for tile in maps):
        yield "where", maps
    for lens in _LENSES:
        cells = [atlas.cells(lens, unit.site, reading.id)[:1] for unit in units]
        if any(cells):
            yield _NAMES[lens], [(of[0].picture, f"sim. {two(of[0].similarity)}") if of else None for of in cells]


def _where(atlas: Atlas, reading: Reading, unit: UnitReading) -> _Tile | None:
    """The input, dark where the unit is silent."""
    if unit.tokens is None or (atlas.encoder.geometry is not None and atlas.encoder.geometry.resize == "unknown"):
        return None
    first, (rows, columns) = atlas.encoder.first_patch, atlas.encoder.patch_grid
    sizes = unit.tokens[first : first + rows * columns].abs().reshape(rows, columns).numpy()
    peak = float(sizes.max())
    seen = seen_picture(atlas, reading).convert("RGB")
    shares = Image.fromarray(np.round(255 * sizes / peak if peak else sizes).astype(np.uint8))
    light = np.asarray(shares.resize(seen.size, Image.Resampling.NEAREST), dtype=float)[..., None] / 255
    shown = np.asarray(seen, dtype=float) * (0.12 + 0.88 * light)
    return shown.round().astype(np.uint8), f"up to {two(peak)}" if peak else "silent on patches"
