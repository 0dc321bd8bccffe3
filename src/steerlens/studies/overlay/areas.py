"""Trajectories of pairs along an order of heads, and the normalised area of an order.

    (A - A_random) / (A_reference - A_random)        A: area of the objective's drop over the first quarter of the heads

Random orders have a mean of 0, the greedy reference has 1. The reference is not the optimum and can be beaten. The
normalised area is nan if the reference does no better than chance.
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
"""Name of the mean over random orders."""

OBJECTIVE_CURVE, PROJECTION_CURVE = "objective", "projection"
OVERLAY_CURVE, BASE_CURVE = "similarity with the overlay", "similarity with the base"
CURVES = (OBJECTIVE_CURVE, OVERLAY_CURVE, BASE_CURVE, PROJECTION_CURVE)
"""Quantities measured along an order."""


@dataclass(frozen=True)
class Curve(Record):
    """A quantity along an order at each number of ablated heads, with 95 % intervals.

    Attributes:
        values: means over pairs.
        low: 2.5th percentile of the bootstrap over pairs.
        high: 97.5th percentile.
    """

    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def random_name(number: int) -> str:
    """Name of a random order."""
    return f"random {number}"


def quantity(part: OverlayPart, embeddings: Float[Tensor, "K E"], kind: str) -> Float[Tensor, "K"]:
    """Computes one of `CURVES` at every measured point of a trajectory."""
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
        trajectories: their trajectories.
        counts: numbers of ablated, or retained, heads.
        sign: 1 if heads are ablated and the objective should drop, -1 if they are retained and it should rise.
    """

    parts: Sequence[OverlayPart]
    trajectories: Sequence[TrajectoryPart]
    counts: Sequence[int]
    sign: int = 1

    @property
    def orders(self) -> list[str]:
        """Names of the orders that every pair has; the mean of the random orders comes last, in place of single ones.

        Parts of earlier versions have fewer orders.
        """
        single = {random_name(number) for number in range(RANDOM_ORDERS)}
        common = [name for name in self.trajectories[0].orders if all(name in one.orders for one in self.trajectories)]
        return [*(name for name in common if name not in single), RANDOM]

    def retaining(self) -> "Trajectories | None":
        """Trajectories along which heads are retained, in place of those along which they are ablated.

        Similarities rise along them. None if a part of an earlier version lacks them.
        """
        names = set[str].intersection(*(set(one.retained) for one in self.trajectories))
        if REFERENCE not in names:
            return None
        parts = [
            TrajectoryPart({name: embeddings for name, embeddings in one.retained.items() if name in names})
            for one in self.trajectories
        ]
        return Trajectories(self.parts, parts, self.counts, -1)

    @property
    def pair_names(self) -> list[str]:
        """A concept of its own for each pair, so that the bootstrap draws single pairs."""
        return [str(row) for row in range(len(self.parts))]

    def quantities(self, name: str, kind: str, *, decoded: bool = False) -> Float[Tensor, "P K"]:
        """A quantity along an order, pair by pair.

        Args:
            name: name of the order.
            kind: one of `CURVES`.
            decoded: True for decoded pictures, False for the encoder's embeddings.
        """
        rows: list[Tensor] = []
        for part, trajectory in zip(self.parts, self.trajectories, strict=True):
            embeddings = (trajectory.decoded if decoded else trajectory.embeddings).get(name)
            if embeddings is None:
                raise StoreError(f"a part of this study holds no trajectory along {name!r}.")
            rows.append(quantity(part, embeddings, kind))
        return torch.stack(rows)

    def areas(self, name: str, kind: str = OBJECTIVE_CURVE) -> Float[Tensor, "P"]:
        """Area of a quantity's drop along an order, pair by pair."""
        if name == RANDOM:
            return torch.stack([self.areas(order, kind) for order in self.random_names]).mean(dim=0)
        return torch.tensor([area(self.sign * values, self.counts) for values in self.quantities(name, kind)])

    @property
    def random_names(self) -> list[str]:
        """Names of the random orders that were measured."""
        return [name for name in map(random_name, range(RANDOM_ORDERS)) if name in self.trajectories[0].embeddings]

    def normalised(self, name: str) -> float:
        """Normalised area over all pairs: a ratio of means, which stays finite if single pairs show no drop."""
        own, chance, best = (self.areas(order).mean() for order in (name, RANDOM, REFERENCE))
        return float((own - chance) / _room(best, chance))

    def normalised_estimate(
        self, name: str, *, less: str = "", kind: str = OBJECTIVE_CURVE, draws: int = 2000
    ) -> Estimate:
        """Estimates the normalised area over pairs; `less` names an order whose area is subtracted, paired.

        There is no interval if the reference is not shown to exceed random orders.
        """
        names = [name, RANDOM, REFERENCE, *([less] if less else [])]
        tables = [self.areas(order, kind) for order in names]

        def statistic(pairs: Tensor, _: Tensor) -> Tensor:
            own, chance, best, *other = (table[pairs].mean(dim=1) for table in tables)
            return (own - (other[0] if other else chance)) / _room(best, chance)

        return two_way_bootstrap(statistic, self.pair_names, 1, draws=draws, heads=False, ratio=True)

    def curve(self, name: str, kind: str, *, decoded: bool = False, draws: int = 200, seed: int = 0) -> Curve:
        """Estimates a quantity along an order over pairs.

        Args:
            name: name of the order.
            kind: one of `CURVES`.
            decoded: True for decoded pictures, False for the encoder's embeddings.
            draws: bootstrap draws; fewer than for areas, since there are many points and figures show them as bands.
            seed: of the draws.
        """
        names = self.random_names if name == RANDOM else [name]
        rows = torch.stack([self.quantities(order, kind, decoded=decoded) for order in names]).mean(dim=0)
        estimates = [
            mean_estimate(column[:, None], self.pair_names, draws=draws, seed=seed, heads=False)
            for column in rows.unbind(dim=1)
        ]
        return Curve(
            tuple(estimate.value for estimate in estimates),
            tuple(estimate.low for estimate in estimates),
            tuple(estimate.high for estimate in estimates),
        )


def _room(best: Tensor, chance: Tensor) -> Tensor:
    return (best - chance).where(best > chance, torch.nan)
