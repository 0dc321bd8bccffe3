"""The Vision Transformer of transformers, `ViTModel` and `ViTForImageClassification`.

The class token's residual goes through `layernorm`. A `ViTModel` with a pooler applies a linear layer and tanh; a
classifier reads the normalised class token itself.

References: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.pretrained import BlockParts, Loading, PretrainedEncoder


class ViTEncoder(PretrainedEncoder):
    """A Vision Transformer: `ViTModel` or `ViTForImageClassification`.

    The embedding is the input of the classifier, the normalised class token; for a `ViTModel` with a pooler, it is the
    pooler's output.
    """

    family = "vit"
    library = "a Vision Transformer of transformers"
    architectures = ("ViTModel", "ViTForImageClassification")
    model_types: ClassVar[Mapping[str, str]] = {"vit": "ViTModel"}
    parts = BlockParts(
        block_kind="ViTLayer",
        attention_kind="ViTAttention",
        attention="attention",
        projection="o_proj",
        mlp="mlp",
        others=frozenset({"layernorm_before", "layernorm_after", "dropout"}),
    )

    @classmethod
    def loading(cls, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> Loading | None:
        """Returns the recipe for loading: without a pooler if the weights have none, as in DINO."""
        recipe = super().loading(config, weights)
        if recipe is None or not recipe.kind.endswith(("ViTModel", "DeiTModel")):
            return recipe
        pooled = any("pooler." in name for name in weights)
        return recipe if pooled else replace(recipe, arguments=(("add_pooling_layer", False),))

    @property
    def tower(self) -> Any:
        """The model below the classifier."""
        return self._native.base_model

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self.tower.layers

    @property
    def first_patch(self) -> int:
        """The class token comes first."""
        return 1

    @property
    def linear_after(self) -> nn.Module | None:
        """The final norm, or None if a pooler follows it, which is not linear."""
        return self.tower.layernorm if getattr(self.tower, "pooler", None) is None else None

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a Vision Transformer of transformers."""
        path = self._native.base_model_prefix
        if self.tower is not self._native:
            heads = {"classifier", "cls_classifier", "distillation_classifier", "decoder"}
            self.refuse_children("the model", self.model, {path}, heads)
        self.refuse_children(path, self.tower, {"embeddings", "layers", "layernorm"}, {"pooler"})
        self.refuse_kind(f"{path}.layernorm", self.tower.layernorm, "LayerNorm")
        self.refuse_blocks(f"{path}.layers")

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The normalised class token, through the pooler where there is one."""
        normed = self.tower.layernorm(residual.to(self.dtype))
        pooler = getattr(self.tower, "pooler", None)
        return normed[:, 0] if pooler is None else pooler(normed)

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the input of the classifier, from one native forward pass."""
        output = self.tower(**inputs)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state[:, 0] if pooled is None else pooled
