"""The DINOv3 Vision Transformer of transformers: `DINOv3ViTModel`.

Rotary position embeddings, registers, LayerScale, and a gated MLP in the larger ones. The embedding is the normalised
class token.

References: O. Siméoni et al., "DINOv3", arXiv 2508.10104.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.dinov2 import DINOv2Encoder
from steerlens.encoders.dinov3_processor import DINOv3Processor
from steerlens.encoders.pretrained import PretrainedEncoder


class DINOv3Encoder(PretrainedEncoder):
    """A DINOv3 Vision Transformer, `DINOv3ViTModel`; the embedding is its normalised class token."""

    family = "dinov3_vit"
    library = "a DINOv3 Vision Transformer of transformers"
    architectures = ("DINOv3ViTModel",)
    model_types: ClassVar[Mapping[str, str]] = {"dinov3_vit": "DINOv3ViTModel"}
    parts = replace(
        DINOv2Encoder.parts,
        block_kind="DINOv3ViTLayer",
        attention_kind="DINOv3ViTAttention",
        scale_kind="DINOv3ViTLayerScale",
        drop_kind="Dinov3ViTDropPath",
    )

    @staticmethod
    def load_processor(folder: Path) -> DINOv3Processor | None:
        """Loads the image processor in a folder; None for other kinds, which transformers itself can load."""
        return DINOv3Processor.from_folder(folder)

    @property
    def tower(self) -> Any:
        """The model itself."""
        return self._native

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self._native.model.layer

    @property
    def first_patch(self) -> int:
        """The class token comes first, registers second."""
        return 1 + self._native.config.num_register_tokens

    @property
    def fixed_size(self) -> bool:
        """False: positions are computed for pictures of any size."""
        return False

    @property
    def linear_after(self) -> nn.Module | None:
        """The final norm, which nothing follows."""
        return self._native.norm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a DINOv3 Vision Transformer."""
        self.refuse_children("the model", self.model, {"embeddings", "rope_embeddings", "model", "norm"})
        self.refuse_kind("norm", self._native.norm, "LayerNorm")
        self.refuse_children("model", self._native.model, {"layer"})
        self.refuse_blocks("model.layer")

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The normalised class token."""
        return self._native.norm(residual[:, 0].to(self.dtype))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The normalised class token of one native forward pass."""
        return self._native(**inputs).pooler_output
