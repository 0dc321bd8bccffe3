"""Controls: random directions steered exactly as strongly as the component they are compared with.

A control shows a component's picture as if its write had no particular direction: an isotropic random direction,
steered by the same relative strength `rho`, decoded from the same noise.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.lenses.components import Direction
from steerlens.lenses.readout import precise, read_out
from steerlens.lenses.sae_parts import of_embedding
from steerlens.lenses.strength import visible_norm
from steerlens.sites import Site
from steerlens.trace import Trace


def control_direction(site: Site, draw: int, like: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
    """Draws an isotropic random direction, which depends only on the site and the number of the draw.

    Args:
        site: the component of the control.
        draw: number of the control, from 0, among those of one site.
        like: tensor of the same shape, precision and device: readout tokens (R,D) or all tokens (T,D).
    """
    digest = hashlib.sha256(f"{site}|{draw}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


def steer_controls(
    encoder: Encoder,
    trace: Trace,
    draws: Sequence[tuple[Site, int]],
    rho: Float[Tensor, "B N"],
    directions: Mapping[str, Direction] | None = None,
) -> Float[Tensor, "B N E"]:
    """Steers along random directions as hard as the sites, each in the space of its site.

    Args:
        encoder: the encoder of the trace.
        trace: the trace.
        draws: the site of each control, and its number among the site's controls, from 0.
        rho: relative strength of each.
        directions: content of named sites.
    """
    after = of_embedding([site for site, _ in draws], directions or {})
    rows: dict[int, Tensor] = {}
    inside = [row for row, (site, _) in enumerate(draws) if site not in after]
    if inside:
        random = torch.stack([control_direction(*draws[row], trace.final[0]) for row in inside])
        steered = steer_directions(encoder, trace, random.expand(len(trace), *random.shape), rho[:, inside])
        rows |= dict(zip(inside, steered.unbind(dim=1), strict=True))
    embedding = precise(trace.embedding)
    for row, (site, draw) in enumerate(draws):
        if site in after:
            direction = control_direction(site, draw, embedding[:1])
            along = rho[:, row, None].to(embedding) * embedding.norm(dim=-1, keepdim=True) / direction.norm()
            rows[row] = embedding + along * direction
    return torch.stack([rows[row] for row in range(len(draws))], dim=1)


def steer_directions(
    encoder: Encoder, trace: Trace, directions: Float[Tensor, "B N R D"], rho: Float[Tensor, "B N"]
) -> Float[Tensor, "B N E"]:
    """Steers the final residual along any directions, each by its own signed relative strength, and reads it out.

    For controls: a random direction is steered exactly as strongly as its head.
    """
    centred, final = encoder.spec.centred, precise(trace.final)[:, None]
    directions = directions.to(final)
    size = visible_norm(directions, centred=centred)
    factors = rho.to(final) * visible_norm(final, centred=centred) / size.where(size > 0, 1)
    with torch.no_grad():
        return read_out(encoder, final + factors[..., None, None] * directions)
