"""The Stable Diffusion Image Variations family: `StableDiffusionImageVariationPipeline` folders."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_IN_PIPELINE, SCHEDULER, UNET, VAE, Family

if TYPE_CHECKING:
    from steerlens.decoders.sd_image_variations.adapter import SDImageVariationsDecoder

FAMILIES: Mapping[str, Family] = {
    "sd-image-variations": Family(
        "StableDiffusionImageVariationPipeline",
        {"unet": UNET, "vae": VAE, "scheduler": SCHEDULER},
        ENCODER_IN_PIPELINE,
    )
}

__all__ = ["FAMILIES", "SDImageVariationsDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
