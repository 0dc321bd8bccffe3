"""Rank correlations of many scores and effects over the same draws, raw and partial.

The partial correlation of score and effect given a covariate is the correlation of the residuals of their ranks, after
linear regression on the ranks of the covariate. It follows from raw rank correlations r alone:

    r(s,e | c)   = ( r(s,e) - r(s,c) r(e,c) ) / sqrt( (1 - r(s,c)^2) (1 - r(e,c)^2) )
    r(s,e | c,d) = the same formula, applied to r(s,e | c), r(s,d | c) and r(e,d | c)

Correlations are taken over the heads of one picture and averaged over pictures; intervals come from the two-way
bootstrap of `stats`. A covariate that is the same for all heads of a picture explains nothing.

References: G. U. Yule, "On the theory of correlation for any number of variables", 1907;
A. Owen, "The pigeonhole bootstrap", 2007, arXiv 0712.1111.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.studies.shared.stats import Estimate, drawn_batches, estimate_of, of_draws, spearman

NORM, LAYER = "norm of the write", "layer alone"
"""Baselines that need no lens: the visible norm of a head's write, and the number of its layer."""

GIVEN: Mapping[str, tuple[str, ...]] = {"norm": (NORM,), "layer": (LAYER,), "norm and layer": (NORM, LAYER)}
"""Covariates of the partial correlations, by name."""

RAW = "raw"
"""Name of a correlation without covariates."""

GIVEN_BOTH = "given norm and layer"
"""Name of the partial correlation with both baselines held fixed."""

_FULLY_EXPLAINED = 1e-9
"""Variance left by a covariate, as a share, below which a partial correlation is undefined."""


class DrawnCorrelations:
    """Rank correlations between named tables on all pictures and heads and on every draw, each computed once.

    Args:
        tables: tables (P,N) by name, the covariates among them.
        concepts: concept of each picture.
        draws: bootstrap draws.
        seed: of the draws.
    """

    def __init__(
        self, tables: Mapping[str, Float[Tensor, "P N"]], concepts: Sequence[str], *, draws: int = 1000, seed: int = 0
    ) -> None:
        self._tables = dict(tables)
        P, N = next(iter(self._tables.values())).shape
        everything = torch.arange(P)[None], torch.arange(N)[None]
        self._batches = [everything, *drawn_batches(concepts, N, draws=draws, seed=seed)]
        self._known: dict[tuple[str, str], Tensor] = {}
        self._last: tuple[tuple[str, str], Tensor] | None = None

    def add(self, name: str, table: Float[Tensor, "P N"]) -> None:
        """Adds a table under a new name."""
        self._tables[name] = table

    def between(self, first: str, second: str) -> Float[Tensor, "draws P"]:
        """Correlations of two tables, picture by picture; the first row is that of all pictures and heads."""
        key = (first, second) if first <= second else (second, first)
        if key in self._known:
            return self._known[key]
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        one, other = (self._tables[name] for name in key)
        drawn = torch.cat([of_draws(spearman, one, other, *batch) for batch in self._batches])
        # Correlations with covariates return in every partial correlation; those of score and effect only once more.
        if NORM in key or LAYER in key:
            self._known[key] = drawn
        else:
            self._last = key, drawn
        return drawn

    def given(self, first: str, second: str, covariates: Sequence[str] = ()) -> Float[Tensor, "draws P"]:
        """Partial correlations of two tables, picture by picture; nan where a covariate explains a side wholly."""
        if not covariates:
            return self.between(first, second)
        *rest, last = covariates
        raw = self.given(first, second, rest)
        # The correlation with a constant covariate is undefined, and it explains nothing.
        left, right = (self.given(side, last, rest).nan_to_num(0.0) for side in (first, second))
        room = (1 - left.square()) * (1 - right.square())
        return torch.where(room > _FULLY_EXPLAINED, (raw - left * right) / room.clamp_min(1e-300).sqrt(), torch.nan)

    def estimate(self, score: str, effect: str, covariates: Sequence[str] = ()) -> Estimate:
        """Estimates the mean partial correlation over pictures; the raw correlation without covariates."""
        return _estimate(self.given(score, effect, covariates))

    def difference(self, first: str, second: str, effect: str, covariates: Sequence[str] = ()) -> Estimate:
        """Estimates the mean paired difference of two scores' correlations with an effect, first minus second."""
        sides = [self.given(score, effect, covariates) for score in (first, second)]
        return _estimate(sides[0] - sides[1])


def _estimate(rows: Float[Tensor, "draws P"]) -> Estimate:
    means = rows.nanmean(dim=-1)
    return estimate_of(float(means[0]), means[1:].double())


def layer_table(layers: Sequence[int], n_pictures: int) -> Float[Tensor, "P N"]:
    """The layer of each head as a score, the same for all pictures."""
    return torch.tensor(layers, dtype=torch.float32).expand(n_pictures, -1).clone()
