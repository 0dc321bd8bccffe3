"""Typicality: distances of embeddings from those of real pictures, as percentiles of the real embeddings' distances.

Two distances, each from a reference set of real embeddings:

    nearest        min over references r of 1 - cos(e, r)
    mahalanobis    sqrt( (e - m)' S^-1 (e - m) ),  S = (1 - w) C + w tr(C)/E I

with mean m and covariance C of the reference, and the weight w of Ledoit and Wolf, since there are often fewer
references than dimensions. The null distribution holds the same distances of each reference from all others: an
embedding at the 95th percentile is farther from the reference set than 95 % of real embeddings.

References: O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88, 2004; K. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples",
arXiv 1807.03888 (Mahalanobis); Y. Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors",
arXiv 2204.06507.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.spread import Spread, spread

LEAST = 8
"""Least number of references for a percentile; about a hundred give a smooth distribution."""


@dataclass(frozen=True, eq=False)
class Typicality:
    """Reference set of real embeddings, with the distance of each from the others.

    Attributes:
        unit: the references, of unit norm.
        spread: their mean and covariance.
        nearest_null: distance of each reference from its nearest neighbour, sorted.
        mahalanobis_null: Mahalanobis distance of each reference under the spread of the others, sorted.
    """

    unit: Float[Tensor, "K E"]
    spread: Spread
    nearest_null: Float[Tensor, "K"]
    mahalanobis_null: Float[Tensor, "K"]

    def nearest(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N"]:
        """Percentile of the cosine distance to the nearest reference, in [0,100]."""
        unit = torch.nn.functional.normalize(embeddings.double(), dim=-1)
        return percentile((1 - unit @ self.unit.T).amin(dim=-1), self.nearest_null)

    def mahalanobis(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N"]:
        """Percentile of the Mahalanobis distance, in [0,100]."""
        return percentile(self.spread.distance(embeddings), self.mahalanobis_null)


def require_references(references: Sequence[int]) -> None:
    """Checks the number of reference pictures.

    Raises:
        UsageError: if there are fewer than `LEAST`.
    """
    if len(references) < LEAST:
        raise UsageError(
            f"typicality needs at least {LEAST} reference pictures that are not studied themselves, but there are "
            f"{len(references)}. Give more pictures, or lower --count."
        )


def fit_typicality(reference: Float[Tensor, "K E"]) -> Typicality:
    """Builds a reference set from real embeddings.

    Raises:
        UsageError: if there are fewer than `LEAST`, or all are equal.
    """
    K = len(reference)
    require_references(range(K))
    values = reference.double()
    unit = torch.nn.functional.normalize(values, dim=-1)
    apart = 1 - unit @ unit.T
    apart.fill_diagonal_(float("inf"))
    others = ~torch.eye(K, dtype=torch.bool, device=values.device)
    left_out = [spread(values[others[row]]).distance(values[row]) for row in range(K)]
    return Typicality(unit, spread(values), apart.amin(dim=-1).sort().values, torch.stack(left_out).sort().values)


def percentile(values: Float[Tensor, "*N"], null: Float[Tensor, "K"]) -> Float[Tensor, "*N"]:
    """Percentage of sorted null values that each value exceeds; ties count half."""
    values = values.to(null).contiguous()
    below = torch.searchsorted(null, values, right=False)
    up_to = torch.searchsorted(null, values, right=True)
    return 50 * (below + up_to).double() / len(null)
