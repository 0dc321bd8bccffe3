"""Attention patterns of models that fuse attention into one call, recomputed from the tensors that enter it.

Queries, keys and values come from the arguments or the output of a native module, or from the arguments of the fused
kernel itself; the requested rows of the pattern, `softmax(q k / sqrt(d))`, equal those that the kernel computes.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from steerlens.encoders.hooks import Hook, registered
from steerlens.encoders.recorded import Recorded, RecordedAttention
from steerlens.errors import ModelError

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
            rows = attention_rows(query[:, :, list(tokens)], key).to(value.dtype)
            recorded[layer] = RecordedAttention(rows, value.detach())

        return act

    hooks = (
        Hook(module, "after", keep(layer, split), f"records the attention of layer {layer}")
        for layer, (module, split) in enumerate(modules)
    )
    with registered(hooks):
        yield recorded


@dataclass(frozen=True, eq=False)
class KernelCall:
    """Arguments and output of one call of `scaled_dot_product_attention`; each has the shape (B,H,T,d)."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None
    scale: float | None
    output: Tensor


Between = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor] | None]
"""Computes scale and shift of the heads before their output projection, from the attention and its concatenated heads;
each has the shape (B,R,Hd)."""


class KernelWatch(TorchFunctionMode):
    """Keeps the calls of the fused kernel while `calls` is a list, and changes none."""

    _parameters = Signature.from_callable(
        lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False: None
    )

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[KernelCall] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs a function of torch, and keeps the call if it is the fused kernel."""
        output = func(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention and self.calls is not None:
            given = self._parameters.bind(*args, **(kwargs or {}))
            given.apply_defaults()
            named = given.arguments
            if named["is_causal"] or named["enable_gqa"]:
                raise ModelError("attention is causal, or shares keys among heads: its pattern is not recorded.")
            chosen = {name: named[name] for name in ("query", "key", "value", "attn_mask", "scale")}
            self.calls.append(KernelCall(**chosen, output=output))
        return output


@contextmanager
def recorded_by_kernel(
    modules: Sequence[nn.Module],
    tokens: Sequence[int],
    between: Between | None = None,
    join: Callable[[Sequence[KernelCall]], KernelCall] | None = None,
) -> Generator[Recorded]:
    """Records attention patterns and values of one forward pass from the arguments of the fused kernel.

    Args:
        modules: for each layer, the native attention module, which calls the kernel once a pass.
        tokens: the query tokens whose patterns are kept.
        between: computes what the module does to its heads before their output projection; None if nothing.
        join: makes one call of the several for pictures and windows; None if the kernel is called once.

    Yields:
        As `recorded_by_hooks`.

    Raises:
        ModelError: if a module did not call the kernel exactly once.
    """
    recorded, watch, index = Recorded(), KernelWatch(), list(tokens)

    def enter(*_: Any) -> None:
        watch.calls = []

    def leave(layer: int) -> Callable[..., None]:
        def act(*_: Any) -> None:
            calls, watch.calls = watch.calls or [], None
            if not calls or (join is None and len(calls) != 1):
                raise ModelError(
                    f"the attention of layer {layer} called torch's scaled_dot_product_attention {len(calls)} times in "
                    "one forward pass, where it must once; turn the library's fused attention on."
                )
            call = calls[0] if join is None else join(calls)
            mask = call.attn_mask
            if mask is not None and mask.shape[-2] > 1:
                mask = mask[..., index, :]
            rows = attention_rows(call.query[:, :, index], call.key, call.scale, mask)
            heads = call.output[:, :, index].transpose(1, 2).flatten(2)
            affine = (None if between is None else between(modules[layer], heads)) or ()
            split = (part.unflatten(2, (call.value.shape[1], -1)).transpose(1, 2) for part in affine)
            recorded[layer] = RecordedAttention(rows.to(call.value.dtype), call.value.detach(), *split)

        return act

    def hooks() -> Iterator[Hook]:
        for layer, module in enumerate(modules):
            yield Hook(module, "before", enter, f"watches the attention of layer {layer}")
            yield Hook(module, "after", leave(layer), f"records the attention of layer {layer}")

    with registered(hooks()), watch:
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
