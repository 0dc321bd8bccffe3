"""Ablation of every head of the model on one picture, by real forward passes and without decoding."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import Cell
from steerlens.decoders import fitting
from steerlens.encoders import Encoder
from steerlens.lenses import Strength, TotalLens, clean_pass
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.sweep.cells import TracedPicture

_REMOVED = Strength("s", 0.0)


def ablates_heads(cells: Iterable[Cell]) -> bool:
    """True if the ablation of a head is planned: all heads are then measured, whichever of them are decoded."""
    return any(cell.lens == "ablation" and cell.site.kind == "head" for cell in cells)


def ablation_effects(encoder: Encoder, traced: TracedPicture) -> Float[Tensor, "L H"]:
    """Effect of each head's ablation on the image embedding, everything after the head reacting.

        effect(h) = 1 - cos(e, e_without(h))      in [0,2]; the head's write is zero on every token

    Args:
        encoder: the encoder.
        traced: the traced picture.

    Raises:
        ModelError: if the passes do not fit into memory.
    """
    return torch.stack(list(ablation_effects_by_layer(encoder, traced)))


def ablation_effects_by_layer(encoder: Encoder, traced: TracedPicture, first: int = 0) -> Iterator[Float[Tensor, "H"]]:
    """Yields the rows of `ablation_effects`, a layer at a time, so that the caller can stop in between.

    Args:
        encoder: the encoder.
        traced: the traced picture.
        first: layer of the first row.

    Raises:
        ModelError: if the passes do not fit into memory.
    """
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    clean, whole = None, traced.trace.embedding[0].float()
    for layer in range(first, L):
        with fitting("the ablation of every head"), torch.no_grad():
            clean = clean or clean_pass(encoder, traced.inputs, traced.trace)
            heads = [Site("head", layer, head) for head in range(H)]
            without = TotalLens(encoder, _REMOVED).without(clean, heads)[0]
            effects = (1 - cosine_similarity(without.float(), whole)).cpu()
        yield effects
