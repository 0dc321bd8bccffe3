"""Search for the nearest pictures of an index."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import ModelError


def nearest_rows(
    unit: Float[Tensor, "P E"], embeddings: Float[Tensor, "N E"], k: int, left_out: Sequence[int]
) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
    """Finds the k rows of greatest cosine similarity with each embedding: their indices and similarities, best first.

    Args:
        unit: embeddings of the pictures, each of length 1.
        embeddings: what is searched for.
        k: at most P minus the rows left out.
        left_out: rows that are not candidates.

    Raises:
        ModelError: if an embedding is zero, and so equally far from all pictures.
    """
    rows = embeddings.detach().float().cpu()
    if bool((rows.norm(dim=-1) == 0).any()):
        raise ModelError("an embedding to decode is zero: no picture is nearer to it than any other.")
    # One row at a time, so that rounding does not depend on the batch.
    cosines = torch.stack([unit @ row for row in torch.nn.functional.normalize(rows, dim=-1)])
    if left_out:
        cosines[:, list(left_out)] = -torch.inf
    best = cosines.topk(k, dim=-1)
    return best.indices, best.values
