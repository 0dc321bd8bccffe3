"""The vision tower of Qwen2.5-VL: that of Qwen3-VL with attention in windows, by which it sorts its patches.

References: S. Bai et al., "Qwen2.5-VL Technical Report", arXiv 2502.13923.
"""

from dataclasses import replace
from importlib import import_module
from typing import ClassVar

import torch
from torch import Tensor

from steerlens.encoders.qwen_vl import Qwen3VLEncoder
from steerlens.encoders.vlm import VLM


class Qwen25VLEncoder(Qwen3VLEncoder):
    """The vision tower of a Qwen2.5-VL of transformers, without its merger; most blocks attend within windows."""

    family = "qwen2_5_vl"
    library = "a vision tower of Qwen2.5-VL"
    architectures = ("Qwen2_5_VisionTransformerPretrainedModel",)
    whole = VLM(("Qwen2_5_VL",), "visual")
    others: ClassVar[frozenset[str]] = frozenset()
    parts = replace(
        Qwen3VLEncoder.parts, block_kind="Qwen2_5_VLVisionBlock", attention_kind="Qwen2_5_VLVisionAttention"
    )

    def native_order(self) -> Tensor:
        """Blocks of patches sorted by window, as the model itself sorts them."""
        native, config = self._native, self._native.config
        grid = torch.tensor([[1, *self.spec.patch_grid]], device=self.device)
        utilities = import_module("transformers.vision_utils")
        order, _ = utilities.get_vision_window_index(
            grid, config.spatial_merge_size, config.window_size, config.patch_size
        )
        patches = self.blockwise()
        return native.permute_input_for_window_attn(patches[:, None], order.to(patches.device), len(patches))[:, 0]
