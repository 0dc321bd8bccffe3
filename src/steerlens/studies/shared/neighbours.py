"""Nearest real pictures of embeddings, and those that are near one embedding and not near another."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def nearest(embeddings: Float[Tensor, "*n E"], bank: Float[Tensor, "M E"], k: int) -> Int64[Tensor, "*n k"]:
    """Indices of the k pictures of a bank with the highest cosine similarity, best first; all of a smaller bank."""
    unit, rows = (torch.nn.functional.normalize(side.float(), dim=-1) for side in (embeddings, bank))
    return (unit @ rows.T).topk(min(k, len(bank)), dim=-1).indices


def only_near(
    first: Float[Tensor, "n E"], second: Float[Tensor, "n E"], bank: Float[Tensor, "M E"], k: int, count: int
) -> Int64[Tensor, "n count"]:
    """Indices of pictures nearest to the first embedding that are not among the k nearest to the second, best first.

    Pictures near both say nothing about the change between the two. There are fewer than `count` in a small bank.
    """
    k = min(k, len(bank) // 2)
    count = min(count, len(bank) - k)
    rows = [
        near[~torch.isin(near, others)][:count]
        for near, others in zip(nearest(first, bank, k + count), nearest(second, bank, k), strict=True)
    ]
    return torch.stack(rows)
