"""Neurons: the units of an MLP's hidden layer, and what each writes into the residual stream.

    mlp_out = λ (Σ_i a_i W[:, i] + b)        write of neuron i: λ a_i W[:, i]

a_i is the input of the MLP's output projection, so it includes the gate of a gated MLP; λ is the LayerScale, or 1.

References: M. Geva et al., "Transformer Feed-Forward Layers Are Key-Value Memories", arXiv 2012.14913.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import TraceError, UsageError
from steerlens.sites import Site


@dataclass(frozen=True, eq=False)
class NeuronProjection:
    """Output projection of one layer's MLP.

    Attributes:
        weight: as a linear layer stores it; M neurons.
        bias: its bias, or None.
        scale: LayerScale on the MLP, or None; it multiplies neurons and bias alike.
    """

    weight: Float[Tensor, "D M"]
    bias: Float[Tensor, "D"] | None = None
    scale: Float[Tensor, "D"] | None = None

    @property
    def n_neurons(self) -> int:
        """M."""
        return self.weight.shape[1]

    def check(self, site: Site) -> Site:
        """Returns a neuron's site if the layer has it.

        Raises:
            UsageError: if it does not.
        """
        if site.index >= self.n_neurons:
            raise UsageError(f"{site}: layer {site.layer} has neurons 0 to {self.n_neurons - 1}.")
        return site

    def directions(self, indices: Int[Tensor, "N"] | None = None) -> Float[Tensor, "N D"]:
        """Writes of neurons at an activation of 1, LayerScale included.

        Args:
            indices: neurons; None for all.
        """
        weight = self.weight.detach()
        rows = (weight if indices is None else weight[:, indices.to(weight.device)]).T
        return rows if self.scale is None else rows * self.scale.detach()

    def write(self, activations: Float[Tensor, "*T M"], index: int) -> Float[Tensor, "*T D"]:
        """Computes one neuron's write."""
        direction = self.weight.detach()[:, index]
        direction = direction if self.scale is None else direction * self.scale.detach()
        return activations[..., index : index + 1] * direction

    def bias_write(self) -> Float[Tensor, "D"]:
        """Write of the projection's bias; zeros without one."""
        bias = self.weight.new_zeros(self.weight.shape[0]) if self.bias is None else self.bias
        return bias.detach() if self.scale is None else (bias * self.scale).detach()


@dataclass(frozen=True, eq=False)
class Neurons:
    """Activations of every neuron on the readout tokens, layer by layer, and the layers' output projections.

    Attributes:
        activations: activations of each layer.
        projections: output projection of each layer.
    """

    activations: tuple[Float[Tensor, "B R M"], ...]
    projections: tuple[NeuronProjection, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the activations; weights are views of the model's."""
        return sum(tensor.nbytes for tensor in self.activations)

    def write(self, site: Site) -> Float[Tensor, "B R D"]:
        """Computes a neuron's write.

        Raises:
            UsageError: if the layer has no such neuron.
        """
        projection = self.projections[site.layer]
        return projection.write(self.activations[site.layer], projection.check(site).index)

    def norms(self, layer: int) -> Float[Tensor, "B R M"]:
        """Norms of the writes of all neurons of a layer, without multiplying them out."""
        return self.activations[layer].abs() * self.projections[layer].directions().norm(dim=-1)

    def dots(self, layer: int, direction: Float[Tensor, "D"]) -> Float[Tensor, "B R M"]:
        """Dot products of the writes of all neurons of a layer with a direction, without multiplying them out."""
        projection = self.projections[layer]
        return self.activations[layer] * (projection.directions() @ direction.to(projection.weight))

    def total(self, layer: int) -> Float[Tensor, "B R D"]:
        """Adds up the writes of all neurons of a layer and the bias."""
        projection = self.projections[layer]
        return self.activations[layer] @ projection.directions() + projection.bias_write()

    def select(self, rows: slice) -> "Neurons":
        """Neurons of some pictures of the batch."""
        return replace(self, activations=tuple(tensor[rows] for tensor in self.activations))

    def check(self, mlp_out: Float[Tensor, "B L R D"]) -> None:
        """Checks that neurons and bias add up to the output of each layer's MLP.

        Raises:
            TraceError: if they do not, relative to its norm, within 1e-5 in float32 and 5e-2 in half precision.
        """
        tolerance = 1e-5 if mlp_out.dtype in (torch.float32, torch.float64) else 5e-2
        for layer, expected in enumerate(mlp_out.unbind(dim=1)):
            error = (self.total(layer).double() - expected.double()).norm(dim=-1)
            worst = float((error / expected.double().norm(dim=-1).clamp_min(1e-30)).max())
            if not worst <= tolerance:
                raise TraceError(
                    f"the neurons of layer {layer} add up to its MLP's output only within {worst:.2g} (allowed: "
                    f"{tolerance:.2g}): the MLP does more than its adapter knows, so no neuron of it can be trusted."
                )
