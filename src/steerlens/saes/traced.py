"""Values of a trace as a sparse autoencoder reads them, and its decoder rows in the space of the residual stream."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.saes.sae import SparseAutoencoder
from steerlens.sites import Site
from steerlens.trace import Trace


def value_at(sae: SparseAutoencoder, trace: Trace) -> Float[Tensor, "B R D"]:
    """Returns what an autoencoder reads of a trace; of the image embedding, R is 1.

    Raises:
        UsageError: if the model has no such site, or its values have another width.
    """
    site = sae.site
    if not isinstance(site, Site):
        return _fitting(sae, trace.embedding[:, None])
    site.check(trace.n_layers, trace.n_heads)
    if sae.space == "residual":
        return _fitting(sae, trace.at(site))
    if site.kind == "head":
        return _fitting(sae, trace.head_values[:, site.layer, site.head])
    # (B,H,R,d) to the concatenated heads (B,R,H d), the order of the output projection's input.
    return _fitting(sae, trace.head_values[:, site.layer].transpose(1, 2).flatten(2))


def decoder_rows(
    sae: SparseAutoencoder, trace: Trace, indices: Int[Tensor, "*N"] | None = None
) -> Float[Tensor, "*N D"]:
    """Returns decoder rows of features as they enter the residual stream; an embedding's stay in its space.

    Rows of an autoencoder of head values are multiplied by the heads' output projection.

    Args:
        sae: the autoencoder.
        trace: any trace of the model, for its output projections.
        indices: features; None for all.

    Raises:
        UsageError: if the model has no such site.
    """
    rows = sae.W_dec if indices is None else sae.W_dec[indices.to(sae.W_dec.device)]
    if sae.space == "residual" or not isinstance(sae.site, Site):
        return rows
    site = sae.site.check(trace.n_layers, trace.n_heads)
    weights = trace.out_weights[site.layer]
    projection = weights[site.head] if site.kind == "head" else weights.flatten(0, 1)
    return rows @ projection.to(rows)


def _fitting(sae: SparseAutoencoder, value: Tensor) -> Tensor:
    if value.shape[-1] != sae.width:
        raise UsageError(
            f"sparse autoencoder {sae.name} has width {sae.width}, and the model's values at {sae.site} have width "
            f"{value.shape[-1]}: it was trained on another model or at another site."
        )
    return value.to(torch.promote_types(value.dtype, torch.float32))
