"""DeiT of transformers: a Vision Transformer with a distillation token beside the class token.

A classifier that was trained with a teacher has a head for each of the two tokens, and its logits are the mean of both:

    logits = (W_cls x_cls + b_cls + W_dist x_dist + b_dist) / 2
           = [W_cls, W_dist] / 2 [x_cls; x_dist] + (b_cls + b_dist) / 2

so the embedding is both normalised tokens side by side, and the classes are linear in it.

References: H. Touvron et al., "Training data-efficient image transformers & distillation through attention",
arXiv 2012.12877.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.vit import ViTEncoder


class DeiTEncoder(ViTEncoder):
    """A DeiT: `DeiTModel`, `DeiTForImageClassification` or `DeiTForImageClassificationWithTeacher`.

    The embedding is the input of the classifier: the normalised class token, or with a teacher [class; distillation],
    of size 2 D. For a `DeiTModel` with a pooler it is the pooler's output.
    """

    family = "deit"
    library = "a DeiT of transformers"
    architectures = ("DeiTModel", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher")
    model_types: ClassVar[Mapping[str, str]] = {"deit": "DeiTModel"}
    parts = replace(ViTEncoder.parts, block_kind="DeiTLayer", attention_kind="DeiTAttention")

    @property
    def first_patch(self) -> int:
        """Class and distillation token come first."""
        return 2

    @property
    def has_teacher(self) -> bool:
        """True if there is a classifier for each of the two tokens."""
        return hasattr(self._native, "distillation_classifier")

    def read_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """The class token, with a teacher the distillation token too."""
        return (0, 1) if self.has_teacher else (0,)

    def classifier(self) -> tuple[Float[Tensor, "V E"], Float[Tensor, "V"] | None] | None:
        """The mean of both heads, as one linear layer on both tokens."""
        if not self.has_teacher:
            return super().classifier()
        heads = self._native.cls_classifier, self._native.distillation_classifier
        if not all(isinstance(head, nn.Linear) for head in heads):
            return None
        return torch.cat([head.weight for head in heads], dim=1) / 2, (heads[0].bias + heads[1].bias) / 2

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The normalised class token, with a teacher both tokens side by side."""
        if not self.has_teacher:
            return super().native_readout(residual)
        return self.tower.layernorm(residual.to(self.dtype)).flatten(1)

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """Returns the input of the classifiers, from one native forward pass."""
        if not self.has_teacher:
            return super().native_forward(inputs)
        return self.tower(**inputs).last_hidden_state[:, :2].flatten(1)
