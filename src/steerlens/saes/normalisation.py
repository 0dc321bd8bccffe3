"""Normalisation of a sparse autoencoder's input, and what undoes it at the output.

x_n = (x - shift) / divisor,        x = multiplier * x_n + shift

none         x_n = x
constant     x_n = (x - mean) factor
unit_norm    x_n = x √D / |x|
layer_norm   x_n = (x - μ) / (σ + ε), ε = 1e-5 and σ the unbiased deviation over width; the output is multiplied by σ
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

NormalisationKind = Literal["none", "constant", "unit_norm", "layer_norm"]

_EPSILON = 1e-5


class Affine(NamedTuple):
    """Numbers of a normalisation for given inputs.

    Attributes:
        shift: subtracted before the division, added after the multiplication, (*T,D) or (*T,1).
        divisor: divides the input, (*T,1).
        multiplier: multiplies the output, (*T,1).
    """

    shift: Tensor
    divisor: Tensor
    multiplier: Tensor


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Normalisation of the input of a sparse autoencoder.

    Attributes:
        kind: its kind.
        factor: factor of `constant`.
        mean: subtracted by `constant`, (D,); None for zeros.
    """

    kind: NormalisationKind = "none"
    factor: float = 1.0
    mean: Float[Tensor, "D"] | None = None

    @property
    def reads_input(self) -> bool:
        """True if shift and scale depend on the input, so that decoding needs the input too."""
        return self.kind in ("unit_norm", "layer_norm")

    def affine(self, x: Float[Tensor, "*T D"]) -> Affine:
        """Returns shift, divisor and multiplier for inputs."""
        ones = x.new_ones(*x.shape[:-1], 1)
        if self.kind == "unit_norm":
            length = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
            return Affine(torch.zeros_like(ones), length, length)
        if self.kind == "layer_norm":
            deviation = x.std(dim=-1, keepdim=True)
            return Affine(x.mean(dim=-1, keepdim=True), deviation + _EPSILON, deviation)
        shift = torch.zeros_like(ones) if self.mean is None else self.mean.to(x).expand_as(x)
        return Affine(shift, ones / self.factor, ones / self.factor)
