"""Tables of neurons and features of a run: a row for each unit of an input, with its activation on every token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from steerlens.atlas import UnitReading
from steerlens.runs.columns import read_rows
from steerlens.sites import Site

UNITS: dict[str, Any] = {
    "picture": pa.string(),
    "site": pa.string(),
    "kind": pa.string(),
    "name": pa.string(),
    "layer": pa.int32(),
    "index": pa.int64(),
    "activation": pa.float64(),
    "effect": pa.float64(),
    "similarity": pa.float64(),
    "tokens": pa.list_(pa.float32()),
}

OF_NEURONS: dict[str, Any] = {"second_order": pa.float64(), "together": pa.float64(), "ablated": pa.float64()}
"""Columns that are measured of neurons alone; tables written before they were measured lack them."""

_NULLABLE = ("activation", "tokens", *OF_NEURONS)


def unit_rows(id: str, units: Sequence[UnitReading]) -> list[dict[str, Any]]:
    """Rows of the units of one input."""
    return [
        {
            "picture": id,
            "site": str(unit.site),
            "kind": unit.site.kind,
            "name": unit.site.name,
            "layer": unit.site.layer,
            "index": unit.site.index,
            "activation": unit.activation,
            "effect": unit.effect,
            "similarity": unit.similarity,
            "tokens": None if unit.tokens is None else unit.tokens.float().tolist(),
            **{name: getattr(unit, name) for name in OF_NEURONS},
        }
        for unit in units
    ]


def read_units(table: Path) -> tuple[UnitReading, ...]:
    """Reads the units of one input.

    Raises:
        ValueError: if a column is missing or holds something else.
    """
    return tuple(
        UnitReading(
            site=Site.parse(row["site"]),
            activation=row["activation"],
            effect=row["effect"],
            similarity=row["similarity"],
            tokens=None if row["tokens"] is None else torch.tensor(row["tokens"], dtype=torch.float32),
            **{name: row.get(name) for name in OF_NEURONS},
        )
        for row in read_rows(table, UNITS, _NULLABLE, OF_NEURONS)
    )
