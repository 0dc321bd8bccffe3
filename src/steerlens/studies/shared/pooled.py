"""Rank correlation pooled over pictures and heads: one correlation over all P x N entries of two tables.

It also counts differences between pictures, which the mean over pictures of a correlation over heads leaves out.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steerlens.studies.shared.stats import Estimate, two_way_bootstrap

_ENTRIES_AT_ONCE = 2_000_000


def pooled_spearman(a: Float[Tensor, "P N"], b: Float[Tensor, "P N"]) -> float:
    """Spearman's correlation over all entries of two tables; nan if a side is constant."""
    return float(_weighted(a, b, torch.ones(1, a.numel(), dtype=torch.float64))[0])


def pooled_estimate(
    score: Float[Tensor, "P N"],
    effect: Float[Tensor, "P N"],
    concepts: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimates the pooled correlation. See `stats.two_way_bootstrap`."""

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return pooled_of_draws(score, effect, pictures, columns)

    return two_way_bootstrap(statistic, concepts, score.shape[1], draws=draws, seed=seed)


def pooled_of_draws(
    a: Float[Tensor, "P N"],
    b: Float[Tensor, "P N"],
    pictures: Int64[Tensor, "draws p"],
    columns: Int64[Tensor, "draws n"],
) -> Float[Tensor, " draws"]:
    """Pooled correlations of drawn pictures and heads.

    An entry counts as often as its picture and its head were drawn, so its weight is the product of both counts.
    """
    (P, N), at_once = a.shape, max(1, _ENTRIES_AT_ONCE // a.numel())
    rows: list[Tensor] = []
    for start in range(0, len(pictures), at_once):
        counts = [
            torch.zeros(len(drawn), size, dtype=torch.float64).scatter_add_(
                1, drawn, torch.ones(drawn.shape, dtype=torch.float64)
            )
            for drawn, size in ((pictures[start : start + at_once], P), (columns[start : start + at_once], N))
        ]
        rows.append(_weighted(a, b, (counts[0][:, :, None] * counts[1][:, None, :]).flatten(1)))
    return torch.cat(rows)


def _weighted(a: Tensor, b: Tensor, weights: Float[Tensor, "draws M"]) -> Float[Tensor, " draws"]:
    """Rank correlation of all entries, each repeated as often as its weight."""
    sides = [_weighted_ranks(side.flatten().double(), weights) for side in (a, b)]
    total = weights.sum(dim=1, keepdim=True)
    centred = [side - (side * weights).sum(dim=1, keepdim=True) / total for side in sides]
    sizes = [(side.square() * weights).sum(dim=1).sqrt() for side in centred]
    size = sizes[0] * sizes[1]
    varies = size > 1e-9
    together = (centred[0] * centred[1] * weights).sum(dim=1)
    return torch.where(varies, together / size.where(varies, 1), torch.nan).clamp(-1, 1)


def _weighted_ranks(values: Float[Tensor, " M"], weights: Float[Tensor, "draws M"]) -> Float[Tensor, "draws M"]:
    """Ranks of repeated entries; equal values share the mean of their ranks."""
    distinct, place = values.unique(return_inverse=True)
    of_value = torch.zeros(len(weights), len(distinct), dtype=torch.float64).index_add_(1, place, weights)
    return (of_value.cumsum(dim=1) - (of_value + 1) / 2)[:, place]
