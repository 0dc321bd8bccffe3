"""Shared by the lenses: collecting what sites hold, and reading many residuals out in one pass."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders.base import Encoder
from steerlens.errors import UsageError
from steerlens.sites import Site
from steerlens.trace import Trace

_TOKENS = 4096
"""Tokens read out at once: keeps a readout of all tokens of a large encoder within memory."""


def writes(
    trace: Trace, sites: Sequence[Site], directions: Mapping[str, Float[Tensor, "D"]]
) -> Float[Tensor, "B N R D"]:
    """What each site holds, or the user's direction behind a `vector` site, put on every readout token.

    Raises:
        UsageError: if there is no such site, or no direction of that name and width.
    """
    native = [site for site in sites if site.kind != "vector"]
    held = dict(zip(native, trace.stack(native).unbind(dim=1), strict=True)) if native else {}
    for site in sites:
        if site.kind == "vector":
            held[site] = _direction(site, directions, trace).expand_as(trace.final)
    if not held:
        raise UsageError("no site was asked for.")
    return torch.stack([held[site] for site in sites], dim=1)


def _direction(site: Site, directions: Mapping[str, Tensor], trace: Trace) -> Tensor:
    if site.name not in directions:
        known = ", ".join(sorted(directions)) or "none was given"
        raise UsageError(f"no direction is called {site.name!r}; known: {known}.")
    direction, D = directions[site.name], trace.final.shape[-1]
    if direction.shape != (D,):
        raise UsageError(f"direction {site.name!r} has shape {tuple(direction.shape)}; this encoder's width is {D}.")
    return direction.to(trace.final)


def read_out(encoder: Encoder, residuals: Float[Tensor, "B N R D"]) -> Float[Tensor, "B N E"]:
    """The encoder's true readout of many residuals, in rows of a bounded size."""
    B, N = residuals.shape[:2]
    rows = residuals.flatten(0, 1).split(max(1, _TOKENS // residuals.shape[2]))
    return torch.cat([encoder.readout(part) for part in rows]).unflatten(0, (B, N))
