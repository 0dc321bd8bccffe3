"""Mean and covariance of embeddings, and the Mahalanobis distance under them.

    d(e) = sqrt( (e - m)' S^-1 (e - m) ),  S = (1 - w) C + w tr(C)/E I

with mean m and covariance C, and the weight w of Ledoit and Wolf, since there are often fewer embeddings than
dimensions.

References: O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88, 2004; K. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples",
arXiv 1807.03888.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and shrunk covariance of embeddings, given by its principal axes.

    Attributes:
        mean: m.
        axes: directions in which the embeddings vary, rows of unit norm.
        variances: variance of S along each axis.
        floor: variance of S in every other direction.
        weight: w, in [0,1].
    """

    mean: Float[Tensor, "E"]
    axes: Float[Tensor, "K E"]
    variances: Float[Tensor, "K"]
    floor: float
    weight: float

    def distance(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N"]:
        """Mahalanobis distance of each embedding."""
        away = embeddings.double() - self.mean
        along = away @ self.axes.T
        square = (along.square() / self.variances).sum(dim=-1)
        # Rounding may make the part outside of the axes negative.
        outside = (away.square().sum(dim=-1) - along.square().sum(dim=-1)).clamp_min(0)
        # Without shrinkage, other directions have no variance; if the axes span the space, there are none.
        return (square + outside / self.floor).sqrt() if self.floor > 0 else square.sqrt()


def spread(embeddings: Float[Tensor, "K E"]) -> Spread:
    """Computes the mean and the Ledoit-Wolf covariance of embeddings.

    Raises:
        UsageError: if all embeddings are equal.
    """
    values = embeddings.double()
    K, E = values.shape
    mean = values.mean(dim=0)
    centred = values - mean
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square() / K
    total = float(variances.sum())
    if total <= 1e-12 * float(values.square().sum() / K):
        raise UsageError("the reference embeddings are all the same; typicality needs different pictures.")
    level, square = total / E, float(variances.square().sum())
    apart = square - E * level**2  # |C - level I|^2
    noise = (float(centred.square().sum(dim=1).square().sum()) / K - square) / K
    weight = 1.0 if apart <= 0 else min(1.0, max(0.0, noise / apart))
    # A little shrinkage keeps distances finite in directions without variance.
    floor = max(weight, 1e-6) * level
    return Spread(mean, axes, (1 - weight) * variances + floor, floor, weight)


def leading(spread: Spread, count: int) -> Spread:
    """Keeps the first axes of a spread; in all other directions, the variance is the mean of what is left."""
    if count >= len(spread.variances):
        return spread
    others = spread.mean.numel() - count
    dropped = spread.variances[count:]
    total = float(dropped.sum()) + (others - len(dropped)) * spread.floor
    return replace(spread, axes=spread.axes[:count], variances=spread.variances[:count], floor=total / others)
