"""Export of runs for other programs: one parquet file, a folder of PNG files with an index, or a report."""

import csv
import hashlib
import io
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from steerlens.atlas import CONTROLS, Atlas, CellResult, Reading
from steerlens.errors import StoreError, UsageError
from steerlens.images import png_bytes
from steerlens.progress import Progress
from steerlens.report import write_report
from steerlens.report.html import REPORT
from steerlens.runs.reader import inside_run, is_run, refuse_inside_run
from steerlens.runs.tables import IMAGE, cell_columns, cell_image, cell_row, image_value, schema_of
from steerlens.sites import Site
from steerlens.storage import OwnedFolder, atomic_file, distinct_names

_ROWS = 32
"""Pictures in memory at a time, and in a row group of the table."""

_INPUT_SIDE = 128
"""Longest side, in pixels, of the input picture beside every decoded picture in the table."""

_BEFORE: Mapping[str, Any] = {"input": pa.string(), "input_image": IMAGE}

_AFTER: Mapping[str, Any] = {"target": pa.string(), "label": pa.string(), "label_score": pa.float64()}


def export_parquet(atlas: Atlas, path: Path, *, force: bool = False) -> Generator[Progress]:
    """Writes all decoded pictures with their numbers and inputs to one parquet file, and yields progress.

    The datasets library and its viewer show its image columns as pictures.

    Args:
        atlas: the run, or some of its inputs.
        path: the file.
        force: True to replace an existing file.

    Raises:
        UsageError: if the run has no picture, the file exists already, or it would be inside a run.
        StoreError: if it cannot be written; nothing is left behind then.
    """
    refuse_run(path)
    if path.is_dir() or (path.exists() and not force):
        raise UsageError(f"{path} exists already; give another --out, or --force to replace it.")
    rows, done, schema = _table_rows(atlas), 0, schema_of({**_BEFORE, **cell_columns(atlas.plan.lenses), **_AFTER})
    total = _count(atlas)
    yield Progress("exporting", 0, total, "pictures")
    with atomic_file(path, goes_on=False) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            done += len(chunk)
            yield Progress("exporting", done, total, "pictures")


def export_pictures(atlas: Atlas, folder: Path, *, force: bool = False) -> Generator[Progress]:
    """Writes a folder of PNG files with readable names and an index of them, and yields progress.

        INPUT/input.png
        INPUT/diffusion/resid_post.3-seed0.png
        INPUT/steering/head.3.4-seed0.png, INPUT/control/head.3.4-seed0-draw0.png
        index.csv, index.json      a row for every decoded picture: its file and its numbers

    Args:
        atlas: the run, or some of its inputs.
        folder: a new or empty folder.
        force: True to replace files of the same names; other files stay in any case.

    Raises:
        UsageError: if the run has no picture, the folder is not empty, or it is inside a run.
        StoreError: if it cannot be written; nothing is left behind then.
    """
    refuse_run(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give another --out.")
    if not force and (existing := next(iter(folder.glob("*")), None)) is not None:
        raise UsageError(f"{folder} is not empty (it contains {existing.name}); give another --out, or --force.")
    total, out, new = _count(atlas), OwnedFolder(folder), not folder.exists()
    try:
        yield from _write_pictures(atlas, out, total, force)
    except BaseException:  # whatever stopped it, the same command must not find half an export
        out.take_back()
        if new:
            with suppress(OSError):
                folder.rmdir()
        raise


def export_report(atlas: Atlas, folder: Path, *, force: bool = False) -> Path:
    """Writes the report of a run with its figures, and returns the page.

    Args:
        atlas: the run, or some of its inputs.
        folder: folder to write to.
        force: True to replace an existing report.

    Raises:
        UsageError: if the folder contains a report, or is inside a run.
        StoreError: if it cannot be written.
    """
    refuse_run(folder)
    if not force and (folder / REPORT).exists():
        raise UsageError(f"{folder / REPORT} exists already; give another --out, or --force to replace it.")
    return write_report(atlas, folder)


def _write_pictures(atlas: Atlas, out: OwnedFolder, total: int, force: bool) -> Generator[Progress]:
    yield Progress("exporting", 0, total, "pictures")
    inputs = distinct_names({reading.id: (reading.picture.name, reading.id) for reading in atlas.readings})
    sites = distinct_names({site: (str(site), _mark(str(site))) for site in dict.fromkeys(_sites(atlas))})
    numbers = [name for name, kind in cell_columns(atlas.plan.lenses).items() if kind != IMAGE]
    columns, begun = ("file", "input", *numbers, *_AFTER), set[str]()
    with (
        atomic_file(out.path("index.csv"), goes_on=False) as table,
        atomic_file(out.path("index.json"), goes_on=False) as listed,
    ):
        text = io.TextIOWrapper(table, encoding="utf-8", newline="", write_through=True)
        index = csv.DictWriter(text, columns)
        index.writeheader()
        for done, (reading, result) in enumerate(_pairs(atlas), start=1):
            name = inputs[reading.id]
            if name not in begun:
                begun.add(name)
                out.add(png_bytes(reading.picture.image), name, "input.png", replace=force)
            file = f"{sites[result.cell.site]}-{_beside_site(result)}.png"
            path = out.add(result.png, name, result.cell.lens, file, replace=force)
            known = {"file": path.relative_to(out.folder).as_posix(), **_row(reading, result)}
            row = {column: known[column] for column in columns}
            index.writerow({column: _no_formula(value) for column, value in row.items()})
            finite = {name: None if value != value else value for name, value in row.items()}
            listed.write(("[\n" if done == 1 else ",\n").encode() + json.dumps(finite, ensure_ascii=False).encode())
            yield Progress("exporting", done, total, "pictures")
        listed.write(b"\n]\n")
        text.detach()


def refuse_run(out: Path) -> None:
    """Refuses to export into a run directory.

    Raises:
        UsageError: if the path is a run directory, or is inside one.
    """
    if is_run(out):
        raise inside_run(out, out)
    refuse_inside_run(out)


def _no_formula(value: Any) -> Any:
    """Makes a CSV value that a spreadsheet shows as text, even if it begins like a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _count(atlas: Atlas) -> int:
    if not atlas.finished:
        raise UsageError("this run has no decoded picture yet: there is nothing to export.")
    read = {reading.id for reading in atlas.readings}
    unread = {cell.picture for cell in atlas.finished} - read
    if unread:
        raise StoreError(
            f"the readings of {len(unread)} of {len(unread) + len(read)} inputs are missing, without which nothing is "
            "exported: `steerlens runs verify` says what is lost and how to redo it."
        )
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


def _sites(atlas: Atlas) -> Iterator[Site]:
    return (cell.site for cell in atlas.finished)


def _beside_site(result: CellResult) -> str:
    cell = result.cell
    draw = f"-draw{cell.draw}" if cell.lens in (*CONTROLS.values(), "foil") else ""
    return f"seed{cell.seed}{draw}"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
