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

UNIT_WORDS: dict[str, str] = {
    "picture": "id of the input, from its content",
    "site": "the unit: `neuron.9.310`, `feature.NAME.12`, `error.NAME`, `bias.NAME`",
    "kind": "`neuron`, `feature`, `error` or `bias`",
    "name": "name of the sparse autoencoder; empty for neurons",
    "layer": "layer of the neuron, from 0; -1 for features, error and bias, whose autoencoder knows its site",
    "index": "number of the neuron in its MLP, or of the feature, from 0; -1 for error and bias",
    "activation": "activation on the readout token, the mean over several; null for error and bias",
    "effect": "length of the embedding's change when the unit's write is taken out, everything after it frozen, "
    "relative to the embedding; from 0",
    "similarity": "cosine of the steered embedding with the target, before decoding",
    "tokens": "activation on every token; for error and bias, the norm of their write there; null for an autoencoder "
    "of the embedding itself",
    "second_order": "for neurons, the effect of what later attention makes of the write, attention patterns and norms "
    "frozen, in the measure of `effect`; null where it was not measured",
    "together": "for neurons, `effect` and `second_order` taken out at once",
    "ablated": "for neurons, the effect of zeroing the neuron on every token of a real forward pass",
}
"""Meaning of every column, for the docs."""

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
