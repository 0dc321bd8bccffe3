"""Linear attribution: the contribution of each part of the final residual to the embedding under a frozen final norm.

A LayerNorm divides by a norm that depends on every part, so contributions to the embedding do not add up. With the
divisor frozen at its value in the clean run, the readout is affine in the residual:

    P(LN(r_L)) = b + Σ_c A c,    A c = P(γ C c / σ(r_L)),    b = P(β)

over the components c of the trace (C removes the mean over width; it is the identity before an RMSNorm). This is not
the Diffusion Steering Lens, whose embeddings go through the true norm.

References: Y. Gandelsman et al., "Interpreting CLIP's Image Representation via Text-Based Decomposition",
arXiv 2310.05916.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Hook, NativeEncoder, native_pass, norm_divisor
from steerlens.errors import UsageError
from steerlens.lenses.components import Direction
from steerlens.lenses.readout import writes
from steerlens.sites import Site
from steerlens.trace import Trace


@dataclass(frozen=True, eq=False)
class LinearAttribution:
    """Contributions of writes to the embedding, with the statistics of the final norm frozen at the clean run.

    Attributes:
        encoder: the encoder of the trace; it must be linear after its final norm.
        directions: directions, groups, regions and sparse autoencoders of the named sites, by name.

    Raises:
        UsageError: if the encoder is not linear after its final norm: a pooling head, a pooler with tanh.
    """

    encoder: NativeEncoder
    directions: Mapping[str, Direction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.encoder.linear_after is None:
            raise UsageError(
                f"{self.encoder.spec.name}: its readout is not known to be linear after the final norm, so that parts "
                "of its embedding do not add up; use the Steering Lens, which needs no linearity."
            )

    def embeddings(self, trace: Trace, sites: Sequence[Site]) -> Float[Tensor, "B N E"]:
        """Computes the contribution of each site to the embedding, for every picture of the trace.

        Raises:
            UsageError: if the model has no such site, or `directions` has no such name.
        """
        return self.of(trace, writes(self.encoder, trace, sites, self.directions))

    @torch.no_grad()
    def of(self, trace: Trace, parts: Float[Tensor, "B N R D"]) -> Float[Tensor, "B N E"]:
        """Computes contributions of any parts of the final residual; linear in the parts."""
        constant = self.constant(trace)
        # One part at a time, so that the rows of a batch are its pictures, each with its own divisor.
        return torch.stack([self._frozen(trace, part) - constant for part in parts.unbind(dim=1)], dim=1)

    @torch.no_grad()
    def constant(self, trace: Trace) -> Float[Tensor, "B E"]:
        """Returns the embedding without any part: the biases of the norm and of the layers after it."""
        return self._frozen(trace, torch.zeros_like(trace.final))

    def _frozen(self, trace: Trace, residual: Float[Tensor, "B R D"]) -> Float[Tensor, "B E"]:
        """Reads out a residual with the divisor of the final norm frozen at that of the clean residual."""
        norm, divisors = self.encoder.linear_after, list[Tensor]()

        if norm is None:
            raise UsageError(f"{self.encoder.spec.name}: its readout is not known to be linear after the final norm.")

        def keep(args: tuple[Tensor, ...], _: Any, __: Any) -> None:
            divisors.append(norm_divisor(norm, args[0]))

        def rescale(args: tuple[Tensor, ...], _: Any, output: Tensor) -> Tensor:
            bias = getattr(norm, "bias", None)
            scaled = (output if bias is None else output - bias) * (norm_divisor(norm, args[0]) / divisors[0])
            return (scaled if bias is None else scaled + bias).to(output.dtype)

        model, name = self.encoder.model, self.encoder.spec.name
        with native_pass(model, name, [Hook(norm, "after", keep, "reads the divisor of the final norm")]):
            self.encoder.readout(trace.final)
        with native_pass(model, name, [Hook(norm, "after", rescale, "freezes the divisor of the final norm")]):
            return self.encoder.readout(residual)
