"""The Kandinsky 2.1 decoder: as 2.2, but its UNet reads a text beside the image embedding; here the empty one.

The text part is neutral: the empty text stands in both halves of guidance, so that pictures differ by their image
embedding alone. Under guidance the image half goes from the embedding of an all-zero input to the one asked for.

References: A. Razzhigaev et al., arXiv 2310.03502; A. Ramesh et al. (unCLIP), arXiv 2204.06125.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel, VQModel
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.decoders.diffusion import latent_size, vae_scale
from steerlens.decoders.folder import load_component, load_config
from steerlens.decoders.kandinsky22 import Kandinsky22Decoder
from steerlens.decoders.text import Text, multilingual_text
from steerlens.errors import ModelError


class Kandinsky21Decoder(Kandinsky22Decoder):
    """Decodes image embeddings (N,E) as `KandinskyPipeline` does with empty texts.

    Args:
        unet: the denoising network.
        movq: the autoencoder; latents are used unquantised.
        scheduler_config: the saved scheduler's config.
        negative_embedding: as for Kandinsky 2.2.
        empty_text: the empty text as the pipeline's text encoder gives it.
        name: what to call it in reports.
        defaults: the options it is meant to be run with; by default those of diffusers' pipeline.

    Raises:
        ModelError: if the network does not read text and image, or a size does not fit.
    """

    family = "kandinsky-2.1"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        movq: VQModel,
        scheduler_config: Mapping[str, Any],
        negative_embedding: Float[Tensor, "1 E"],
        empty_text: Text,
        name: str = "kandinsky-2.1",
        defaults: DecodeOptions | None = None,
    ) -> None:
        super().__init__(unet, movq, scheduler_config, negative_embedding, name, defaults)
        self.empty_text = empty_text

    def _embedding_size(self, config: Any, name: str) -> int:
        if config.encoder_hid_dim_type != "text_image_proj" or config.addition_embed_type != "text_image":
            raise ModelError(f"{name}: the UNet does not read text and image, as a Kandinsky 2.1 decoder does.")
        # Its projections of the image embedding are declared by the width of cross attention.
        return config.cross_attention_dim

    def text(self, rows: int) -> Mapping[str, Tensor | None]:
        """The empty text, for so many rows."""
        text = self.empty_text.to(self.device, self.dtype)
        return {"encoder_hidden_states": text.states_for(rows), "text_embeds": text.pooled_for(rows)}

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        negative: Float[Tensor, "1 E"],
        *,
        device: torch.device,
        dtype: torch.dtype,
        name: str = "",
        options: DecodeOptions | None = None,
    ) -> "Kandinsky21Decoder":
        """Loads a saved `KandinskyPipeline`; its text encoder is used once and not kept.

        Raises:
            ModelError: if a component is missing or broken.
        """
        text = multilingual_text(folder)
        unet = load_component(folder, "unet", UNet2DConditionModel, device, dtype)
        movq = load_component(folder, "movq", VQModel, device, dtype)
        options = options or DecodeOptions(100, 4.0, "ddim", latent_size(unet, vae_scale(movq)))
        return cls(unet, movq, load_config(folder, "scheduler"), negative, text, name or str(folder), options)
