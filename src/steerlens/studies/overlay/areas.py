"""Trajectories of the overlay study, and one number for each order of heads.

    (A - A_random) / (A_reference - A_random)        A: area of the objective's drop over the first quarter of the heads

0 is what random orders reach on average, 1 the greedy reference, which is not the optimum and can be beaten. Where the
reference does no better than chance, there is no such number: nan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.scores import cosine_similarity
from steerlens.studies.shared.joint import RANDOM_ORDERS, REFERENCE, areas, objective, projection
from steerlens.studies.shared.stats import Estimate, mean_estimate, two_way_bootstrap

Parts = Sequence[Mapping[str, Tensor]]

RANDOM = f"random (mean of {RANDOM_ORDERS})"
CURVES = ("objective", "similarity with the overlay", "similarity with the base", "projection")
"""Quantities along an order."""


@dataclass(frozen=True)
class Curve:
    """A quantity along an order: its mean over pairs at each number of ablated heads, with 95 % intervals.

    Attributes:
        values: the means.
        low: 2.5th percentile of the bootstrap over pairs.
        high: 97.5th percentile.
    """

    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def quantity(part: Mapping[str, Tensor], way: Float[Tensor, "K E"], kind: str) -> Float[Tensor, "K"]:
    """One of `CURVES` at every measured point of a trajectory."""
    if kind == "objective":
        return objective(way, part["base"], part["overlay"], part["mean"])
    if kind == "projection":
        return projection(way, part["base"], part["both"])
    side = part["overlay" if kind.endswith("overlay") else "base"]
    return cosine_similarity(way - part["mean"], side - part["mean"])


def area_table(
    parts: Parts, ways: Parts, name: str, counts: Sequence[int], kind: str = "objective"
) -> Float[Tensor, "P"]:
    """The area of the objective's (or another quantity's) drop along one order, pair by pair."""
    if name == RANDOM:
        each = [area_table(parts, ways, f"random {number}", counts, kind) for number in range(RANDOM_ORDERS)]
        return torch.stack(each).mean(dim=0)
    return torch.tensor(
        [areas(quantity(part, way[f"way.{name}"], kind), counts) for part, way in zip(parts, ways, strict=True)]
    )


def normalised(parts: Parts, ways: Parts, name: str, counts: Sequence[int]) -> float:
    """The normalised area over all pairs: a ratio of means, which one pair without a drop cannot spoil."""
    own, chance, best = (area_table(parts, ways, one, counts).mean() for one in (name, RANDOM, REFERENCE))
    return float((own - chance) / _room(best, chance))


def normalised_estimate(
    parts: Parts,
    ways: Parts,
    name: str,
    counts: Sequence[int],
    *,
    less: str = "",
    kind: str = "objective",
    draws: int = 2000,
) -> Estimate:
    """The normalised area with its interval over pairs; `less` takes another order's away, paired."""
    names = [name, RANDOM, REFERENCE, *([less] if less else [])]
    tables = [area_table(parts, ways, one, counts, kind) for one in names]

    def statistic(pairs: Tensor, _: Tensor) -> Tensor:
        own, chance, best, *other = (table[pairs].mean(dim=1) for table in tables)
        return (own - (other[0] if other else chance)) / _room(best, chance)

    return two_way_bootstrap(statistic, one_by_one(parts), 1, draws=draws, heads=False)


def _room(best: Tensor, chance: Tensor) -> Tensor:
    return (best - chance).where(best > chance, torch.nan)


def one_by_one(parts: Parts) -> list[str]:
    """Concepts for the bootstrap: every pair is drawn by itself."""
    return [str(row) for row in range(len(parts))]


def curve(
    parts: Parts, ways: Parts, name: str, kind: str, *, prefix: str = "way", draws: int = 200, seed: int = 0
) -> Curve:
    """A quantity along an order: mean over pairs, with intervals over pairs.

    Args:
        parts: of the pairs.
        ways: their trajectories.
        name: of the order.
        kind: one of `CURVES`.
        prefix: `way` for the encoder's embeddings, `remade` for those of the decoded pictures.
        draws: bootstrap draws, fewer than for areas: there are many points, and they are drawn as bands.
        seed: of the draws.
    """
    names = [f"random {number}" for number in range(RANDOM_ORDERS)] if name == RANDOM else [name]
    rows = torch.stack(
        [
            torch.stack([quantity(part, way[f"{prefix}.{one}"], kind) for one in names]).mean(dim=0)
            for part, way in zip(parts, ways, strict=True)
        ]
    )
    found = [
        mean_estimate(column[:, None], one_by_one(parts), draws=draws, seed=seed, heads=False)
        for column in rows.unbind(dim=1)
    ]
    return Curve(*(tuple(getattr(one, side) for one in found) for side in ("value", "low", "high")))


def measured(way: Mapping[str, Tensor], kind: str) -> list[str]:
    """The orders that a part holds `way`, `remade` or `strip` of, by name; files keep no order."""
    return sorted(name.removeprefix(f"{kind}.") for name in way if name.startswith(f"{kind}."))
