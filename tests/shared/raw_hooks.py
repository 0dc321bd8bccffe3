"""Interventions against raw hooks on native modules: what the tests of timm and open_clip share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.encoders.native import NativeEncoder
from steerlens.interventions import Add, Intervention, Patch, Scale, Zero
from steerlens.sites import Site

CLOSE: dict[str, float] = {"rtol": 1e-9, "atol": 1e-10}
"""How close two ways of computing the same in float64 come."""

CHANGES: dict[str, tuple[Callable[[Site, Tensor], Intervention], Callable[[Tensor, Tensor], Tensor]]] = {
    "zero": (lambda site, _: Zero(site), lambda now, _: 0 * now),
    "scale": (lambda site, _: Scale(site, factor=-2.0), lambda now, _: -2 * now),
    "add": (lambda site, other: Add(site, vector=other), lambda now, other: now + other),
    "patch": (lambda site, other: Patch(site, value=other), lambda _, other: other),
    "one token": (lambda site, _: Zero(site, tokens=(0,)), lambda now, _: torch.cat([0 * now[:, :1], now[:, 1:]], 1)),
}
"""By name: an intervention, and the same as an edit of what a module takes or gives."""


def pixels(encoder: NativeEncoder, batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *encoder.spec.image_size, generator=generator).to(encoder.dtype)


def changed(
    encoder: NativeEncoder,
    site: Site,
    module: nn.Module,
    before: bool,
    change: str,
    run: Callable[[NativeEncoder], Tensor],
) -> tuple[Tensor, Intervention]:
    """What a native forward pass gives with a raw hook on a module, and the intervention that should do the same.

    Args:
        encoder: the encoder.
        site: where the intervention acts.
        module: where the raw hook goes.
        before: whether it changes what the module takes, and not what it gives.
        change: which of `CHANGES`.
        run: the native forward pass on `pixels(encoder)`.
    """
    make, edit = CHANGES[change]
    other = encoder.record(pixels(encoder, seed=2), [site])[site]
    handle: Any
    if before:
        handle = module.register_forward_pre_hook(lambda _, args: (edit(args[0], other), *args[1:]))
    else:
        handle = module.register_forward_hook(lambda _, __, output: edit(output, other))
    with torch.no_grad():
        wanted = run(encoder)
    handle.remove()
    return wanted, make(site, other)
