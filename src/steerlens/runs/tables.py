"""Tables of a run: conversion of results to parquet and safetensors, and back.

Picture columns are structs of `bytes` and `path` with the Hugging Face feature in the schema's metadata, so that the
datasets library, and its viewer, show pictures.
"""

import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens.atlas import REAL_PASSES, Cell, CellResult, LensName, Reading
from steerlens.images import Picture, check_png, png_bytes, stored_picture
from steerlens.lenses import Label, Strength
from steerlens.runs.columns import IMAGE, open_table, read_rows
from steerlens.runs.units import OF_NEURONS, UNITS, read_units, unit_rows
from steerlens.sites import Site

_ROW_GROUP = 8
"""Rows that are read at once to get at a picture."""

_DTYPES = {"double": "float64", "float": "float32"}
"""Arrow's names of types -> those of the datasets library, where they differ."""

CELLS = {
    "picture": pa.string(),
    "lens": pa.string(),
    "site": pa.string(),
    "kind": pa.string(),
    "layer": pa.int32(),
    "head": pa.int32(),
    "strength": pa.string(),
    "seed": pa.int64(),
    "draw": pa.int32(),
    "rho": pa.float64(),
    "similarity": pa.float64(),
    "steered_similarity": pa.float64(),
    "fidelity": pa.float64(),
    "image": IMAGE,
}

EFFECTS = {"direct_cosine": pa.float64(), "change_cosine": pa.float64()}
"""Columns of cells in runs that show total effects; other runs have none of them."""

_INPUTS = {
    "picture": pa.string(),
    "name": pa.string(),
    "sha256": pa.string(),
    "note": pa.string(),
    "target": pa.string(),
    "target_similarity": pa.float64(),
    "decomposition_error": pa.float64(),
    "image": IMAGE,
}

_LABELS = {
    "picture": pa.string(),
    "site": pa.string(),
    "rank": pa.int32(),
    "label": pa.string(),
    "score": pa.float64(),
}

_DECOMPOSED = {"explained": pa.float64(), "control": pa.float64()}
"""Columns of labels that are texts of a decomposition; runs of the nearest texts lack them."""

_NULLABLE = ("strength", *EFFECTS)
"""Columns of cells without a value for some lenses."""

_EMBEDDINGS = {"conditioning": 2, "reencoded": 2}

_MEASURED = {"embedding": 1, "write_norms": 2, "direct_similarity": 2}

_MEASURED_SOMETIMES = {"attention": 3, "steered_similarity": 2, "ablation_effects": 2, "unusual": 1}
"""Tensors of an input that some decoders and encoders have none of; the numbers are those of their dimensions."""


def image_value(png: bytes, name: str) -> dict[str, Any]:
    """Value of a picture column for a PNG file."""
    return {"bytes": png, "path": name}


def table_bytes(columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Bytes of a parquet file whose picture columns the datasets library shows as pictures."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema_of(columns))
    row_group_size = _ROW_GROUP if "image" in columns else None
    # Pages have checksums, so that a picture is known to be damaged when it is read, without reading the whole file.
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group_size, write_page_checksum=True)
    return sink.getvalue()


def schema_of(columns: Mapping[str, Any]) -> Any:
    """Schema of columns, which tells the datasets library which of them are pictures."""
    features = {name: {"_type": "Image"} if kind == IMAGE else _feature(kind) for name, kind in columns.items()}
    return pa.schema(list(columns.items()), metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: Any) -> dict[str, Any]:
    """The datasets library's description of a column."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}


def read_png(path: Path, row: int) -> bytes:
    """Reads the picture of one row of a table, as the bytes of a PNG file.

    Raises:
        PictureError: if the stored bytes are not a complete PNG file.
    """
    with open_table(path, {"image": IMAGE}) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                image = file.read_row_group(group, columns=["image.bytes"])["image"][row].as_py() or {}
                png = image.get("bytes") or b""
                check_png(png)
                return png
            row -= rows
    raise ValueError("it has fewer rows than when it was first read")


def cell_columns(lenses: Collection[LensName]) -> dict[str, Any]:
    """Columns of the cells of a run with these lenses; the picture comes last."""
    if not any(lens in REAL_PASSES for lens in lenses):
        return dict(CELLS)
    numbers = {name: kind for name, kind in CELLS.items() if kind != IMAGE}
    return {**numbers, **EFFECTS, "image": IMAGE}


def cell_row(result: CellResult) -> dict[str, Any]:
    """Row of a cell, without its picture."""
    return {
        "picture": result.cell.picture,
        "lens": result.cell.lens,
        "site": str(result.cell.site),
        "kind": result.cell.site.kind,
        "layer": result.cell.site.layer,
        "head": result.cell.site.head,
        "strength": None if result.cell.strength is None else str(result.cell.strength),
        "seed": result.cell.seed,
        "draw": result.cell.draw,
        "rho": result.rho,
        "similarity": result.similarity,
        "steered_similarity": result.steered_similarity,
        "fidelity": result.fidelity,
        "direct_cosine": result.direct_cosine,
        "change_cosine": result.change_cosine,
    }


def cell_image(result: CellResult) -> dict[str, Any]:
    """Value of a picture column for the decoded picture of a cell."""
    return image_value(result.png, f"{result.cell.lens}-{result.cell.site}-{result.cell.seed}.png")


def cells_to_bytes(results: Sequence[CellResult], columns: Mapping[str, Any] = CELLS) -> tuple[bytes, bytes]:
    """Files of a part: a parquet table of cells with pictures, and their embeddings as safetensors, row for row.

    Args:
        results: the cells.
        columns: columns of the run (`cell_columns`), which all its parts share.
    """
    rows = [{**cell_row(result), "image": cell_image(result)} for result in results]
    tensors = {
        "conditioning": torch.stack([result.conditioning for result in results]),
        "reencoded": torch.stack([result.reencoded for result in results]),
    }
    return table_bytes(columns, rows), save_tensors(tensors)


def cell_keys(table: Path) -> list[str]:
    """Reads the keys of a part's cells, without its pictures."""
    columns = {name: CELLS[name] for name in ("picture", "lens", "site", "strength", "seed", "draw")}
    return [cell_of(row).key for row in read_rows(table, columns, _NULLABLE)]


def cell_of(row: Mapping[str, Any]) -> Cell:
    """Cell of a row."""
    strength = None if row["strength"] is None else Strength.parse(row["strength"])
    return Cell(row["picture"], row["lens"], Site.parse(row["site"]), strength, row["seed"], row["draw"])


def read_cells(table: Path, embeddings: Path, png: Callable[[Path, int], bytes] = read_png) -> list[CellResult]:
    """Reads the results of a part; their pictures are read on access.

    Args:
        table: the parquet file.
        embeddings: the safetensors file beside it.
        png: reads the picture of a row.
    """
    rows, tensors = read_rows(table, CELLS, _NULLABLE, EFFECTS), _read_tensors(embeddings, _EMBEDDINGS)
    if any(len(tensors[name]) != len(rows) for name in _EMBEDDINGS):
        raise ValueError(f"{embeddings.name} beside it is of another number of pictures")
    return [
        CellResult(
            cell=cell_of(row),
            rho=row["rho"],
            file=partial(png, table, index),
            conditioning=tensors["conditioning"][index],
            reencoded=tensors["reencoded"][index],
            similarity=row["similarity"],
            steered_similarity=row["steered_similarity"],
            fidelity=row["fidelity"],
            direct_cosine=row.get("direct_cosine"),
            change_cosine=row.get("change_cosine"),
        )
        for index, row in enumerate(rows)
    ]


def _decomposed_columns(reading: Reading) -> dict[str, Any]:
    return _DECOMPOSED if any(label.explained is not None for label in reading.labels) else {}


def reading_to_bytes(reading: Reading, *, units: bool = False) -> tuple[bytes, ...]:
    """Files of a reading: the input, its labels and its units as parquet, its tensors as safetensors.

    Args:
        reading: the reading.
        units: True for a run of neurons or features, which has a table of units for every input.
    """
    row = {
        "picture": reading.id,
        "name": reading.picture.name,
        "sha256": reading.picture.sha256,
        "note": reading.picture.note,
        "target": reading.target,
        "target_similarity": reading.target_similarity,
        "decomposition_error": reading.decomposition_error,
        "image": image_value(png_bytes(reading.picture.image), reading.picture.name),
    }
    labels = [
        {
            "picture": reading.id,
            "site": str(label.site),
            "rank": label.rank,
            "label": label.name,
            "score": label.score,
            "explained": label.explained,
            "control": label.control,
        }
        for label in reading.labels
    ]
    tensors: dict[str, Tensor] = {
        "embedding": reading.embedding,
        "write_norms": reading.write_norms,
        "direct_similarity": reading.direct_similarity,
    }
    unusual = None if reading.unusual is None else torch.tensor([reading.unusual])
    optional = {
        "attention": reading.attention,
        "steered_similarity": reading.steered_similarity,
        "ablation_effects": reading.ablation_effects,
        "unusual": unusual,
    }
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    tables = [table_bytes(_INPUTS, [row]), table_bytes(_LABELS | _decomposed_columns(reading), labels)]
    if units:
        tables.append(table_bytes({**UNITS, **OF_NEURONS}, unit_rows(reading.id, reading.units)))
    return *tables, save_tensors(contiguous)


def read_reading(
    table: Path,
    labels: Path,
    tensors: Path,
    png: Callable[[Path, int], bytes] = read_png,
    units: Path | None = None,
) -> Reading:
    """Reads a reading that `reading_to_bytes` wrote; the input picture is opened on access.

    Args:
        table: parquet file of the input.
        labels: parquet file of its labels.
        tensors: the safetensors file beside them.
        png: reads the picture of a row.
        units: parquet file of its neurons and features; None in a run without any.
    """
    rows, stored = read_rows(table, _INPUTS), _read_tensors(tensors, _MEASURED, _MEASURED_SOMETIMES)
    if len(rows) != 1:
        raise ValueError(f"it has {len(rows)} rows, where an input has one")
    row = rows[0]
    return Reading(
        picture=Picture(row["name"], partial(_image, png, table), row["sha256"], note=row["note"]),
        id=row["picture"],
        embedding=stored["embedding"],
        target=row["target"],
        target_similarity=row["target_similarity"],
        labels=tuple(
            Label(
                Site.parse(label["site"]),
                label["rank"],
                label["label"],
                label["score"],
                label.get("explained"),
                label.get("control"),
            )
            for label in read_rows(labels, _LABELS, tuple(_DECOMPOSED), _DECOMPOSED)
        ),
        attention=stored.get("attention"),
        write_norms=stored["write_norms"],
        direct_similarity=stored["direct_similarity"],
        decomposition_error=row["decomposition_error"],
        steered_similarity=stored.get("steered_similarity"),
        ablation_effects=stored.get("ablation_effects"),
        unusual=float(stored["unusual"][0]) if "unusual" in stored else None,
        units=() if units is None else read_units(units),
    )


def _read_tensors(path: Path, needed: Mapping[str, int], other: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """Reads tensors of floats with given numbers of dimensions.

    Raises:
        ValueError: if one is missing or is not such a tensor; the message names the file and the tensor.
    """
    tensors = load_tensors(path.read_bytes())
    for name, dimensions in {**needed, **(other or {})}.items():
        tensor = tensors.get(name)
        if tensor is None and name in needed:
            raise ValueError(f"{path.name} beside it has no tensor {name!r}")
        if tensor is not None and not (tensor.is_floating_point() and tensor.ndim == dimensions):
            raise ValueError(
                f"{path.name} beside it holds {name!r} as {str(tensor.dtype).removeprefix('torch.')} of "
                f"{tensor.ndim} dimensions, not as floats of {dimensions}"
            )
    return tensors


def _image(png: Callable[[Path, int], bytes], table: Path) -> Image.Image:
    return stored_picture(png(table, 0))
