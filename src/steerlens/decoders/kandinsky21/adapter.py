"""The Kandinsky 2.1 decoder: as 2.2, but its UNet also reads a text, which is empty here.

The text part is neutral: the empty text stands in both halves of guidance, so that pictures differ by their image
embedding alone. Under guidance the image half goes from the embedding of an all-zero input to the given one.

References: A. Razzhigaev et al., arXiv 2310.03502; A. Ramesh et al. (unCLIP), arXiv 2204.06125.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel, VQModel
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.decoders.diffusion import latent_size, vae_scale
from steerlens.decoders.kandinsky21 import FAMILIES
from steerlens.decoders.kandinsky22.adapter import Kandinsky22Decoder
from steerlens.decoders.text import Text, multilingual_text
from steerlens.errors import ModelError


class Kandinsky21Decoder(Kandinsky22Decoder):
    """Decodes image embeddings (N,E) as `KandinskyPipeline` does with empty texts.

    Args:
        unet: the denoising network.
        movq: the autoencoder; latents are used unquantised.
        scheduler_config: the saved scheduler's config.
        negative_embedding: as for Kandinsky 2.2.
        empty_text: the encoded empty text.
        name: its name in reports.
        defaults: its default options; by default those of diffusers' pipeline.

    Raises:
        ModelError: if the network does not read text and image, or a size does not fit.
    """

    family = "kandinsky-2.1"
    saved_as = FAMILIES["kandinsky-2.1"]

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
        """Returns the empty text, for each row."""
        text = self.empty_text.to(self.device, self.dtype)
        return {"encoder_hidden_states": text.states_for(rows), "text_embeds": text.pooled_for(rows)}

    @classmethod
    def check_folder(cls, folder: Path, negative: Tensor | None, name: str) -> None:
        """Leaves sizes to the constructor: the config's `encoder_hid_dim` is that of the text here."""

    @classmethod
    def other_arguments(cls, folder: Path, negative: Tensor | None) -> dict[str, Any]:
        """Returns the embedding for "no condition", and the empty text."""
        return {"negative_embedding": negative, "empty_text": multilingual_text(folder)}

    @classmethod
    def folder_defaults(cls, arguments: Mapping[str, Any]) -> DecodeOptions:
        """The defaults of diffusers' pipeline."""
        size = latent_size(arguments["unet"], vae_scale(arguments["movq"]))
        return DecodeOptions(100, 4.0, "ddim", size)
