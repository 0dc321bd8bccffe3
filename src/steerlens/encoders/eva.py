"""timm's class `Eva`: EVA-02, EVA-CLIP, Perception Encoder, DINOv3, EUPE, Sapiens2 and ViTs with rotary positions.

LayerScale is a parameter of the block, no module: what attention and MLP add to the residual stream is the output of
`drop_path1` and `drop_path2`, which do nothing outside training.

Some of these models normalise the concatenated heads before the output projection (`scale_attn_inner`). The head values
are then the normalised ones, each head's slice of the projection's input: the writes of the heads add up exactly, and
removing a head freezes the divisor of that norm. A head's write splits by token since the rows of its pattern sum to 1:
`scale * sum_t a_t v_t + shift = sum_t a_t (scale * v_t + shift)`.

References: Y. Fang et al., "EVA-02: A Visual Representation for Neon Genesis", arXiv 2303.11331; Q. Sun et al.,
"EVA-CLIP", arXiv 2303.15389; D. Bolya et al., "Perception Encoder", arXiv 2504.13181; O. Siméoni et al., "DINOv3",
arXiv 2508.10104; B. Heo et al., "Rotary Position Embedding for Vision Transformer", arXiv 2403.13298.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.fused import recorded_by_kernel
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.structure import refuse_kind, refuse_unknown
from steerlens.encoders.timm_trunk import Additions, TimmTrunk
from steerlens.errors import ModelError


class EvaTrunk(TimmTrunk):
    """An `Eva`, with fused or separate projections, any rotary embedding, and norms of its heads."""

    native = "timm.models.eva.Eva"
    library = "an Eva of timm"

    @property
    def pools_prefix(self) -> bool:
        """Attention pooling reads all tokens, the mean only patches."""
        return self.vit.attn_pool is not None

    def additions(self, block: Any) -> Additions:
        """Modules whose outputs are added: those that drop paths in training, after LayerScale was applied."""
        return Additions(block.drop_path1, block.drop_path2, block.gamma_1, block.gamma_2)

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns and values from the arguments of the fused kernel, which come after rotary embeddings."""
        return recorded_by_kernel([block.attn for block in self.vit.blocks], tokens, _between)

    def refuse_unknown(self, path: str) -> None:
        """Checks that the model is built like an `Eva` of timm."""
        native, layers = import_module("timm.models.eva"), import_module("timm.layers")
        refuse_kind(self.library, path, self.vit, native.Eva)
        parts = {"patch_embed", "pos_drop", "norm_pre", "blocks", "norm", "fc_norm", "head_drop", "head"}
        refuse_unknown(self.library, path, self.vit, parts, {"rope", "patch_drop", "attn_pool"})
        self.refuse_final_norms()
        for index, block in enumerate(self.vit.blocks):
            path = f"blocks.{index}"
            if type(block) is native.EvaBlockPostNorm:
                raise ModelError(
                    f"{path} is an EvaBlockPostNorm: its norm acts after the output projection on all heads together, "
                    "so no head writes into the residual stream by itself. Models with post-norm blocks, such as "
                    "eva02_enormous_patch14_clip_224, are not supported."
                )
            refuse_kind(self.library, path, block, native.EvaBlock)
            parts = {"norm1", "attn", "drop_path1", "norm2", "mlp", "drop_path2"}
            refuse_unknown(self.library, path, block, parts)
            attention, where = block.attn, f"{path}.attn"
            refuse_kind(self.library, where, attention, native.EvaAttention, layers.AttentionRope)
            inside = {"q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop"}
            refuse_unknown(self.library, where, attention, inside, {"qkv", "q_proj", "k_proj", "v_proj"})
            norms = (nn.Identity, nn.LayerNorm, layers.LayerNorm, layers.RmsNorm)
            refuse_kind(self.library, f"{where}.norm", attention.norm, *norms)
            self.refuse_around(path, block)


def _between(attention: Any, heads: Float[Tensor, "B R Hd"]) -> tuple[Tensor, Tensor] | None:
    """Returns scale and shift, both (B,R,Hd), of the norm between heads and projection; None without it."""
    norm = attention.norm
    if isinstance(norm, nn.Identity):
        return None
    wide = heads.to(torch.promote_types(heads.dtype, torch.float32))
    if isinstance(norm, nn.LayerNorm):
        scale = norm.weight / (wide.var(dim=-1, keepdim=True, correction=0) + norm.eps).sqrt()
        return scale, norm.bias - wide.mean(dim=-1, keepdim=True) * scale
    scale = norm.weight / (wide.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    return scale, torch.zeros_like(scale)
