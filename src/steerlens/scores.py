"""Scores: similarity of embeddings, and comparison of a score with controls."""

import torch
from jaxtyping import Float
from torch import Tensor


def cosine_similarity(a: Float[Tensor, "*#N E"], b: Float[Tensor, "*#N E"]) -> Float[Tensor, "*N"]:
    """`a·b / (|a| |b|)` in [-1,1], over the last dimension, in at least float32."""
    if torch.float64 not in (a.dtype, b.dtype):
        a, b = a.float(), b.float()
    return torch.nn.functional.cosine_similarity(a, b.to(a), dim=-1)


def cosine_distance(a: Float[Tensor, "*#N E"], b: Float[Tensor, "*#N E"]) -> float:
    """Computes the largest `1 - cosine similarity` of two rows, in [0,2].

    Computed as half the squared distance of unit vectors, which does not cancel for nearly equal rows.
    """
    unit = [torch.nn.functional.normalize(tensor.detach().double(), dim=-1) for tensor in (a, b)]
    return float((unit[0] - unit[1]).square().sum(dim=-1).max() / 2)


def share_beaten(score: float, controls: Float[Tensor, "N"]) -> float:
    """Computes the share of control scores that a score exceeds, in [0,1]; ties count half."""
    above = (controls < score).double() + 0.5 * (controls == score).double()
    return float(above.mean())


def seed_agreement(embeddings: Float[Tensor, "S E"]) -> float:
    """Computes the mean pairwise cosine similarity of pictures of S seeds; 1 for a single seed.

    Differences between the pictures of different seeds come from the decoder.
    """
    n = embeddings.shape[0]
    if n < 2:
        return 1.0
    unit = torch.nn.functional.normalize(embeddings.double(), dim=-1)
    return float((unit @ unit.T).sum().sub(n) / (n * (n - 1)))
