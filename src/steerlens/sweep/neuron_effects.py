"""Second-order effects of neurons on one picture, beside those of real ablation.

direct         the neuron's write is taken out of the final residual of the readout tokens: r - h
second order   what later attention makes of it is taken out, patterns and norms frozen: r - φ
together       both: r - h - φ
ablated        the neuron is zeroed on every token of a real forward pass, and everything reacts

Each effect is the length of the embedding's change relative to the embedding.

References: Y. Gandelsman et al., arXiv 2406.04341.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder, Inputs, NativeEncoder, value_paths
from steerlens.errors import UsageError
from steerlens.lenses import Change, SecondOrder, Strength, TotalLens, clean_pass, read_out
from steerlens.sites import Site
from steerlens.trace import Trace

MEASURED = 64
"""Neurons of a picture that are measured, the first of its plan: each costs a real forward pass."""


@dataclass(frozen=True)
class NeuronEffects:
    """Effects of one neuron on one picture; see the module for each.

    Attributes:
        second_order: effect through later attention.
        together: direct and second-order effect.
        ablated: effect of real ablation.
    """

    second_order: float
    together: float
    ablated: float


@torch.no_grad()
def neuron_effects(
    encoder: Encoder, trace: Trace, inputs: Inputs, neurons: Sequence[Site]
) -> dict[Site, NeuronEffects]:
    """Measures the first neurons of one picture; none if attention of the encoder cannot be followed.

    Args:
        encoder: the encoder.
        trace: the trace of the picture, with neurons.
        inputs: the picture as the encoder takes it.
        neurons: the neurons.
    """
    sites = list(neurons[:MEASURED])
    if not sites or not isinstance(encoder, NativeEncoder):
        return {}
    try:
        second = SecondOrder(encoder, trace, value_paths(encoder, inputs))
    except UsageError:
        return {}
    written, own, final = second.writes(sites), trace.stack(sites), trace.final[:, None]
    clean = clean_pass(encoder, inputs, trace)
    real = TotalLens(encoder, Strength("s", 0.0)).passes(clean, [Change(site, "ablated") for site in sites])[0]
    changed = [read_out(encoder, final - part)[0] for part in (written, own + written)]
    lengths = [_change(embeddings, trace.embedding[0]).tolist() for embeddings in (*changed, real)]
    return {site: NeuronEffects(*row) for site, row in zip(sites, zip(*lengths, strict=True), strict=True)}


def _change(embeddings: Float[Tensor, "N E"], clean: Float[Tensor, "E"]) -> Float[Tensor, "N"]:
    return (embeddings.float() - clean.float()).norm(dim=-1) / clean.float().norm()
