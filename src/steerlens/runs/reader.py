"""What a run directory holds, read piece by piece: a run of thousands of pictures does not fit into memory."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from steerlens.atlas.lazy import Lazy
from steerlens.atlas.plan import Cell, RepeatedCells
from steerlens.atlas.results import CellResult, LazyResults, Reading
from steerlens.errors import PictureError, StoreError
from steerlens.runs.tables import cell_keys, read_cells, read_png, read_reading

_Read = TypeVar("_Read")

_PARTS_HELD = 32
"""Parts whose numbers and embeddings stay in memory, tens of kB a part; pictures are read when they are asked for."""

_READINGS_HELD = 4


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run: it has a manifest with a fingerprint, or one that cannot be read beside cells.

    For refusing to write there; `read_manifest` of the store says what is wrong with one.
    """
    path = folder / "manifest.json"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return (folder / "cells").is_dir()
    return isinstance(content, dict) and "fingerprint" in content


def part_files(folder: Path) -> list[Path]:
    """The parts of a run, in the order in which they were stored."""
    return sorted((folder / "cells").glob("part-*.parquet"))


def reading_files(folder: Path) -> dict[str, Path]:
    """The tables of input pictures that a run has read, by id."""
    paths = (folder / "inputs").glob("*.parquet")
    return {path.stem: path for path in sorted(paths) if path.suffixes != [".labels", ".parquet"]}


def finished_keys(folder: Path) -> frozenset[str]:
    """The keys of the cells that a run holds.

    Raises:
        StoreError: if a part cannot be read.
    """
    return frozenset(key for path in part_files(folder) for key in part_keys(path))


def part_keys(path: Path) -> list[str]:
    """The keys of a part's cells, row after row.

    Raises:
        StoreError: if the part cannot be read.
    """
    return _readable(path, lambda: cell_keys(path))


def part_cells(path: Path) -> list[CellResult]:
    """The cells of a part, row after row.

    Raises:
        StoreError: if the part cannot be read.
    """
    return _readable(path, lambda: read_cells(path, path.with_suffix(".safetensors"), _png))


def stored_results(folder: Path, cells: Sequence[Cell]) -> LazyResults:
    """The decoded pictures that a run holds of these cells, in their order.

    Neither they nor their cells are held, but for 16 bytes a cell that say where it is.

    Raises:
        StoreError: if a part cannot be read.
    """
    paths, place_of = part_files(folder), _places(cells)
    stored = np.full((len(cells), 2), -1, dtype=np.int32)  # of each cell, its part and its row there
    for number, path in enumerate(paths):
        _check_tensors(path.with_suffix(".safetensors"))
        for row, key in enumerate(part_keys(path)):
            if (place := place_of(key)) is not None:
                stored[place] = number, row
    found = np.flatnonzero(stored[:, 0] >= 0)
    part = lru_cache(_PARTS_HELD)(lambda number: part_cells(paths[number]))

    def read(index: int) -> CellResult:
        number, row = stored[found[index]].tolist()
        return part(number)[row]

    return LazyResults(Lazy(len(found), lambda index: cells[int(found[index])]), read)


def _places(cells: Sequence[Cell]) -> Callable[[str], int | None]:
    """Where among cells the one of a key is; None for one that is not among them."""
    if not isinstance(cells, RepeatedCells):
        return {cell.key: place for place, cell in enumerate(cells)}.get
    pictures = {id: place for place, id in enumerate(cells.pictures)}
    each = {cell.key: place for place, cell in enumerate(cells.each)}

    def place_of(key: str) -> int | None:
        id, bar, rest = key.partition("|")
        picture, place = pictures.get(id), each.get(bar + rest)
        return None if picture is None or place is None else picture * len(cells.each) + place

    return place_of


def stored_readings(folder: Path, ids: Iterable[str]) -> Sequence[Reading]:
    """What a run holds of these input pictures, in their order.

    Raises:
        StoreError: if a reading cannot be read.
    """
    files = reading_files(folder)
    found = [files[id] for id in ids if id in files]
    for path in found:
        for table in (path, path.with_suffix(".labels.parquet")):
            _readable(path, lambda table=table: pq.read_schema(table))
        _check_tensors(path.with_suffix(".safetensors"))
    return Lazy(len(found), lru_cache(_READINGS_HELD)(lambda index: stored_reading(found[index])))


def stored_reading(path: Path) -> Reading:
    """A reading, from its table and the files beside it.

    Raises:
        StoreError: if it cannot be read.
    """
    beside = path.with_suffix(".labels.parquet"), path.with_suffix(".safetensors")

    def read() -> Reading:
        reading = read_reading(path, *beside, _png)
        if reading.id != path.stem:  # ids become names of files again
            raise ValueError(f"it says that it is the input {reading.id!r}")
        return reading

    return _readable(path, read)


def _check_tensors(path: Path) -> None:
    def check() -> None:
        with safe_open(path, framework="pt"):  # reads the header, which tells how long the file must be
            pass

    _readable(path, check)


def _png(path: Path, row: int) -> bytes:
    return _readable(path, lambda: read_png(path, row))


def _readable(path: Path, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except (OSError, ValueError, KeyError, IndexError, TypeError, SafetensorError, PictureError) as error:
        files = path.with_name(f"{path.name.partition('.')[0]}.*")
        reason = str(error).rstrip(".")
        raise StoreError(f"{path} cannot be read: {reason}. Remove {files} and run again to redo it.") from error
