"""Tiny decoders of the family `vit-mae` with random weights, beside encoders of the classes that they belong to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from steerlens.storage import quiet_libraries
from steerlens.testing.tiny_families import MODELS, save_tiny_processor
from steerlens.testing.tiny_parts import shaken
from steerlens.testing.tiny_vit import randomise

_DEPTH = 3
"""Layers of the encoders: a decoder of layers 0 and 2 leaves one out."""

VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "scale-rae-siglip2": ("SiglipVisionModel", {}),
    "scale-rae-webssl": ("Dinov2Model", {"token_affine": True, "pixel_mean": (0.4, 0.5, 0.6)}),
    "raev2": (
        "DINOv3ViTModel",
        {"layers": (0, 2), "adds_mean": True, "pixel_mean": (0, 0, 0), "pixel_std": (1, 1, 1)},
    ),
}
"""Class of the encoder and options of the decoder, by kind of preset."""


def save_tiny_vit_mae(folder: Path | str, variant: str = "raev2", seed: int = 0) -> Path:
    """Saves a tiny pair, encoder and decoder each in its folder, and returns the folder.

    Args:
        folder: folder of the pair.
        variant: a key of `VARIANTS`.
        seed: seed of the weights.
    """
    from steerlens.decoders.vit_mae.network import PixelTransformer

    folder, (kind, options) = Path(folder), VARIANTS[variant]
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        native: Any = MODELS[kind]()
        config = native.config
        config.num_hidden_layers = _DEPTH
        encoder: Any = type(native)(config)
        randomise(encoder)
        decoder = PixelTransformer(
            token_size=32, grid=2, patch_size=8, width=16, depth=2, heads=2, mlp_size=24, **options
        )
        with torch.no_grad():
            decoder.trainable_cls_token.normal_()
            if decoder.token_norm.elementwise_affine:  # the encoder's own norm, as in training
                decoder.token_norm.load_state_dict(encoder.layernorm.state_dict())
            decoder.decoder_pred.weight.mul_(4)  # some pixels leave [0,1], as in real decoders
        norm = {name: value.clone() for name, value in decoder.token_norm.state_dict().items()}
        shaken(decoder, 0.2).token_norm.load_state_dict(norm)
        encoder.eval().save_pretrained(folder / "image_encoder")
        (folder / "image_processor").mkdir()
        save_tiny_processor(kind, folder / "image_processor")
        decoder.save_pretrained(folder / "decoder", safe_serialization=True)
    return folder
