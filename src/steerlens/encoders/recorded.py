"""Recorded attention: patterns and values of one forward pass, by layer."""

from typing import NamedTuple

import torch
from torch import Tensor


class RecordedAttention(NamedTuple):
    """The attention of one layer.

    Attributes:
        pattern: attention patterns of the requested tokens (B,H,R,T).
        values: value vectors of every token (B,H,T,d).
        scale: if the model normalises its heads before their projection: the head values are
            `scale * pattern @ values + shift`, (B,H,R,d); else None.
        shift: see `scale`.
    """

    pattern: Tensor
    values: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


Recorded = dict[int, RecordedAttention]
"""Recorded attention by layer."""


def stacked_attention(recorded: Recorded, n_layers: int) -> tuple[Tensor | None, ...]:
    """Stacks patterns, values, scales and shifts of all layers; scales and shifts are None if no layer has any."""
    # Adapters of other packages may record patterns and values alone.
    layers = [RecordedAttention(*recorded[layer]) for layer in range(n_layers)]
    patterns = torch.stack([layer.pattern for layer in layers], dim=1)
    values = torch.stack([layer.values for layer in layers], dim=1)
    if all(layer.scale is None for layer in layers):
        return patterns, values, None, None
    B, H, R, _ = layers[0].pattern.shape
    shape = (B, H, R, layers[0].values.shape[-1])
    scales = [values.new_ones(shape) if layer.scale is None else layer.scale.detach() for layer in layers]
    shifts = [values.new_zeros(shape) if layer.shift is None else layer.shift.detach() for layer in layers]
    return patterns, values, torch.stack(scales, dim=1), torch.stack(shifts, dim=1)
