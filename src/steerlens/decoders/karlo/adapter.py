"""The Karlo decoder: unCLIP in pixels, a decoder of 64 x 64 and a super-resolution of 256 x 256, both diffusion models.

The text is the empty one; without a condition the image embedding is a learned one. diffusers calls the pipeline
deprecated and still ships it.

References: A. Ramesh et al. (unCLIP), arXiv 2204.06125; D. Lee et al., "Karlo-v1.0.alpha", Kakao Brain, 2022.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from steerlens.decoders.base import DecodeOptions, DecoderSpec
from steerlens.decoders.diffusion import DiffusionDecoder, Sampled
from steerlens.decoders.karlo import FAMILIES
from steerlens.decoders.sampling import Rows, denoise, make_scheduler, total_steps
from steerlens.decoders.text import Text, projected_text
from steerlens.errors import UsageError
from steerlens.progress import part_of

SUPER_RESOLUTION_STEPS = 7
"""Steps of the second model, as in the pipeline; its own sampler always."""


class KarloDecoder(DiffusionDecoder):
    """Decodes image embeddings (N,E) as `UnCLIPImageVariationPipeline` does, at the one size it was trained for.

    Args:
        decoder: the network of small pictures.
        text_proj: puts the embedding into tokens and the time embedding (`UnCLIPTextProjModel`).
        super_res_first: the network of all but the last step of super-resolution.
        super_res_last: the network of the last step.
        scheduler_config: config of the decoder's scheduler.
        super_res_config: config of the super-resolution's scheduler.
        empty_text: the encoded empty text, with mask.
        name: its name in reports.
        defaults: its default options; by default those of diffusers' pipeline.
    """

    saved_as = FAMILIES["karlo"]

    def __init__(
        self,
        decoder: UNet2DConditionModel,
        text_proj: nn.Module,
        super_res_first: UNet2DModel,
        super_res_last: UNet2DModel,
        scheduler_config: Mapping[str, Any],
        super_res_config: Mapping[str, Any],
        empty_text: Text,
        name: str = "karlo",
        defaults: DecodeOptions | None = None,
    ) -> None:
        self.network = self.decoder = decoder.eval()
        self.text_proj: Any = text_proj.eval()
        self.super_res_first, self.super_res_last = super_res_first.eval(), super_res_last.eval()
        self.scheduler_config, self.super_res_config = dict(scheduler_config), dict(super_res_config)
        self.empty_text = empty_text
        small, large = cast(Any, decoder.config).sample_size, cast(Any, super_res_first.config).sample_size
        self.scale, self._side = large // small, large
        self.spec = DecoderSpec(
            name=name,
            family="karlo",
            consumes="image_embedding",
            embedding_size=self.text_proj.clip_image_embeddings_project_to_time_embeddings.in_features,
            defaults=defaults or DecodeOptions(25, 8.0, "ddpm", (large, large)),
        )

    def check_size(self, size: tuple[int, int]) -> None:
        """Checks that the size is that of the network.

        Raises:
            UsageError: if it is not.
        """
        if size != (self._side, self._side):
            raise UsageError(
                f"{self.spec.name} gives pictures of {self._side} x {self._side} pixels alone, not {size}."
            )

    def steps(self, options: DecodeOptions) -> int:
        """Returns the steps of progress of one batch, super-resolution included."""
        return total_steps(options) + SUPER_RESOLUTION_STEPS

    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        """Decodes one batch of embeddings."""
        small = yield from self._small(values, generators, options)
        first = total_steps(options)
        larger = self._larger(small.clamp(-1, 1), generators)
        return (yield from part_of(larger, "denoising", first, self.steps(options)))

    def _small(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        guided = options.guidance > 1
        rows = len(values) * (2 if guided else 1)
        text = self.empty_text.to(self.device, self.dtype)
        states, additive = self.text_proj(
            image_embeddings=values.to(self.device, self.dtype),
            prompt_embeds=text.pooled_for(rows),
            text_encoder_hidden_states=text.states_for(rows),
            do_classifier_free_guidance=guided,
        )
        mask = functional.pad(text.mask_for(rows), (self.text_proj.clip_extra_context_tokens, 0), value=True)

        def denoiser(latents: Tensor, timestep: Tensor, rows: Rows) -> Tensor:
            return self.decoder(
                latents.to(self.dtype),
                timestep,
                encoder_hidden_states=states[rows],
                class_labels=additive[rows],
                attention_mask=mask[rows],
                return_dict=False,
            )[0]

        return (yield from self.latents(denoiser, cast(Any, self.decoder.config).in_channels, generators, options))

    def _larger(self, small: Float[Tensor, "B 3 h w"], generators: Sequence[torch.Generator]) -> Sampled:
        size = (self._side, self._side)
        upscaled = functional.interpolate(small, size=size, mode="bicubic", align_corners=False, antialias=True)
        scheduler = make_scheduler(self.super_res_config, "ddpm")

        def denoiser(pixels: Tensor, timestep: Tensor, rows: Rows) -> Tensor:
            last = int(timestep) == int(scheduler.timesteps[-1])
            network = self.super_res_last if last else self.super_res_first
            return network(torch.cat([pixels, upscaled[rows]], dim=1).to(self.dtype), timestep, return_dict=False)[0]

        return (
            yield from denoise(
                denoiser,
                scheduler,
                (small.shape[1], *size),
                generators,
                steps=SUPER_RESOLUTION_STEPS,
                guidance=1.0,
                device=self.device,
            )
        )

    @classmethod
    def other_arguments(cls, folder: Path, negative: Tensor | None) -> dict[str, Any]:
        """Returns the empty text; "no condition" is a learned embedding."""
        return {"empty_text": projected_text(folder)}
