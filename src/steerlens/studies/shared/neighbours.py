"""Nearest real pictures of embeddings, and those that are near one embedding and not near another."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steerlens.scores import cosine_similarity


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


def opposite(clean: Float[Tensor, "E"], changed: Float[Tensor, "*n E"]) -> Float[Tensor, "*n E"]:
    """Embeddings changed by as much in the opposite direction, `e - (e_changed - e)`."""
    return 2 * clean - changed


def along_change(
    first: Float[Tensor, "n E"], second: Float[Tensor, "n E"], bank: Float[Tensor, "M E"], count: int
) -> list[list[tuple[int, float]]]:
    """Pictures of a bank near the first embeddings and not near the second, best first.

    Returns:
        For each embedding, the index of each picture and its margin: its cosine with the first minus that with the
        second.
    """
    places = only_near(first, second, bank, count, count)
    margin = cosine_similarity(first[:, None], bank) - cosine_similarity(second[:, None], bank)
    return [[(row, float(margin[head, row])) for row in rows] for head, rows in enumerate(places.tolist())]
