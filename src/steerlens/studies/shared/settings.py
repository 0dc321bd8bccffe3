"""Lens settings: lens, strength, base, and centring of the write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.lenses import Direction, SteeringLens, Strength, read_out, visible_norm, writes
from steerlens.sites import Site
from steerlens.trace import Trace

Base = Literal["own", "neutral"]

_NONE: Mapping[str, Direction] = MappingProxyType({})

_CENTRED, _NEUTRAL = "centred", "neutral base"


@dataclass(frozen=True)
class LensSetting:
    """A map from a component's write to an embedding; its text form reads `steering rho=1 centred neutral base`.

    Attributes:
        lens: `steering` or `diffusion`.
        strength: strength of the part added to the base; None for the Diffusion Lens without a base.
        centred: True to subtract the write's mean over reference pictures, so that the constant part of a write does
            not hide what is specific to the picture.
        base: for the Steering Lens, the residual that is steered: the picture's `own`, or the `neutral` mean over
            reference pictures. For the Diffusion Lens: `own` reads out the write alone, `neutral` adds its readout to
            the mean embedding of reference pictures.
    """

    lens: Literal["steering", "diffusion"]
    strength: Strength | None = None
    centred: bool = False
    base: Base = "own"

    def __post_init__(self) -> None:
        if (self.lens == "diffusion" and self.base == "own") == (self.strength is not None):
            raise UsageError(
                "the Steering Lens takes a strength; the Diffusion Lens takes a strength only with a neutral base."
            )

    def __str__(self) -> str:
        words = [self.lens, str(self.strength or "")]
        words += [_CENTRED if self.centred else "", _NEUTRAL if self.base == "neutral" else ""]
        return " ".join(word for word in words if word)

    @classmethod
    def parse(cls, text: str) -> "LensSetting":
        """Parses the text form.

        Raises:
            UsageError: if the text describes no setting.
        """
        rest = text.removesuffix(f" {_NEUTRAL}")
        neutral, rest = rest != text, rest.removesuffix(f" {_CENTRED}")
        lens, _, strength = rest.partition(" ")
        try:
            setting = cls(
                "steering" if lens == "steering" else "diffusion",
                Strength.parse(strength) if strength else None,
                centred=f" {_CENTRED}" in text,
                base="neutral" if neutral else "own",
            )
        except UsageError as error:
            raise UsageError(f"{text!r} is not a setting of a lens.") from error
        if str(setting) != text:
            raise UsageError(f"{text!r} is not a setting of a lens.")
        return setting


@dataclass(frozen=True, eq=False)
class Reference:
    """Means over reference pictures, at the readout tokens.

    Attributes:
        writes: mean write of each site, (R,D).
        final: mean of the final residual.
        embeddings: embeddings of the reference pictures.
    """

    writes: Mapping[Site, Float[Tensor, "R D"]]
    final: Float[Tensor, "R D"]
    embeddings: Float[Tensor, "K E"]


@torch.no_grad()
def reference_of(
    encoder: Encoder, traces: Sequence[Trace], sites: Sequence[Site], directions: Mapping[str, Direction] = _NONE
) -> Reference:
    """Computes the means over the pictures of some traces.

    Args:
        encoder: the encoder of the traces.
        traces: the traces.
        sites: components.
        directions: contents of named sites among them.
    """
    count = sum(len(trace) for trace in traces)
    if directions:
        sums = sum_of([writes(encoder, trace, sites, directions) for trace in traces])
        means = dict(zip(sites, sums / count, strict=True))
    else:  # one at a time: those of all heads of a large encoder with many readout tokens would not fit in memory
        means = {site: sum_of([trace.at(site) for trace in traces]) / count for site in sites}
    final = sum_of([trace.final for trace in traces]) / count
    return Reference(means, final, torch.cat([trace.embedding.float() for trace in traces]))


def sum_of(tensors: Sequence[Float[Tensor, "B *R D"]]) -> Float[Tensor, "*R D"]:
    """Sums over the pictures of several batches, in float32."""
    return torch.stack([tensor.float().sum(dim=0) for tensor in tensors]).sum(dim=0)


@torch.no_grad()
def lens_embeddings(
    encoder: Encoder,
    trace: Trace,
    sites: Sequence[Site],
    setting: LensSetting,
    reference: Reference,
    directions: Mapping[str, Direction] = _NONE,
) -> Float[Tensor, "B N E"]:
    """Embeddings that a setting requests from a decoder.

    steering                 P(LN(b + c h)), c from the strength and the base b
    diffusion                P(LN(h))
    diffusion, neutral base  m + c P(LN(h)), c from the strength and the mean embedding m
    """
    written = _writes(encoder, trace, sites, setting, reference, directions)
    if setting.lens == "diffusion":
        embeddings = read_out(encoder, written.to(trace.final)).float()
        if setting.strength is None:
            return embeddings
        mean = reference.embeddings.mean(dim=0).to(embeddings).expand_as(embeddings)
        # An embedding is a single vector, and no later norm subtracts its mean.
        factors = setting.strength.coefficient(mean[..., None, :], embeddings[..., None, :], centred=False)
        return mean + factors[..., None] * embeddings
    strength = setting.strength or Strength("rho", 1.0)
    base = (
        trace.final.float() if setting.base == "own" else reference.final.to(trace.final).float().expand_as(trace.final)
    )
    if not setting.centred and setting.base == "own":
        return SteeringLens(encoder, strength, directions).embeddings(trace, sites).float()
    factors = strength.coefficient(base[:, None], written, centred=encoder.spec.centred)
    return read_out(encoder, base[:, None] + factors[..., None, None] * written).float()


@torch.no_grad()
def relative_strengths(
    encoder: Encoder,
    trace: Trace,
    sites: Sequence[Site],
    setting: LensSetting,
    reference: Reference,
    directions: Mapping[str, Direction] = _NONE,
) -> Float[Tensor, "B N"]:
    """The `rho` equivalent to a setting's strength, with which controls are steered; zeros for the Diffusion Lens."""
    written = _writes(encoder, trace, sites, setting, reference, directions)
    if setting.lens == "diffusion" or setting.strength is None:
        return torch.zeros(written.shape[:2])
    centred, final = encoder.spec.centred, trace.final.float()[:, None]
    factors = setting.strength.coefficient(final, written, centred=centred)
    return factors * visible_norm(written, centred=centred) / visible_norm(final, centred=centred)


def _writes(
    encoder: Encoder,
    trace: Trace,
    sites: Sequence[Site],
    setting: LensSetting,
    reference: Reference,
    directions: Mapping[str, Direction],
) -> Float[Tensor, "B N R D"]:
    written = writes(encoder, trace, sites, directions).float()
    if not setting.centred:
        return written
    return written - torch.stack([reference.writes[site] for site in sites]).to(written)
