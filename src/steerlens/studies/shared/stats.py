"""Statistics over pictures and heads: rank correlations, what is left without constant parts, and honest intervals.

Scores and effects are tables (P,N): P pictures, N heads. A correlation is taken over the heads of one picture and then
averaged over pictures. Intervals come from a two-way bootstrap, which draws concepts (with all their pictures) and
heads anew, since neither the pictures nor the heads of one model are all there are.

References: A. Owen, "The pigeonhole bootstrap", 2007, arXiv 0712.1111;
C. Spearman, "The proof and measurement of association between two things", 1904.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Correlation = Callable[[Tensor, Tensor], Tensor]
"""Maps two tables (...,P,N) to one correlation a picture, (...,P)."""

_DRAWS_AT_ONCE = (50, 1000)
_ENTRIES_AT_ONCE = 200_000
"""Small tables are drawn many times at once, within these bounds: each time costs more than what it computes."""

_CONSTANT = 1e-12
"""A side whose size is less does not vary: it is what rounding leaves of a constant."""


@dataclass(frozen=True)
class Estimate:
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
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low > 0 or self.high < 0

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
    """Pearson's correlation over the last dimension; nan where one side does not vary."""
    a, b = (side.double() - side.double().mean(dim=-1, keepdim=True) for side in (a, b))
    size = a.norm(dim=-1) * b.norm(dim=-1)
    varies = size > _CONSTANT
    return torch.where(varies, (a * b).sum(dim=-1) / size.where(varies, 1), torch.nan).clamp(-1, 1)


def spearman(a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
    """Spearman's rank correlation over the last dimension; nan where one side does not vary."""
    return pearson(ranks(a), ranks(b))


def without_means(values: Float[Tensor, "*P N"]) -> Float[Tensor, "*P N"]:
    """What is left of a table without the means of its heads and of its pictures: `x_pn - x_p. - x_.n + x_..`."""
    values = values.double()
    rows, columns = values.mean(dim=-1, keepdim=True), values.mean(dim=-2, keepdim=True)
    return values - rows - columns + rows.mean(dim=-2, keepdim=True)


def interaction(a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
    """Spearman's correlation of what is left without head and picture means: "this head is big" counts nothing."""
    return spearman(without_means(a), without_means(b))


class WithinLayers:
    """A rank correlation that compares heads with heads of their own layer alone.

    Ranks are taken within each layer, centred, divided by the number of the layer's heads, and pooled. What estimates
    its interval draws heads anew within each layer, so that every drawn column belongs to the layer of its place.

    Attributes:
        layers: the layer of each of the N heads.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)

    def __call__(self, a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
        return pearson(self._pooled(a), self._pooled(b))

    def _pooled(self, values: Tensor) -> Tensor:
        out = torch.zeros_like(values, dtype=torch.float64)
        for columns in _members(self.layers):
            out[..., columns] = (ranks(values[..., columns]) - (len(columns) - 1) / 2) / len(columns)
        return out


def within_layers(layers: Sequence[int]) -> WithinLayers:
    """The rank correlation within layers, given the layer of each of the N heads. See `WithinLayers`."""
    return WithinLayers(layers)


def interaction_pearson(a: Float[Tensor, "*P N"], b: Float[Tensor, "*P N"]) -> Float[Tensor, "*P"]:
    """Pearson's correlation of what is left without head and picture means."""
    return pearson(without_means(a), without_means(b))


def _members(names: Sequence[Any]) -> list[list[int]]:
    """The places of each name, names in order."""
    return [[place for place, name in enumerate(names) if name == one] for one in sorted(set(names))]


def _layers(correlation: Correlation) -> tuple[int, ...] | None:
    """The layers that a correlation knows its columns by, if it does."""
    return correlation.layers if isinstance(correlation, WithinLayers) else None


def mean_correlation(a: Tensor, b: Tensor, correlation: Correlation = spearman) -> float:
    """The mean over pictures of a correlation over heads; pictures where it is undefined do not count."""
    return float(correlation(a, b).nanmean())


def mismatched(a: Float[Tensor, "P N"], b: Float[Tensor, "P N"], correlation: Correlation = spearman) -> float:
    """The null: mean correlation of picture i's scores with picture j's effects over all i and j that differ.

    A score that says only which heads are big in general does as well here as on matching pictures.
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
) -> Estimate:
    """A statistic on all pictures and heads, and its interval over draws of concepts and heads.

    Args:
        statistic: of rows of picture numbers and rows of head numbers, one value a row; both may repeat.
        concepts: the concept of each picture; pictures of one concept are drawn together.
        n_heads: N.
        draws: bootstrap draws.
        seed: of the draws.
        heads: whether heads are drawn anew as well (or stay as they are).
        layers: of each head, if heads are to be drawn within their layers: a column of drawn heads then belongs to the
            layer that it stands at.
    """
    generator = torch.Generator().manual_seed(seed)
    members, P = _members(concepts), len(concepts)
    value = float(statistic(torch.arange(P)[None], torch.arange(n_heads)[None])[0])
    found: list[Tensor] = []
    least, most = _DRAWS_AT_ONCE
    at_once = min(most, max(least, _ENTRIES_AT_ONCE // max(1, P * n_heads)))
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        pictures = torch.stack([_draw(members, P, generator) for _ in range(count)])
        columns = torch.arange(n_heads).expand(count, -1)
        if heads:
            columns = _draw_heads(n_heads, layers, count, generator)
        found.append(statistic(pictures, columns).double())
    values = torch.cat(found)
    values = values[torch.isfinite(values)]
    if values.numel() == 0:
        return Estimate(value, float("nan"), float("nan"))
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, low, high)


def _draw_heads(n_heads: int, layers: Sequence[int] | None, count: int, generator: torch.Generator) -> Tensor:
    if layers is None:
        return torch.randint(n_heads, (count, n_heads), generator=generator)
    columns = torch.empty(count, n_heads, dtype=torch.int64)
    for own in map(torch.tensor, _members(layers)):
        columns[:, own] = own[torch.randint(len(own), (count, len(own)), generator=generator)]
    return columns


def _draw(members: Sequence[Sequence[int]], count: int, generator: torch.Generator) -> Tensor:
    """Picture numbers of concepts drawn with replacement, cut or filled to the number of pictures there are."""
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
    """The mean correlation over pictures with its interval. See `two_way_bootstrap`."""

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
    """How much better the first score does than the second: the mean of *paired* differences, picture by picture."""

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
    """A score's mean correlation as a share of another one's, drawn together; nan of one that is not above 0."""

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        sides = [of_draws(correlation, one, effect, pictures, columns).nanmean(dim=-1) for one in (score, ceiling)]
        return sides[0] / sides[1].where(sides[1] > 0, torch.nan)

    return two_way_bootstrap(statistic, concepts, score.shape[1], draws=draws, seed=seed, layers=_layers(correlation))


def take(
    table: Float[Tensor, "*S P N"], pictures: Int64[Tensor, "draws p"], columns: Int64[Tensor, "draws n"]
) -> Float[Tensor, "*S draws p n"]:
    """A table at drawn pictures and heads, as `two_way_bootstrap` draws them."""
    return table[..., pictures[:, :, None], columns[:, None, :]]


def of_draws(
    correlation: Correlation,
    a: Float[Tensor, "P N"],
    b: Float[Tensor, "P N"],
    pictures: Int64[Tensor, "draws p"],
    columns: Int64[Tensor, "draws n"],
) -> Float[Tensor, "draws p"]:
    """A correlation of two tables at drawn pictures and heads: `correlation(take(a, ...), take(b, ...))`.

    Rank correlations go another way to the same numbers, many times faster: which head comes before which is told once
    a picture, and a drawn head's rank is how many of the drawn ones come before it.
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
    """The rank correlation, over all heads or within layers, over heads that come as often as their weights say."""
    often = weights.double()
    of_head = torch.tensor(layers if layers is not None else [0] * weights.shape[1])
    same = (of_head[:, None] == of_head[None]).float()
    # ranks within layers are shares of how many heads of the layer were drawn
    heads = (same @ weights.T).T.clamp(min=1).double() if layers is not None else 1
    sides: list[Tensor] = []
    for table in (a.double(), b.double()):
        mine, others = table[:, :, None], table[:, None, :]
        before = (others < mine).float() + 0.5 * (others == mine).float()
        # ranks, up to a constant; exact before the division, being whole or half
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
    """The mean of a table with its interval; entries that are not defined do not count. See `two_way_bootstrap`."""

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return take(table, pictures, columns).nanmean(dim=(-2, -1))

    return two_way_bootstrap(statistic, concepts, table.shape[1], draws=draws, seed=seed, heads=heads)


def seed_reliability(tables: Float[Tensor, "S P N"], correlation: Correlation = spearman) -> tuple[float, float]:
    """How far a score repeats itself over S seeds: mean correlation of two seeds, and of the mean over all seeds.

    The second is the Spearman-Brown formula, `S r / (1 + (S - 1) r)`, nan where seeds disagree so much that it says
    nothing; both are nan for one seed.
    """
    S = tables.shape[0]
    if S < 2:
        return float("nan"), float("nan")
    pairs = [mean_correlation(tables[i], tables[j], correlation) for i in range(S) for j in range(i)]
    single = sum(pairs) / len(pairs)
    noise = 1 + (S - 1) * single
    return single, S * single / noise if noise > 1e-9 else float("nan")
