"""A run in forms that other programs read: one parquet file, or a folder of PNG with an index."""

import csv
import io
import json
import re
from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from steerlens.errors import UsageError
from steerlens.images import png_bytes
from steerlens.sweep.atlas import Atlas, CellResult, Reading
from steerlens.sweep.engine import Advanced
from steerlens.sweep.files import atomic_file, storing
from steerlens.sweep.tables import CELLS, IMAGE, cell_image, cell_row, image_value, schema_of

_ROWS = 32
"""Pictures that are held at once, and that a row group of the table has."""

_INPUT_SIDE = 128
"""Longest side, in pixels, of the input picture that stands beside every decoded one in the table."""

_COLUMNS: Mapping[str, Any] = {
    "input": pa.string(),
    "input_image": IMAGE,
    **CELLS,
    "target": pa.string(),
    "label": pa.string(),
    "label_score": pa.float64(),
}

_INDEX = ("file", "input", *(name for name in CELLS if CELLS[name] != IMAGE), "target", "label", "label_score")


def export_parquet(atlas: Atlas, path: Path) -> Generator[Advanced]:
    """Writes all decoded pictures with their numbers and their inputs into one parquet file, and yields progress.

    Its image columns are shown as pictures by the datasets library and its viewer.

    Args:
        atlas: the run, or some of its inputs.
        path: the file.

    Raises:
        UsageError: if the run holds no picture, or the file is there already.
        StoreError: if it cannot be written; nothing is left behind then.
    """
    if path.exists():
        raise UsageError(f"{path} is there already; give another --out, or remove it.")
    rows, done, schema = _table_rows(atlas), 0, schema_of(_COLUMNS)
    total = _count(atlas)
    with atomic_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            done += len(chunk)
            yield Advanced("exporting", done, total)


def export_pictures(atlas: Atlas, folder: Path) -> Generator[Advanced]:
    """Writes a folder of PNG files with readable names and an index of them, and yields progress.

        INPUT/input.png
        INPUT/diffusion/resid_post.3-seed0.png
        INPUT/steering/head.3.4-seed0.png, INPUT/control/head.3.4-seed0-draw0.png
        index.csv, index.json      a row for every decoded picture: its file and its numbers

    Args:
        atlas: the run, or some of its inputs.
        folder: where to write; new, or empty.

    Raises:
        UsageError: if the run holds no picture, or the folder holds files.
        StoreError: if it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} holds files; give another --out.")
    total, done = _count(atlas), 0
    names = _folder_names(atlas)
    with atomic_file(folder / "index.csv") as table, atomic_file(folder / "index.json") as listed:
        text = io.TextIOWrapper(table, encoding="utf-8", newline="", write_through=True)
        index = csv.DictWriter(text, _INDEX)
        index.writeheader()
        for reading, result in _pairs(atlas):
            place = folder / names[reading.id]
            path = place / result.cell.lens / f"{_file_stem(result)}.png"
            with storing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if not (place / "input.png").exists():
                    (place / "input.png").write_bytes(png_bytes(reading.picture.image))
                path.write_bytes(result.png)
            row = {"file": path.relative_to(folder).as_posix(), **_row(reading, result)}
            index.writerow(row)
            finite = {name: None if value != value else value for name, value in row.items()}
            listed.write(("[\n" if done == 0 else ",\n").encode() + json.dumps(finite, ensure_ascii=False).encode())
            done += 1
            yield Advanced("exporting", done, total)
        listed.write(b"\n]\n")
        text.detach()


def _count(atlas: Atlas) -> int:
    if not atlas.finished:
        raise UsageError("this run holds no decoded picture yet: nothing to export.")
    return len(atlas.finished)


def _pairs(atlas: Atlas) -> Iterator[tuple[Reading, CellResult]]:
    for reading in atlas.readings:
        for result in atlas.results_of(reading.id):
            yield reading, result


def _row(reading: Reading, result: CellResult) -> dict[str, Any]:
    labels = reading.top_labels(result.cell.site)
    named = (
        {"label": labels[0].name, "label_score": labels[0].score} if labels else {"label": None, "label_score": None}
    )
    return {"input": reading.picture.name, **cell_row(result), "target": reading.target, **named}


def _table_rows(atlas: Atlas) -> Iterator[dict[str, Any]]:
    shown: tuple[str, dict[str, Any]] = ("", {})
    for reading, result in _pairs(atlas):
        if shown[0] != reading.id:
            small = reading.picture.image.copy()
            small.thumbnail((_INPUT_SIDE, _INPUT_SIDE), Image.Resampling.LANCZOS)
            shown = (reading.id, image_value(png_bytes(small), f"{reading.picture.name}.png"))
        yield {**_row(reading, result), "input_image": shown[1], "image": cell_image(result)}


def _folder_names(atlas: Atlas) -> dict[str, str]:
    """A readable folder for every input: its name, and its id too where names would meet."""
    names: dict[str, str] = {}
    for reading in atlas.readings:
        name = readable(reading.picture.name)
        names[reading.id] = f"{name}-{reading.id}" if name in names.values() else name
    return names


def readable(name: str) -> str:
    """A name that any file system takes, as close to the original as that allows."""
    return re.sub(r"[^\w.=-]+", "-", name).strip("-.")[:80] or "input"


def _file_stem(result: CellResult) -> str:
    cell = result.cell
    drawn = f"-draw{cell.draw}" if cell.lens == "control" else ""
    return f"{readable(str(cell.site))}-seed{cell.seed}{drawn}"
