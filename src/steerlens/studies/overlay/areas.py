"""Trajectories of pairs along an order of heads, and the normalised area that sums an order up.

    (A - A_random) / (A_reference - A_random)        A: area of the objective's drop over the first quarter of the heads

Random orders reach 0 on average, the greedy reference 1, which is not the optimum and can be beaten. Where the
reference does no better than chance, there is no such number: nan.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError
from steerlens.scores import cosine_similarity
from steerlens.studies.overlay.joint import RANDOM_ORDERS, REFERENCE, area, objective, projection
from steerlens.studies.overlay.parts import OverlayPart, TrajectoryPart
from steerlens.studies.shared.records import Record
from steerlens.studies.shared.stats import Estimate, mean_estimate, two_way_bootstrap

RANDOM = f"random (mean of {RANDOM_ORDERS})"
"""The name of the mean over random orders."""

OBJECTIVE_CURVE, PROJECTION_CURVE = "objective", "projection"
OVERLAY_CURVE, BASE_CURVE = "similarity with the overlay", "similarity with the base"
CURVES = (OBJECTIVE_CURVE, OVERLAY_CURVE, BASE_CURVE, PROJECTION_CURVE)
"""Quantities along an order."""


@dataclass(frozen=True)
class Curve(Record):
    """A quantity along an order: its mean over pairs at each number of ablated heads, with 95 % intervals.

    Attributes:
        values: the means.
        low: 2.5th percentile of the bootstrap over pairs.
        high: 97.5th percentile.
    """

    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def random_name(number: int) -> str:
    """The name of one random order."""
    return f"random {number}"


def quantity(part: OverlayPart, embeddings: Float[Tensor, "K E"], kind: str) -> Float[Tensor, "K"]:
    """One of `CURVES` at every measured point of a trajectory."""
    if kind == OBJECTIVE_CURVE:
        return objective(embeddings, part.base, part.overlay, part.mean)
    if kind == PROJECTION_CURVE:
        return projection(embeddings, part.base, part.both)
    side = part.overlay if kind == OVERLAY_CURVE else part.base
    return cosine_similarity(embeddings - part.mean, side - part.mean)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of P pairs; every method raises `StoreError` for an order that was not measured.

    Attributes:
        parts: measurements of the pairs.
        ways: their trajectories.
        counts: numbers of ablated heads.
    """

    parts: Sequence[OverlayPart]
    ways: Sequence[TrajectoryPart]
    counts: Sequence[int]

    @property
    def orders(self) -> list[str]:
        """Names of the orders, with the random ones as their mean, which comes last."""
        single = {random_name(number) for number in range(RANDOM_ORDERS)}
        return [*(name for name in self.ways[0].orders if name not in single), RANDOM]

    @property
    def one_by_one(self) -> list[str]:
        """Concepts for the bootstrap, which draws every pair by itself."""
        return [str(row) for row in range(len(self.parts))]

    def quantities(self, name: str, kind: str, *, decoded: bool = False) -> Float[Tensor, "P K"]:
        """A quantity along an order, pair by pair.

        Args:
            name: of the order.
            kind: one of `CURVES`.
            decoded: whether of the decoded pictures, and not of the encoder's embeddings.
        """
        rows: list[Tensor] = []
        for part, way in zip(self.parts, self.ways, strict=True):
            embeddings = (way.decoded if decoded else way.embeddings).get(name)
            if embeddings is None:
                raise StoreError(f"a part of this study holds no trajectory along {name!r}.")
            rows.append(quantity(part, embeddings, kind))
        return torch.stack(rows)

    def areas(self, name: str, kind: str = OBJECTIVE_CURVE) -> Float[Tensor, "P"]:
        """The area of a quantity's drop along an order, pair by pair."""
        if name == RANDOM:
            return torch.stack([self.areas(random_name(number), kind) for number in range(RANDOM_ORDERS)]).mean(dim=0)
        return torch.tensor([area(values, self.counts) for values in self.quantities(name, kind)])

    def normalised(self, name: str) -> float:
        """The normalised area over all pairs: a ratio of means, which a single pair without a drop cannot spoil."""
        own, chance, best = (self.areas(order).mean() for order in (name, RANDOM, REFERENCE))
        return float((own - chance) / _room(best, chance))

    def normalised_estimate(
        self, name: str, *, less: str = "", kind: str = OBJECTIVE_CURVE, draws: int = 2000
    ) -> Estimate:
        """The normalised area with its interval over pairs; `less` subtracts that of another order, paired."""
        names = [name, RANDOM, REFERENCE, *([less] if less else [])]
        tables = [self.areas(order, kind) for order in names]

        def statistic(pairs: Tensor, _: Tensor) -> Tensor:
            own, chance, best, *other = (table[pairs].mean(dim=1) for table in tables)
            return (own - (other[0] if other else chance)) / _room(best, chance)

        return two_way_bootstrap(statistic, self.one_by_one, 1, draws=draws, heads=False)

    def curve(self, name: str, kind: str, *, decoded: bool = False, draws: int = 200, seed: int = 0) -> Curve:
        """A quantity along an order: mean over pairs, with intervals over pairs.

        Args:
            name: of the order.
            kind: one of `CURVES`.
            decoded: whether of the decoded pictures, and not of the encoder's embeddings.
            draws: bootstrap draws, fewer than for areas: there are many points, and they are drawn as bands.
            seed: of the draws.
        """
        names = [random_name(number) for number in range(RANDOM_ORDERS)] if name == RANDOM else [name]
        rows = torch.stack([self.quantities(order, kind, decoded=decoded) for order in names]).mean(dim=0)
        estimates = [
            mean_estimate(column[:, None], self.one_by_one, draws=draws, seed=seed, heads=False)
            for column in rows.unbind(dim=1)
        ]
        return Curve(
            tuple(estimate.value for estimate in estimates),
            tuple(estimate.low for estimate in estimates),
            tuple(estimate.high for estimate in estimates),
        )


def _room(best: Tensor, chance: Tensor) -> Tensor:
    return (best - chance).where(best > chance, torch.nan)
