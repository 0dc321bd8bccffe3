"""Kernel ridge on what a linear map leaves over, in closed form.

Added to a linear map of centred embeddings is `Σ_n k(z, c_n) A_n`; the embeddings of the fitted pictures are centres:

    k(z, c) = 1 / (1 + γ |z - c|² / s),   A = (K + λ I)^-1 R,   K_mn = k(c_m, c_n)

where R is what the linear map leaves over on those pictures and s the mean of |c|². Far from every picture the kernel
vanishes, and the linear map alone is left.

References: C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", 2006 (chapters 2 and 4).
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from steerlens.bridges.maps import Kernel, similarities
from steerlens.scores import cosine_similarity

SHARPNESSES = (0.3, 0.6, 1.2)
"""γ that are tried: how fast the kernel falls off, in squared distances over the mean squared length."""

PENALTIES = (0.05, 0.1, 0.2, 0.4)
"""λ that are tried: noise over signal, which does not depend on the number of pictures."""

CENTRES = 12_000
"""Pictures that are centres at most: the closed form takes their number squared in memory, and cubed in time."""

_TRIED = 3000
"""Pictures that γ and λ are chosen on."""


def fit_kernel(
    x: Float64[Tensor, "N E"], linear: Float64[Tensor, "N F"], y: Float64[Tensor, "N F"], *, seed: int
) -> Kernel:
    """The kernel part of a bridge; γ and λ are those that do best on a fifth of some of the pictures, held out.

    Args:
        x: centred embeddings to map.
        linear: what the linear map makes of them, centred.
        y: centred embeddings to reach.
        seed: decides which pictures are centres, and on which γ and λ are chosen.
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
    # In float32: λ keeps the system well conditioned, and float64 would take twice the memory and time.
    c, r = centres.float(), rest.float()
    scale = sharpness / c.square().sum(dim=-1).mean().clamp_min(torch.finfo(c.dtype).tiny)
    gram, added = similarities(c, c, scale), 0.0
    for penalty in penalties:
        gram.diagonal().add_(penalty - added)  # in place: with many pictures a copy is a gigabyte
        added = penalty
        yield Kernel(c, torch.cholesky_solve(r, torch.linalg.cholesky(gram)), scale)
