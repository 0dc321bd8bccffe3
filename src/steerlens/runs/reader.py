"""Reader of run directories, part by part: a run of thousands of pictures does not fit into memory."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from steerlens.atlas import Cell, CellResult, Lazy, LazyResults, Reading, RepeatedCells
from steerlens.errors import StoreError, UsageError
from steerlens.limits import is_special
from steerlens.runs.hashes import check_on_opening, damage_of, damaged, read_hashes
from steerlens.runs.tables import cell_keys, read_cells, read_png, read_reading

_Read = TypeVar("_Read")

_PARTS_IN_MEMORY = 32
"""Parts whose numbers and embeddings stay in memory, tens of kB each; pictures are read on access."""

_READINGS_IN_MEMORY = 4

LABELS, TENSORS, UNITS = "labels", "tensors", "units"
"""Folders of a run for labels, for tensors, and for neurons and features; few runs have the last."""

_LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header, at most, as in the library itself."""


def is_run(folder: Path) -> bool:
    """True if a folder looks like a run: it has a manifest with a fingerprint, or cells beside an unreadable manifest.

    Serves to refuse writing there; `read_manifest` reports what is wrong with a run.
    """
    path = folder / "manifest.json"
    if is_special(path):
        return (folder / "cells").is_dir()
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return (folder / "cells").is_dir()
    return isinstance(content, dict) and "fingerprint" in content


def refuse_inside_run(out: Path) -> None:
    """Refuses to write inside a run directory; the path itself may be one.

    Raises:
        UsageError: if a folder above the path is a run.
    """
    for folder in out.absolute().parents:
        if is_run(folder):
            raise inside_run(out, folder)


def inside_run(out: Path, run: Path) -> UsageError:
    """The message about a place inside a run."""
    return UsageError(f"{out} is inside the run {run}, where only the run itself may be; give another --out.")


def part_files(folder: Path) -> list[Path]:
    """Parts of a run, in the order in which they were stored."""
    return sorted((folder / "cells").glob("part-*.parquet"))


def reading_files(folder: Path) -> dict[str, Path]:
    """Tables of the input pictures that a run has read: id -> file."""
    paths = (folder / "inputs").glob("*.parquet")
    return {path.stem: path for path in sorted(paths) if path.suffixes != [".labels", ".parquet"]}


def finished_keys(folder: Path) -> frozenset[str]:
    """Keys of the cells that a run contains.

    Raises:
        StoreError: if a part cannot be read.
    """
    for path in part_files(folder):
        _check_tensors(beside(path)[-1])
    return frozenset(key for path in part_files(folder) for key in part_keys(path))


def beside(table: Path) -> list[Path]:
    """Files of a part or of a reading: the table that completes it, labels and units of a reading, and tensors last.

    Earlier versions kept labels and tensors in the folder of the tables, where readers of whole folders met them.
    """
    run, of_reading = table.parent.parent, table.parent.name == "inputs"
    if has_tables_alone(run):
        labels = [run / LABELS / table.name] if of_reading else []
        if of_reading and has_units(run):
            labels.append(run / UNITS / table.name)
        return [table, *labels, run / TENSORS / f"{table.stem}.safetensors"]
    labels = [table.with_suffix(".labels.parquet")] if of_reading else []
    return [table, *labels, table.with_suffix(".safetensors")]


def has_tables_alone(folder: Path) -> bool:
    """True if `inputs/` and `cells/` of a run hold nothing but tables of one kind; False for earlier versions' runs."""
    return (folder / TENSORS).is_dir()


def has_units(folder: Path) -> bool:
    """True for a run of neurons or features."""
    return (folder / UNITS).is_dir()


def check_hashes(folder: Path) -> None:
    """Checks the files of a run against their hashes, if it is small enough for that to take no time.

    Raises:
        StoreError: if a file is not the one that was written.
    """
    tables = [*part_files(folder), *reading_files(folder).values()]
    names = [path.relative_to(folder).as_posix() for table in tables for path in beside(table)]
    check_on_opening(folder, names)


def part_keys(path: Path) -> list[str]:
    """Keys of a part's cells, row after row.

    Raises:
        StoreError: if the part cannot be read.
    """
    return _readable(path, lambda: cell_keys(path))


def part_cells(path: Path) -> list[CellResult]:
    """Results of a part's cells, row after row.

    Raises:
        StoreError: if the part cannot be read.
    """
    return _readable(path, lambda: read_cells(path, beside(path)[-1], _png))


def stored_results(folder: Path, cells: Sequence[Cell]) -> LazyResults:
    """Decoded pictures of these cells that a run contains, in the order of the cells.

    Neither pictures nor cells are kept in memory, only 16 bytes per cell that locate it.

    Raises:
        StoreError: if a part cannot be read.
    """
    paths, index_of = part_files(folder), _index_by_key(cells)
    stored = np.full((len(cells), 2), -1, dtype=np.int32)  # part and row of each cell
    for number, path in enumerate(paths):
        _check_tensors(beside(path)[-1])
        for row, key in enumerate(part_keys(path)):
            if (index := index_of(key)) is not None:
                stored[index] = number, row
    available = np.flatnonzero(stored[:, 0] >= 0)
    part = lru_cache(_PARTS_IN_MEMORY)(lambda number: part_cells(paths[number]))

    def read(index: int) -> CellResult:
        number, row = stored[available[index]].tolist()
        return part(number)[row]

    return LazyResults(Lazy(len(available), lambda index: cells[int(available[index])]), read)


def _index_by_key(cells: Sequence[Cell]) -> Callable[[str], int | None]:
    """Function from a cell's key to its index among cells; None if it is not among them."""
    if not isinstance(cells, RepeatedCells):
        return {cell.key: index for index, cell in enumerate(cells)}.get
    pictures = {id: index for index, id in enumerate(cells.pictures)}
    each = {cell.key: index for index, cell in enumerate(cells.each)}

    def index_of(key: str) -> int | None:
        id, bar, rest = key.partition("|")
        picture, cell = pictures.get(id), each.get(bar + rest)
        return None if picture is None or cell is None else picture * len(cells.each) + cell

    return index_of


def stored_readings(folder: Path, ids: Iterable[str]) -> Sequence[Reading]:
    """Readings of these input pictures that a run contains, in the order of the ids.

    Raises:
        StoreError: if a reading cannot be read.
    """
    files = reading_files(folder)
    paths = [files[id] for id in ids if id in files]
    for path in paths:
        *tables, tensors = beside(path)
        for table in tables:
            _readable(path, lambda table=table: pq.read_schema(table))
        _check_tensors(tensors)
    return Lazy(len(paths), lru_cache(_READINGS_IN_MEMORY)(lambda index: stored_reading(paths[index])))


def stored_reading(path: Path) -> Reading:
    """Reads a reading from its table and the files beside it.

    Raises:
        StoreError: if it cannot be read.
    """

    def read() -> Reading:
        table, labels, *units, tensors = beside(path)
        reading = read_reading(table, labels, tensors, _png, *units)
        if reading.id != path.stem:  # ids are used as file names
            raise ValueError(f"it belongs to the input {reading.id!r}")
        return reading

    return _readable(path, read)


def _check_tensors(path: Path) -> None:
    def check() -> None:
        with path.open("rb") as file:
            stated, size = _stated_size(file), file.seek(0, os.SEEK_END)
        if size != stated:  # before all of it is mapped into memory
            raise ValueError(f"it is {size} bytes long, and its header states {stated}")
        with safe_open(path, framework="pt"):
            pass

    _readable(path, check)


def _stated_size(file: BinaryIO) -> int:
    """Bytes that a safetensors file must have, from its header."""
    length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header states its own length as {length} bytes")
    header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0)


def _png(path: Path, row: int) -> bytes:
    return _readable(path, lambda: read_png(path, row))


def _readable(path: Path, read: Callable[[], _Read]) -> _Read:
    try:
        return read()
    except StoreError:
        raise
    except (MemoryError, pa.ArrowMemoryError) as error:  # damage can make a library ask for any amount
        hashes, name = read_hashes(path.parent.parent), f"{path.parent.name}/{path.name}"
        if reason := damage_of(path.parent.parent, name, hashes):
            raise damaged(path, reason) from error
        raise
    except Exception as error:  # whatever a library says of bytes that are no longer what it wrote
        raise damaged(path, " ".join(str(error).split()).rstrip(".") or type(error).__name__) from error
