"""Figures and tables of studies as files, the same bytes every time."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from matplotlib.figure import Figure

from steerlens.report.figures import render
from steerlens.studies.shared.folder import StudyFolder


def save_figure(folder: StudyFolder, name: str, figure: Figure) -> None:
    """Writes `figures/NAME.png` and `figures/NAME.svg`."""
    for kind in ("png", "svg"):
        folder.write(f"figures/{name}.{kind}", render(figure, kind))


def save_table(folder: StudyFolder, rows: Sequence[Mapping[str, Any]], name: str = "table.parquet") -> None:
    """Writes rows as parquet."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), buffer)
    folder.write(name, buffer.getvalue())


def picture_grid(
    pictures: Sequence[Sequence[UInt8[np.ndarray, "height width 3"] | None]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    title: str,
) -> Figure:
    """Rows of pictures with a name before each row and above each column; a place may stay empty."""
    side, left = 0.95, 0.12 + 0.068 * max(map(len, row_names))
    top = 0.34 + 0.13 * max(name.count("\n") + 1 for name in column_names)
    figure = Figure(figsize=(left + side * len(column_names) + 0.1, top + side * len(pictures) + 0.1))
    width, height = figure.get_size_inches()
    for row, shown in enumerate(pictures):
        for place, pixels in enumerate(shown):
            box = (left + side * place, height - top - side * (row + 1), 0.95 * side, 0.95 * side)
            if row == 0:
                middle = ((box[0] + box[2] / 2) / width, (box[1] + box[3] + 0.03) / height)
                figure.text(*middle, column_names[place], fontsize=7, ha="center", va="bottom")
            if place == 0:
                middle = ((box[0] - 0.05) / width, (box[1] + box[3] / 2) / height)
                figure.text(*middle, row_names[row], fontsize=7, ha="right", va="center")
            if pixels is not None:
                axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
                axes.set_axis_off()
                axes.imshow(pixels, interpolation="nearest")
    figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=8, va="top")
    return figure
