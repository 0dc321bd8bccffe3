"""Importance of an encoder's attention heads: ablation effects against controls, and shares of the final residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from steerlens.interventions import Mean, Resample
from steerlens.scenes import Scenes
from steerlens.sites import Site


@dataclass(frozen=True)
class HeadEffects:
    """Effects of heads on the label.

    Attributes:
        effect: float (L,H), signed total effect: mean over pictures of the label cosine, clean minus mean-ablated.
        controls: float (K,L,H), the effect of replacing the head's write by its write in another scene of the same
            label, which leaves the label unchanged.
    """

    effect: Tensor
    controls: Tensor

    @property
    def thresholds(self) -> Tensor:
        """95th percentile over heads of each control, float (K)."""
        return self.controls.flatten(1).quantile(0.95, dim=1)

    @property
    def above(self) -> Tensor:
        """Heads whose effect exceeds the threshold of each control, bool (K,L,H)."""
        return self.effect > self.thresholds[:, None, None]


@torch.no_grad()
def head_effects(encoder: Any, names: Tensor, scenes: Scenes, again: Sequence[Scenes]) -> HeadEffects:
    """Mean-ablates every head on every token, and compares with resampling it from other scenes of the same label.

    Args:
        encoder: a wrapped encoder.
        names: float (C,E), unit-norm directions of the vocabulary.
        scenes: pictures with labels (`main`).
        again: K other batches of scenes with the same labels, row by row, on other backgrounds or in other positions.
    """
    layers, count = encoder.spec.n_layers, encoder.spec.n_heads
    inputs, *others = (encoder.preprocess_tensor(batch.pictures) for batch in (scenes, *again))

    def score(interventions: tuple[Any, ...] = ()) -> Tensor:
        unit = functional.normalize(encoder.embed(inputs, interventions).float(), dim=-1)
        return (unit * names[scenes.main]).sum(dim=-1)

    clean = score()
    effect, controls = torch.zeros(layers, count), torch.zeros(len(others), layers, count)
    for layer in range(layers):
        sites = [Site("head", layer, head) for head in range(count)]
        here, there = encoder.record(inputs, sites), [encoder.record(other, sites) for other in others]
        for head, site in enumerate(sites):
            effect[layer, head] = (clean - score((Mean(site, value=here[site].mean(dim=0)),))).mean()
            for number, values in enumerate(there):
                controls[number, layer, head] = (clean - score((Resample(site, value=values[site]),))).mean()
    return HeadEffects(effect, controls)


@torch.no_grad()
def residual_shares(encoder: Any, pictures: Tensor) -> dict[str, float]:
    """Shares of the final residual (its projection on itself) that the embedding, heads, biases and MLPs write.

    The shares add up to 1, and may be negative. The mean over pictures is not subtracted, so constant parts count.
    """
    trace = encoder.trace(encoder.preprocess_tensor(pictures))
    final = trace.final.flatten(1).double()
    norm = final.square().sum(dim=1)

    def share(write: Tensor) -> float:
        return float(((write.flatten(1).double() * final).sum(dim=1) / norm).mean())

    heads = sum(share(trace.head_writes(layer).sum(dim=1)) for layer in range(trace.n_layers))
    mlps = sum(share(trace.at(Site("mlp_out", layer))) for layer in range(trace.n_layers))
    embed = share(trace.at(Site("embed")))
    return {"embedding": embed, "heads": heads, "MLPs": mlps, "attention biases": 1 - embed - heads - mlps}
