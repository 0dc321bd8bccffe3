"""A decoder family as a plug-in package writes it: this folder and one entry point are all there is of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlens.decoders import DecodeOptions, DecoderSpec, DiffusionDecoder, Family, FolderPart

FAMILIES = {
    "toy": Family(
        pipeline="ToyPipeline",
        parts={
            "unet": FolderPart("diffusers", "unet", "UNet2DConditionModel"),
            "vae": FolderPart("diffusers", "vae", "AutoencoderKL"),
            "scheduler": FolderPart("scheduler", "scheduler_config"),
        },
        encoder={"image_encoder": "transformers", "image_processor": "processor"},
    )
}


class ToyDecoder(DiffusionDecoder):
    """Stable Diffusion's parts, with the image embedding as the only token of cross attention; no guidance."""

    saved_as = FAMILIES["toy"]

    def __init__(
        self,
        unet: Any,
        vae: Any,
        scheduler_config: dict[str, Any],
        negative: Tensor | None = None,
        name: str = "toy",
        defaults: DecodeOptions | None = None,
    ) -> None:
        self.network, self.vae, self.scheduler_config, self.negative = unet, vae, scheduler_config, negative
        self.scale = 2 ** (len(vae.config.block_out_channels) - 1)
        side = unet.config.sample_size * self.scale
        defaults = defaults or DecodeOptions(4, 1.0, "ddim", (side, side))
        self.spec = DecoderSpec(name, "toy", "image_embedding", unet.config.cross_attention_dim, defaults)

    @classmethod
    def other_arguments(cls, folder: Path, negative: Tensor | None) -> dict[str, Any]:
        return {"negative": negative}

    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Any:
        states = values.to(self.device, self.dtype)[:, None]
        if options.guidance > 1:
            states = torch.cat([torch.zeros_like(states), states])

        def denoiser(latents: Tensor, timestep: Tensor, rows: Any) -> Tensor:
            return self.network(
                latents.to(self.dtype), timestep, encoder_hidden_states=states[rows], return_dict=False
            )[0]

        latents = yield from self.latents(denoiser, self.network.config.in_channels, generators, options)
        return self.pixels(self.vae, latents)
