"""Profiles as data: a pure summary of measurements."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from steerlens.encoders import EncoderSpec
from steerlens.lenses import Strength, visible_norm
from steerlens.naming import TextDecomposition
from steerlens.printable import without_folders
from steerlens.profiles.faithfulness import Faithfulness
from steerlens.profiles.measure import ORDERS, Means, Order, oriented
from steerlens.profiles.pictures import ProfilePicture
from steerlens.profiles.texts import TextScore, describe, text_scores
from steerlens.sites import Site
from steerlens.studies.shared import along_change
from steerlens.vocabulary import Vocabulary

N_REAL = 5
"""Real pictures shown at each end of a head's axis; as many at the other end are left out."""

DIRECTIONS = ("mean", "high", "low")
"""Directions of a head to decode and describe: its mean write, and both ends of the axis of its centred writes."""


@dataclass(frozen=True, eq=False)
class DecodedPicture:
    """Decoded picture of a profile.

    Attributes:
        picture: 8-bit RGB.
        fidelity: cosine in [-1,1] between the decoded embedding and the embedding of the picture.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    fidelity: float


@dataclass(frozen=True)
class Average:
    """Mean over pictures, its standard error (NaN for a single picture), and the number of pictures."""

    value: float
    error: float
    count: int


@dataclass(frozen=True)
class TopPicture:
    """Top picture of a head: its id, its concept, and the value that it is ordered by."""

    id: str
    concept: str
    value: float


@dataclass(frozen=True, eq=False)
class HeadProfile:
    """Profile of a head over many pictures.

    Attributes:
        site: the head.
        constant: norm of the mean write over that of the mean final residual, means over width removed.
        write: norm of the centred write, which varies with the picture, over that of the final residual.
        similarity: agreement of the centred write with the picture, a cosine; see `measure`.
        direct_effect: loss of similarity with the label's text if the write is replaced by its mean only in the final
            residual; None if no label is known.
        total_effect: the same loss in a real forward pass, with downstream layers reacting; None without ablations.
        total_unsigned: movement of the embedding in that pass, `1 - cos`; None without ablations.
        axis_share: share of the centred writes' variance along the head's axis, in [0,1]; see `variance_share`.
        chance_share: the same share along a random mixture of its centred writes.
        tops: order -> top pictures.
        texts: direction (see `DIRECTIONS`) -> texts that describe it.
        decoded: direction -> picture of the neutral base steered along it; `high` and `low` are a contrast pair.
        real: end of the axis (`high`, `low`) -> real pictures whose embeddings are near the base steered to that end,
            and not near the base steered to the other; their value is the difference of both cosines.
        names: direction -> its decomposition into texts (OMP), or `writes` -> texts that span the head's writes
            (TextSpan); empty if heads are named by the nearest texts alone.
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
    texts: Mapping[str, tuple[TextScore, ...]]
    decoded: Mapping[str, DecodedPicture]
    real: Mapping[str, tuple[TopPicture, ...]]
    names: Mapping[str, TextDecomposition] = field(default_factory=dict[str, TextDecomposition])


@dataclass(frozen=True, eq=False)
class Profile:
    """Profiles of heads over the same pictures.

    Attributes:
        model: name of the pair.
        spec: sizes of the encoder.
        source: origin of the pictures, in words.
        pictures: the pictures.
        heads: profile of each described head.
        strength: steering strength from the neutral base.
        neutral: picture of the neutral base.
        random: picture of the base steered equally hard along a random direction.
        chance: direction -> excess that the best text of a meaningless direction stays below in 95 of 100 cases.
        n_texts: number of texts to choose from.
        faithfulness: measured faithfulness of contrast pairs, real pictures and writes on this model; empty if no study
            measured it.
    """

    model: str
    spec: EncoderSpec
    source: str
    pictures: tuple[ProfilePicture, ...]
    heads: tuple[HeadProfile, ...]
    strength: Strength
    neutral: DecodedPicture
    random: DecodedPicture
    chance: Mapping[str, float]
    n_texts: int
    faithfulness: tuple[Faithfulness, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All numbers and texts, without pictures."""
        return {
            "model": without_folders(self.model),
            "encoder": without_folders(self.spec.name),
            "source": self.source,
            "pictures": len(self.pictures),
            "strength": str(self.strength),
            "chance": dict(self.chance),
            "texts": self.n_texts,
            "neutral_fidelity": self.neutral.fidelity,
            "faithfulness": [asdict(measured) for measured in self.faithfulness],
            "heads": [_head_json(head) for head in self.heads],
        }


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements of P pictures and N heads; ablations and ends of axes are those of the K described heads.

    Ablations are of A pictures; `embeddings` are those of the pictures, `ends` those of the base steered to both ends.
    """

    model: str
    spec: EncoderSpec
    pictures: tuple[ProfilePicture, ...]
    source: str
    means: Means
    values: Mapping[str, Float[Tensor, "P N"]]
    directions: Mapping[str, Tensor]
    ablated: Mapping[str, Float[Tensor, "A K"]]
    decoded: Mapping[str, DecodedPicture]
    texts: Mapping[str, Tensor] | None
    embeddings: Float[Tensor, "P E"]
    ends: Mapping[str, Float[Tensor, "K E"]]
    names: Mapping[str, Sequence[TextDecomposition]] = field(default_factory=dict[str, Sequence[TextDecomposition]])


def make_profile(
    measured: Measurements,
    heads: Sequence[Site],
    vocabulary: Vocabulary | None,
    *,
    strength: Strength,
    n_top: int,
    n_texts: int,
    faithfulness: tuple[Faithfulness, ...] = (),
) -> Profile:
    """Summarises measurements as a profile."""
    real = _real_pictures(measured)
    texts: dict[str, list[tuple[TextScore, ...]]] = {}
    chance: dict[str, float] = {}
    if vocabulary is not None and measured.texts is not None and n_texts:
        neutral = measured.texts["neutral"]
        for name in DIRECTIONS:
            scores = text_scores(vocabulary, measured.texts[name], neutral)
            meaningless = text_scores(vocabulary, measured.texts[f"{name}.chance"], neutral)
            texts[name], chance[name] = describe(vocabulary.names, scores, meaningless, n_texts)
    coordinates = measured.values["axis"] * oriented(measured.values["axis"])
    ordered = {**measured.values, "high": coordinates, "low": -coordinates}
    means, spec = measured.means, measured.spec
    rows = {site: site.layer * spec.n_heads + site.head for site in heads}
    constant = visible_norm(means.writes, centred=spec.centred) / visible_norm(means.final, centred=spec.centred)
    return Profile(
        model=measured.model,
        spec=measured.spec,
        source=measured.source,
        pictures=measured.pictures,
        heads=tuple(
            HeadProfile(
                site=site,
                constant=float(constant[row]),
                write=_average(measured.values["write"][:, row]) or Average(math.nan, math.nan, 0),
                similarity=_average(measured.values["similarity"][:, row]) or Average(math.nan, math.nan, 0),
                direct_effect=_average(measured.values["effect"][:, row]),
                total_effect=_average(measured.ablated["effect"][:, column]) if measured.ablated else None,
                total_unsigned=_average(measured.ablated["unsigned"][:, column]) if measured.ablated else None,
                axis_share=variance_share(measured.values, "axis", row),
                chance_share=variance_share(measured.values, "chance", row),
                tops={name: _tops(measured.pictures, ordered[name][:, row], n_top) for name in ORDERS},
                texts={name: of_heads[row] for name, of_heads in texts.items()},
                decoded={name: measured.decoded[f"{site}.{name}"] for name in DIRECTIONS},
                real={end: of_heads[column] for end, of_heads in real.items()},
                names={name: of_heads[column] for name, of_heads in measured.names.items()},
            )
            for column, (site, row) in enumerate(rows.items())
        ),
        strength=strength,
        neutral=measured.decoded["neutral"],
        random=measured.decoded["random"],
        chance=chance,
        n_texts=0 if vocabulary is None else len(vocabulary.names),
        faithfulness=faithfulness,
    )


def _real_pictures(measured: Measurements) -> dict[str, list[tuple[TopPicture, ...]]]:
    """Real pictures near each end of each head's axis, and not near the other end."""
    pictures = measured.pictures
    return {
        end: [
            tuple(TopPicture(pictures[row].id, pictures[row].concept, margin) for row, margin in near)
            for near in along_change(measured.ends[end], measured.ends[other], measured.embeddings, N_REAL)
        ]
        for end, other in (("high", "low"), ("low", "high"))
    }


def _average(values: Float[Tensor, "N"]) -> Average | None:
    """Mean and standard error of the values that are not NaN; None if all are."""
    known = values[~values.isnan()].double()
    if known.numel() == 0:
        return None
    error = float(known.std() / math.sqrt(known.numel())) if known.numel() > 1 else math.nan
    return Average(float(known.mean()), error, known.numel())


def variance_share(values: Mapping[str, Float[Tensor, "P N"]], along: str, head: int) -> float:
    """Share of the variance of a head's centred writes along a direction v, in [0,1].

        Σ_i <h_i - h̄, v>² / Σ_i |C(h_i - h̄)|²

    Args:
        values: measurements of every picture and head, in units of the picture's final residual.
        along: `axis` or `chance`.
        head: index of the head among all heads.
    """
    residual = values["residual"][:, 0].double()
    part, whole = ((values[name][:, head].double() * residual).square().sum() for name in (along, "write"))
    return float(part / whole.clamp_min(1e-30))


def _tops(pictures: Sequence[ProfilePicture], values: Float[Tensor, "N"], k: int) -> tuple[TopPicture, ...]:
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
        **{name: None if value is None else asdict(value) for name, value in averages_of(head).items()},
        "axis_share": head.axis_share,
        "chance_share": head.chance_share,
        "tops": {order: [asdict(top) for top in tops] for order, tops in head.tops.items()},
        "real": {end: [asdict(top) for top in tops] for end, tops in head.real.items()},
        "texts": {name: [asdict(text) for text in texts] for name, texts in head.texts.items()},
        "names": {name: asdict(named) | {"explained": named.explained} for name, named in head.names.items()},
        "fidelity": {name: decoded.fidelity for name, decoded in head.decoded.items()},
    }


def averages_of(head: HeadProfile) -> dict[str, Average | None]:
    """Numbers of a head that are means over pictures, by name."""
    names = ("write", "similarity", "direct_effect", "total_effect", "total_unsigned")
    return {name: getattr(head, name) for name in names}
