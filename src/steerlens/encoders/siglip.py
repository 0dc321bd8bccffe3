"""SigLIP vision towers of transformers, which have no class token: every token is read.

Every token is normalised, an attention-pooling head reads them with one learnt query, and another norm and an MLP
follow; all of it is the model's own code. Towers without that head, and classifiers, take the mean of the normalised
tokens instead.

References: X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.pretrained import BlockParts, Loading, PretrainedEncoder

TEXT_SIDE = ("text_model.", "logit_scale", "logit_bias")
"""How the names of the weights of a whole model begin that its picture side has no place for."""


class SigLIPEncoder(PretrainedEncoder):
    """A SigLIP vision tower: `SiglipVisionModel`, the picture side of a `SiglipModel`, or a classifier on one.

    The embedding is the pooled one, not normalised; for a `SiglipForImageClassification` it is the mean of the tokens,
    which the classifier reads.
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
    head_kind = "SiglipMultiheadAttentionPoolingHead"
    """Class of the pooling head."""

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
    def pools(self) -> bool:
        """Whether tokens go through the pooling head; else their mean is taken."""
        return hasattr(self.tower, "head") and not hasattr(self._native, "classifier")

    @property
    def linear_after(self) -> nn.Module | None:
        """The mean behind the final norm is linear, the pooling head is not."""
        return None if self.pools else self.tower.post_layernorm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a SigLIP vision tower."""
        if self.tower is not self._native:
            self.refuse_children("the model", self.model, {"vision_model"}, {"text_model", "classifier"})
        self.refuse_children("vision_model", self.tower, {"embeddings", "encoder", "post_layernorm"}, {"head"})
        self.refuse_kind("vision_model.post_layernorm", self.tower.post_layernorm, "LayerNorm")
        if hasattr(self.tower, "head"):
            self.refuse_kind("vision_model.head", self.tower.head, self.head_kind)
        self.refuse_children("vision_model.encoder", self.tower.encoder, {"layers"})
        self.refuse_blocks("vision_model.encoder.layers")

    def read_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """Every token is read."""
        return None

    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The pooling head (or the mean) of the normalised tokens."""
        tokens = self.tower.post_layernorm(residual.to(self.dtype))
        return self.tower.head(tokens) if self.pools else tokens.mean(dim=1)

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The pooled tokens of one native forward pass."""
        output = self.tower(**inputs)
        return output.pooler_output if self.pools else output.last_hidden_state.mean(dim=1)
