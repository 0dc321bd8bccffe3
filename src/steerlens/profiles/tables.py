"""Files of a profile: JSON, parquet tables with pictures, and directions to steer along."""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens.images import png_bytes
from steerlens.printable import json_without_folders
from steerlens.profiles.measure import ORDERS, oriented
from steerlens.profiles.names import WRITES
from steerlens.profiles.summary import DIRECTIONS, HeadProfile, Profile, averages_of
from steerlens.runs import IMAGE, image_value, table_bytes
from steerlens.studies.shared import StudyFolder

_NUMBERS = (
    *("constant", "write", "similarity", "direct_effect", "total_effect", "total_unsigned"),
    *("axis_share", "chance_share"),
)
_COLUMNS = {
    "head": pa.string(),
    "layer": pa.int32(),
    "index": pa.int32(),
    **dict.fromkeys(_NUMBERS, pa.float64()),
    **dict.fromkeys((f"top_by_{order}" for order in ORDERS), pa.string()),
    **dict.fromkeys((f"{name}_texts" for name in DIRECTIONS), pa.string()),
    **dict.fromkeys((f"{name}_names" for name in (*DIRECTIONS, WRITES)), pa.string()),
    **dict.fromkeys((f"{name}_image" for name in DIRECTIONS), IMAGE),
}
_VALUES = {
    **dict.fromkeys(("picture", "concept", "head"), pa.string()),
    **dict.fromkeys(("write", "axis", "similarity", "unsigned", "effect"), pa.float64()),
}


def write_profile(
    study: StudyFolder,
    profile: Profile,
    provenance: Mapping[str, Any],
    directions: Mapping[str, Tensor],
    values: Mapping[str, Float[Tensor, "P N"]],
) -> None:
    """Writes `summary.json`, `heads.parquet`, `pictures.parquet` and `directions.safetensors`.

    The last file contains, for each head, `L3H4.mean` and `L3H4.high` (D,), means over readout tokens, for
    `steerlens lens --vector` (`low` is the opposite of `high`).

    Raises:
        StoreError: if they cannot be written.
    """
    study.write_json("summary.json", profile.to_json())
    study.write_json("provenance.json", json_without_folders(provenance))
    study.write("heads.parquet", table_bytes(_COLUMNS, [_head_row(head) for head in profile.heads]))
    # Coordinates on the axis are oriented like the top pictures: from low to high.
    shown = {name: values[name] for name in ("write", "axis", "similarity", "unsigned", "effect")}
    shown["axis"] = shown["axis"] * oriented(shown["axis"])
    rows = [
        {
            "picture": picture.id,
            "concept": picture.concept,
            "head": head.site.label,
            **{name: _known(float(table[row, _place(profile, head)])) for name, table in shown.items()},
        }
        for head in profile.heads
        for row, picture in enumerate(profile.pictures)
    ]
    study.write("pictures.parquet", table_bytes(_VALUES, rows))
    vectors: dict[str, Tensor] = {}
    for head in profile.heads:
        for name in ("mean", "high"):
            vector = directions[name][_place(profile, head)].mean(dim=0).cpu().contiguous()
            if bool(vector.any()):  # steering along a zero vector is undefined
                vectors[f"{head.site.label}.{name}"] = vector
    study.write("directions.safetensors", save_tensors(vectors))


def _place(profile: Profile, head: HeadProfile) -> int:
    return head.site.layer * profile.spec.n_heads + head.site.head


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _head_row(head: HeadProfile) -> dict[str, Any]:
    averages = {name: None if value is None else value.value for name, value in averages_of(head).items()}
    return {
        "head": head.site.label,
        "layer": head.site.layer,
        "index": head.site.head,
        "constant": head.constant,
        **averages,
        "axis_share": head.axis_share,
        "chance_share": head.chance_share,
        **{f"top_by_{order}": "; ".join(top.concept for top in tops) for order, tops in head.tops.items()},
        **{
            f"{name}_texts": "; ".join(f"{text.text} ({text.excess:+.2f})" for text in head.texts.get(name, ()))
            for name in DIRECTIONS
        },
        **{f"{name}_names": str(named) for name, named in head.names.items()},
        **{
            f"{name}_image": image_value(png_bytes(Image.fromarray(decoded.picture)), f"{head.site.label}-{name}.png")
            for name, decoded in head.decoded.items()
        },
    }
