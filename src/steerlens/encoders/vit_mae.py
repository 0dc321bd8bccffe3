"""The encoder of a masked autoencoder of transformers: `ViTMAEModel`.

In training the model masks three quarters of the patches and shuffles them; here it sees all of them, in their own
order. It defines no pooling: the embedding is the normalised class token, on which the paper trains its linear probes.

References: K. He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders.base import Inputs
from steerlens.encoders.pretrained import Loading
from steerlens.encoders.vit import ViTEncoder


class ViTMAEEncoder(ViTEncoder):
    """The encoder of a masked autoencoder: `ViTMAEModel`, or that of a `ViTMAEForPreTraining`.

    The embedding is the normalised class token; no patch is masked.
    """

    family = "vit_mae"
    library = "a masked autoencoder of transformers"
    architectures = ("ViTMAEModel", "ViTMAEForPreTraining")
    wholes: ClassVar[Mapping[str, Loading]] = {"ViTMAEForPreTraining": Loading("ViTMAEModel", ("decoder.",))}
    model_types: ClassVar[Mapping[str, str]] = {"vit_mae": "ViTMAEForPreTraining"}
    parts = replace(ViTEncoder.parts, block_kind="ViTMAELayer", attention_kind="ViTMAEAttention")

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The normalised class token of one native forward pass over all patches, in their own order."""
        pixels = inputs["pixel_values"]
        # The model sorts patches by this noise; rising numbers keep them in order.
        order = torch.arange(self.spec.n_tokens - self.first_patch, device=pixels.device).expand(len(pixels), -1)
        with _unmasked(self.tower.embeddings.config):
            return self.tower(**inputs, noise=order).last_hidden_state[:, 0]


@contextmanager
def _unmasked(config: Any) -> Generator[None]:
    """Sets the mask ratio to 0 while open, and restores it: the model is the user's."""
    before = config.mask_ratio
    config.mask_ratio = 0.0
    try:
        yield
    finally:
        config.mask_ratio = before
