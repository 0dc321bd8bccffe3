"""The Kandinsky 2.2 decoder: a latent diffusion model conditioned on a CLIP image embedding, with a MoVQ autoencoder.

It serves every `KandinskyV22Pipeline` folder: the paper's and the bundled small one.

References: A. Razzhigaev et al., "Kandinsky: an Improved Text-to-Image Synthesis with Image Prior and Latent
Diffusion", arXiv 2310.03502; A. Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents"
(unCLIP), arXiv 2204.06125; C. Zheng et al., "MoVQ", arXiv 2209.09002.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel, VQModel
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, DecoderSpec, Denoised, check_request
from steerlens.decoders.sampling import denoise, make_scheduler
from steerlens.errors import ModelError, UsageError

_BATCH_LATENTS = 64 * 16 * 16
"""Latent pixels decoded at once on a CPU by default: 64 pictures of 16 x 16, or 4 of 64 x 64."""

_BATCH_LATENTS_CUDA = 32 * 64 * 64


def default_batch_size(size: tuple[int, int], scale: int, device: torch.device) -> int:
    """Pictures decoded at once when nobody says how many: the smaller the picture, the more.

    Args:
        size: height and width in pixels.
        scale: pixels for each latent pixel, along one side.
        device: where they are decoded.
    """
    budget = _BATCH_LATENTS_CUDA if device.type == "cuda" else _BATCH_LATENTS
    return max(1, budget * scale**2 // (size[0] * size[1]))


class Kandinsky22Decoder:
    """Decodes image embeddings (N,E) as `KandinskyV22Pipeline` does, picture by picture reproducible.

    Args:
        unet: the denoising network.
        movq: the autoencoder; latents are used unquantised.
        scheduler_config: the saved scheduler's config, whose noise schedule every sampler uses.
        negative_embedding: what stands for "no condition" under guidance: the encoder's embedding of an all-zero
            `pixel_values` tensor.
        name: what to call it in reports.
        defaults: the options it is meant to be run with; by default those of diffusers' pipeline.

    Raises:
        ModelError: if the network takes no image embedding, or the negative embedding is of another size.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        movq: VQModel,
        scheduler_config: Mapping[str, Any],
        negative_embedding: Float[Tensor, "1 E"],
        name: str = "kandinsky-2.2",
        defaults: DecodeOptions | None = None,
    ) -> None:
        self.unet, self.movq = unet.eval(), movq.eval()
        self.scheduler_config = dict(scheduler_config)
        config = cast(Any, unet.config)
        if config.encoder_hid_dim_type != "image_proj" or config.addition_embed_type != "image":
            raise ModelError(f"{name}: the UNet is not conditioned on image embeddings, as a Kandinsky 2.2 decoder is.")
        if negative_embedding.shape != (1, config.encoder_hid_dim):
            raise ModelError(
                f"{name}: the decoder reads embeddings of size {config.encoder_hid_dim}, the encoder gives "
                f"{negative_embedding.shape[-1]}: this encoder and this decoder do not fit."
            )
        self.negative_embedding = negative_embedding.float()
        self.scale = 2 ** (len(cast(Any, movq.config).block_out_channels) - 1)
        side = config.sample_size * self.scale
        self.spec = DecoderSpec(
            name=name,
            family="kandinsky-2.2",
            consumes="image_embedding",
            embedding_size=config.encoder_hid_dim,
            defaults=defaults or DecodeOptions(steps=100, guidance=4.0, scheduler="ddpm", size=(side, side)),
        )

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the UNet's weights."""
        return next(self.unet.parameters()).dtype

    def batch_size(self, options: DecodeOptions) -> int:
        """Pictures decoded at once: what the options say, or what suits the device and the size of a picture."""
        if options.batch_size is not None:
            return options.batch_size
        return default_batch_size(options.size, self.scale, self.device)

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Denoised | Decoded]:
        """Decodes batch after batch, telling each step.

        Args:
            conditioning: image embeddings (N,E), of the norm that the encoder gives them.
            seeds: one a picture.
            options: how to decode; by default the decoder's own.

        Raises:
            ModelError: if the embeddings are of another size.
            UsageError: if the seeds or the size of the pictures do not fit.
        """
        options = options or self.spec.defaults
        check_request(self.spec, conditioning, seeds)
        if any(side % self.scale for side in options.size):
            raise UsageError(f"height and width must be multiples of {self.scale}, not {options.size}.")
        size = self.batch_size(options)
        for start in range(0, len(seeds), size):
            chosen = seeds[start : start + size]
            steps = self._latents(conditioning.values[start : start + size], chosen, options)
            while True:
                try:
                    with torch.no_grad():
                        step = next(steps)
                except StopIteration as end:
                    latents = end.value
                    break
                yield Denoised(len(chosen), step, options.steps)
            yield Decoded(start, self._pictures(latents))

    def _latents(self, embeddings: Tensor, seeds: Sequence[int], options: DecodeOptions) -> Any:
        condition = embeddings.to(self.device, self.dtype)
        if options.guidance > 1:
            negative = self.negative_embedding.to(condition).expand_as(condition)
            condition = torch.cat([negative, condition])

        def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
            return self.unet(
                latents.to(self.dtype),
                timestep,
                encoder_hidden_states=cast(Any, None),
                added_cond_kwargs={"image_embeds": condition},
                return_dict=False,
            )[0]

        channels = cast(Any, self.unet.config).in_channels
        height, width = (side // self.scale for side in options.size)
        return denoise(
            denoiser,
            make_scheduler(self.scheduler_config, options.scheduler),
            (channels, height, width),
            seeds,
            steps=options.steps,
            guidance=options.guidance,
            device=self.device,
        )

    @torch.no_grad()
    def _pictures(self, latents: Float[Tensor, "B c h w"]) -> Float[Tensor, "B 3 height width"]:
        decoded = cast(Any, self.movq.decode(latents.to(self.movq.dtype), force_not_quantize=True)).sample
        pictures = (decoded.float() * 0.5 + 0.5).clamp(0, 1).cpu()
        if not torch.isfinite(pictures).all():
            raise ModelError(f"{self.spec.name} gave pictures that are not finite; try --dtype float32.")
        return pictures
