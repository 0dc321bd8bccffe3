"""timm's `VisionTransformer`: queries, keys and values come from one fused projection, `qkv`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from steerlens.encoders.fused import Split, recorded_by_hooks
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.structure import refuse_kind, refuse_unknown
from steerlens.encoders.timm_trunk import Additions, TimmTrunk


class VisionTransformerTrunk(TimmTrunk):
    """A `VisionTransformer`, with any pooling that gives one embedding."""

    native = "timm.models.vision_transformer.VisionTransformer"
    library = "a VisionTransformer of timm"

    @property
    def pools_prefix(self) -> bool:
        """As the model says."""
        return bool(self.vit.pool_include_prefix)

    def additions(self, block: Any) -> Additions:
        """The LayerScales, which do nothing if there are none."""
        return Additions(block.ls1, block.ls2, getattr(block.ls1, "gamma", None), getattr(block.ls2, "gamma", None))

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns and values from the output of `qkv`."""
        return recorded_by_hooks([(block.attn.qkv, _split(block.attn)) for block in self.vit.blocks], tokens)

    def refuse_unknown(self, path: str) -> None:
        """Checks that the model is built like a `VisionTransformer` of timm."""
        native, layers = import_module("timm.models.vision_transformer"), import_module("timm.layers")
        refuse_kind(self.library, path, self.vit, native.VisionTransformer)
        parts = {"patch_embed", "pos_drop", "patch_drop", "norm_pre", "blocks", "norm", "fc_norm", "head_drop", "head"}
        refuse_unknown(self.library, path, self.vit, parts, {"attn_pool"})
        self.refuse_final_norms()
        parts = {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"}
        for index, block in enumerate(self.vit.blocks):
            path = f"blocks.{index}"
            refuse_kind(self.library, path, block, native.Block)
            refuse_unknown(self.library, path, block, parts)
            for name in ("ls1", "ls2"):
                refuse_kind(self.library, f"{path}.{name}", getattr(block, name), nn.Identity, native.LayerScale)
            attention, where = block.attn, f"{path}.attn"
            refuse_kind(self.library, where, attention, layers.Attention)
            # With a norm or a gate between pattern and projection, parts by token would not sum to the head's write.
            inside = {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "proj", "proj_drop"}
            refuse_unknown(self.library, where, attention, inside)
            refuse_kind(self.library, f"{where}.norm", attention.norm, nn.Identity)
            self.refuse_around(path, block)


def _split(attention: Any) -> Split:
    def split(_: tuple[Any, ...], output: Any) -> tuple[Tensor, Tensor, Tensor]:
        B, T, _ = output.shape
        query, key, value = output.reshape(B, T, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        return attention.q_norm(query), attention.k_norm(key), value

    return split
