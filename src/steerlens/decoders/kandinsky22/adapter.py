"""The Kandinsky 2.2 decoder: a latent diffusion model conditioned on a CLIP image embedding, with a MoVQ autoencoder.

It serves every `KandinskyV22Pipeline` folder: the paper's and the bundled small one.

References: A. Razzhigaev et al., "Kandinsky: an Improved Text-to-Image Synthesis with Image Prior and Latent
Diffusion", arXiv 2310.03502; A. Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents"
(unCLIP), arXiv 2204.06125; C. Zheng et al., "MoVQ", arXiv 2209.09002.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from diffusers import UNet2DConditionModel, VQModel
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders.base import DecodeOptions, DecoderSpec
from steerlens.decoders.diffusion import DiffusionDecoder, Sampled, in_slices, latent_size, vae_scale, with_negative
from steerlens.decoders.kandinsky22 import FAMILIES
from steerlens.decoders.preview import Previews
from steerlens.decoders.sampling import Rows
from steerlens.errors import ModelError
from steerlens.storage import read_json


class Kandinsky22Decoder(DiffusionDecoder):
    """Decodes image embeddings (N,E) as `KandinskyV22Pipeline` does; each picture is reproducible by itself.

    Args:
        unet: the denoising network.
        movq: the autoencoder; latents are used unquantised.
        scheduler_config: the saved scheduler's config, whose noise schedule every sampler uses.
        negative_embedding: what stands for "no condition" under guidance: the encoder's embedding of an all-zero
            `pixel_values` tensor.
        name: its name in reports.
        defaults: its default options; by default those of diffusers' pipeline.

    Raises:
        ModelError: if the network takes no image embedding, or the negative embedding is of another size.
    """

    family: ClassVar[str] = "kandinsky-2.2"
    saved_as = FAMILIES["kandinsky-2.2"]
    previews = True

    def __init__(
        self,
        unet: UNet2DConditionModel,
        movq: VQModel,
        scheduler_config: Mapping[str, Any],
        negative_embedding: Float[Tensor, "1 E"],
        name: str = "kandinsky-2.2",
        defaults: DecodeOptions | None = None,
    ) -> None:
        self.network = self.unet = unet.eval()
        self.movq = movq.eval()
        self.scheduler_config = dict(scheduler_config)
        size = self._embedding_size(cast(Any, unet.config), name)
        if negative_embedding.shape != (1, size):
            raise ModelError(
                f"{name}: the decoder reads embeddings of size {size}, the encoder gives "
                f"{negative_embedding.shape[-1]}: this encoder and this decoder do not fit."
            )
        self.negative_embedding = negative_embedding.float()
        self.scale = vae_scale(movq)
        self._previews = Previews(self._latents_of, self.scale)
        self.spec = DecoderSpec(
            name=name,
            family=self.family,
            consumes="image_embedding",
            embedding_size=size,
            defaults=defaults or DecodeOptions(100, 4.0, "ddpm", latent_size(unet, self.scale)),
        )

    def _embedding_size(self, config: Any, name: str) -> int:
        if config.encoder_hid_dim_type != "image_proj" or config.addition_embed_type != "image":
            raise ModelError(f"{name}: the UNet is not conditioned on image embeddings, as a Kandinsky 2.2 decoder is.")
        return config.encoder_hid_dim

    def _latents_of(self, pictures: Tensor) -> Tensor:
        movq = cast(Any, self.movq)
        return movq.encode(pictures.to(self.device, movq.dtype)).latents

    def text(self, rows: int) -> Mapping[str, Tensor | None]:
        """Returns the text conditioning of each row, beside the image embedding: none here."""
        return {"encoder_hidden_states": None}

    @classmethod
    def check_folder(cls, folder: Path, negative: Tensor | None, name: str) -> None:
        """Compares the sizes in the configs with each other and with the encoder's embedding.

        Raises:
            ModelError: if they do not fit.
        """
        config, movq_config = (read_json(folder / part / "config.json", part) for part in ("unet", "movq"))
        if negative is None:
            raise ModelError(f"{name}: the decoder needs the encoder's embedding of an all-zero input as `negative`.")
        if config.get("encoder_hid_dim") not in (None, negative.shape[-1]):
            raise ModelError(
                f"{name}: the decoder reads embeddings of size {config['encoder_hid_dim']}, the encoder gives "
                f"{negative.shape[-1]}: they do not fit."
            )
        if config.get("in_channels") != movq_config.get("latent_channels"):
            raise ModelError(
                f"{name}: the UNet denoises {config.get('in_channels')} channels and the MoVQ decodes "
                f"{movq_config.get('latent_channels')}: they do not belong together."
            )

    @classmethod
    def other_arguments(cls, folder: Path, negative: Tensor | None) -> dict[str, Any]:
        """Returns the embedding for "no condition"."""
        return {"negative_embedding": negative}

    @classmethod
    def folder_defaults(cls, arguments: Mapping[str, Any]) -> DecodeOptions:
        """A quarter of the pipeline's own 100 steps of DDPM, with a better sampler."""
        size = latent_size(arguments["unet"], vae_scale(arguments["movq"]))
        return DecodeOptions(25, 4.0, "dpm++", size)

    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        """Decodes one batch of embeddings."""
        condition = values.to(self.device, self.dtype)
        condition = with_negative(condition, self.negative_embedding, options.guidance)
        text = self.text(len(condition))

        def denoiser(latents: Tensor, timestep: Tensor, rows: Rows) -> Tensor:
            given = {name: None if value is None else value[rows] for name, value in text.items()}
            return self.unet(
                latents.to(self.dtype),
                timestep,
                encoder_hidden_states=cast(Any, given.pop("encoder_hidden_states")),
                added_cond_kwargs=cast(Any, {"image_embeds": condition[rows], **given}),
                return_dict=False,
            )[0]

        latents = yield from self.latents(denoiser, cast(Any, self.unet.config).in_channels, generators, options)

        if options.preview:
            return self._previews(latents, options.size)

        def decode(rows: Tensor) -> Tensor:
            return cast(Any, self.movq.decode(rows.to(self.movq.dtype), force_not_quantize=True)).sample

        return in_slices(decode, latents, self.scale)
