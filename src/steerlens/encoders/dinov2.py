"""DINOv2 of transformers, with and without register tokens.

Attention and MLP each go through a LayerScale before they are added to the residual. `Dinov2Model` is read from the
normalised class token. Its classifier reads [class; mean of patches], both normalised, so every token but the registers
is read.

References: M. Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", arXiv 2304.07193;
T. Darcet et al., "Vision Transformers Need Registers", arXiv 2309.16588.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.pretrained import BlockParts, PretrainedEncoder


class DINOv2Encoder(PretrainedEncoder):
    """A DINOv2: `Dinov2Model` or `Dinov2ForImageClassification`.

    The embedding is the normalised class token; for a classifier it is the classifier's input, [class; mean of
    patches], of size 2 D. Position embeddings are interpolated to the size of the processor's output.
    """

    family = "dinov2"
    library = "a DINOv2 of transformers"
    architectures = ("Dinov2Model", "Dinov2ForImageClassification")
    model_types: ClassVar[Mapping[str, str]] = {"dinov2": "Dinov2Model"}
    parts = BlockParts(
        block_kind="Dinov2Layer",
        attention_kind="Dinov2Attention",
        attention="attention",
        projection="o_proj",
        mlp="mlp",
        others=frozenset({"norm1", "norm2", "drop_path"}),
        scales=("layer_scale1", "layer_scale2"),
        scale_kind="Dinov2LayerScale",
        drop_kind="Dinov2DropPath",
    )

    @property
    def tower(self) -> Any:
        """The model below the classifier."""
        return self._native.base_model

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self.tower.encoder.layer

    @property
    def first_patch(self) -> int:
        """The class token comes first, registers second."""
        return 1 + getattr(self.tower.config, "num_register_tokens", 0)

    @property
    def classifies(self) -> bool:
        """True if the model is a classifier."""
        return self.tower is not self._native

    @property
    def fixed_size(self) -> bool:
        """False: positions are computed for pictures of any size."""
        return False

    @property
    def linear_after(self) -> nn.Module | None:
        """The final norm, which only a mean follows."""
        return self.tower.layernorm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a DINOv2 of transformers."""
        path = self._native.base_model_prefix
        if self.classifies:
            self.refuse_children("the model", self.model, {path, "classifier"})
        self.refuse_children(path, self.tower, {"embeddings", "encoder", "layernorm"})
        self.refuse_kind(f"{path}.layernorm", self.tower.layernorm, "LayerNorm")
        self.refuse_children(f"{path}.encoder", self.tower.encoder, {"layer"})
        self.refuse_blocks(f"{path}.encoder.layer")

    def read_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """The class token; for a classifier the patches too."""
        return (0, *range(self.first_patch, n_tokens)) if self.classifies else (0,)

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The normalised class token, for a classifier beside the mean of the normalised patches."""
        normed = self.tower.layernorm(residual.to(self.dtype))
        return _class_and_mean(normed, 1) if self.classifies else normed[:, 0]

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the class token of one native forward pass, or the classifier's input."""
        output = self.tower(**inputs)
        return _class_and_mean(output.last_hidden_state, self.first_patch) if self.classifies else output.pooler_output


class DINOv2RegistersEncoder(DINOv2Encoder):
    """A DINOv2 with registers: `Dinov2WithRegistersModel` or `Dinov2WithRegistersForImageClassification`."""

    family = "dinov2_with_registers"
    library = "a DINOv2 with registers of transformers"
    architectures = ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification")
    model_types: ClassVar[Mapping[str, str]] = {"dinov2_with_registers": "Dinov2WithRegistersModel"}
    parts = replace(
        DINOv2Encoder.parts,
        block_kind="Dinov2WithRegistersLayer",
        attention_kind="Dinov2WithRegistersAttention",
        scale_kind="Dinov2WithRegistersLayerScale",
        drop_kind="Dinov2WithRegistersDropPath",
    )


def _class_and_mean(tokens: Float[Tensor, "N T D"], first_patch: int) -> Float[Tensor, "N E"]:
    return torch.cat([tokens[:, 0], tokens[:, first_patch:].mean(dim=1)], dim=1)
