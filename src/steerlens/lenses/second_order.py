"""Second-order effects: what a write adds to the final residual through later attention, patterns and norms frozen.

A component that writes w_t on token t after layer l (a neuron: a_t W_out) reaches the readout token r directly, w_r,
and through every later attention head, which reads all tokens:

    φ = Σ_{l' > l} Σ_h Σ_t A^{l'h}[r,t] (w_t / σ_t) M^{l'h} W_O^{l'h}

A are the attention patterns of the clean run, σ the divisors of the norm before attention, M its norm and value
projection. φ is exact in that nothing else is approximated; paths through two or more later layers are left out.

References: Y. Gandelsman, A. A. Efros, J. Steinhardt, "Interpreting the Second-Order Effects of Neurons in CLIP",
arXiv 2406.04341.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Inputs, NativeEncoder, ValuePaths, value_paths
from steerlens.errors import UsageError
from steerlens.lenses.attribution import LinearAttribution
from steerlens.sites import Site, SiteLike, as_site
from steerlens.trace import Trace


@dataclass(frozen=True, eq=False)
class SecondOrder:
    """First- and second-order writes of components into the final residual, for a batch of pictures.

    Attributes:
        encoder: the encoder.
        trace: trace of the pictures, with neurons.
        paths: attention of every layer as a linear reader.
    """

    encoder: NativeEncoder
    trace: Trace
    paths: ValuePaths

    @classmethod
    def of(cls, encoder: NativeEncoder, inputs: Inputs | Tensor) -> "SecondOrder":
        """Measures pictures, in four forward passes.

        Raises:
            UsageError: if blocks do not normalise before attention, or their MLPs cannot be taken apart.
        """
        return cls(encoder, encoder.trace(inputs, neurons=True), value_paths(encoder, inputs))

    def direct(self, neurons: Sequence[SiteLike]) -> Float[Tensor, "B N R D"]:
        """Computes the first-order writes of neurons: what they add to the readout tokens themselves.

        Raises:
            UsageError: if the model has no such neuron.
        """
        return self.trace.stack(_neurons(neurons))

    @torch.no_grad()
    def writes(self, neurons: Sequence[SiteLike]) -> Float[Tensor, "B N R D"]:
        """Computes the second-order writes φ of neurons.

        The patterns weigh a neuron's activations first, so that its direction goes through each head only once.

        Raises:
            UsageError: if a site is no neuron, or the model has no such neuron.
        """
        sites = _neurons(neurons)
        B, R, D = self.trace.final.shape
        effects = self.trace.final.new_zeros(B, len(sites), R, D)
        for layer in sorted({site.layer for site in sites}):
            places = [place for place, site in enumerate(sites) if site.layer == layer]
            projection = self.trace.neurons.projections[layer]
            units = torch.tensor([projection.check(sites[place]).index for place in places])
            activations = self.paths.neurons[layer][..., units]  # (B,T,N)
            directions = projection.directions(units)
            for later in range(layer + 1, self.paths.n_layers):
                read = activations / self.paths.divisors[:, later, :, None].to(activations)
                weighed = torch.einsum("bhrt,btn->bhrn", self.paths.patterns[:, later].to(read), read)
                values = torch.einsum("nw,whd->nhd", directions, self.paths.maps[later])
                effects[:, places] += self._out(torch.einsum("bhrn,nhd->bnhrd", weighed, values), later)
        return effects

    @torch.no_grad()
    def through_attention(self, written: Float[Tensor, "B N T D"], layer: int) -> Float[Tensor, "B N R D"]:
        """Computes the second-order writes of any writes on all tokens, such as those of a feature or a head.

        Args:
            written: what each of N components writes on every token.
            layer: the layer that it writes in; attention of later layers reads it. -1 for the embedding.

        Raises:
            UsageError: if the writes are of another shape.
        """
        B, L, T = self.paths.divisors.shape
        if written.ndim != 4 or written.shape[0] != B or written.shape[2] != T:
            raise UsageError(f"writes of shape {tuple(written.shape)} are not those of {B} pictures on {T} tokens.")
        R, D = self.trace.final.shape[1:]
        effects = written.new_zeros(B, written.shape[1], R, D)
        for later in range(layer + 1, L):
            scaled = written / self.paths.divisors[:, later, None, :, None].to(written)
            read = torch.einsum("bhrt,bntw->bnhrw", self.paths.patterns[:, later].to(written), scaled)
            effects += self._out(torch.einsum("bnhrw,whd->bnhrd", read, self.paths.maps[later]), later)
        return effects

    def contributions(self, writes: Float[Tensor, "B N R D"]) -> Float[Tensor, "B N E"]:
        """Computes what writes contribute to the embedding, the divisor of the final norm frozen too.

        Raises:
            UsageError: if the readout is not linear after the final norm.
        """
        return LinearAttribution(self.encoder).of(self.trace, writes)

    def _out(self, values: Float[Tensor, "B N H R d"], layer: int) -> Float[Tensor, "B N R D"]:
        if self.paths.scale is not None:
            values = values * self.paths.scale[:, None, layer].to(values)
        return torch.einsum("bnhrd,hdw->bnrw", values, self.paths.out_weights[layer].to(values))


def _neurons(sites: Sequence[SiteLike]) -> list[Site]:
    neurons = [as_site(site) for site in sites]
    if not neurons:
        raise UsageError("no neuron was named, such as neuron.8.17.")
    for site in neurons:
        if site.kind != "neuron":
            raise UsageError(f"{site} is not a neuron; second-order effects are those of neurons, such as neuron.8.17.")
    return neurons
