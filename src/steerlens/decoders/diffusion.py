"""Base class of diffusion decoders: batches, a random generator per picture, and progress.

A family's own file only defines how a conditioning enters its network and how latents become pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, DecoderSpec, check_request
from steerlens.decoders.sampling import Denoiser, denoise, generators_of, make_scheduler, total_steps
from steerlens.decoders.saved import SavedDecoder
from steerlens.errors import ModelError, UsageError
from steerlens.progress import Progress

_BATCH_LATENTS = 64 * 16 * 16
"""Latent pixels decoded at once on a CPU by default: 64 pictures of 16 x 16, or 4 of 64 x 64."""

_BATCH_LATENTS_CUDA = 32 * 64 * 64

_SLICE_PIXELS = 4 * 768 * 768
"""Pixels that an autoencoder decodes at once: its full-resolution layers need more memory than the denoiser."""

Sampled = Generator[Progress, None, Float[Tensor, "B 3 height width"]]
"""Yields progress in denoising steps and returns pixels, about in [-1,1]."""


def default_batch_size(size: tuple[int, int], scale: int, device: torch.device) -> int:
    """Returns the default batch size: the smaller the picture, the larger the batch.

    Args:
        size: height and width in pixels.
        scale: pixels for each latent pixel, along one side.
        device: device of the decoder.
    """
    budget = _BATCH_LATENTS_CUDA if device.type == "cuda" else _BATCH_LATENTS
    return max(1, budget * scale**2 // (size[0] * size[1]))


class DiffusionDecoder(SavedDecoder, ABC):
    """A decoder that denoises; the base of every such adapter of this package.

    Attributes:
        spec: its input and output.
        network: the denoising network.
        scale: pixels for each latent pixel, along one side.
        scheduler_config: the saved scheduler's config, whose noise schedule every sampler uses.
        previews: whether it can skip its autoencoder.
        stored_as: storage of the network's weights, if it is not their precision: `fp8` or `int8`.
        computes_in: precision of the network, if its weights are stored otherwise.
        computes_on: device of the network, if its weights are kept on the host.
    """

    previews: ClassVar[bool] = False
    stored_as: str = ""
    computes_in: torch.dtype | None = None
    computes_on: torch.device | None = None
    spec: DecoderSpec
    network: nn.Module
    scale: int
    scheduler_config: Mapping[str, Any]

    @abstractmethod
    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        """Decodes one batch, (B,E) or (B,T,D), each row with its own generator."""

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.computes_on or next(self.network.parameters()).device

    def compile(self) -> None:
        """Compiles the denoising network with `torch.compile`, worthwhile for many pictures of one size on a GPU."""
        self.network.compile()

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoising network, in which it computes."""
        return self.computes_in or next(self.network.parameters()).dtype

    def batch_size(self, options: DecodeOptions) -> int:
        """Returns the batch size: that of the options, or a default for the device and the size of a picture."""
        if options.batch_size is not None:
            return options.batch_size
        return default_batch_size(options.size, self.scale, self.device)

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        """Decodes batch after batch, with progress after each denoising step.

        Args:
            conditioning: rows of the kind `spec.consumes`, unnormalised, as the encoder gives them.
            seeds: one per picture.
            options: options of decoding; by default the decoder's own.

        Raises:
            ModelError: if the conditioning is of another kind or size, or a picture is not finite.
            UsageError: if the seeds or the size of the pictures do not fit.
        """
        options = options or self.spec.defaults
        check_request(self.spec, conditioning, seeds)
        self.check_size(options.size)
        size, total = self.batch_size(options), self.steps(options)
        for start in range(0, len(seeds), size):
            chosen = seeds[start : start + size]
            running = self.sample(conditioning.values[start : start + size], generators_of(chosen), options)
            while True:
                try:
                    with torch.no_grad():
                        step = next(running)
                except StopIteration as end:
                    pixels = end.value
                    break
                # One step more: the autoencoder follows.
                done = start + len(chosen) * step.done / (total + 1)
                yield Progress("decoding", done, len(seeds), "pictures")
            finished = Decoded(start, self._pictures(pixels))
            yield Progress("decoding", start + len(chosen), len(seeds), "pictures", finished)

    def steps(self, options: DecodeOptions) -> int:
        """Returns the steps of progress of one batch."""
        return total_steps(options)

    def check_size(self, size: tuple[int, int]) -> None:
        """Checks that pictures of a size can be decoded.

        Raises:
            UsageError: if they cannot.
        """
        if any(side % self.scale for side in size):
            raise UsageError(f"height and width must be multiples of {self.scale}, not {size}.")

    def latents(
        self, denoiser: Denoiser, channels: int, generators: Sequence[torch.Generator], options: DecodeOptions
    ) -> Generator[Progress, None, Float[Tensor, "B c h w"]]:
        """Runs the shared denoising loop, at the latent size of the options."""
        height, width = (side // self.scale for side in options.size)
        return denoise(
            denoiser,
            make_scheduler(self.scheduler_config, options.scheduler),
            (channels, height, width),
            generators,
            steps=options.steps,
            guidance=options.guidance,
            interval=options.guidance_interval,
            device=self.device,
        )

    def pixels(self, vae: Any, latents: Float[Tensor, "B c h w"]) -> Float[Tensor, "B 3 height width"]:
        """Decodes latents by Stable Diffusion's autoencoder, scaled as in its config."""
        config = vae.config
        mean, std = (getattr(config, key, None) for key in ("latents_mean", "latents_std"))
        if mean is not None and std is not None:
            mean, std = (torch.tensor(row).view(1, -1, 1, 1).to(latents) for row in (mean, std))
            latents = latents * std / config.scaling_factor + mean
        else:
            latents = latents / config.scaling_factor
        return in_slices(lambda rows: vae.decode(rows.to(vae.dtype), return_dict=False)[0], latents, self.scale)

    def _pictures(self, pixels: Float[Tensor, "B 3 height width"]) -> Float[Tensor, "B 3 height width"]:
        pictures = (pixels.float() * 0.5 + 0.5).clamp(0, 1).cpu()
        if not torch.isfinite(pictures).all():
            raise ModelError(f"{self.spec.name} gave pictures that are not finite; try --dtype float32.")
        return pictures


def in_slices(decode: Callable[[Tensor], Tensor], latents: Float[Tensor, "B c h w"], scale: int) -> Tensor:
    """Decodes latents a few at a time, so that the autoencoder does not limit the batch of the denoising network.

    Large pictures are not cut into tiles: the autoencoder normalises over the whole picture and attends to all of it,
    so that tiles would change the picture and show seams.

    Args:
        decode: the autoencoder's decoder, whose rows do not depend on each other.
        latents: latents to decode.
        scale: pixels for each latent pixel, along one side.
    """
    rows = max(1, _SLICE_PIXELS // (latents.shape[-2] * latents.shape[-1] * scale**2))
    return torch.cat([decode(some) for some in latents.split(rows)])


def with_negative(condition: Tensor, negative: Tensor | None, guidance: float) -> Tensor:
    """Returns the conditioning of one pass: under guidance with the unconditional half first, zeros by default."""
    if guidance <= 1:
        return condition
    if negative is None:
        return torch.cat([torch.zeros_like(condition), condition])
    return torch.cat([negative.to(condition).expand_as(condition), condition])


def vae_scale(vae: Any) -> int:
    """Returns the pixels for each latent pixel of an autoencoder, along one side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def latent_size(network: Any, scale: int) -> tuple[int, int]:
    """Returns the height and width in pixels that a network was trained for."""
    side = network.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return height * scale, width * scale
