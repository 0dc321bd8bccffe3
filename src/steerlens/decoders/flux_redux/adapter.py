"""FLUX.1 Redux: a flow-matching transformer conditioned on the image tokens of SigLIP; the text is left empty.

    tokens = LN(r_L)                       with the weights of SigLIP's own norm
    condition = [0 of the text; W2 silu(W1 tokens)]
    x_{t-d} = x_t - d v(x_t, t, condition, g)      Euler steps from noise to latents; g is an input of the network

References: Black Forest Labs, "FLUX.1 Tools", 2024; X. Liu, C. Gong, Q. Liu, "Flow Straight and Fast",
arXiv 2209.03003; P. Esser et al., "Scaling Rectified Flow Transformers", arXiv 2403.03206 (the shift of time steps).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.decoders.base import DecodeOptions, DecoderSpec, TokenSource
from steerlens.decoders.diffusion import DiffusionDecoder, Sampled, in_slices, vae_scale
from steerlens.decoders.flux_redux import FAMILIES, embedder_file
from steerlens.decoders.flux_redux.weights import read_embedder, read_norm
from steerlens.decoders.sampling import draw, flow_scheduler
from steerlens.encoders import Encoder
from steerlens.progress import Progress

_TEXT_TOKENS = 512
"""Tokens of the empty text, all zeros, as in `FluxPriorReduxPipeline` without text encoders."""

_SIDE = 128
"""Latent pixels along one side of the pictures that `FluxPipeline` draws by default."""


class FluxReduxDecoder(DiffusionDecoder):
    """Decodes image tokens (N,T,D) as `FluxPriorReduxPipeline` and `FluxPipeline` do without a text.

    Args:
        transformer: the denoising network.
        vae: the autoencoder.
        scheduler_config: the saved scheduler's config.
        embedder: Redux, which turns image tokens into tokens of the text.
        norm: SigLIP's final norm.
        name: its name in reports.
        defaults: its default options; by default those of diffusers' pipeline.
    """

    saved_as = FAMILIES["flux-redux"]

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        scheduler_config: Mapping[str, Any],
        embedder: ReduxImageEncoder,
        norm: nn.LayerNorm,
        name: str = "flux-redux",
        defaults: DecodeOptions | None = None,
    ) -> None:
        self.transformer: Any = transformer.eval()
        self.network = self.transformer
        self.vae: Any = vae.eval()
        self.embedder: Any = embedder.eval()
        self.norm = norm
        self.scheduler_config = dict(scheduler_config)
        self.scale = 2 * vae_scale(vae)  # a token of the network is a square of 2 x 2 latent pixels
        side = _SIDE * vae_scale(vae)
        self.spec = DecoderSpec(
            name=name,
            family="flux-redux",
            consumes="image_tokens",
            embedding_size=self.embedder.config.redux_dim,
            defaults=defaults or DecodeOptions(50, 2.5, "euler", (side, side)),
            tokens=TokenSource(),
        )

    def batch_size(self, options: DecodeOptions) -> int:
        """Returns the number of pictures decoded at once: one, unless the options say otherwise."""
        return options.batch_size or 1

    @classmethod
    def negative_of(cls, encoder: Encoder) -> None:
        """Returns None: guidance is an input of the network, without a second pass."""

    @torch.no_grad()
    def tokens(self, residual: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
        """Turns the final residual of every token into conditioning, by SigLIP's norm."""
        weight = self.norm.weight
        return self.norm(residual.to(weight.device, weight.dtype))

    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        """Decodes one batch of image tokens."""
        rows = self.embedder(values.to(self.device, self.dtype)).image_embeds
        empty = rows.new_zeros(len(rows), _TEXT_TOKENS, rows.shape[-1])
        pooled = rows.new_zeros(len(rows), self.transformer.config.pooled_projection_dim)
        condition = torch.cat([empty, rows], dim=1)
        height, width = (side // self.scale for side in options.size)
        places = torch.zeros(height, width, 3, device=self.device, dtype=self.dtype)
        places[..., 1] += torch.arange(height, device=self.device)[:, None]
        places[..., 2] += torch.arange(width, device=self.device)
        channels = self.transformer.config.in_channels // 4
        latents = packed(draw(generators, (channels, 2 * height, 2 * width))).to(self.device)
        scheduler = flow_scheduler(self.scheduler_config, options, height * width, self.device)
        for done, timestep in enumerate(scheduler.timesteps):
            strength = options.guidance if options.guided(done) else 1.0
            guidance = torch.full((len(rows),), strength, device=self.device)
            velocity = self.transformer(
                hidden_states=latents.to(self.dtype),
                timestep=timestep.expand(len(rows)).to(self.dtype) / 1000,
                guidance=guidance if self.transformer.config.guidance_embeds else None,
                pooled_projections=pooled,
                encoder_hidden_states=condition,
                txt_ids=places.new_zeros(condition.shape[1], 3),
                img_ids=places.flatten(0, 1),
                return_dict=False,
            )[0]
            latents = scheduler.step(velocity.float(), timestep, latents, return_dict=False)[0]
            yield Progress("denoising", done + 1, options.steps, "steps")
        config = self.vae.config
        scaled = unpacked(latents, height, width) / config.scaling_factor + config.shift_factor
        return in_slices(
            lambda some: self.vae.decode(some.to(self.vae.dtype), return_dict=False)[0], scaled, self.scale // 2
        )

    @classmethod
    def put_in(cls, weights: Path | None, arguments: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
        """Reads Redux and SigLIP's norm, which are in one repository.

        Raises:
            ModelError: if one is missing or broken.
        """
        file, network = weights or embedder_file(folder), arguments["transformer"]
        norm = read_norm(file.parent.parent / "image_encoder").to(network.device)
        return {"embedder": read_embedder(file).to(network.device, network.dtype), "norm": norm}


def packed(latents: Float[Tensor, "B c h w"]) -> Float[Tensor, "B t C"]:
    """Joins each square of 2 x 2 latent pixels into one token, C = 4 c."""
    squares = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Float[Tensor, "B t C"], height: int, width: int) -> Float[Tensor, "B c h w"]:
    """Splits tokens, (height, width) of them, into squares of 2 x 2 latent pixels: the inverse of `packed`."""
    squares = tokens.unflatten(1, (height, width)).unflatten(3, (-1, 2, 2))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
