"""Operations and weights of the families of decoders that can be priced, counted on the meta device from configs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from steerlens.errors import ModelError
from steerlens.storage import quiet_libraries
from steerlens.zoo.architecture import Configs, on_meta


@dataclass(frozen=True, eq=False)
class Counted:
    """A pair without numbers, and the operations of its parts.

    Attributes:
        encoder: the encoder.
        network: what is passed once, or at every step.
        rest: other parts of the decoder, by name.
        flops: operations of the encoder, of one denoising pass, and of what follows, for one picture.
        size: height and width of the pictures, in pixels.
        scale: pixels for each latent pixel, along one side.
        channels: numbers for each pixel in the largest activation.
        batch: pictures that are decoded at once by default, on a CPU and on a GPU; None if their size decides.
        guided: passes of a guided step.
    """

    encoder: Any
    network: nn.Module
    rest: Mapping[str, nn.Module]
    flops: tuple[int, int, int]
    size: tuple[int, int]
    scale: int = 1
    channels: int = 16
    batch: tuple[int, int] | None = None
    guided: int = 2

    @property
    def vision(self) -> Any:
        """Config of the encoder's picture side."""
        return getattr(self.encoder.config, "vision_config", self.encoder.config)


def flops_of(run: Callable[[], Any]) -> int:
    """Counts the operations of a call on the meta device."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _kandinsky(configs: Configs, size: tuple[int, int] | None) -> Counted:
    encoder, unet, movq = (on_meta(part, configs[part]) for part in ("image_encoder", "unet", "movq"))
    scale = 2 ** (len(movq.config.block_out_channels) - 1)
    size = size or (unet.config.sample_size * scale, unet.config.sample_size * scale)
    with torch.device("meta"):
        latents = torch.empty(1, unet.config.in_channels, size[0] // scale, size[1] // scale)
        condition = {"image_embeds": torch.empty(1, unet.config.encoder_hid_dim)}
        step = torch.empty(())
    flops = (
        _of_encoder(encoder),
        flops_of(lambda: unet(latents, step, encoder_hidden_states=None, added_cond_kwargs=condition)),
        flops_of(lambda: movq.decode(latents, force_not_quantize=True)),
    )
    return Counted(encoder, unet, {"movq": movq}, flops, size, scale, movq.config.block_out_channels[0])


def _autoencoder(configs: Configs, size: tuple[int, int] | None) -> Counted:
    from diffusers import AutoencoderRAE

    from steerlens.decoders.rae.siglip import expected_tower

    with quiet_libraries(), torch.device("meta"), expected_tower():
        build: Any = AutoencoderRAE  # its `from_config` is declared to return a tuple too
        model = build.from_config(dict(configs["decoder"])).eval()
        pixels = torch.empty(1, 3, model.encoder_input_size, model.encoder_input_size)
        tokens = torch.empty(1, model.num_patches, model.config.encoder_hidden_size)
    side = model.decoder_image_size
    flops = flops_of(lambda: model._encode(pixels)), 0, flops_of(lambda: model.decoder(tokens))
    encoder = getattr(model.encoder, "vision_model", model.encoder)
    return Counted(encoder, model.decoder, {}, flops, (side, side), batch=(8, 64))


def _pixel_transformer(configs: Configs, size: tuple[int, int] | None) -> Counted:
    kind: Any = import_module("steerlens.decoders.vit_mae.network").PixelTransformer
    encoder = on_meta("image_encoder", configs["image_encoder"])
    with quiet_libraries(), torch.device("meta"):
        network = kind.from_config(dict(configs["decoder"])).eval()
        tokens = torch.empty(1, network.grid**2, network.config.token_size)
    side = network.grid * network.patch_size
    flops = _of_encoder(encoder), 0, flops_of(lambda: network(tokens))
    return Counted(encoder, network, {}, flops, (side, side), batch=(8, 64))


def _flux(configs: Configs, size: tuple[int, int] | None) -> Counted:
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder

    encoder, network, vae = (on_meta(part, configs[part]) for part in ("image_encoder", "transformer", "vae"))
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    height, width = size or (128 * scale, 128 * scale)
    rows, columns = height // (2 * scale), width // (2 * scale)
    vision = getattr(encoder.config, "vision_config", encoder.config)
    text = network.config.joint_attention_dim
    with torch.device("meta"):
        redux = ReduxImageEncoder(vision.hidden_size, text)
        images = torch.empty(1, (vision.image_size // vision.patch_size) ** 2, vision.hidden_size)
        states = torch.empty(1, 512 + images.shape[1], text)
        given = {
            "hidden_states": torch.empty(1, rows * columns, network.config.in_channels),
            "timestep": torch.empty(1),
            "guidance": torch.empty(1) if network.config.guidance_embeds else None,
            "pooled_projections": torch.empty(1, network.config.pooled_projection_dim),
            "encoder_hidden_states": states,
            "txt_ids": torch.empty(states.shape[1], 3),
            "img_ids": torch.empty(rows * columns, 3),
        }
        latents = torch.empty(1, vae.config.latent_channels, 2 * rows, 2 * columns)
    finish = flops_of(lambda: redux(images)) + flops_of(lambda: vae.decode(latents))
    flops = _of_encoder(encoder), flops_of(lambda: network(**given)), finish
    rest = {"vae": vae, "image_embedder": redux}
    first = vae.config.block_out_channels[0]
    return Counted(encoder, network, rest, flops, (height, width), 2 * scale, first, (1, 1), guided=1)


COUNTERS: Mapping[str, Callable[[Configs, tuple[int, int] | None], Counted]] = {
    "kandinsky-2.2": _kandinsky,
    "rae-dinov2": _autoencoder,
    "rae-siglip2": _autoencoder,
    "rae-mae": _autoencoder,
    "vit-mae": _pixel_transformer,
    "flux-redux": _flux,
}
"""How each family is counted, which others are not."""


@torch.no_grad()
def count_pair(family: str, configs: Configs, size: tuple[int, int] | None) -> Counted:
    """Counts a pair.

    Args:
        family: name of the decoder's adapter, in `COUNTERS`.
        configs: configs of its parts.
        size: height and width of the pictures; by default the decoder's own.

    Raises:
        ModelError: if the parts do not run as those of the family do.
    """
    try:
        return COUNTERS[family](configs, size)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise ModelError(f"the cost of this pair cannot be counted: {error}.") from error


def _of_encoder(encoder: Any) -> int:
    vision = getattr(encoder.config, "vision_config", encoder.config)
    pixels = torch.empty(1, 3, vision.image_size, vision.image_size, device="meta")
    return flops_of(lambda: encoder(pixel_values=pixels))
