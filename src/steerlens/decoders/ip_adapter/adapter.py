"""IP-Adapter decoders: Stable Diffusion 1.5 with extra cross attention to an image; the text is the empty one.

The plain adapters read the global image embedding and use zeros for "no condition".

References: H. Ye et al., "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models",
arXiv 2308.06721.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from steerlens.conditioning import Consumes
from steerlens.decoders.base import DecodeOptions, DecoderSpec, TokenSource
from steerlens.decoders.diffusion import DiffusionDecoder, Sampled, latent_size, vae_scale, with_negative
from steerlens.decoders.ip_adapter import FAMILIES
from steerlens.decoders.ip_adapter.weights import adapter_file, read_adapter, with_adapter
from steerlens.decoders.sampling import Rows
from steerlens.decoders.text import Text, clip_text
from steerlens.encoders import Encoder
from steerlens.errors import ModelError


class IPAdapterDecoder(DiffusionDecoder):
    """Decodes image embeddings (N,E) as `StableDiffusionPipeline` does with an IP-Adapter and empty prompts.

    Args:
        unet: the denoising network, with the adapter's weights in it (see `with_adapter`).
        vae: the autoencoder.
        scheduler_config: the saved scheduler's config.
        empty_text: the encoded empty prompt.
        negative: the conditioning for "no condition"; zeros if None.
        name: its name in reports.
        defaults: its default options; by default those of diffusers' pipeline.

    Raises:
        ModelError: if the network contains no adapter, or an adapter of another kind.
    """

    family = "ip-adapter-sd15"
    saved_as = FAMILIES["ip-adapter-sd15"]
    consumes: Consumes = "image_embedding"
    token_source: TokenSource | None = None

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler_config: Mapping[str, Any],
        empty_text: Text,
        negative: Tensor | None = None,
        name: str = "",
        defaults: DecodeOptions | None = None,
    ) -> None:
        self.network = self.unet = unet.eval()
        self.vae = vae.eval()
        self.scheduler_config = dict(scheduler_config)
        self.empty_text, self.negative = empty_text, negative
        name = name or self.family
        projection = _projection(unet, name)
        reads: Consumes = "image_tokens" if hasattr(projection, "latents") else "image_embedding"
        if reads != self.consumes:
            raise ModelError(f"{name}: the adapter reads {reads}, which {self.family} does not.")
        entrance = projection.proj_in if reads == "image_tokens" else projection.image_embeds
        if negative is not None and negative.shape[-1] != entrance.in_features:
            raise ModelError(
                f"{name}: the decoder reads {reads} of size {entrance.in_features}, the encoder gives "
                f"{negative.shape[-1]}: this encoder and this decoder do not fit."
            )
        self.scale = vae_scale(vae)
        self.spec = DecoderSpec(
            name=name,
            family=self.family,
            consumes=reads,
            embedding_size=entrance.in_features,
            defaults=defaults or self.own_defaults(latent_size(unet, self.scale)),
            tokens=self.token_source,
        )

    def own_defaults(self, size: tuple[int, int]) -> DecodeOptions:
        """The defaults of diffusers' pipeline."""
        return DecodeOptions(50, 7.5, "pndm", size)

    def added(self, rows: int, options: DecodeOptions) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the text for each row, the unconditional half first, and further arguments of the network."""
        return self.empty_text.to(self.device, self.dtype).states_for(rows), {}

    def sample(self, values: Tensor, generators: Sequence[torch.Generator], options: DecodeOptions) -> Sampled:
        """Decodes one batch of embeddings or tokens."""
        # One picture per row: (B,1,E) or (B,1,T,D).
        image = with_negative(values.to(self.device, self.dtype), self.negative, options.guidance)[:, None]
        states, added = self.added(len(image), options)

        def denoiser(latents: Tensor, timestep: Tensor, rows: Rows) -> Tensor:
            given = {name: value[rows] for name, value in added.items()}
            return self.unet(
                latents.to(self.dtype),
                timestep,
                encoder_hidden_states=states[rows],
                added_cond_kwargs=cast(Any, {**given, "image_embeds": [image[rows]]}),
                return_dict=False,
            )[0]

        latents = yield from self.latents(denoiser, cast(Any, self.unet.config).in_channels, generators, options)
        return self.pixels(self.vae, latents)

    @classmethod
    def negative_of(cls, encoder: Encoder) -> Tensor | None:
        """Returns the conditioning for "no condition"; None for zeros."""
        return None

    @classmethod
    def empty_text_of(cls, folder: Path) -> Text:
        """Encodes the empty prompt by the text encoders in a folder."""
        return clip_text(folder)

    @classmethod
    def other_arguments(cls, folder: Path, negative: Tensor | None) -> dict[str, Any]:
        """Returns the empty text and the conditioning for "no condition"; None for zeros."""
        return {"empty_text": cls.empty_text_of(folder), "negative": negative}

    @classmethod
    def put_in(cls, weights: Path | None, arguments: Mapping[str, Any], folder: Path) -> None:
        """Puts the adapter's weights into the UNet.

        Raises:
            ModelError: if the folder holds none, or they do not belong to this UNet.
        """
        with_adapter(arguments["unet"], read_adapter(weights or adapter_file(folder)))


def _projection(unet: UNet2DConditionModel, name: str) -> Any:
    layers = getattr(getattr(unet, "encoder_hid_proj", None), "image_projection_layers", None)
    if layers is None or len(layers) != 1:
        raise ModelError(
            f"{name}: the UNet should hold one IP-Adapter, and holds {0 if layers is None else len(layers)}."
        )
    if not hasattr(layers[0], "latents") and not hasattr(layers[0], "image_embeds"):
        raise ModelError(f"{name}: an IP-Adapter that projects with {type(layers[0]).__name__} is not supported.")
    return layers[0]
