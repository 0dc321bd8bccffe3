"""Vision towers of Qwen2.5-VL and Qwen3-VL: rotary positions of rows and columns, attention in windows (Qwen2.5-VL).

These towers take all pictures as one sequence of patches, in blocks of 2 x 2 that the merger makes one token of, and
Qwen2.5-VL sorts the blocks by window. The encoder shows patches picture by picture and row by row, and patterns are 0
outside a window. It squashes every picture to one square: 448 pixels a side, or the nearest that the processor's limits
on pixels allow (`size`, `shortest_edge` and `longest_edge`; set both to choose another).

The merger, which makes tokens for the language model, and Qwen3-VL's deepstack mergers are left out, their norms
included: the embedding is the mean of the last residual over patches, or one patch.

References: S. Bai et al., "Qwen2.5-VL Technical Report", arXiv 2502.13923; "Qwen3-VL Technical Report", arXiv
2511.21631.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from steerlens.encoders.arguments import pixel_values
from steerlens.encoders.base import Inputs
from steerlens.encoders.geometry import Geometry, stretched
from steerlens.encoders.packing import PackedTowerEncoder
from steerlens.encoders.pretrained import BlockParts, accepts_class
from steerlens.encoders.vlm import VLM
from steerlens.errors import ModelError, UsageError
from steerlens.limits import over_limit

_SIDE = 448
"""Height and width of the square, in pixels, where the processor allows it."""


class Qwen3VLEncoder(PackedTowerEncoder):
    """The vision tower of a Qwen3-VL of transformers, without mergers."""

    family = "qwen3_vl"
    library = "a vision tower of Qwen3-VL"
    architectures = ("Qwen3VLVisionModel",)
    whole = VLM(("Qwen3VL",), "visual")
    others: ClassVar[frozenset[str]] = frozenset({"pos_embed", "deepstack_merger_list"})
    parts = BlockParts(
        block_kind="Qwen3VLVisionBlock",
        attention_kind="Qwen3VLVisionAttention",
        attention="attn",
        projection="proj",
        mlp="mlp",
        others=frozenset({"norm1", "norm2"}),
        inputs=frozenset({"qkv"}),
    )

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True for a whole model, or its vision tower."""
        return cls.whole.accepts(model) or accepts_class(model, cls.architectures)

    @classmethod
    def tower_kinds(cls, config: Mapping[str, Any]) -> tuple[str, str]:
        """The tower of this family."""
        return cls.architectures[0], f"{cls.whole.families[0]}VisionConfig"

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self._native.blocks

    @property
    def first_patch(self) -> int:
        """Zero: all tokens are image patches."""
        return 0

    def refuse_unknown(self) -> None:
        """Makes sure that the tower is built as its family is."""
        self.refuse_children("visual", self.model, {"patch_embed", "rotary_pos_emb", "blocks", "merger", *self.others})
        self.refuse_blocks("visual.blocks")

    def picture_size(self) -> tuple[int, int]:
        """The square that is nearest to 448 pixels a side within the processor's limits.

        Raises:
            ModelError: if the processor cuts patches of another size than the model reads.
        """
        config, processor = self._native.config, self.processor
        step = config.patch_size * config.spatial_merge_size
        if processor is None:
            return _SIDE // step * step, _SIDE // step * step
        if (processor.patch_size, processor.merge_size) != (config.patch_size, config.spatial_merge_size):
            raise ModelError(
                f"the image processor cuts patches of {processor.patch_size} pixels in blocks of "
                f"{processor.merge_size}, and the model reads {config.patch_size} and {config.spatial_merge_size}; "
                "give its own processor."
            )
        least, most = processor.size["shortest_edge"], processor.size["longest_edge"]
        if words := over_limit("config_side", isqrt(least)):
            raise ModelError(f"the image processor asks for more pixels than a square of {words}.")
        lowest, highest = -(-isqrt(least) // step) * step, isqrt(most) // step * step
        side = min(max(_SIDE // step * step, lowest), max(lowest, highest))
        return side, side

    def geometry(self) -> Geometry:
        """Geometry that squashes pictures of any shape to one square."""
        return stretched(self.spec.image_size)

    def native_preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Squashes pictures and cuts them into patches, row by row: `pixel_values` (B,T,3 2 patch patch)."""
        height, width = self.spec.image_size
        squares = [image.resize((width, height), self.processor.resample) for image in images]
        cut = self.processor(images=squares, return_tensors="pt")
        if cut["image_grid_thw"].tolist() != [[1, *self.spec.patch_grid]] * len(squares):
            raise ModelError(f"the image processor makes other grids than {self.spec.patch_grid} patches.")
        patches = cut["pixel_values"].unflatten(0, (len(squares), -1))
        return {"pixel_values": patches[:, self.blockwise().argsort()].to(self.device, self.dtype)}

    def misfit(self, inputs: Inputs) -> tuple[int, ...] | None:
        """Returns None: `model_inputs` itself checks inputs that are cut into patches."""
        return None

    def model_inputs(self, inputs: Inputs | Tensor) -> Inputs:
        """Checks patches.

        Raises:
            UsageError: if the pictures have another shape than the encoder declares.
        """
        patches = pixel_values(inputs, self.spec.name)
        if patches.ndim != 3 or patches.shape[1] != self.spec.n_tokens:
            raise UsageError(
                f"{self.spec.name} takes pictures cut into {self.spec.n_tokens} patches, as its own `preprocess` makes "
                f"them, not of shape {tuple(patches.shape)}."
            )
        return {"pixel_values": patches}

    def run_tower(self, inputs: Inputs) -> None:
        """Calls the native tower once, on the patches in its own order."""
        patches = inputs["pixel_values"].to(self.dtype)[:, self.blockwise()]
        grid = torch.tensor([[1, *self.spec.patch_grid]] * len(patches), device=patches.device)
        self._native(patches.flatten(0, 1), grid_thw=grid)

    def blockwise(self) -> Tensor:
        """The row-by-row index of each patch in the order that the processor gives, block by block."""
        (rows, columns), merge = self.spec.patch_grid, self._native.config.spatial_merge_size
        grid = torch.arange(rows * columns, device=self.device).view(rows // merge, merge, columns // merge, merge)
        return grid.transpose(1, 2).flatten()

    def native_order(self) -> Tensor:
        """Block by block, as the processor gives them."""
        return self.blockwise()
