"""AIMv2 vision towers of transformers: RMSNorm, gated MLPs, no class token.

Every token is normalised. In towers with an attention-pooling head ("lit"), the head reads them, and a whole
`Aimv2Model` projects its output. Towers without a head define no pooling: the embedding is then the mean of the
normalised tokens.

References: E. Fini et al., "Multimodal Autoregressive Pre-training of Large Vision Encoders", arXiv 2411.14402.
"""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from steerlens.encoders.pooled import PooledEncoder
from steerlens.encoders.pretrained import BlockParts


class AIMv2Encoder(PooledEncoder):
    """An AIMv2 vision tower: `Aimv2VisionModel`, or that of an `Aimv2Model` with its projection.

    The embedding is the pooled (and projected) output, or the mean of the normalised tokens if no head pools them.
    """

    family = "aimv2"
    library = "an AIMv2 vision tower"
    architectures = ("Aimv2VisionModel", "Aimv2Model")
    model_types: ClassVar[Mapping[str, str]] = {"aimv2_vision_model": "Aimv2VisionModel", "aimv2": "Aimv2Model"}
    parts = BlockParts(
        block_kind="Aimv2EncoderLayer",
        attention_kind="Aimv2Attention",
        attention="attention",
        projection="out_proj",
        mlp="ffn",
        others=frozenset({"rms_norm1", "rms_norm2"}),
    )
    norm, norm_kind, head_kind = "rms_norm", "Aimv2RMSNorm", "Aimv2AttentionPoolingHead"
    # An RMSNorm keeps the mean over width.
    centred = False

    @property
    def fixed_size(self) -> bool:
        """Native-resolution towers compute positions for pictures of any size."""
        return not self.tower.config.is_native

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like an AIMv2 vision tower."""
        if self.tower is not self._native:
            whole = {"vision_model", "text_model", "visual_projection", "text_projection"}
            self.refuse_children("the model", self.model, whole)
            self.refuse_kind("visual_projection", self._native.visual_projection, "Linear")
        self.refuse_tower()

    def projected(self, pooled: Tensor) -> Float[Tensor, "N E"]:
        """Applies the projection of a whole model."""
        return pooled if self.tower is self._native else self._native.visual_projection(pooled)
