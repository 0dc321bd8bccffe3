"""IP-Adapter Plus: the adapter that reads image tokens.

It reads every token of the encoder's residual before its last layer, class token included and without any norm, and
uses the tokens of an all-zero input for "no condition"; the writes of the last layer never reach it.

References: H. Ye et al., "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models",
arXiv 2308.06721.
"""

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.conditioning import Consumes
from steerlens.decoders.base import TokenSource
from steerlens.decoders.ip_adapter import FAMILIES
from steerlens.decoders.ip_adapter.adapter import IPAdapterDecoder
from steerlens.encoders import Encoder
from steerlens.sites import Site

_PLUS = TokenSource(layers_after=1, patches_only=False, normed=False)


class IPAdapterPlusDecoder(IPAdapterDecoder):
    """Decodes image tokens (N,T,D), the residual before the encoder's last layer, with an IP-Adapter Plus."""

    family = "ip-adapter-plus-sd15"
    saved_as = FAMILIES["ip-adapter-plus-sd15"]
    consumes: Consumes = "image_tokens"
    token_source = _PLUS

    def tokens(self, residual: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
        """Conditioning from the residual before the last layer: all tokens, as they are."""
        return residual

    @classmethod
    def negative_of(cls, encoder: Encoder) -> Float[Tensor, "1 T D"]:
        """The tokens of an all-zero input, which is not a black picture."""
        height, width = encoder.spec.image_size
        inputs = dict(encoder.preprocess([Image.new("RGB", (width, height))]))
        site = Site("resid_post", _PLUS.last_layer(encoder.spec.n_layers))
        zeros = {**inputs, "pixel_values": torch.zeros_like(inputs["pixel_values"])}
        return encoder.record(zeros, [site])[site]
