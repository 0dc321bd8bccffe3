"""Columns of the table of features: one parquet file a chunk, read again one chunk at a time."""

from typing import Any

import pyarrow as pa

from steerlens.runs import IMAGE

FOLDER = "features"
"""Folder of the chunks in a profile."""

_TEXT = pa.struct([("text", pa.string()), ("score", pa.float64()), ("excess", pa.float64())])
_TOP = pa.struct([("picture", pa.int32()), ("value", pa.float64()), ("heat", pa.binary())])
_SIMILAR = pa.struct([("feature", pa.int32()), ("cosine", pa.float64())])
_HEAD = pa.struct([("head", pa.string()), ("value", pa.float64())])

COLUMNS: dict[str, Any] = {
    "feature": pa.int32(),
    "density": pa.float64(),
    "pictures": pa.int32(),
    "mean": pa.float64(),
    "largest": pa.float64(),
    "effect": pa.float64(),
    "effect_control": pa.float64(),
    "histogram": pa.list_(pa.int64()),
    "tops": pa.list_(_TOP),
    "texts": pa.list_(_TEXT),
    "names": pa.string(),
    "similar": pa.list_(_SIMILAR),
    "heads_by_weights": pa.list_(_HEAD),
    "heads_measured": pa.list_(_HEAD),
    "alone_image": IMAGE,
    "added_image": IMAGE,
    "alone_fidelity": pa.float64(),
    "added_fidelity": pa.float64(),
}
"""One row a feature. `effect_control` is the effect of a random direction of equal size; older tables lack it.
`heat` is one byte a token, a share of the strongest; images are those of decoded features."""


def chunk_name(number: int) -> str:
    """File name of a chunk."""
    return f"part-{number:05d}.parquet"
