"""Linear maps between centred embeddings, in closed form and in float64.

Ridge:       W = (X'X + λ I)^-1 X'Y,          which minimises |X W - Y|² + λ |W|²
Procrustes:  W = s U V',  X'Y = U S V',       which maximises <X U V', Y> over all maps of orthonormal rows or columns

λ is a share of the mean eigenvalue of X'X, so that it means the same for any encoder and number of pictures. The scale
s brings X U V' closest to Y. Between spaces of equal size, s U V' is a scaled rotation (or reflection), and minimises
|X W - Y|² over these.

References: A. Hoerl, R. Kennard, "Ridge Regression", Technometrics 12, 1970;
P. Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor


def ridge(
    x: Float64[Tensor, "N E"], y: Float64[Tensor, "N F"], penalties: Sequence[float]
) -> Iterator[Float64[Tensor, "E F"]]:
    """Computes the ridge solution for each penalty, from one decomposition.

    Args:
        x: centred embeddings to map.
        y: centred target embeddings.
        penalties: λ as shares of the mean eigenvalue of X'X, each above 0.
    """
    values, vectors = torch.linalg.eigh(x.T @ x)
    cross = vectors.T @ (x.T @ y)
    unit = values.clamp_min(0).mean().clamp_min(torch.finfo(x.dtype).tiny)
    for penalty in penalties:
        yield vectors @ (cross / (values.clamp_min(0) + penalty * unit)[:, None])


def procrustes(x: Float64[Tensor, "N E"], y: Float64[Tensor, "N F"]) -> Float64[Tensor, "E F"]:
    """Computes the scaled orthogonal map (orthonormal rows or columns if sizes differ) closest in direction to y."""
    U, S, Vt = torch.linalg.svd(x.T @ y, full_matrices=False)
    rotation = U @ Vt
    return rotation * (S.sum() / (x @ rotation).square().sum().clamp_min(torch.finfo(x.dtype).tiny))
