"""Effects of units on the embedding of one picture, without decoding."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.lenses import Direction, SteeringLens, Strength
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.trace import Trace

_NUMBERS = 1 << 24
"""Numbers of the writes in memory at a time (64 MB in float32)."""

_REMOVED = Strength("s", 0.0)


@torch.no_grad()
def unit_effects(
    encoder: Encoder,
    trace: Trace,
    sites: Sequence[Site],
    directions: Mapping[str, Direction],
    strength: Strength,
    target: Float[Tensor, "E"] | None = None,
) -> list[tuple[float, float]]:
    """Measures the direct effects of many units, a few at a time.

    Args:
        encoder: the encoder of the trace.
        trace: the trace of one picture.
        sites: the units.
        directions: content of named sites.
        strength: steering strength.
        target: embedding that similarities refer to; None for the picture's own.

    Returns:
        For each unit, the length of the change of the embedding when its write is taken out, relative to the
        embedding, and the cosine of the steered embedding with the target.
    """
    removed, steering = (SteeringLens(encoder, kind, directions) for kind in (_REMOVED, strength))
    own = trace.embedding[0].float()
    goal = own if target is None else target.to(own)
    at_once = max(1, _NUMBERS // trace.final[0].numel())
    measured: list[tuple[float, float]] = []
    for start in range(0, len(sites), at_once):
        some = list(sites[start : start + at_once])
        changes = (removed.embeddings(trace, some)[0].float() - own).norm(dim=-1) / own.norm()
        cosines = cosine_similarity(steering.embeddings(trace, some)[0].float(), goal)
        measured += list(zip(changes.tolist(), cosines.tolist(), strict=True))
    return measured
