"""The oracle: the true total effect of each head, amplified and decoded.

With the clean embedding e and the embedding e' after ablation of a head on a real forward pass, c = e - e' is the part
of the embedding that the head causes. The oracle requests, in place of a lens,

    same length    e + |e| c / |c|            every head moves the embedding equally far, as `rho=1` does
    one factor     e + k c, k = |e| / m       m: median of |c| over the heads of the picture

The oracle knows the true effect, so its decoded pictures show how much of it survives decoding. It is no upper bound: a
lens that requests other embeddings may correlate better, above all with an unsigned effect, whose size *same length*
removes. *One factor* keeps the size; for an unsigned effect its score is therefore the distance from the input, and no
similarity.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

OracleKind = Literal["same length", "one factor"]
ORACLES: tuple[OracleKind, ...] = get_args(OracleKind)


def oracle_name(kind: OracleKind) -> str:
    """Name of an oracle in parts and tables."""
    return f"oracle, {kind}"


def oracle_embeddings(
    clean: Float[Tensor, "E"], ablated: Float[Tensor, "N E"], kind: OracleKind
) -> Float[Tensor, "N E"]:
    """Embeddings with each head's true total effect amplified; the clean embedding for a head without effect.

    Args:
        clean: e.
        ablated: e' of each head.
        kind: amplification.
    """
    caused = clean - ablated
    length = caused.norm(dim=-1, keepdim=True)
    scale = length if kind == "same length" else length.median().expand_as(length)
    factor = torch.where(scale > 1e-12 * clean.norm(), clean.norm() / scale.clamp_min(1e-30), 0.0)
    return clean + factor * caused
