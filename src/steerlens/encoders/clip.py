"""CLIP and MetaCLIP 2 vision towers of transformers, which share one structure.

A pre-norm ViT: the class token's residual goes through `post_layernorm` and `visual_projection`, P(LN(x)).

References: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020; Y.-S. Chuang et al., "MetaCLIP 2: A Worldwide Scaling Recipe", arXiv 2507.22062.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.pretrained import BlockParts, Loading, PretrainedEncoder

_TEXT_SIDE = ("text_model.", "text_projection.", "logit_scale")


class CLIPEncoder(PretrainedEncoder):
    """A CLIP vision tower with its projection: `CLIPVisionModelWithProjection`, or the picture side of a `CLIPModel`.

    The embedding is the projected class token, not normalised.
    """

    family = "clip"
    library = "a CLIP vision tower"
    architectures = ("CLIPVisionModelWithProjection", "CLIPModel")
    wholes: ClassVar[Mapping[str, Loading]] = {"CLIPModel": Loading("CLIPVisionModelWithProjection", _TEXT_SIDE)}
    model_types: ClassVar[Mapping[str, str]] = {
        "clip_vision_model": "CLIPVisionModelWithProjection",
        "clip": "CLIPModel",
    }
    parts = BlockParts(
        block_kind="CLIPEncoderLayer",
        attention_kind="CLIPAttention",
        attention="self_attn",
        projection="out_proj",
        mlp="mlp",
        others=frozenset({"layer_norm1", "layer_norm2"}),
    )

    @classmethod
    def loading(cls, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> Loading | None:
        """Returns the recipe for loading; a whole model's config gives the embedding size outside `vision_config`."""
        recipe = super().loading(config, weights)
        if recipe is not None and recipe in cls.wholes.values() and "projection_dim" in config:
            return replace(recipe, arguments=(("projection_dim", config["projection_dim"]),))
        return recipe

    @property
    def tower(self) -> Any:
        """The vision tower."""
        return self._native.vision_model

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self.tower.encoder.layers

    @property
    def first_patch(self) -> int:
        """The class token comes first."""
        return 1

    @property
    def linear_after(self) -> nn.Module | None:
        """The projection behind the final norm is linear."""
        return self.tower.post_layernorm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a CLIP vision tower."""
        self.refuse_children(
            "the model", self.model, {"vision_model", "visual_projection"}, {"text_model", "text_projection"}
        )
        self.refuse_children("vision_model", self.tower, {"embeddings", "pre_layrnorm", "encoder", "post_layernorm"})
        self.refuse_kind("vision_model.post_layernorm", self.tower.post_layernorm, "LayerNorm")
        self.refuse_kind("visual_projection", self._native.visual_projection, "Linear")
        self.refuse_children("vision_model.encoder", self.tower.encoder, {"layers"})
        self.refuse_blocks("vision_model.encoder.layers")

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """Returns P(LN(x)) of the class token's residual."""
        return self._native.visual_projection(self.tower.post_layernorm(residual[:, 0].to(self.dtype)))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the projected class token of one native forward pass."""
        if hasattr(self._native, "text_model"):
            return self._native.get_image_features(**inputs).pooler_output
        return self._native(**inputs).image_embeds


class MetaCLIP2Encoder(CLIPEncoder):
    """A MetaCLIP 2 vision tower: `MetaClip2VisionModelWithProjection`, or the picture side of a `MetaClip2Model`."""

    family = "metaclip_2"
    library = "a MetaCLIP 2 vision tower"
    architectures = ("MetaClip2VisionModelWithProjection", "MetaClip2Model")
    wholes: ClassVar[Mapping[str, Loading]] = {
        "MetaClip2Model": Loading("MetaClip2VisionModelWithProjection", _TEXT_SIDE)
    }
    model_types: ClassVar[Mapping[str, str]] = {
        "metaclip_2_vision_model": "MetaClip2VisionModelWithProjection",
        "metaclip_2": "MetaClip2Model",
    }
    parts = replace(CLIPEncoder.parts, block_kind="MetaClip2EncoderLayer", attention_kind="MetaClip2Attention")
