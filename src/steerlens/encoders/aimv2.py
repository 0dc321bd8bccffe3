"""AIMv2 vision towers of transformers: RMSNorm, gated MLPs, no class token.

Every token is normalised and an attention-pooling head reads them, where the tower has one (the "lit" ones); a whole
`Aimv2Model` projects what comes out of it. Towers without a head have no pooling of their own: the embedding is then
the mean of the normalised tokens.

References: E. Fini et al., "Multimodal Autoregressive Pre-training of Large Vision Encoders", arXiv 2411.14402.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.pretrained import BlockParts, PretrainedEncoder


class AIMv2Encoder(PretrainedEncoder):
    """An AIMv2 vision tower: `Aimv2VisionModel`, or that of an `Aimv2Model` with its projection.

    The embedding is the pooled (and projected) one, or the mean of the normalised tokens where no head pools them.
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
    # An RMSNorm keeps the mean over width.
    centred = False

    @property
    def tower(self) -> Any:
        """The vision tower."""
        return getattr(self._native, "vision_model", self._native)

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self.tower.encoder.layers

    @property
    def first_patch(self) -> int:
        """There are image patches alone."""
        return 0

    @property
    def fixed_size(self) -> bool:
        """Native-resolution towers compute positions for pictures of any size."""
        return not self.tower.config.is_native

    @property
    def linear_after(self) -> nn.Module | None:
        """The mean behind the final norm is linear, the pooling head is not."""
        return None if hasattr(self.tower, "head") else self.tower.rms_norm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like an AIMv2 vision tower."""
        if self.tower is not self._native:
            whole = {"vision_model", "text_model", "visual_projection", "text_projection"}
            self.refuse_children("the model", self.model, whole)
        self.refuse_children("vision_model", self.tower, {"embeddings", "encoder", "rms_norm"}, {"head"})
        self.refuse_kind("vision_model.rms_norm", self.tower.rms_norm, "Aimv2RMSNorm")
        if hasattr(self.tower, "head"):
            self.refuse_kind("vision_model.head", self.tower.head, "Aimv2AttentionPoolingHead")
        self.refuse_children("vision_model.encoder", self.tower.encoder, {"layers"})
        self.refuse_blocks("vision_model.encoder.layers")

    def read_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """Every token is read."""
        return None

    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The pooling head (or the mean) of the normalised tokens, and the projection where there is one."""
        tokens = self.tower.rms_norm(residual.to(self.dtype))
        return self._projected(self.tower.head(tokens) if hasattr(self.tower, "head") else tokens.mean(dim=1))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The pooled tokens of one native forward pass, projected where there is a projection."""
        output = self.tower(**inputs)
        return self._projected(
            output.pooler_output if hasattr(self.tower, "head") else output.last_hidden_state.mean(dim=1)
        )

    def _projected(self, pooled: Tensor) -> Float[Tensor, "N E"]:
        return pooled if self.tower is self._native else self._native.visual_projection(pooled)
