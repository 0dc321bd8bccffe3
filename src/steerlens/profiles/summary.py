"""Profiles as data: made from raw measurements alone, written as JSON, parquet and directions to steer along."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens.encoders.base import EncoderSpec
from steerlens.images import png_bytes
from steerlens.lenses.strength import Strength, visible_norm
from steerlens.profiles.measure import ORDERS, Means, Order, oriented
from steerlens.profiles.pictures import Shown
from steerlens.profiles.texts import Described, describe, text_scores
from steerlens.runs.tables import IMAGE, image_value, table_bytes
from steerlens.sites import Site
from steerlens.studies.shared.folder import StudyFolder
from steerlens.vocabulary import Vocabulary

DIRECTIONS = ("mean", "high", "low")
"""What is decoded and described of a head: its mean write, and the two ends of the axis of its centred writes."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A decoded picture and how well it shows what was asked for: a cosine in [-1,1]."""

    picture: UInt8[np.ndarray, "height width 3"]
    fidelity: float


@dataclass(frozen=True)
class Average:
    """A mean over pictures, its standard error, and over how many."""

    value: float
    error: float
    count: int


@dataclass(frozen=True)
class TopPicture:
    """One of a head's top pictures: its id, what it shows, and the value that put it there."""

    id: str
    concept: str
    value: float


@dataclass(frozen=True, eq=False)
class HeadProfile:
    """What one head does over many pictures.

    Attributes:
        site: the head.
        constant: norm of the mean write over that of the mean final residual, means over width removed.
        write: norm of the centred write over that of the final residual: what varies with the picture.
        similarity: how well the centred write says what the picture shows, a cosine.
        direct_effect: similarity with the label's text that is lost if the write is replaced by its mean in the final
            residual alone; None where no label is known.
        total_effect: the same on a real forward pass, everything downstream reacting; None without ablations.
        total_unsigned: how far the embedding then moves, `1 - cos`; None without ablations.
        axis_share: share of the centred writes' variance along the head's axis, in [0,1].
        chance_share: the same along a random mixture of its centred writes.
        tops: the top pictures by each order.
        texts: by direction (`DIRECTIONS`), the texts that describe it.
        drawn: by direction, what it decodes to when the neutral base is steered along it.
    """

    site: Site
    constant: float
    write: Average
    similarity: Average
    direct_effect: Average | None
    total_effect: Average | None
    total_unsigned: Average | None
    axis_share: float
    chance_share: float
    tops: Mapping[Order, tuple[TopPicture, ...]]
    texts: Mapping[str, tuple[Described, ...]]
    drawn: Mapping[str, Drawn]


@dataclass(frozen=True, eq=False)
class Profile:
    """Profiles of heads over the same pictures.

    Attributes:
        model: name of the pair.
        spec: sizes of the encoder.
        source: where the pictures come from.
        pictures: the pictures.
        heads: one profile a head that was asked for.
        strength: how hard was steered from the neutral base.
        neutral: the neutral base, decoded.
        random: a random direction steered as hard, decoded.
        chance: by direction, the excess that the best text of a meaningless direction stays below in 95 of 100.
        n_texts: how many texts there were to choose from.
    """

    model: str
    spec: EncoderSpec
    source: str
    pictures: tuple[Shown, ...]
    heads: tuple[HeadProfile, ...]
    strength: Strength
    neutral: Drawn
    random: Drawn
    chance: Mapping[str, float]
    n_texts: int

    def to_json(self) -> dict[str, Any]:
        """All numbers and texts, without pictures."""
        return {
            "model": self.model,
            "encoder": self.spec.name,
            "source": self.source,
            "pictures": len(self.pictures),
            "strength": str(self.strength),
            "chance": dict(self.chance),
            "texts": self.n_texts,
            "neutral_fidelity": self.neutral.fidelity,
            "heads": [_head_json(head) for head in self.heads],
        }


@dataclass(frozen=True, eq=False)
class Raw:
    """What was measured: values (P,N) over all N heads, ablations (A,K) over the K heads asked for, vectors (N,R,D)."""

    model: str
    spec: EncoderSpec
    pictures: tuple[Shown, ...]
    source: str
    means: Means
    values: Mapping[str, Float[Tensor, "P N"]]
    directions: Mapping[str, Tensor]
    ablated: Mapping[str, Float[Tensor, "A K"]]
    drawn: Mapping[str, Drawn]
    texts: Mapping[str, Tensor] | None


def make_profile(
    raw: Raw,
    heads: Sequence[Site],
    vocabulary: Vocabulary | None,
    *,
    strength: Strength,
    n_top: int,
    n_texts: int,
) -> Profile:
    """Every figure of a profile, from what was measured."""
    texts: dict[str, list[tuple[Described, ...]]] = {}
    chance: dict[str, float] = {}
    if vocabulary is not None and raw.texts is not None and n_texts:
        neutral = raw.texts["neutral"]
        for name in DIRECTIONS:
            scores = text_scores(vocabulary, raw.texts[name], neutral)
            meaningless = text_scores(vocabulary, raw.texts[f"{name}.chance"], neutral)
            texts[name], chance[name] = describe(vocabulary.names, scores, meaningless, n_texts)
    places = raw.values["axis"] * oriented(raw.values["axis"])
    ordered = {**raw.values, "high": places, "low": -places}
    centred, rows = raw.spec.centred, {site: site.layer * raw.spec.n_heads + site.head for site in heads}
    constant = visible_norm(raw.means.writes, centred=centred) / visible_norm(raw.means.final, centred=centred)
    return Profile(
        model=raw.model,
        spec=raw.spec,
        source=raw.source,
        pictures=raw.pictures,
        heads=tuple(
            HeadProfile(
                site=site,
                constant=float(constant[row]),
                write=_average(raw.values["write"][:, row]) or Average(math.nan, math.nan, 0),
                similarity=_average(raw.values["similarity"][:, row]) or Average(math.nan, math.nan, 0),
                direct_effect=_average(raw.values["effect"][:, row]),
                total_effect=_average(raw.ablated["effect"][:, place]) if raw.ablated else None,
                total_unsigned=_average(raw.ablated["unsigned"][:, place]) if raw.ablated else None,
                axis_share=_share(raw.values["axis"][:, row], raw.values["write"][:, row]),
                chance_share=_share(raw.values["chance"][:, row], raw.values["write"][:, row]),
                tops={name: _tops(raw.pictures, ordered[name][:, row], n_top) for name in ORDERS},
                texts={name: found[row] for name, found in texts.items()},
                drawn={name: raw.drawn[f"{site}.{name}"] for name in DIRECTIONS},
            )
            for place, (site, row) in enumerate(rows.items())
        ),
        strength=strength,
        neutral=raw.drawn["neutral"],
        random=raw.drawn["random"],
        chance=chance,
        n_texts=0 if vocabulary is None else len(vocabulary.names),
    )


def _average(values: Float[Tensor, "N"]) -> Average | None:
    """Mean and standard error of the values that are there; None if none is."""
    known = values[~values.isnan()].double()
    if known.numel() == 0:
        return None
    error = float(known.std() / math.sqrt(known.numel())) if known.numel() > 1 else math.nan
    return Average(float(known.mean()), error, known.numel())


def _share(along: Float[Tensor, "N"], whole: Float[Tensor, "N"]) -> float:
    return float(along.double().square().sum() / whole.double().square().sum().clamp_min(1e-30))


def _tops(pictures: Sequence[Shown], values: Float[Tensor, "N"], k: int) -> tuple[TopPicture, ...]:
    order = values.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)[:k].tolist()
    return tuple(
        TopPicture(pictures[row].id, pictures[row].concept, float(values[row]))
        for row in order
        if not bool(values[row].isnan())
    )


def _head_json(head: HeadProfile) -> dict[str, Any]:
    return {
        "site": str(head.site),
        "constant": head.constant,
        **{name: None if value is None else asdict(value) for name, value in _averages(head).items()},
        "axis_share": head.axis_share,
        "chance_share": head.chance_share,
        "tops": {order: [asdict(top) for top in tops] for order, tops in head.tops.items()},
        "texts": {name: [asdict(text) for text in texts] for name, texts in head.texts.items()},
        "fidelity": {name: drawn.fidelity for name, drawn in head.drawn.items()},
    }


def _averages(head: HeadProfile) -> dict[str, Average | None]:
    names = ("write", "similarity", "direct_effect", "total_effect", "total_unsigned")
    return {name: getattr(head, name) for name in names}


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

    The last one holds, for each head, `L3H4.mean` and `L3H4.high` (D,), mean over readout tokens: what
    `steerlens lens --vector` steers along (`low` is the opposite of `high`).

    Raises:
        StoreError: if they cannot be written.
    """
    study.write_json("summary.json", profile.to_json())
    study.write_json("provenance.json", provenance)
    study.write("heads.parquet", table_bytes(_COLUMNS, [_head_row(head) for head in profile.heads]))
    # A picture's place on the axis is told as its top pictures are: from low to high.
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
            if bool(vector.any()):  # a direction of no length could not be steered along
                vectors[f"{head.site.label}.{name}"] = vector
    study.write("directions.safetensors", save_tensors(vectors))


def _place(profile: Profile, head: HeadProfile) -> int:
    return head.site.layer * profile.spec.n_heads + head.site.head


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _head_row(head: HeadProfile) -> dict[str, Any]:
    averages = {name: None if value is None else value.value for name, value in _averages(head).items()}
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
        **{
            f"{name}_image": image_value(png_bytes(Image.fromarray(drawn.picture)), f"{head.site.label}-{name}.png")
            for name, drawn in head.drawn.items()
        },
    }
