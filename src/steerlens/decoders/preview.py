"""Previews without the autoencoder: a linear map from latents to colours, for quick rankings.

Latents of an autoencoder resemble a small, recoloured picture. The map is fitted once per decoder, by least squares on
fixed patterns of colours that pass through its own encoder:

    min over W, b of  sum_x || W E(x) + b - pool(x) ||^2     E the autoencoder's encoder, pool the mean over its patches

Previews are blurred and lack texture: `steerlens study decoder` and `benchmarks/bench_sweep.py` measure how far
rankings by it agree with those by full pictures.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_PATTERNS = 12
"""Number of patterns for the fit: each gives as many equations as there are latent pixels."""


def colour_patterns(size: tuple[int, int]) -> Float[Tensor, "N 3 height width"]:
    """Returns fixed pictures of smooth and flat patches of colour, in [-1,1]."""
    generator = torch.Generator("cpu").manual_seed(0)
    grids = [torch.rand(1, 3, cells, cells, generator=generator) * 2 - 1 for cells in range(2, 2 + _PATTERNS)]
    modes = ("bilinear", "nearest")
    return torch.cat([functional.interpolate(grid, size, mode=modes[row % 2]) for row, grid in enumerate(grids)])


def fit_colours(
    encode: Callable[[Float[Tensor, "N 3 height width"]], Float[Tensor, "N c h w"]], size: tuple[int, int], scale: int
) -> Float[Tensor, "c_plus_1 3"]:
    """Fits the map from latents to colours; its last row is the constant.

    Args:
        encode: maps pictures in [-1,1] to latents, scaled like the denoising network's.
        size: height and width of the pictures.
        scale: pixels for each latent pixel, along one side.
    """
    patterns = colour_patterns(size)
    latents = torch.cat([encode(pattern[None]).float().cpu() for pattern in patterns])
    colours = functional.avg_pool2d(patterns, scale).movedim(1, -1).reshape(-1, 3)
    rows = latents.movedim(1, -1).reshape(len(colours), -1)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    return torch.linalg.lstsq(rows.double(), colours.double()).solution.float()


def preview(
    latents: Float[Tensor, "B c h w"], colours: Float[Tensor, "c_plus_1 3"], scale: int
) -> Float[Tensor, "B 3 height width"]:
    """Computes pixels, about in [-1,1], of the size of the autoencoder's pictures."""
    weights = colours.to(latents.device, torch.float32)
    pixels = torch.einsum("bchw,ck->bkhw", latents.float(), weights[:-1]) + weights[-1][:, None, None]
    return functional.interpolate(pixels, scale_factor=scale, mode="bilinear")


class Previews:
    """Previews of one autoencoder, whose map is fitted at first use for each size of pictures.

    Args:
        encode: maps pictures in [-1,1] to latents, scaled like the denoising network's.
        scale: pixels for each latent pixel, along one side.
    """

    def __init__(
        self, encode: Callable[[Float[Tensor, "N 3 height width"]], Float[Tensor, "N c h w"]], scale: int
    ) -> None:
        self._encode, self._scale = encode, scale
        self._fitted: dict[tuple[int, int], Tensor] = {}

    @torch.no_grad()
    def __call__(self, latents: Float[Tensor, "B c h w"], size: tuple[int, int]) -> Float[Tensor, "B 3 height width"]:
        """Computes pixels, about in [-1,1]."""
        if size not in self._fitted:
            self._fitted[size] = fit_colours(self._encode, size, self._scale)
        return preview(latents, self._fitted[size], self._scale)
