"""Controls: random directions steered exactly as strongly as the component they are compared with.

A control shows a component's picture as if its write had no particular direction: an isotropic random direction,
steered by the same relative strength `rho`, decoded from the same noise.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.lenses.readout import precise, read_out
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
