"""Attention patterns of models that fuse attention into one call, recomputed from tensors that hooks capture.

Queries, keys and values come from the arguments or the output of a native module; the requested rows of the pattern,
`softmax(q k / sqrt(d))`, equal those that the fused kernel computes internally.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.hooks import Hook, Recorded, registered

Split = Callable[[tuple[Any, ...], Any], tuple[Tensor, Tensor, Tensor]]
"""Makes queries, keys and values, each (B,H,T,d), from the arguments and the output of a native module."""


@contextmanager
def recorded_by_hooks(modules: Sequence[tuple[nn.Module, Split]], tokens: Sequence[int]) -> Generator[Recorded]:
    """Records attention patterns and values of one forward pass, which runs while the context is open.

    Args:
        modules: for each layer, a native module that is called once a pass, and how to read its attention from it.
        tokens: the query tokens whose patterns are kept.

    Yields:
        By layer: patterns (B,H,R,T), whose rows sum to 1, and value vectors (B,H,T,d); filled by the forward pass.

    Raises:
        ModelError: if a module was not called exactly once, when the context closes.
    """
    recorded: Recorded = {}

    def keep(layer: int, split: Split) -> Callable[..., None]:
        def act(args: tuple[Any, ...], _: dict[str, Any], output: Any) -> None:
            query, key, value = split(args, output)
            recorded[layer] = (attention_rows(query[:, :, list(tokens)], key).to(value.dtype), value.detach())

        return act

    hooks = (
        Hook(module, "after", keep(layer, split), f"records the attention of layer {layer}")
        for layer, (module, split) in enumerate(modules)
    )
    with registered(hooks):
        yield recorded


def attention_rows(
    query: Float[Tensor, "B H R d"],
    key: Float[Tensor, "B H T d"],
    scaling: float | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "B H R T"]:
    """The attention pattern `softmax(s q k + m)` of some query tokens, in at least float32.

    Args:
        query: queries of the requested tokens.
        key: keys of every token.
        scaling: s; by default `1 / sqrt(d)`.
        mask: m, which broadcasts to (B,H,R,T): an additive mask, or a Boolean mask of allowed tokens; None for no mask.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    logits = query.to(wide) @ key.to(wide).transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1)
