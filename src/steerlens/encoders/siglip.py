"""SigLIP vision towers of transformers, which have no class token: every token is read.

Every token is normalised, an attention-pooling head reads them with one learnt query, and another norm and an MLP
follow; all of it is the model's own code. Towers without that head, and classifiers, take the mean of the normalised
tokens instead.

References: X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343.
"""

from collections.abc import Mapping
from typing import ClassVar

from steerlens.encoders.pooled import PooledEncoder
from steerlens.encoders.pretrained import BlockParts, Loading

TEXT_SIDE = ("text_model.", "logit_scale", "logit_bias")
"""Prefixes of the weights of a whole model that its vision side does not use."""


class SigLIPEncoder(PooledEncoder):
    """A SigLIP vision tower: `SiglipVisionModel`, the picture side of a `SiglipModel`, or a classifier on one.

    The embedding is the pooled output, not normalised; for a `SiglipForImageClassification` it is the mean of the
    tokens, which the classifier reads.
    """

    family = "siglip"
    library = "a SigLIP vision tower"
    architectures = ("SiglipVisionModel", "SiglipModel", "SiglipForImageClassification")
    wholes: ClassVar[Mapping[str, Loading]] = {"SiglipModel": Loading("SiglipVisionModel", TEXT_SIDE)}
    model_types: ClassVar[Mapping[str, str]] = {"siglip_vision_model": "SiglipVisionModel", "siglip": "SiglipModel"}
    parts = BlockParts(
        block_kind="SiglipEncoderLayer",
        attention_kind="SiglipAttention",
        attention="self_attn",
        projection="out_proj",
        mlp="mlp",
        others=frozenset({"layer_norm1", "layer_norm2"}),
    )
    norm, norm_kind, head_kind = "post_layernorm", "LayerNorm", "SiglipMultiheadAttentionPoolingHead"

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a SigLIP vision tower."""
        if self.tower is not self._native:
            self.refuse_children("the model", self.model, {"vision_model"}, {"text_model", "classifier"})
        self.refuse_tower()
