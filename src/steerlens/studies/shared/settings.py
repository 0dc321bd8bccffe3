"""Lens settings: which lens, how hard, from which base, on what part of a write; every choice is an explicit option."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders.base import Encoder
from steerlens.errors import UsageError
from steerlens.lenses.readout import read_out
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength, visible_norm
from steerlens.sites import Site
from steerlens.trace import Trace

Base = Literal["own", "neutral"]


@dataclass(frozen=True)
class LensSetting:
    """One way to turn a component's write into an embedding.

    Attributes:
        lens: `steering` or `diffusion`.
        strength: how hard what is added to the base counts; None for the Diffusion Lens without a base.
        centred: whether the write's mean over reference pictures is taken out, so that a constant part of it does not
            drown what it says about this picture.
        base: of the Steering Lens: the picture's `own` final residual is steered, or a `neutral` one, the mean over
            reference pictures. Of the Diffusion Lens: the write is read out on its `own`, or what is read out is added
            to the `neutral` embedding, the mean over reference pictures.
    """

    lens: Literal["steering", "diffusion"]
    strength: Strength | None = None
    centred: bool = False
    base: Base = "own"

    def __post_init__(self) -> None:
        if (self.lens == "diffusion" and self.base == "own") == (self.strength is not None):
            raise UsageError("the Steering Lens takes a strength, the Diffusion Lens one if it has a neutral base.")

    def __str__(self) -> str:
        parts = [self.lens, str(self.strength or "")]
        parts += ["centred" if self.centred else "", "neutral base" if self.base == "neutral" else ""]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, eq=False)
class Reference:
    """Means over reference pictures, at the readout tokens.

    Attributes:
        writes: of each site's write, (R,D).
        final: of the final residual.
        embeddings: the reference pictures' embeddings.
    """

    writes: Mapping[Site, Float[Tensor, "R D"]]
    final: Float[Tensor, "R D"]
    embeddings: Float[Tensor, "K E"]


@torch.no_grad()
def reference_of(encoder: Encoder, traces: Sequence[Trace], sites: Sequence[Site]) -> Reference:
    """Means over the pictures of some traces."""
    count = sum(len(trace) for trace in traces)
    writes = {site: sum_of([trace.at(site) for trace in traces]) / count for site in sites}
    final = sum_of([trace.final for trace in traces]) / count
    return Reference(writes, final, torch.cat([trace.embedding.float() for trace in traces]))


def sum_of(tensors: Sequence[Float[Tensor, "B R D"]]) -> Float[Tensor, "R D"]:
    """The sum over pictures of several batches, in float32."""
    return torch.stack([tensor.float().sum(dim=0) for tensor in tensors]).sum(dim=0)


@torch.no_grad()
def lens_embeddings(
    encoder: Encoder, trace: Trace, sites: Sequence[Site], setting: LensSetting, reference: Reference
) -> Float[Tensor, "B N E"]:
    """The embeddings that a setting asks a decoder for.

    steering                 P(LN(b + c h)), c as the strength says for the base b
    diffusion                P(LN(h))
    diffusion, neutral base  m + c P(LN(h)), c as the strength says for the mean embedding m
    """
    held = _held(trace, sites, setting, reference)
    if setting.lens == "diffusion":
        embeddings = read_out(encoder, held.to(trace.final)).float()
        if setting.strength is None:
            return embeddings
        mean = reference.embeddings.mean(dim=0).to(embeddings).expand_as(embeddings)
        # An embedding is one vector without tokens, and no norm comes after it that would take its mean out.
        factors = setting.strength.coefficient(mean[..., None, :], embeddings[..., None, :], centred=False)
        return mean + factors[..., None] * embeddings
    strength = setting.strength or Strength("rho", 1.0)
    base = (
        trace.final.float() if setting.base == "own" else reference.final.to(trace.final).float().expand_as(trace.final)
    )
    if not setting.centred and setting.base == "own":
        return SteeringLens(encoder, strength).embeddings(trace, sites).float()
    factors = strength.coefficient(base[:, None], held, centred=encoder.spec.centred)
    return read_out(encoder, base[:, None] + factors[..., None, None] * held).float()


@torch.no_grad()
def relative_strengths(
    encoder: Encoder, trace: Trace, sites: Sequence[Site], setting: LensSetting, reference: Reference
) -> Float[Tensor, "B N"]:
    """The `rho` that a setting's strength amounts to, by which controls are steered; zeros for the Diffusion Lens."""
    held = _held(trace, sites, setting, reference)
    if setting.lens == "diffusion" or setting.strength is None:
        return torch.zeros(held.shape[:2])
    centred, final = encoder.spec.centred, trace.final.float()[:, None]
    factors = setting.strength.coefficient(final, held, centred=centred)
    return factors * visible_norm(held, centred=centred) / visible_norm(final, centred=centred)


def _held(trace: Trace, sites: Sequence[Site], setting: LensSetting, reference: Reference) -> Float[Tensor, "B N R D"]:
    held = trace.stack(sites).float()
    if not setting.centred:
        return held
    return held - torch.stack([reference.writes[site] for site in sites]).to(held)
