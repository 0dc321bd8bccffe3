"""ViT decoders of image tokens, saved without their encoder: a single pass, without noise.

    tokens = LN(r_L)[patches]                                        Scale-RAE
    tokens = mean_k LN(r_k)[patches] + mean over patches of LN(r_K)  RAEv2: several layers k, the last of them K

Scale-RAE's decoder of WebSSL norms with the encoder's own weights, the others without weights.

References: S. Tong et al., "Scaling Text-to-Image Diffusion Transformers with Representation Autoencoders",
arXiv 2601.16208; J. Singh et al., "Improved Baselines with Representation Autoencoders", arXiv 2605.18324.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from steerlens.decoders.base import DecodeOptions, DecoderSpec, TokenSource
from steerlens.decoders.one_pass import OnePassDecoder
from steerlens.decoders.vit_mae import FAMILIES
from steerlens.decoders.vit_mae.network import PixelTransformer
from steerlens.encoders import Encoder


class ViTMAEDecoder(OnePassDecoder):
    """Decodes image tokens (N,t,D) of the last layer, or of several layers.

    Args:
        model: the network.
        name: its name in reports.
        defaults: ignored: there is a single pass and a single size.
    """

    saved_as = FAMILIES["vit-mae"]

    def __init__(self, model: PixelTransformer, name: str = "", defaults: DecodeOptions | None = None) -> None:
        self.model: Any = model.eval()
        config = self.model.config
        side, layers = config.grid * config.patch_size, config.layers
        self.spec = DecoderSpec(
            name=name or "vit-mae",
            family="vit-mae",
            consumes="image_tokens",
            embedding_size=config.token_size,
            defaults=DecodeOptions(1, 1.0, "none", (side, side)),
            tokens=TokenSource(count=config.grid**2, layers=None if layers is None else tuple(layers)),
        )

    @property
    def network(self) -> nn.Module:
        """The whole network."""
        return self.model

    @classmethod
    def negative_of(cls, encoder: Encoder) -> None:
        """Returns None: there is no guidance, and so no conditioning for "no condition"."""

    @torch.no_grad()
    def tokens(self, residual: Float[Tensor, "N *K T D"]) -> Float[Tensor, "N t D"]:
        """Turns the residual of every token, of one layer or of each layer that is read, into conditioning."""
        norm, count = self.model.token_norm, self.model.grid**2
        weight, bias = (None if own is None else own.float() for own in (norm.weight, norm.bias))
        precise = residual.to(self.device, torch.float32)
        normed = functional.layer_norm(precise, norm.normalized_shape, weight, bias, norm.eps)[..., -count:, :]
        if self.model.config.layers is None:
            return normed
        mean = normed.mean(dim=1)
        return mean + normed[:, -1].mean(dim=1, keepdim=True) if self.model.config.adds_mean else mean

    def draw(self, tokens: Float[Tensor, "B t D"]) -> Float[Tensor, "B 3 height width"]:
        """Draws pictures in one pass."""
        return self.model(tokens)
