"""Representation autoencoders: a ViT decoder of the image tokens of a frozen encoder, in one pass and without noise.

    tokens = LN(r_L)[patches],   picture = decode( (tokens - m) / s )

The encoder's final norm has no weight here, and its class and register tokens are dropped. Pixels are not clamped.

References: B. Zheng, N. Ma, S. Tong, S. Xie, "Diffusion Transformers with Representation Autoencoders",
arXiv 2510.11690.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from math import isqrt
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderRAE
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.decoders.base import DecodeOptions, DecoderSpec, TokenSource
from steerlens.decoders.family import configured
from steerlens.decoders.one_pass import OnePassDecoder
from steerlens.decoders.rae import FAMILIES
from steerlens.decoders.rae.siglip import expected_tower
from steerlens.errors import ModelError

_PREFIX: Mapping[str, int] = {"dinov2": 5, "siglip2": 0, "mae": 1}
"""Class and register tokens before the patches, by kind of encoder."""


class RAEDecoder(OnePassDecoder):
    """Decodes image tokens (N,T,D) as `AutoencoderRAE.decode` does; the seed changes nothing.

    Args:
        model: encoder and decoder as one native model.
        name: its name in reports.
        defaults: ignored: there is a single pass and a single size.

    Raises:
        ModelError: if the kind of encoder is unknown.
    """

    saved_as = FAMILIES["rae-dinov2"]  # all kinds are saved alike

    def __init__(self, model: AutoencoderRAE, name: str = "", defaults: DecodeOptions | None = None) -> None:
        self.model: Any = model.eval()
        config: Any = model.config
        if config.encoder_type not in _PREFIX:
            raise ModelError(f"{name}: a representation autoencoder of {config.encoder_type} is not known.")
        self.kind: str = config.encoder_type
        side = self.model.decoder_image_size
        self.spec = DecoderSpec(
            name=name or f"rae-{self.kind}",
            family=f"rae-{self.kind}",
            consumes="image_tokens",
            embedding_size=config.encoder_hidden_size,
            defaults=DecodeOptions(1, 1.0, "none", (side, side)),
            tokens=TokenSource(count=self.model.num_patches),
        )

    @property
    def network(self) -> nn.Module:
        """The model's decoder."""
        return self.model.decoder

    @property
    def native_encoder(self) -> nn.Module:
        """The frozen encoder of the image tokens."""
        return getattr(self.model.encoder, "vision_model", self.model.encoder)

    @torch.no_grad()
    def tokens(self, residual: Float[Tensor, "N T D"]) -> Float[Tensor, "N t D"]:
        """Turns the final residual of every token into conditioning: normed without weights, patches only."""
        encoder: Any = self.native_encoder
        norm = encoder.post_layernorm if self.kind == "siglip2" else encoder.layernorm
        return norm(residual)[:, _PREFIX[self.kind] :]

    def draw(self, tokens: Float[Tensor, "B t D"]) -> Float[Tensor, "B 3 height width"]:
        """Draws pictures by the model's own `decode`, from tokens that are standardised first."""
        if self.model.reshape_to_2d:
            side = isqrt(tokens.shape[1])
            tokens = tokens.transpose(1, 2).unflatten(2, (side, side))
        latents = self.model._normalize_latents(tokens) * self.model.config.scaling_factor
        return self.model.decode(latents, return_dict=False)[0]

    @classmethod
    def from_folder(cls, folder: Path, negative: Tensor | None, **given: Any) -> Self:
        """Opens a saved `AutoencoderRAE`, encoder included; arguments as in `SavedDecoder.from_folder`.

        Raises:
            ModelError: if it is missing or broken, or the installed libraries cannot build it.
        """
        with expected_tower() if configured(folder, "encoder_type") == "siglip2" else nullcontext():
            return super().from_folder(folder, negative, **given)
