"""The Steering Lens on image tokens by its definition, hook by hook: the oracle of the closed form."""

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders import TokenSource, read_residuals
from steerlens.encoders import Encoder, Inputs
from steerlens.errors import UsageError
from steerlens.interventions import Add, Intervention, Patch, Scale
from steerlens.lenses.steering import later_submodules
from steerlens.sites import Site


@torch.no_grad()
def steer_and_patch_tokens(
    encoder: Encoder,
    inputs: Inputs | Tensor,
    site: Site,
    factor: float,
    source: TokenSource,
    weights: Float[Tensor, "T"] | None = None,
    direction: Float[Tensor, "D"] | None = None,
    layer: int = 0,
) -> Float[Tensor, "B *K T D"]:
    """Computes the residuals that a decoder reads by the definition of DSL: steer some tokens, patch later submodules.

    Slow and plain on purpose: two forward passes, without using the additivity of the residual stream. For a decoder
    of K layers these are K residuals, of which those before the component stay as they are.

    Args:
        encoder: any encoder.
        inputs: the output of `encoder.preprocess`.
        site: the component to amplify, or a `vector` site.
        factor: s; on a token of weight w, the component is multiplied by `1 + (s - 1) w`.
        source: the tokens that the decoder reads.
        weights: weight of each token, in [0,1]; None for 1 everywhere.
        direction: the direction of a `vector` site.
        layer: for a `vector` site, the layer after which it is added.

    Raises:
        UsageError: if the site is a point of the residual stream, is several places at once, or lies after the tokens.
    """
    if not site.is_write or site.kind in ("group", "region"):
        raise UsageError(f"{site} is not the output of a submodule and cannot be steered.")
    if site.kind == "vector" and direction is None:
        raise UsageError(f"{site} was given no direction.")
    last = source.last_layer(encoder.spec.n_layers)
    source.check(Site("resid_post", layer) if site.kind == "vector" else site, encoder.spec.n_layers, "the decoder")
    shares = (torch.ones(encoder.spec.n_tokens) if weights is None else weights).tolist()
    steer: list[Intervention] = []
    for share in sorted(set(shares) - {0.0}):
        tokens, amount = tuple(t for t, own in enumerate(shares) if own == share), (factor - 1) * share
        if direction is not None:
            steer.append(Add(Site("resid_post", layer), tokens, vector=amount * direction))
        else:
            steer.append(Scale(site, tokens, factor=1 + amount))
    later = later_submodules(site, layer, last + 1)
    clean = encoder.record(inputs, later) if later else {}
    patches = [Patch(submodule, value=clean[submodule]) for submodule in later]
    return read_residuals(encoder, inputs, source, [*steer, *patches])
