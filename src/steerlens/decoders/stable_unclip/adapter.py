"""The Stable unCLIP 2.1 decoder: Stable Diffusion 2.1 with a CLIP image embedding in place of a class label.

    c = [ s (sqrt(a_n) (e - m) / s + sqrt(1 - a_n) z) + m ; sin(n), cos(n) ]     z ~ N(0, 1), n the noise level

The decoder was trained with noise, which is added even at level 0; z comes from the picture's own seed. The text is
empty.

References: A. Ramesh et al. (unCLIP), arXiv 2204.06125; R. Rombach et al., "High-Resolution Image Synthesis with Latent
Diffusion Models", arXiv 2112.10752.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders.base import DecodeOptions, DecoderSpec
from steerlens.decoders.diffusion import DiffusionDecoder, Sampled, latent_size, vae_scale, with_negative
from steerlens.decoders.sampling import Rows, draw
from steerlens.decoders.stable_unclip import FAMILIES
from steerlens.decoders.text import Text, clip_text
from steerlens.errors import ModelError, UsageError


class StableUnCLIPDecoder(DiffusionDecoder):
    """Decodes image embeddings (N,E) as `StableUnCLIPImg2ImgPipeline` does with empty prompts.

    Args:
        unet: the denoising network.
        vae: the autoencoder.
        normalizer: mean and standard deviation of the encoder's embeddings.
        scheduler_config: the saved scheduler's config.
        noising_config: the config of the scheduler that adds noise to embeddings.
        empty_text: the encoded empty prompt.
        name: its name in reports.
        defaults: its default options; by default those of diffusers' pipeline.
        noise_level: noise of the embeddings, a time step of the noising scheduler; 0 is the least.

    Raises:
        ModelError: if the network takes no noised image embedding of the normaliser's size.
        UsageError: if there is no such noise level.
    """

    saved_as = FAMILIES["stable-unclip-2.1"]

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        normalizer: StableUnCLIPImageNormalizer,
        scheduler_config: Mapping[str, Any],
        noising_config: Mapping[str, Any],
        empty_text: Text,
        name: str = "stable-unclip-2.1",
        defaults: DecodeOptions | None = None,
        noise_level: int = 0,
    ) -> None:
        self.network = self.unet = unet.eval()
        self.vae = vae.eval()
        self.normalizer: Any = normalizer.eval()
        self.empty_text, self.noise_level = empty_text, noise_level
        self.scheduler_config = dict(scheduler_config)
        self._noising: Any = DDPMScheduler.from_config(dict(noising_config))
        size, taken = self.normalizer.mean.shape[-1], cast(Any, unet.config).projection_class_embeddings_input_dim
        if cast(Any, unet.config).class_embed_type != "projection" or taken != 2 * size:
            raise ModelError(
                f"{name}: the UNet takes no noised image embedding of size {size}, as a Stable unCLIP decoder does."
            )
        levels = self._noising.config.num_train_timesteps
        if not 0 <= noise_level < levels:
            raise UsageError(f"{name}: noise levels are 0 to {levels - 1}, not {noise_level}.")
        self.scale = vae_scale(vae)
        self.spec = DecoderSpec(
            name=name,
            family="stable-unclip-2.1",
            consumes="image_embedding",
            embedding_size=size,
            defaults=defaults or DecodeOptions(20, 10.0, "pndm", latent_size(unet, self.scale)),
        )

    def noised(self, embeddings: Float[Tensor, "B E"], generators: Sequence[torch.Generator]) -> Float[Tensor, "B 2E"]:
        """Adds noise from each picture's own generator to its embedding, and appends the level."""
        values = embeddings.float().to(self.device)
        noise = draw(generators, values.shape[1:]).to(self.device)
        level = torch.full((len(values),), self.noise_level, device=self.device, dtype=torch.long)
        mean, std = (row.detach().float().to(self.device) for row in (self.normalizer.mean, self.normalizer.std))
        values = self._noising.add_noise((values - mean) / std, timesteps=level, noise=noise) * std + mean
        wave = get_timestep_embedding(level, values.shape[-1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([values, wave], dim=1).to(self.dtype)

    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        """Decodes one batch of embeddings."""
        # Noise on the embedding is drawn first, as in the pipeline; the latents go on with the same generators.
        condition = with_negative(self.noised(values, generators), None, options.guidance)
        states = self.empty_text.to(self.device, self.dtype).states_for(len(condition))

        def denoiser(latents: Tensor, timestep: Tensor, rows: Rows) -> Tensor:
            return self.unet(
                latents.to(self.dtype),
                timestep,
                encoder_hidden_states=states[rows],
                class_labels=condition[rows],
                return_dict=False,
            )[0]

        latents = yield from self.latents(denoiser, cast(Any, self.unet.config).in_channels, generators, options)
        return self.pixels(self.vae, latents)

    @classmethod
    def other_arguments(cls, folder: Path, negative: Tensor | None) -> dict[str, Any]:
        """Returns the empty text; "no condition" is zeros."""
        return {"empty_text": clip_text(folder)}
