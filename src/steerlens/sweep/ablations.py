"""Ablation of every head of the model on one picture, by real forward passes and without decoding."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import Cell
from steerlens.decoders import fitting
from steerlens.encoders import Encoder
from steerlens.lenses import Strength, TotalLens, clean_pass
from steerlens.scores import cosine_similarity
from steerlens.sites import all_heads
from steerlens.sweep.cells import TracedPicture

_REMOVED = Strength("s", 0.0)


def ablates_heads(cells: Iterable[Cell]) -> bool:
    """True if the ablation of a head is planned: all heads are then measured, whichever of them are decoded."""
    return any(cell.lens == "ablation" and cell.site.kind == "head" for cell in cells)


@torch.no_grad()
def ablation_effects(encoder: Encoder, traced: TracedPicture) -> Float[Tensor, "L H"]:
    """Effect of each head's ablation on the image embedding, everything after the head reacting.

        effect(h) = 1 - cos(e, e_without(h))      in [0,2]; the head's write is zero on every token

    Args:
        encoder: the encoder.
        traced: the traced picture.

    Raises:
        ModelError: if the passes do not fit into memory.
    """
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    with fitting("the ablation of every head"):
        clean = clean_pass(encoder, traced.inputs, traced.trace)
        without = TotalLens(encoder, _REMOVED).without(clean, all_heads(L, H))[0]
    return (1 - cosine_similarity(without.float(), traced.trace.embedding[0].float())).view(L, H).cpu()
