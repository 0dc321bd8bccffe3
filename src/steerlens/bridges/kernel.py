"""Kernel ridge regression on the residuals of a linear map, in closed form.

The kernel part `Σ_n k(z, c_n) A_n` is added to a linear map of centred embeddings; its centres are fitted pictures:

    k(z, c) = 1 / (1 + γ |z - c|² / s),   A = (K + λ I)^-1 R,   K_mn = k(c_m, c_n)

where R are the residuals of the linear map on those pictures and s the mean of |c|². Far from every picture the kernel
vanishes, and only the linear map remains.

References: C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", 2006 (chapters 2 and 4).
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from steerlens.bridges.maps import Kernel, similarities
from steerlens.scores import cosine_similarity

SHARPNESSES = (0.3, 0.6, 1.2)
"""Candidate γ: decay of the kernel with the squared distance, relative to the mean squared length."""

PENALTIES = (0.05, 0.1, 0.2, 0.4)
"""Candidate λ: noise over signal, which does not depend on the number of pictures."""

CENTRES = 12_000
"""Most centres: the closed form takes memory quadratic, and time cubic, in their number."""

_TRIED = 3000
"""Number of pictures to choose γ and λ on."""


def fit_kernel(
    x: Float64[Tensor, "N E"], linear: Float64[Tensor, "N F"], y: Float64[Tensor, "N F"], *, seed: int
) -> Kernel:
    """Fits the kernel part of a bridge; γ and λ are the best on a held-out fifth of some of the pictures.

    Args:
        x: centred embeddings to map.
        linear: their images under the linear map, centred.
        y: centred target embeddings.
        seed: seed of the centres, and of the pictures to choose γ and λ on.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    some = order[:_TRIED]
    judged, fitted = some[: len(some) // 5], some[len(some) // 5 :]
    best, sharpness, penalty = -torch.inf, SHARPNESSES[0], PENALTIES[-1]
    for sharp in SHARPNESSES:
        kernels = _solve(x[fitted], (y - linear)[fitted], sharp, PENALTIES)
        for share, kernel in zip(PENALTIES, kernels, strict=True):
            reached = float(cosine_similarity(linear[judged] + kernel(x[judged]), y[judged]).mean())
            if reached > best:
                best, sharpness, penalty = reached, sharp, share
    centres = order[:CENTRES].sort().values
    return next(_solve(x[centres], (y - linear)[centres], sharpness, (penalty,)))


def _solve(
    centres: Float64[Tensor, "K E"], rest: Float64[Tensor, "K F"], sharpness: float, penalties: Sequence[float]
) -> Iterator[Kernel]:
    # float32 suffices: λ keeps the system well conditioned, and float64 would take twice the memory and time.
    c, r = centres.float(), rest.float()
    scale = sharpness / c.square().sum(dim=-1).mean().clamp_min(torch.finfo(c.dtype).tiny)
    gram, added = similarities(c, c, scale), 0.0
    for penalty in penalties:
        gram.diagonal().add_(penalty - added)  # in place: with many pictures a copy is a gigabyte
        added = penalty
        yield Kernel(c, torch.cholesky_solve(r, torch.linalg.cholesky(gram)), scale)
