"""Neurons in a sweep: traces that hold them, the strongest of a picture, and where they are active."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder, Hook, Inputs, NativeEncoder
from steerlens.errors import UsageError
from steerlens.sites import Site
from steerlens.trace import Trace

CANDIDATES = 2048
"""Neurons, those with the largest writes, whose effects are measured to rank them: a model has 100,000 and more."""


def trace_inputs(encoder: Encoder, inputs: Inputs, *, attention: bool = False, neurons: bool = False) -> Trace:
    """Traces inputs, with neurons where they are looked at.

    Raises:
        UsageError: if the encoder does not show its neurons.
    """
    if not neurons:
        return encoder.trace(inputs, attention=attention)
    return native(encoder).trace(inputs, attention=attention, neurons=True)


def native(encoder: Encoder) -> NativeEncoder:
    """Returns an encoder whose MLPs can be taken apart.

    Raises:
        UsageError: if they cannot.
    """
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name} does not show the neurons of its MLPs.")
    return encoder


def write_norms(
    encoder: Encoder, trace: Trace, inputs: Inputs, layers: Sequence[int], *, all_tokens: bool = False
) -> dict[int, Float[Tensor, " M"]]:
    """Computes the norm of the write of every neuron of some layers, root mean square over tokens.

    Args:
        encoder: the encoder.
        trace: the trace of one picture, with neurons.
        inputs: the picture as the encoder takes it.
        layers: the layers.
        all_tokens: True for all tokens instead of the readout tokens.
    """
    if not all_tokens:
        return {layer: _root_mean(trace.neurons.norms(layer)[0]) for layer in layers}
    hidden = _hidden(native(encoder), inputs, layers)
    modules = native(encoder).layers()
    return {
        layer: _root_mean(values.float()) * modules[layer].neurons().directions().float().norm(dim=-1)
        for layer, values in hidden.items()
    }


def strongest(norms: dict[int, Float[Tensor, " M"]], k: int) -> list[Site]:
    """The neurons of several layers with the largest writes, largest first; ties keep the order of layers and units."""
    layers = list(norms)
    sizes = torch.tensor([len(norms[layer]) for layer in layers])
    every = torch.cat([norms[layer].float().cpu() for layer in layers])
    starts = sizes.cumsum(0) - sizes
    best = every.argsort(descending=True, stable=True)[:k]
    rows = torch.bucketize(best, starts, right=True) - 1
    return [
        Site("neuron", layers[int(row)], index=int(place - starts[row]))
        for row, place in zip(rows, best, strict=True)
        if every[place] > 0
    ]


@torch.no_grad()
def activations(encoder: Encoder, inputs: Inputs, sites: Sequence[Site]) -> dict[Site, Float[Tensor, "T"]]:
    """Records the activation of neurons on every token of one picture, in one forward pass."""
    hidden = _hidden(native(encoder), inputs, list(dict.fromkeys(site.layer for site in sites)))
    return {site: hidden[site.layer][:, site.index].float().cpu() for site in sites}


def _root_mean(values: Float[Tensor, "T M"]) -> Float[Tensor, " M"]:
    return values.float().square().mean(dim=0).sqrt()


def _hidden(encoder: NativeEncoder, inputs: Inputs, layers: Sequence[int]) -> dict[int, Float[Tensor, "T M"]]:
    """Activations of all neurons of some layers on every token of one picture."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def act(args: tuple[Any, ...], _: dict[str, Any]) -> None:
            kept[layer] = args[0].detach()[0]

        return act

    modules = encoder.layers()
    hooks = [
        Hook(modules[layer].neuron_module(), "before", keep(layer), f"records the neurons of layer {layer}")
        for layer in layers
    ]
    with torch.no_grad():
        encoder.run(encoder.model_inputs(inputs), hooks)
    return kept
