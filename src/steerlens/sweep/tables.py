"""The tables of a run: how results become parquet and safetensors, and come back.

Picture columns are structs of `bytes` and `path` with the Hugging Face feature in the schema's metadata, so that the
datasets library, and its viewer, show pictures.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens.images import Picture, png_bytes
from steerlens.lenses.logit import Label
from steerlens.lenses.strength import Strength
from steerlens.sites import Site
from steerlens.sweep.atlas import CellResult, Reading
from steerlens.sweep.plan import Cell

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The type of a picture column."""

_DTYPES = {"double": "float64"}
"""Where the names of arrow's types and those of the datasets library differ."""

_CELLS = {
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


def image_value(png: bytes, name: str) -> dict[str, Any]:
    """A PNG file as a value of a picture column."""
    return {"bytes": png, "path": name}


def _image(value: Mapping[str, Any]) -> Image.Image:
    image = Image.open(io.BytesIO(value["bytes"]))
    image.load()
    return image


def table_bytes(columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a parquet file whose picture columns the datasets library shows as pictures."""
    features = {
        name: {"_type": "Image"} if kind == IMAGE else {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}
        for name, kind in columns.items()
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(list(columns.items()), metadata=metadata)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), sink, compression="zstd")
    return sink.getvalue()


def _rows(data: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(data)).to_pylist()


def cells_to_bytes(results: Sequence[CellResult]) -> tuple[bytes, bytes]:
    """A part of a run: a parquet table of cells with pictures, and their embeddings as safetensors, row for row."""
    rows = [
        {
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
            "image": image_value(result.png, f"{result.cell.lens}-{result.cell.site}-{result.cell.seed}.png"),
        }
        for result in results
    ]
    tensors = {
        "conditioning": torch.stack([result.conditioning for result in results]),
        "reencoded": torch.stack([result.reencoded for result in results]),
    }
    return table_bytes(_CELLS, rows), save_tensors(tensors)


def cell_keys(table: bytes) -> list[str]:
    """The keys of a part's cells, without reading its pictures."""
    columns = ["picture", "lens", "site", "strength", "seed", "draw"]
    return [_cell(row).key for row in pq.read_table(io.BytesIO(table), columns=columns).to_pylist()]


def _cell(row: Mapping[str, Any]) -> Cell:
    strength = None if row["strength"] is None else Strength.parse(row["strength"])
    return Cell(row["picture"], row["lens"], Site.parse(row["site"]), strength, row["seed"], row["draw"])


def cells_from_bytes(table: bytes, embeddings: bytes) -> list[CellResult]:
    """The cells of a part."""
    tensors = load_tensors(embeddings)
    return [
        CellResult(
            cell=_cell(row),
            rho=row["rho"],
            png=row["image"]["bytes"],
            conditioning=tensors["conditioning"][index],
            reencoded=tensors["reencoded"][index],
            similarity=row["similarity"],
            steered_similarity=row["steered_similarity"],
            fidelity=row["fidelity"],
        )
        for index, row in enumerate(_rows(table))
    ]


def reading_to_bytes(reading: Reading) -> tuple[bytes, bytes, bytes]:
    """A reading as three files: the input as parquet, its labels as parquet, its tensors as safetensors."""
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
        {"picture": reading.id, "site": str(label.site), "rank": label.rank, "label": label.name, "score": label.score}
        for label in reading.labels
    ]
    tensors: dict[str, Tensor] = {
        "embedding": reading.embedding,
        "write_norms": reading.write_norms,
        "direct_similarity": reading.direct_similarity,
    }
    if reading.attention is not None:
        tensors["attention"] = reading.attention
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return table_bytes(_INPUTS, [row]), table_bytes(_LABELS, labels), save_tensors(contiguous)


def reading_from_bytes(table: bytes, labels: bytes, tensors: bytes) -> Reading:
    """The reading that `reading_to_bytes` stored."""
    (row,) = _rows(table)
    held = load_tensors(tensors)
    return Reading(
        picture=Picture(
            name=row["name"], image=_image(row["image"]).convert("RGB"), sha256=row["sha256"], note=row["note"]
        ),
        id=row["picture"],
        embedding=held["embedding"],
        target=row["target"],
        target_similarity=row["target_similarity"],
        labels=tuple(
            Label(Site.parse(label["site"]), label["rank"], label["label"], label["score"]) for label in _rows(labels)
        ),
        attention=held.get("attention"),
        write_norms=held["write_norms"],
        direct_similarity=held["direct_similarity"],
        decomposition_error=row["decomposition_error"],
    )
