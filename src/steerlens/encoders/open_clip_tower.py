"""How vision towers of open_clip are built: their parts, attention and readout.

`nn.MultiheadAttention` never calls its output projection as a module, so head values are recomputed from the module's
input and its `in_proj` weights.
"""

from importlib import import_module
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from steerlens.encoders.fused import Split
from steerlens.encoders.structure import refuse_kind, refuse_unknown
from steerlens.errors import ModelError

LIBRARY = "a VisionTransformer of open_clip"


def is_of_open_clip(model: object) -> bool:
    """True if a model is built of classes of open_clip."""
    # Compares class names, since open_clip need not be installed.
    return any(base.__module__.partition(".")[0] == "open_clip" for base in type(model).__mro__)


def has_timm_tower(model: object) -> bool:
    """True if the vision tower of a model is a model of timm."""
    return type(getattr(model, "visual", model)).__name__ == "TimmModel"


def _heads(attention: Any, hidden: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values, each (B,H,T,d), as `nn.MultiheadAttention` computes them internally."""
    parts = functional.linear(hidden, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
    return query, key, value


def split_heads(attention: Any) -> Split:
    """Returns a function that computes queries, keys and values from the arguments of an attention module."""
    return lambda args, _: _heads(attention, args[0])


def head_values(attention: Any) -> Any:
    """Returns a function that computes the heads' values from the arguments of an attention module."""

    def values_of(args: tuple[Any, ...]) -> Float[Tensor, "B T D"]:
        attended = functional.scaled_dot_product_attention(*_heads(attention, args[0]))
        return attended.transpose(1, 2).flatten(2)

    return values_of


def readout_tokens(visual: Any, n_tokens: int) -> tuple[int, ...] | None:
    """Returns the tokens that the embedding is read from; None for all.

    Raises:
        ModelError: if the tower gives tokens in place of one embedding.
    """
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        raise ModelError(
            "visual.attn_pool_contrastive: open_clip itself calls this pair of pooling layers untested, and it gives "
            "tokens instead of one embedding."
        )
    if visual.pool_type not in ("tok", "avg"):
        raise ModelError(f"visual.pool_type is {visual.pool_type!r}: the model gives tokens, not one embedding.")
    if visual.attn_pool is not None:
        return None
    return (0,) if visual.pool_type == "tok" else tuple(range(1, n_tokens))


def refuse_unknown_tower(visual: Any) -> None:
    """Makes sure that a tower is built of the parts that the adapter knows.

    Raises:
        ModelError: if it is not, naming the part.
    """
    native = import_module("open_clip.transformer")
    norms = (native.LayerNorm, native.LayerNormFp32)
    refuse_kind(LIBRARY, "visual", visual, native.VisionTransformer)
    refuse_unknown(
        LIBRARY,
        "visual",
        visual,
        {"conv1", "patch_dropout", "ln_pre", "transformer", "ln_post"},
        {"attn_pool", "attn_pool_contrastive"},
    )
    refuse_kind(LIBRARY, "visual.ln_post", visual.ln_post, *norms)
    refuse_kind(LIBRARY, "visual.transformer", visual.transformer, native.Transformer)
    refuse_unknown(LIBRARY, "visual.transformer", visual.transformer, {"resblocks"})
    if visual.attn_pool is not None:
        refuse_kind(LIBRARY, "visual.attn_pool", visual.attn_pool, native.AttentionalPooler)
        refuse_kind(LIBRARY, "visual.attn_pool.ln_k", visual.attn_pool.ln_k, *norms)
    for index, block in enumerate(visual.transformer.resblocks):
        path = f"visual.transformer.resblocks.{index}"
        refuse_kind(LIBRARY, path, block, native.ResidualAttentionBlock)
        refuse_unknown(LIBRARY, path, block, {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"})
        for name in ("ls_1", "ls_2"):
            refuse_kind(LIBRARY, f"{path}.{name}", getattr(block, name), nn.Identity, native.LayerScale)
        attention = block.attn
        refuse_kind(LIBRARY, f"{path}.attn", attention, nn.MultiheadAttention)
        plain = attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn
        if not (plain and attention.batch_first):
            raise ModelError(
                f"{path}.attn is not built like {LIBRARY}: it has keys of its own, separate projections, or the batch "
                "as its second dimension."
            )
