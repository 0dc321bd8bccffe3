"""Cells with their conditioning: what is decoded, and what it is compared with."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import Cell
from steerlens.encoders import Inputs
from steerlens.scores import cosine_similarity
from steerlens.trace import Trace


@dataclass(frozen=True, eq=False)
class TracedPicture:
    """An input picture after its forward pass.

    Attributes:
        inputs: inputs of the encoder.
        trace: decomposition of the final residual.
        error: relative error of the decomposition.
        target: embedding that its similarities refer to.
    """

    inputs: Inputs
    trace: Trace
    error: float
    target: Float[Tensor, "E"]


@dataclass(frozen=True, eq=False)
class SteeredCell:
    """A cell with the conditioning to decode and the targets to compare it with.

    Attributes:
        cell: the cell.
        rho: relative steering strength applied; 0 for the Diffusion Lens.
        conditioning: the image embedding, or the image tokens.
        target: embedding to compare with.
        target_tokens: tokens to compare with, for a decoder of image tokens; None if the target has none.
        direct_cosine: cosine of a total effect's conditioning with that of the direct effect; None for other cells.
        change_cosine: the same between the changes of the clean conditioning.
    """

    cell: Cell
    rho: float
    conditioning: Float[Tensor, "E"] | Float[Tensor, "t D"]
    target: Float[Tensor, "E"]
    target_tokens: Float[Tensor, "t D"] | None = None
    direct_cosine: float | None = None
    change_cosine: float | None = None

    @property
    def steered_similarity(self) -> float:
        """Cosine of the conditioning with the target, in the decoder's space; NaN if the target has no tokens."""
        target = self.target_tokens if self.conditioning.ndim == 2 else self.target
        return math.nan if target is None else flat_cosine(self.conditioning, target)


def flat_cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of two tensors of any shape, flattened."""
    return float(cosine_similarity(first.flatten(), second.flatten()))
