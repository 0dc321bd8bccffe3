"""Measurements of heads over many pictures: a few passes in closed form, and real ablations on some pictures.

    means      mean write h̄ of each head, and the mean final residual r̄, the neutral base
    axes       direction along which each head's centred writes h - h̄ vary most
    pictures   for every picture and head: norm of the centred write, its coordinate on the head's axis, its agreement
               with the picture, and the effect of replacing h by h̄ in the final residual

The agreement of a head with the picture compares two changes of the embedding: that of the neutral base when it is
steered along the centred write, and the difference between the picture's embedding and the mean embedding:

    cos( P(LN(r̄ + c (h - h̄))) - P(LN(r̄)),  e - ē )

All of this is cheap and computed for every head, so that a head can be compared with all others.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.ahead import mapped_ahead
from steerlens.encoders import Encoder, NativeEncoder, joined_inputs, record_prefix
from steerlens.errors import UsageError
from steerlens.lenses import Strength, read_out, visible_norm
from steerlens.profiles.pictures import ProfilePicture, batches
from steerlens.progress import Progress, run_to_end
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.shared import ablate, mean_writes, signed_effect, unsigned_effect
from steerlens.trace import Trace

Order = Literal["high", "low", "write", "similarity", "effect"]
ORDERS: tuple[Order, ...] = get_args(Order)
"""Orders of a head's pictures: coordinate on the head's axis, from either end, and norm of the centred write, both in
units of the picture's final residual; agreement with the picture; signed direct effect."""

PASSES = 5
"""Steps of power iteration: enough if one axis dominates; if two are similar, the result is between them."""

MEAN_PICTURES = 64
"""Pictures that mean ablation averages over: means on every token need the most memory of all measurements."""


@dataclass(frozen=True, eq=False)
class Means:
    """Means over all pictures, at the readout tokens; the N = L H heads are ordered layer by layer.

    Attributes:
        writes: mean write of each head.
        final: mean final residual, the neutral base.
        embedding: mean image embedding.
    """

    writes: Float[Tensor, "N R D"]
    final: Float[Tensor, "R D"]
    embedding: Float[Tensor, "E"]


def layer_writes(trace: Trace) -> Iterator[tuple[slice, Float[Tensor, "B H R D"]]]:
    """Yields the writes of each layer's heads, with their indices among all heads."""
    for layer in range(trace.n_layers):
        yield slice(layer * trace.n_heads, (layer + 1) * trace.n_heads), trace.head_writes(layer).float()


def traces(encoder: Encoder, pictures: Sequence[ProfilePicture], size: int) -> Iterator[tuple[slice, Trace]]:
    """Traces pictures batch by batch; yields their indices among all pictures, and the trace."""
    start = 0
    ready = mapped_ahead(lambda picture: encoder.preprocess([picture.open()]), pictures)
    while chunk := list(islice(ready, size)):
        yield slice(start, start + len(chunk)), encoder.trace(joined_inputs(chunk))
        start += len(chunk)


@torch.no_grad()
def measure_means(encoder: Encoder, pictures: Sequence[ProfilePicture], size: int) -> Generator[Progress, None, Means]:
    """Measures the means over all pictures in one pass; yields progress in pictures."""
    sums: list[Tensor] = []
    yield Progress("mean writes", 0, len(pictures), "pictures")
    for rows, trace in traces(encoder, pictures, size):
        heads = torch.cat([written.sum(dim=0) for _, written in layer_writes(trace)])
        added = [heads, trace.final.float().sum(dim=0), trace.embedding.float().sum(dim=0)]
        sums = [total + more for total, more in zip(sums, added, strict=True)] if sums else added
        yield Progress("mean writes", rows.stop, len(pictures), "pictures")
    return Means(*(total / len(pictures) for total in sums))


@dataclass(frozen=True, eq=False)
class Axes:
    """Directions of unit norm in which heads write, with means over width removed if the final norm removes them.

    Attributes:
        axis: direction along which each head's centred writes vary most.
        chance: sum of its centred writes with random weights: a meaningless direction in which the head writes.
    """

    axis: Float[Tensor, "N R D"]
    chance: Float[Tensor, "N R D"]


@torch.no_grad()
def measure_axes(
    encoder: Encoder, pictures: Sequence[ProfilePicture], size: int, means: Means, seed: int = 0
) -> Generator[Progress, None, Axes]:
    """Computes each head's first principal axis by power iteration, with the writes of one batch in memory at a time.

        v <- Σ_i (h_i - h̄) <h_i - h̄, v> / |...|

    Yields:
        Progress in pictures, over all passes.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn((len(pictures), means.writes.shape[0]), generator=generator)
    vectors: Tensor | None = None
    chance: Tensor | None = None
    total = (1 + PASSES) * len(pictures)
    yield Progress("axes", 0, total, "pictures")
    for number in range(1 + PASSES):
        sums = torch.zeros_like(means.writes)
        for rows, trace in traces(encoder, pictures, size):
            for heads, written in layer_writes(trace):
                centred = _visible(written - means.writes[heads], encoder.spec.centred)
                mixed = weights[rows, heads].to(centred) if vectors is None else _along(centred, vectors[heads])
                sums[heads] += torch.einsum("bh,bhrd->hrd", mixed, centred)
            yield Progress("axes", number * len(pictures) + rows.stop, total, "pictures")
        vectors = sums / visible_norm(sums, centred=False)[:, None, None].clamp_min(1e-12)
        chance = vectors if chance is None else chance
    if vectors is None or chance is None:
        raise UsageError("axes need at least one pass over the pictures.")
    return Axes(vectors, chance)


def _visible(vectors: Float[Tensor, "*N R D"], centred: bool) -> Float[Tensor, "*N R D"]:
    return vectors - vectors.mean(dim=-1, keepdim=True) if centred else vectors


def _along(vectors: Float[Tensor, "B N R D"], directions: Float[Tensor, "N R D"]) -> Float[Tensor, "B N"]:
    return (vectors * directions).sum(dim=(-2, -1))


def oriented(coordinates: Float[Tensor, "P N"]) -> Float[Tensor, "N"]:
    """Sign (1 or -1) that makes the third moment along each axis positive, so extreme pictures lie at the high end."""
    return torch.where(coordinates.double().pow(3).sum(dim=0) < 0, -1.0, 1.0)


def steered(
    encoder: Encoder, base: Float[Tensor, "R D"], directions: Float[Tensor, "B N R D"], strength: Strength
) -> Float[Tensor, "B N E"]:
    """Embeddings of a base residual steered along directions, `P(LN(b + c h))`; under `s` their lengths count too."""
    factors = strength.coefficient(base[None, None], directions, centred=encoder.spec.centred)
    return read_out(encoder, base + factors[..., None, None] * directions).float()


@torch.no_grad()
def measure_batch(
    encoder: Encoder,
    trace: Trace,
    means: Means,
    axes: Axes,
    strength: Strength,
    texts: Float[Tensor, "B E"],
) -> dict[str, Float[Tensor, "B N"]]:
    """Measures every head on a batch of pictures, in the last pass.

    Args:
        encoder: the encoder.
        trace: trace of the pictures.
        means: means over all pictures.
        axes: axes of all heads.
        strength: steering strength from the neutral base.
        texts: direction of each picture's label; NaN if unknown.

    Returns:
        `residual`: (B,1), norm |C r_L| of the picture's final residual. In units of it, `write`: norm of the centred
        write |C(h - h̄)|; `axis` and `chance`: its component along the head's axis and along a random mixture of its
        writes. `similarity`: agreement of the centred write with the picture, see above. `unsigned` and `effect`:
        direct effects of mean ablation, unsigned and towards the text.
    """
    centred, final, clean = encoder.spec.centred, trace.final.float(), trace.embedding.float()
    neutral = read_out(encoder, means.final[None, None]).float()[0, 0]
    size = visible_norm(final, centred=centred)[:, None]
    names = ("write", "axis", "chance", "similarity", "unsigned", "effect")
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    for heads, written in layer_writes(trace):
        deviation = written - means.writes[heads]
        values["write"].append(visible_norm(deviation, centred=centred) / size)
        for name, vectors in (("axis", axes.axis), ("chance", axes.chance)):
            values[name].append(_along(_visible(deviation, centred), vectors[heads]) / size)
        moved = steered(encoder, means.final, deviation, strength) - neutral
        values["similarity"].append(cosine_similarity(moved, (clean - means.embedding)[:, None]))
        ablated = read_out(encoder, final[:, None] - deviation).float()
        values["unsigned"].append(unsigned_effect(clean, ablated))
        values["effect"].append(signed_effect(clean, ablated, texts.to(clean)))
    return {"residual": size, **{name: torch.cat(parts, dim=1) for name, parts in values.items()}}


def native(encoder: Encoder) -> NativeEncoder:
    """Checks that an encoder's heads can be ablated, and returns it.

    Raises:
        UsageError: if its blocks cannot be hooked.
    """
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name}: its adapter cannot ablate heads; give --ablate 0.")
    return encoder


def measure_ablation(
    encoder: NativeEncoder,
    chunk: Sequence[ProfilePicture],
    heads: Sequence[Site],
    means: Mapping[Site, Tensor],
    texts: Float[Tensor, "B E"],
) -> dict[str, Float[Tensor, "B N"]]:
    """Measures total effects of mean ablation in real forward passes: `unsigned`, and `effect` towards the text."""
    prefix = record_prefix(encoder, encoder.preprocess([picture.open() for picture in chunk]))
    ablated = run_to_end(ablate(encoder, prefix, heads, "mean", means=means))
    total, clean = ablated.total.float(), ablated.clean.float()
    return {
        "unsigned": unsigned_effect(clean, total),
        "effect": signed_effect(clean, total, texts.to(clean)),
    }


def ablation_means(
    encoder: NativeEncoder, pictures: Sequence[ProfilePicture], size: int, heads: Sequence[Site]
) -> dict[Site, Tensor]:
    """Mean write of each head on every token over the first pictures, which mean ablation substitutes."""
    chunks = batches(pictures[:MEAN_PICTURES], size)
    return mean_writes(encoder, [encoder.preprocess([shown.open() for shown in chunk]) for chunk in chunks], heads)
