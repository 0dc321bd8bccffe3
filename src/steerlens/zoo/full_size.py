"""Full-size configs of cards whose weights are elsewhere, written from the numbers of the card."""

from collections.abc import Callable, Mapping
from typing import Any

from steerlens.zoo.architecture import Configs, package_configs
from steerlens.zoo.cards import Card

_PATCHES: Mapping[str, int] = {"rae-dinov2": 14, "rae-siglip2": 16, "rae-mae": 16}
"""Patches of the encoder, in pixels, by family; those of the decoder are of 16."""

_VIT_XL: Mapping[str, int] = {
    "decoder_hidden_size": 1152,
    "decoder_num_hidden_layers": 28,
    "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 4096,
}
"""Sizes of the decoder of every published representation autoencoder."""


def _autoencoder(card: Card) -> Configs:
    patch = _PATCHES[card.family]
    sizes = {"encoder_hidden_size": card.embedding_size, "encoder_num_hidden_layers": card.layers}
    view = {"encoder_patch_size": patch, "encoder_input_size": card.defaults.size[0] // 16 * patch, "patch_size": 16}
    return {"decoder": {"encoder_type": card.family.removeprefix("rae-"), **sizes, **view, **_VIT_XL}}


_SO400M: Mapping[str, Any] = {"intermediate_size": 4304, "patch_size": 14}


def _encoder(card: Card, architecture: str, side: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": card.embedding_size, "num_hidden_layers": card.layers, "num_attention_heads": card.heads}
    return {"architectures": [architecture], **sizes, "image_size": side, **more}


def _pixel_transformer(card: Card) -> Configs:
    side = card.defaults.size[0]
    encoder = (
        _encoder(card, "SiglipVisionModel", side, **_SO400M)
        if card.name == "scale-rae-siglip2"
        else _encoder(card, "Dinov2Model", side, patch_size=14)
        if card.name == "scale-rae-webssl"
        else _encoder(card, "DINOv3ViTModel", side, intermediate_size=4096, patch_size=16, num_register_tokens=4)
    )
    return {"image_encoder": encoder, "decoder": {"token_size": card.embedding_size, "patch_size": side // 16}}


def _flux(card: Card) -> Configs:
    blocks = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    vae = {"latent_channels": 16, "layers_per_block": 2, "use_quant_conv": False, "use_post_quant_conv": False}
    return {
        "image_encoder": _encoder(card, "SiglipVisionModel", 384, **_SO400M),
        "transformer": {"_class_name": "FluxTransformer2DModel", "in_channels": 64, "guidance_embeds": True},
        "vae": {"_class_name": "AutoencoderKL", **blocks, **vae},
    }


_BUILDERS: Mapping[str, Callable[[Card], Configs]] = {
    **dict.fromkeys(_PATCHES, _autoencoder),
    "vit-mae": _pixel_transformer,
    "flux-redux": _flux,
}


def full_size_configs(card: Card) -> Configs | None:
    """Returns the configs of a card's models, or None if only its files have them."""
    if card.configs is not None:
        return package_configs(card)
    build = _BUILDERS.get(card.family)
    return None if build is None or card.folder is not None else build(card)
