"""Figures and tables of studies as files, the same bytes every time."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from steerlens.report.figures import render
from steerlens.studies.folder import StudyFolder


def save_figure(folder: StudyFolder, name: str, figure: Figure) -> None:
    """Writes `figures/NAME.png` and `figures/NAME.svg`."""
    for kind in ("png", "svg"):
        folder.write(f"figures/{name}.{kind}", render(figure, kind))


def save_table(folder: StudyFolder, rows: Sequence[Mapping[str, Any]], name: str = "table.parquet") -> None:
    """Writes rows as parquet."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), buffer)
    folder.write(name, buffer.getvalue())
