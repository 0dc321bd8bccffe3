"""A run in forms that other programs read: one parquet file, or a folder of PNG with an index."""

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from steerlens.atlas.atlas import Atlas, CellResult, Reading
from steerlens.errors import UsageError
from steerlens.images import png_bytes
from steerlens.runs.tables import CELLS, IMAGE, cell_image, cell_row, image_value, schema_of
from steerlens.sites import Site
from steerlens.storage.files import atomic_file, storing
from steerlens.sweep.engine import Advanced

_Key = TypeVar("_Key")

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

_NAME_LENGTH = 80
"""Characters that are kept of a name, so that what comes before and behind it fits too."""

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
    with atomic_file(path, goes_on=False) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
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
        StoreError: if it cannot be written; nothing is left behind then.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give another --out.")
    if (there := next(iter(folder.glob("*")), None)) is not None:
        raise UsageError(f"{folder} holds files, {there.name} for one; give another --out.")
    total, new, made = _count(atlas), not folder.exists(), list[Path]()
    try:
        yield from _write_pictures(atlas, folder, total, made)
    except BaseException:  # whatever stopped it, the same command must not find half of what it wrote
        for place in made:
            shutil.rmtree(place, ignore_errors=True)
        if new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _write_pictures(atlas: Atlas, folder: Path, total: int, made: list[Path]) -> Generator[Advanced]:
    """Writes it all, and adds to `made` the folders of inputs as they are made."""
    inputs = _file_names({reading.id: (reading.picture.name, reading.id) for reading in atlas.readings})
    sites = _file_names({site: (str(site), _mark(str(site))) for site in dict.fromkeys(_sites(atlas))})
    with (
        atomic_file(folder / "index.csv", goes_on=False) as table,
        atomic_file(folder / "index.json", goes_on=False) as listed,
    ):
        text = io.TextIOWrapper(table, encoding="utf-8", newline="", write_through=True)
        index = csv.DictWriter(text, _INDEX)
        index.writeheader()
        for done, (reading, result) in enumerate(_pairs(atlas), start=1):
            place = folder / inputs[reading.id]
            path = place / result.cell.lens / f"{sites[result.cell.site]}-{_beside_site(result)}.png"
            with storing(path, goes_on=False):
                if not place.exists():
                    made.append(place)
                    place.mkdir()
                    (place / "input.png").write_bytes(png_bytes(reading.picture.image))
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(result.png)
            row = {"file": path.relative_to(folder).as_posix(), **_row(reading, result)}
            index.writerow(row)
            finite = {name: None if value != value else value for name, value in row.items()}
            listed.write(("[\n" if done == 1 else ",\n").encode() + json.dumps(finite, ensure_ascii=False).encode())
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


def _sites(atlas: Atlas) -> Iterator[Site]:
    return (cell.site for cell in atlas.finished)


def _beside_site(result: CellResult) -> str:
    cell = result.cell
    drawn = f"-draw{cell.draw}" if cell.lens == "control" else ""
    return f"seed{cell.seed}{drawn}"


def _file_names(texts: Mapping[_Key, tuple[str, str]]) -> dict[_Key, str]:
    """A readable name for every text, with its mark where two would meet, which is on some systems whatever the case.

    Args:
        texts: of each, the text and a mark that no other has.
    """
    names, taken = dict[_Key, str](), set[str]()
    for key, (text, mark) in texts.items():
        name = readable(text)
        names[key] = f"{name}-{mark}" if name.casefold() in taken else name
        taken.add(names[key].casefold())
    return names


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def readable(name: str) -> str:
    """A name that any file system takes, as close to the original as that allows."""
    return re.sub(r"[^\w.=-]+", "-", name).strip("-.")[:_NAME_LENGTH] or "input"
