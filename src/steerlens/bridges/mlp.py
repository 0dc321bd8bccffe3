"""A small correction with one hidden layer, trained on what a linear map leaves over."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from steerlens.bridges.maps import Correction

_STEPS, _BATCH, _HIDDEN = 400, 256, 512


def train_correction(
    x: Float64[Tensor, "N E"], rest: Float64[Tensor, "N F"], *, seed: int, steps: int = _STEPS
) -> Correction:
    """Trains `gelu(x V + b) U + c` to give what a linear map leaves over, in float32 on the host.

    It begins at zero, so that without training the bridge is the linear map.

    Args:
        x: centred embeddings to map.
        rest: centred embeddings to reach, less their linear prediction.
        seed: of the first weights and of the batches.
        steps: of AdamW, with a rate that falls to zero.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = float(x.square().mean().sqrt().clamp_min(1e-30))
    wanted = float(rest.square().mean().sqrt().clamp_min(1e-30))
    inputs, targets = (x / scale).float(), (rest / wanted).float()
    E, F = x.shape[1], rest.shape[1]
    inner = (torch.randn(E, _HIDDEN, generator=generator) / E**0.5).requires_grad_()
    bias, offset = torch.zeros(_HIDDEN, requires_grad=True), torch.zeros(F, requires_grad=True)
    outer = torch.zeros(_HIDDEN, F, requires_grad=True)
    optimiser = torch.optim.AdamW([inner, bias, outer, offset], lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(inputs), (min(_BATCH, len(inputs)),), generator=generator)
            loss = _mean_squared(Correction(inner, bias, outer, offset)(inputs[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return Correction((inner / scale).detach(), bias.detach(), (outer * wanted).detach(), (offset * wanted).detach())


def _mean_squared(got: Float[Tensor, "N F"], wanted: Float[Tensor, "N F"]) -> Tensor:
    return (got - wanted).square().mean()
