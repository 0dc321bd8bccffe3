"""Statistics over pictures and heads: rank correlations, interactions without head and picture means, intervals.

Scores and effects are tables (P,N): P pictures, N heads. A correlation is taken over the heads of one picture and then
averaged over pictures. Intervals come from a two-way bootstrap, which resamples concepts (with all their pictures) and
heads, since both the pictures and the heads of one model are samples.

References: A. Owen, "The pigeonhole bootstrap", 2007, arXiv 0712.1111;
C. Spearman, "The proof and measurement of association between two things", 1904.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steerlens.studies.shared.records import Record

Correlation = Callable[[Tensor, Tensor], Tensor]
"""Maps two tables (...,P,N) to one correlation per picture, (...,P)."""

_DRAWS_AT_ONCE = (50, 1000)
_ENTRIES_AT_ONCE = 200_000
"""Bounds on batches of draws: small tables are drawn many times at once, since calls cost more than arithmetic."""

_CONSTANT = 1e-12
"""Norm below which values count as constant: rounding leaves about as much of a constant."""

_MOST_UNDEFINED = 1 / 40
"""Share of undefined draws above which a ratio has no interval: as many lie beyond either end of an interval."""

FEW = 8
"""Number of concepts below which the intervals of a percentile bootstrap cover clearly less than 95 %."""


def caution(count: int, what: str = "concepts") -> str:
    """Warning for figures and pages if the bootstrap drew from fewer than `FEW`; otherwise empty."""
    return f"few {what} ({count}): intervals are too narrow" if count < FEW else ""


@dataclass(frozen=True)
class Estimate(Record):
    """A number with its 95 % interval.

    Attributes:
        value: the estimate on all pictures and heads.
        low: 2.5th percentile of the bootstrap.
        high: 97.5th percentile.
    """

    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """True if there is a value at all."""
        return self.value == self.value

    @property
    def excludes_zero(self) -> bool:
        """True if the interval lies wholly on one side of zero."""
        return self.excludes(0.0)

    def excludes(self, value: float) -> bool:
        """True if the interval lies wholly on one side of a value."""
        return self.low > value or self.high < value

    def above(self, value: float = 0.0) -> bool:
        """True if the interval lies wholly above a value."""
        return self.defined and self.excludes(value) and self.value > value

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def ranks(values: Float[Tensor, "*P N"]) -> Float[Tensor, "*P N"]:
    """Ranks over the last dimension from 0; equal values share the mean of their ranks."""
    values = values.double().contiguous()
    ordered = values.sort(dim=-1).values
    below = torch.searchsorted(ordered, values, right=False)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to - 1).double() / 2


def pearson(a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
    """Pearson's correlation over the last dimension; nan where a side is constant."""
    a, b = (side.double() - side.double().mean(dim=-1, keepdim=True) for side in (a, b))
    size = a.norm(dim=-1) * b.norm(dim=-1)
    varies = size > _CONSTANT
    return torch.where(varies, (a * b).sum(dim=-1) / size.where(varies, 1), torch.nan).clamp(-1, 1)


def spearman(a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
    """Spearman's rank correlation over the last dimension; nan where a side is constant."""
    return pearson(ranks(a), ranks(b))


def without_means(values: Float[Tensor, "*P N"]) -> Float[Tensor, "*P N"]:
    """Removes the means of heads and pictures from a table: `x_pn - x_p. - x_.n + x_..`."""
    values = values.double()
    rows, columns = values.mean(dim=-1, keepdim=True), values.mean(dim=-2, keepdim=True)
    return values - rows - columns + rows.mean(dim=-2, keepdim=True)


def interaction(a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
    """Spearman's correlation after removing head and picture means, so that generally large heads gain nothing."""
    return spearman(without_means(a), without_means(b))


class WithinLayers:
    """Rank correlation that compares each head with the heads of its own layer alone.

    Ranks are taken within each layer, centred, divided by the number of the layer's heads, and pooled. Its interval
    draws heads within each layer, so that every drawn column keeps the layer of its place.

    Attributes:
        layers: layer of each of the N heads.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)

    def __call__(self, a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
        """Correlates two tables, picture by picture."""
        return pearson(self._pooled(a), self._pooled(b))

    def _pooled(self, values: Tensor) -> Tensor:
        out = torch.zeros_like(values, dtype=torch.float64)
        for columns in _members(self.layers):
            out[..., columns] = (ranks(values[..., columns]) - (len(columns) - 1) / 2) / len(columns)
        return out


def within_layers(layers: Sequence[int]) -> WithinLayers:
    """Rank correlation within layers, given the layer of each of the N heads. See `WithinLayers`."""
    return WithinLayers(layers)


def interaction_pearson(a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
    """Pearson's correlation after removing head and picture means."""
    return pearson(without_means(a), without_means(b))


def _members(names: Sequence[Any]) -> list[list[int]]:
    """Indices of each distinct name, names in sorted order."""
    return [[place for place, name in enumerate(names) if name == member] for member in sorted(set(names))]


def _layers(correlation: Correlation) -> tuple[int, ...] | None:
    """Layers of a correlation's columns, if it uses layers."""
    return correlation.layers if isinstance(correlation, WithinLayers) else None


def mean_correlation(a: Tensor, b: Tensor, correlation: Correlation = spearman) -> float:
    """Mean over pictures of a correlation over heads, without pictures where it is undefined."""
    return float(correlation(a, b).nanmean())


def mismatched(a: Float[Tensor, "P N"], b: Float[Tensor, "P N"], correlation: Correlation = spearman) -> float:
    """Null correlation: picture i's scores with picture j's effects, mean over all i and j that differ.

    A score that reflects only which heads are large in general does as well here as on matching pictures.
    """
    P = a.shape[0]
    shifted = [float(correlation(a, b.roll(shift, dims=0)).nanmean()) for shift in range(1, P)]
    return sum(shifted) / len(shifted) if shifted else float("nan")


def two_way_bootstrap(
    statistic: Callable[[Int64[Tensor, "draws P"], Int64[Tensor, "draws N"]], Tensor],
    concepts: Sequence[str],
    n_heads: int,
    *,
    draws: int = 1000,
    seed: int = 0,
    heads: bool = True,
    layers: Sequence[int] | None = None,
    ratio: bool = False,
) -> Estimate:
    """Estimates a statistic on all pictures and heads, with its interval over draws of concepts and heads.

    Args:
        statistic: maps rows of picture indices and rows of head indices, both with repeats, to one value per row.
        concepts: concept of each picture; pictures of a concept are drawn together.
        n_heads: N.
        draws: bootstrap draws.
        seed: of the draws.
        heads: True to draw heads as well as concepts.
        layers: layer of each head, to draw heads within their layers.
        ratio: True for a ratio, undefined where its denominator is not above 0; see `estimate_of`.
    """
    everything = torch.arange(len(concepts))[None], torch.arange(n_heads)[None]
    value = float(statistic(*everything)[0])
    batches = drawn_batches(concepts, n_heads, draws=draws, seed=seed, heads=heads, layers=layers)
    drawn = [statistic(pictures, columns).double() for pictures, columns in batches]
    return estimate_of(value, torch.cat(drawn) if drawn else torch.empty(0), ratio=ratio)


def estimate_of(value: float, drawn: Float[Tensor, " draws"], *, ratio: bool = False) -> Estimate:
    """Builds an estimate from the value on all pictures and heads, and the values of the draws.

    Undefined draws are left out. A ratio has no interval if they are more than 1 in 40: its denominator is then not
    shown to be above 0, and an interval over the other draws would be too narrow.
    """
    values = drawn[torch.isfinite(drawn)]
    if values.numel() == 0 or (ratio and values.numel() < (1 - _MOST_UNDEFINED) * drawn.numel()):
        return Estimate(value, float("nan"), float("nan"))
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, low, high)


def drawn_batches(
    concepts: Sequence[str],
    n_heads: int,
    *,
    draws: int = 1000,
    seed: int = 0,
    heads: bool = True,
    layers: Sequence[int] | None = None,
) -> Iterator[tuple[Int64[Tensor, "draws P"], Int64[Tensor, "draws N"]]]:
    """Draws pictures and heads with repeats, in batches; the same arguments give the same draws."""
    generator = torch.Generator().manual_seed(seed)
    members, P = _members(concepts), len(concepts)
    least, most = _DRAWS_AT_ONCE
    at_once = min(most, max(least, _ENTRIES_AT_ONCE // max(1, P * n_heads)))
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        pictures = torch.stack([_draw(members, P, generator) for _ in range(count)])
        columns = torch.arange(n_heads).expand(count, -1)
        if heads:
            columns = _draw_heads(n_heads, layers, count, generator)
        yield pictures, columns


def _draw_heads(n_heads: int, layers: Sequence[int] | None, count: int, generator: torch.Generator) -> Tensor:
    if layers is None:
        return torch.randint(n_heads, (count, n_heads), generator=generator)
    columns = torch.empty(count, n_heads, dtype=torch.int64)
    for own in map(torch.tensor, _members(layers)):
        columns[:, own] = own[torch.randint(len(own), (count, len(own)), generator=generator)]
    return columns


def _draw(members: Sequence[Sequence[int]], count: int, generator: torch.Generator) -> Tensor:
    """Indices of the pictures of concepts drawn with replacement, cut or filled up to `count` pictures."""
    rows: list[int] = []
    while len(rows) < count:
        chosen = torch.randint(len(members), (len(members),), generator=generator).tolist()
        rows += [row for concept in chosen for row in members[concept]]
    return torch.tensor(rows[:count])


def correlation_estimate(
    score: Float[Tensor, "P N"],
    effect: Float[Tensor, "P N"],
    concepts: Sequence[str],
    *,
    correlation: Correlation = spearman,
    draws: int = 1000,
    seed: int = 0,
    heads: bool = True,
) -> Estimate:
    """Estimates the mean correlation over pictures. See `two_way_bootstrap`."""

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return of_draws(correlation, score, effect, pictures, columns).nanmean(dim=-1)

    return two_way_bootstrap(
        statistic, concepts, score.shape[1], draws=draws, seed=seed, heads=heads, layers=_layers(correlation)
    )


def difference_estimate(
    first: Float[Tensor, "P N"],
    second: Float[Tensor, "P N"],
    effect: Float[Tensor, "P N"],
    concepts: Sequence[str],
    *,
    correlation: Correlation = spearman,
    draws: int = 1000,
    seed: int = 0,
    heads: bool = True,
) -> Estimate:
    """Estimates the mean *paired* difference of two scores' correlations with an effect, first minus second."""

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        sides = [of_draws(correlation, score, effect, pictures, columns) for score in (first, second)]
        return (sides[0] - sides[1]).nanmean(dim=-1)

    return two_way_bootstrap(
        statistic, concepts, first.shape[1], draws=draws, seed=seed, heads=heads, layers=_layers(correlation)
    )


def ratio_estimate(
    score: Float[Tensor, "P N"],
    ceiling: Float[Tensor, "P N"],
    effect: Float[Tensor, "P N"],
    concepts: Sequence[str],
    *,
    correlation: Correlation = spearman,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimates a score's mean correlation as a share of a ceiling's on the same draws; nan for a ceiling below 0."""

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        sides = [of_draws(correlation, side, effect, pictures, columns).nanmean(dim=-1) for side in (score, ceiling)]
        return sides[0] / sides[1].where(sides[1] > 0, torch.nan)

    layers = _layers(correlation)
    return two_way_bootstrap(statistic, concepts, score.shape[1], draws=draws, seed=seed, layers=layers, ratio=True)


def take(
    table: Float[Tensor, "*S P N"], pictures: Int64[Tensor, "draws p"], columns: Int64[Tensor, "draws n"]
) -> Float[Tensor, "*S draws p n"]:
    """Picks the drawn pictures and heads of a table; indices as in `two_way_bootstrap`."""
    return table[..., pictures[:, :, None], columns[:, None, :]]


def of_draws(
    correlation: Correlation,
    a: Float[Tensor, "P N"],
    b: Float[Tensor, "P N"],
    pictures: Int64[Tensor, "draws p"],
    columns: Int64[Tensor, "draws n"],
) -> Float[Tensor, "draws p"]:
    """Correlates two tables at drawn pictures and heads: `correlation(take(a, ...), take(b, ...))`.

    Rank correlations are computed by an equivalent, faster method: heads are compared once per picture, and the rank of
    a drawn head is the number of drawn heads below it.
    """
    layers = _layers(correlation)
    if correlation is not spearman and layers is None:
        return correlation(take(a, pictures, columns), take(b, pictures, columns))
    (P, N), draws = a.shape, len(columns)
    weights = torch.zeros(draws, N).scatter_add_(1, columns, torch.ones(columns.shape))
    at_once = max(1, _ENTRIES_AT_ONCE // (N * max(N, draws)))
    blocks = [
        _of_weighted(a[start : start + at_once], b[start : start + at_once], weights, layers)
        for start in range(0, P, at_once)
    ]
    return torch.cat(blocks).T.gather(1, pictures)


def _of_weighted(
    a: Float[Tensor, "p N"],
    b: Float[Tensor, "p N"],
    weights: Float[Tensor, "draws N"],
    layers: Sequence[int] | None,
) -> Float[Tensor, "p draws"]:
    """Rank correlation, over all heads or within layers, with each head repeated as often as its weight."""
    often = weights.double()
    of_head = torch.tensor(layers if layers is not None else [0] * weights.shape[1])
    same = (of_head[:, None] == of_head[None]).float()
    # Ranks within layers are divided by the number of drawn heads of the layer.
    heads = (same @ weights.T).T.clamp(min=1).double() if layers is not None else 1
    sides: list[Tensor] = []
    for table in (a.double(), b.double()):
        mine, others = table[:, :, None], table[:, None, :]
        before = (others < mine).float() + 0.5 * (others == mine).float()
        # Ranks, up to a constant; exact before the division, since they are multiples of a half.
        drawn = ((before * same) @ weights.T).double().transpose(1, 2) / heads
        sides.append(drawn - (drawn * often).sum(dim=-1, keepdim=True) / often.sum(dim=-1, keepdim=True))
    sizes = [(side.square() * often).sum(dim=-1).sqrt() for side in sides]
    size = sizes[0] * sizes[1]
    varies = size > _CONSTANT
    together = (sides[0] * sides[1] * often).sum(dim=-1)
    return torch.where(varies, together / size.where(varies, 1), torch.nan).clamp(-1, 1)


def mean_estimate(
    table: Float[Tensor, "P N"], concepts: Sequence[str], *, draws: int = 1000, seed: int = 0, heads: bool = True
) -> Estimate:
    """Estimates the mean of a table, without undefined entries. See `two_way_bootstrap`."""

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return take(table, pictures, columns).nanmean(dim=(-2, -1))

    return two_way_bootstrap(statistic, concepts, table.shape[1], draws=draws, seed=seed, heads=heads)


def seed_reliability(tables: Float[Tensor, "S P N"], correlation: Correlation = spearman) -> tuple[float, float]:
    """Reliability of a score over S seeds: the mean correlation r of two seeds, and the reliability of the seeds' mean.

    The latter is given by the Spearman-Brown formula, `S r / (1 + (S - 1) r)`, and is nan if seeds disagree too much
    for it. Both are nan for a single seed.
    """
    S = tables.shape[0]
    if S < 2:
        return float("nan"), float("nan")
    pairs = [mean_correlation(tables[i], tables[j], correlation) for i in range(S) for j in range(i)]
    single = sum(pairs) / len(pairs)
    noise = 1 + (S - 1) * single
    return single, S * single / noise if noise > 1e-9 else float("nan")
