"""Readout of many residuals at once, and the contents of sites, shared by all lenses."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder, EncoderSpec
from steerlens.errors import UsageError
from steerlens.lenses.components import Direction, check_vector, direction_site
from steerlens.lenses.sae_parts import sae_writes
from steerlens.saes import SparseAutoencoder
from steerlens.sites import NAMED_KINDS, SAE_KINDS, Site
from steerlens.trace import Trace

_TOKENS = 4096
"""Tokens read out at once, which bounds the memory of a readout of all tokens of a large encoder."""


def writes(
    encoder: Encoder, trace: Trace, sites: Sequence[Site], directions: Mapping[str, Direction]
) -> Float[Tensor, "B N R D"]:
    """Stacks the content of each site or named component; a direction is repeated on every readout token.

    Raises:
        UsageError: if there is no such site, no direction of that name and width, or no such autoencoder.
    """
    native = [site for site in sites if site.kind not in (*NAMED_KINDS, *SAE_KINDS)]
    contents = dict(zip(native, trace.stack(native).unbind(dim=1), strict=True)) if native else {}
    for site in sites:
        if site.kind in NAMED_KINDS:
            contents[site] = _named(encoder.spec, site, directions, trace)
    if parts := [site for site in sites if site.kind in SAE_KINDS]:
        contents |= {site: write.to(trace.final) for site, write in sae_writes(trace, parts, directions).items()}
    if not contents:
        raise UsageError("no site was requested.")
    return torch.stack([contents[site] for site in sites], dim=1)


def _named(spec: EncoderSpec, site: Site, directions: Mapping[str, Direction], trace: Trace) -> Tensor:
    kind = "direction" if site.kind == "vector" else site.kind
    direction = directions.get(site.name)
    if direction is None or isinstance(direction, SparseAutoencoder) or direction_site(site.name, direction) != site:
        known = ", ".join(sorted(directions)) or "none was given"
        raise UsageError(f"no {kind} is called {site.name!r}; known: {known}.")
    if not isinstance(direction, Tensor):
        return direction.write(spec, trace).to(trace.final)
    check_vector(site.name, direction, trace.final.shape[-1], centred=spec.centred)
    return direction.to(trace.final).expand_as(trace.final)


def precise(tensor: Tensor) -> Tensor:
    """Converts a tensor to at least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def read_out(encoder: Encoder, residuals: Float[Tensor, "B N R D"]) -> Float[Tensor, "B N E"]:
    """Applies the encoder's true readout to many residuals, a bounded number at a time."""
    B, N = residuals.shape[:2]
    rows = residuals.flatten(0, 1).split(max(1, _TOKENS // residuals.shape[2]))
    return torch.cat([encoder.readout(part) for part in rows]).unflatten(0, (B, N))
