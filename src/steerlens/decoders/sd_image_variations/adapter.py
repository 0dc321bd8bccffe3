"""The Stable Diffusion Image Variations decoder: the projected image embedding is the only token of cross attention.

diffusers' pipeline takes pictures, not embeddings, so this adapter calls its UNet, scheduler and autoencoder; without a
condition the token is zero.

References: R. Rombach et al., arXiv 2112.10752; fine-tuned by J. Pinkney and Lambda Labs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from steerlens.decoders.base import DecodeOptions, DecoderSpec
from steerlens.decoders.diffusion import DiffusionDecoder, Sampled, latent_size, vae_scale, with_negative
from steerlens.decoders.sampling import Rows
from steerlens.decoders.sd_image_variations import FAMILIES


class SDImageVariationsDecoder(DiffusionDecoder):
    """Decodes image embeddings (N,E) as `StableDiffusionImageVariationPipeline` does with their pictures.

    Args:
        unet: the denoising network.
        vae: the autoencoder.
        scheduler_config: the saved scheduler's config.
        name: its name in reports.
        defaults: its default options; by default those of diffusers' pipeline.
    """

    saved_as = FAMILIES["sd-image-variations"]

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler_config: Mapping[str, Any],
        name: str = "sd-image-variations",
        defaults: DecodeOptions | None = None,
    ) -> None:
        self.network = self.unet = unet.eval()
        self.vae = vae.eval()
        self.scheduler_config = dict(scheduler_config)
        self.scale = vae_scale(vae)
        self.spec = DecoderSpec(
            name=name,
            family="sd-image-variations",
            consumes="image_embedding",
            embedding_size=cast(Any, unet.config).cross_attention_dim,
            defaults=defaults or DecodeOptions(50, 7.5, "pndm", latent_size(unet, self.scale)),
        )

    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        """Decodes one batch of embeddings."""
        condition = with_negative(values.to(self.device, self.dtype)[:, None], None, options.guidance)

        def denoiser(latents: Tensor, timestep: Tensor, rows: Rows) -> Tensor:
            states = condition[rows]
            return self.unet(latents.to(self.dtype), timestep, encoder_hidden_states=states, return_dict=False)[0]

        latents = yield from self.latents(denoiser, cast(Any, self.unet.config).in_channels, generators, options)
        return self.pixels(self.vae, latents)
