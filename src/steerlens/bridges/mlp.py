"""A small correction with one hidden layer, trained on what a linear map leaves over."""

import torch
from jaxtyping import Float64
from torch import Tensor

from steerlens.bridges.maps import Correction
from steerlens.scores import cosine_similarity

_STEPS, _BATCH, _RATE, _DECAY, _DROPOUT = 600, 256, 3e-3, 0.1, 0.3


def train_correction(
    x: Float64[Tensor, "N E"], linear: Float64[Tensor, "N F"], y: Float64[Tensor, "N F"], *, seed: int
) -> Correction:
    """Trains `gelu(x V + b) U + c` so that, added to a linear map, it points where it should.

    It begins at zero: untrained, the bridge is the linear map. What is maximised is the cosine similarity of centred
    embeddings; dropout keeps a few thousand pictures from being learned by heart.

    Args:
        x: centred embeddings to map.
        linear: what the linear map makes of them, centred.
        y: centred embeddings to reach.
        seed: of the first weights, the batches and what is dropped.
    """
    generator = torch.Generator().manual_seed(seed)
    scale, reach = (float(part.square().mean().sqrt().clamp_min(1e-30)) for part in (x, y))
    inputs, begun, wanted = (x / scale).float(), (linear / reach).float(), (y / reach).float()
    E, F = x.shape[1], y.shape[1]
    K = min(1024, max(64, 4 * E))
    inner = (torch.randn(E, K, generator=generator) / E**0.5).requires_grad_()
    bias, offset = torch.zeros(K, requires_grad=True), torch.zeros(F, requires_grad=True)
    outer = torch.zeros(K, F, requires_grad=True)
    parts = [inner, bias, outer, offset]
    optimiser = torch.optim.AdamW(parts, lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=_STEPS)
    with torch.enable_grad():
        for _ in range(_STEPS):
            rows = torch.randint(len(inputs), (min(_BATCH, len(inputs)),), generator=generator)
            hidden = torch.nn.functional.gelu(_drop(inputs[rows], _DROPOUT / 2, generator) @ inner + bias)
            got = begun[rows] + _drop(hidden, _DROPOUT, generator) @ outer + offset
            loss = (1 - cosine_similarity(got, wanted[rows])).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return Correction((inner / scale).detach(), bias.detach(), (outer * reach).detach(), (offset * reach).detach())


def _drop(values: Tensor, share: float, generator: torch.Generator) -> Tensor:
    # With a generator of its own, which torch's dropout does not take.
    return values * (torch.rand(values.shape, generator=generator) >= share) / (1 - share)
