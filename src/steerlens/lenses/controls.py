"""Controls: random directions steered exactly as hard as the component that they are compared with.

A control answers what a component's picture would show if its write pointed nowhere in particular: an isotropic random
direction, steered by the same relative strength `rho`, decoded from the same noise.
"""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders.base import Encoder
from steerlens.lenses.readout import precise, read_out
from steerlens.lenses.strength import visible_norm
from steerlens.sites import Site
from steerlens.trace import Trace


def control_direction(site: Site, draw: int, like: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
    """An isotropic random direction, which depends on the site and the number of the draw alone.

    Args:
        site: the component that it is a control of.
        draw: tells several controls of one site apart, from 0.
        like: gives shape, precision and device: readout tokens (R,D) or all tokens (T,D).
    """
    digest = hashlib.sha256(f"{site}|{draw}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


def steer_directions(
    encoder: Encoder, trace: Trace, directions: Float[Tensor, "B N R D"], rho: Float[Tensor, "B N"]
) -> Float[Tensor, "B N E"]:
    """Embeddings of the final residual steered along any directions, each by its own signed relative strength.

    The controls come from here: a random direction is steered exactly as hard as the head that it is the control of.
    """
    centred, final = encoder.spec.centred, precise(trace.final)[:, None]
    directions = directions.to(final)
    size = visible_norm(directions, centred=centred)
    factors = rho.to(final) * visible_norm(final, centred=centred) / size.where(size > 0, 1)
    with torch.no_grad():
        return read_out(encoder, final + factors[..., None, None] * directions)
