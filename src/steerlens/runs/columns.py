"""Columns of parquet files, checked as they are read: a file may hold another type, a null, or no such column."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of a picture column."""


def read_rows(
    path: Path, columns: Mapping[str, Any], nullable: Collection[str] = (), optional: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Reads a table without its pictures, which are not read from disk either.

    Args:
        path: the parquet file.
        columns: type of each column that the table must have.
        nullable: columns whose values may be null.
        optional: type of each column that the table may have.

    Raises:
        ValueError: if a column is missing, of another type, or has a null or a number where its type has no place for
            it; the message names the column.
    """
    with open_table(path, columns) as file:
        for name, kind in (optional or {}).items():
            if name in file.schema_arrow.names:
                _check_column(file.schema_arrow, name, kind)
                columns = {**columns, name: kind}
        table = file.read(columns=[name for name, kind in columns.items() if kind != IMAGE])
    read: dict[str, list[Any]] = {}
    for name in table.column_names:
        column, kind = table[name], columns[name]
        if column.null_count and name not in nullable:
            raise ValueError(f"its column {name!r} has no value in {column.null_count} of {len(column)} rows")
        try:
            read[name] = column.cast(kind).to_pylist()
        except pa.ArrowInvalid:
            raise ValueError(f"its column {name!r} has values that no {kind} can hold") from None
    return [dict(zip(read, values, strict=True)) for values in zip(*read.values(), strict=True)]


def open_table(path: Path, columns: Mapping[str, Any]) -> pq.ParquetFile:
    """Opens a parquet file after a look at the types of its columns; columns that are not asked for do not matter.

    Raises:
        ValueError: if a column is missing, there twice, or of another type.
    """
    file = pq.ParquetFile(path, page_checksum_verification=True)
    try:
        for name, kind in columns.items():
            _check_column(file.schema_arrow, name, kind)
    except ValueError:
        file.close()
        raise
    return file


def _check_column(schema: Any, name: str, kind: Any) -> None:
    places = schema.get_all_field_indices(name)
    if len(places) != 1:
        raise ValueError(f"it has {'two columns' if places else 'no column'} {name!r}")
    stored = schema.field(places[0]).type
    if not _same_kind(stored, kind):
        raise ValueError(f"its column {name!r} holds {_shortened(stored)}, not {kind}")


def _same_kind(stored: Any, kind: Any) -> bool:
    """True for the same kind of values; other programs rewrite tables in other widths."""
    kinds = (
        (pa.types.is_integer,),
        (pa.types.is_floating,),
        (pa.types.is_string, pa.types.is_large_string),
        (pa.types.is_binary, pa.types.is_large_binary),
    )
    if pa.types.is_struct(kind):
        names = [field.name for field in stored] if pa.types.is_struct(stored) else []
        return all(field.name in names and _same_kind(stored.field(field.name).type, field.type) for field in kind)
    if pa.types.is_list(kind):
        listed = pa.types.is_list(stored) or pa.types.is_large_list(stored)
        return listed and _same_kind(stored.value_type, kind.value_type)
    return any(any(same(kind) for same in group) and any(same(stored) for same in group) for group in kinds)


def _shortened(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 80 else f"{text[:80]} ..."
