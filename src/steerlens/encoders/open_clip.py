"""Vision towers of open_clip's own class, `VisionTransformer`.

The model's own code applies the final norm, pooling (class token, mean, attention) and the matrix `proj`.

References: G. Ilharco et al., "OpenCLIP", 2021, doi 10.5281/zenodo.5143773; M. Cherti et al., "Reproducible scaling
laws for contrastive language-image learning", arXiv 2212.07143; J. Yu et al., "CoCa", arXiv 2205.01917 (attention
pooling).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import EncoderSpec, Inputs
from steerlens.encoders.folders import is_open_clip_folder, open_open_clip_folder
from steerlens.encoders.fused import recorded_by_hooks
from steerlens.encoders.hooks import first
from steerlens.encoders.modules import LayerModules
from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.open_clip_timm import OpenCLIPTimmEncoder
from steerlens.encoders.open_clip_tower import (
    has_timm_tower,
    head_values,
    is_of_open_clip,
    readout_tokens,
    refuse_unknown_tower,
    split_heads,
)
from steerlens.encoders.recorded import Recorded
from steerlens.encoders.transforms import TransformEncoder

__all__ = ["OpenCLIPEncoder", "OpenCLIPTimmEncoder"]


class OpenCLIPEncoder(TransformEncoder):
    """The vision tower of an open_clip model, wrapped, never copied; it is put into evaluation mode.

    Args:
        model: a model of open_clip (its text side is left alone), or its vision tower.
        processor: its transform for evaluation (the last value that `open_clip.create_model_and_transforms` returns),
            or an image processor of transformers.
        name: its name in reports.

    Raises:
        ModelError: if the tower contains modules that this adapter does not know, or gives no single embedding.
    """

    def __init__(self, model: nn.Module, processor: Any, name: str = "") -> None:
        visual = self.model = self._visual = cast(Any, getattr(model, "visual", model)).eval()
        self.processor = processor
        refuse_unknown_tower(visual)
        down, across = visual.grid_size
        blocks, n_tokens = visual.transformer.resblocks, down * across + 1
        spec = EncoderSpec(
            name=name or "open_clip",
            family="open_clip",
            n_layers=len(blocks),
            n_heads=blocks[0].attn.num_heads,
            width=blocks[0].attn.embed_dim,
            embedding_size=0,
            image_size=tuple(visual.image_size),
            n_tokens=n_tokens,
            patch_grid=(down, across),
            first_patch=1,
            readout_tokens=readout_tokens(visual, n_tokens),
        )
        self.declare(spec)

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True if this adapter supports a native model."""
        return is_of_open_clip(model) and not has_timm_tower(model)

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """True if a folder contains a model of this library, with either kind of tower."""
        return is_open_clip_folder(folder)

    @classmethod
    def from_folder(
        cls, folder: Path, processor: Any, *, device: torch.device, dtype: torch.dtype | None, name: str = ""
    ) -> "NativeEncoder":
        """Opens a folder laid out like open_clip's repositories on the hub.

        Args:
            folder: with `open_clip_config.json` and `open_clip_model.safetensors`.
            processor: a transform that replaces the config's, or None.
            device: device of the model.
            dtype: precision; None for float32, or half precision if it is large.
            name: its name in reports.

        Raises:
            ModelError: if the model cannot be built or loaded, or its structure is not known to this adapter.
        """
        model, transform = open_open_clip_folder(folder, device, dtype)
        kind = OpenCLIPTimmEncoder if has_timm_tower(model) else cls
        return kind(model, transform if processor is None else processor, name)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the patch embedding; open_clip keeps norms and position embeddings in float32."""
        return self._visual.conv1.weight.dtype

    def layers(self) -> Sequence[LayerModules]:
        """The native modules, layer by layer."""
        return [
            LayerModules(
                block=block,
                attn_out=block.ls_1,
                attn_proj=block.attn,
                mlp_out=block.ls_2,
                n_heads=self.spec.n_heads,
                out_weight=block.attn.out_proj.weight,
                out_bias=block.attn.out_proj.bias,
                scale=getattr(block.ls_1, "gamma", None),
                values_of=head_values(block.attn),
                mlp=block.mlp,
                mlp_scale=getattr(block.ls_2, "gamma", None),
            )
            for block in self._visual.transformer.resblocks
        ]

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """Applies the model's own final norm, pooling and projection."""
        pooled, _ = self._visual._pool(self.before_pooling(residual))
        return pooled if self._visual.proj is None else pooled @ self._visual.proj

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the image embedding of one native forward pass, not normalised."""
        # Towers for captioning return their tokens too.
        return first(self._visual(inputs["pixel_values"]))

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Records patterns (of the given query tokens) and values, by layer, of one forward pass while open."""
        attentions = [block.attn for block in self._visual.transformer.resblocks]
        return recorded_by_hooks([(attention, split_heads(attention)) for attention in attentions], tokens)
