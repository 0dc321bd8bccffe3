"""Attention patterns of models that fuse attention into one call: computed again, from tensors that hooks see.

Queries, keys and values are taken from the arguments or the output of a native module; the rows of the pattern that are
wanted follow from them, `softmax(q k / sqrt(d))`, as the fused kernel computes them inside.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.native import Recorded
from steerlens.interventions import hooks

Split = Callable[[tuple[Any, ...], Any], tuple[Tensor, Tensor, Tensor]]
"""Makes queries, keys and values, each (B,H,T,d), from the arguments and the output of a native module."""


@contextmanager
def recorded_by_hooks(modules: Sequence[tuple[nn.Module, Split]], tokens: Sequence[int]) -> Generator[Recorded]:
    """Records attention patterns and values of forward passes that run while the context is open.

    Args:
        modules: for each layer, a native module that is called once a pass, and how to read its attention from it.
        tokens: the query tokens whose patterns are kept.

    Yields:
        By layer: patterns (B,H,R,T), whose rows sum to 1, and value vectors (B,H,T,d); filled by each forward pass.
    """
    recorded: Recorded = {}

    def hook(layer: int, split: Split) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def keep(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            query, key, value = split(args, output)
            recorded[layer] = (attention_rows(query[:, :, list(tokens)], key).to(value.dtype), value.detach())

        return keep

    def handles() -> Iterator[Any]:
        for layer, (module, split) in enumerate(modules):
            yield module.register_forward_hook(hook(layer, split))

    with hooks(handles()):
        yield recorded


def attention_rows(
    query: Float[Tensor, "B H R d"],
    key: Float[Tensor, "B H T d"],
    scaling: float | None = None,
    mask: Tensor | None = None,
) -> Float[Tensor, "B H R T"]:
    """The attention pattern `softmax(s q k + m)` of some query tokens, in at least float32.

    Args:
        query: of the tokens that are wanted.
        key: of every token.
        scaling: s; by default `1 / sqrt(d)`.
        mask: m, which spreads to (B,H,R,T): what is added, or where attention may go; None for everywhere.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    logits = query.to(wide) @ key.to(wide).transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(dim=-1)
