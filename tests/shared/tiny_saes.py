"""Tiny sparse autoencoders with random weights, of any site of a tiny encoder."""

from typing import Literal

import torch

from steerlens.encoders import Encoder
from steerlens.saes import Activation, Normalisation, ReLU, SparseAutoencoder
from steerlens.sites import Site


def tiny_sae(
    encoder: Encoder,
    site: str = "resid_post.1",
    *,
    name: str = "tiny",
    features: int = 40,
    seed: int = 0,
    activation: Activation | None = None,
    normalisation: Normalisation | None = None,
    space: Literal["residual", "head_values"] = "residual",
) -> SparseAutoencoder:
    """An autoencoder with random weights, whose width is that of the site."""
    spec = encoder.spec
    place = Site.parse(site) if site != "embedding" else "embedding"
    width = spec.embedding_size if place == "embedding" else spec.width
    if space == "head_values" and isinstance(place, Site) and place.kind == "head":
        width = spec.width // spec.n_heads
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return SparseAutoencoder(
        name=name,
        site=place,  # type: ignore[arg-type]
        W_enc=random(width, features) / width**0.5,
        W_dec=torch.nn.functional.normalize(random(features, width), dim=-1),
        b_enc=0.1 * random(features),
        b_dec=0.2 * random(width),
        activation=activation or ReLU(),
        normalisation=normalisation or Normalisation(),
        space=space,
    )
