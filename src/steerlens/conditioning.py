"""Conditionings: image embeddings or image tokens, which lenses produce and decoders turn into pictures."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import ModelError, UsageError

Consumes = Literal["image_embedding", "image_tokens"]
"""The kinds of conditioning that a decoder may read."""


@dataclass(frozen=True, eq=False, repr=False)
class Conditioning:
    """Input of a decoder: image embeddings (N,E) or image tokens (N,T,D).

    Attributes:
        kind: `image_embedding` or `image_tokens`.
        values: one row per picture.

    Raises:
        UsageError: if the values have another number of dimensions.
        ModelError: if a value is not finite.
    """

    kind: Consumes
    values: Float[Tensor, "N ..."]

    def __post_init__(self) -> None:
        wanted = 2 if self.kind == "image_embedding" else 3
        if self.values.ndim != wanted:
            raise UsageError(f"an {self.kind} conditioning has {wanted} dimensions, not shape {self.values.shape}.")
        if not torch.isfinite(self.values).all():
            raise ModelError("an embedding to decode is not finite: the encoder or the steering strength overflowed.")

    def __repr__(self) -> str:
        return f"Conditioning({self.kind}, {tuple(self.values.shape)})"

    def __len__(self) -> int:
        return self.values.shape[0]

    def rows(self, start: int, stop: int) -> "Conditioning":
        """Returns a range of rows."""
        return Conditioning(self.kind, self.values[start:stop])
