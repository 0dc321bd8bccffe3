"""The Stable unCLIP 2.1 family: `StableUnCLIPImg2ImgPipeline` folders."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_IN_PIPELINE, SCHEDULER, TEXT, UNET, VAE, Family, FolderPart

if TYPE_CHECKING:
    from steerlens.decoders.stable_unclip.adapter import StableUnCLIPDecoder

_NORMALIZER = "diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer:StableUnCLIPImageNormalizer"

FAMILIES: Mapping[str, Family] = {
    "stable-unclip-2.1": Family(
        "StableUnCLIPImg2ImgPipeline",
        {
            "unet": UNET,
            "vae": VAE,
            "scheduler": SCHEDULER,
            "image_normalizer": FolderPart("diffusers", "normalizer", _NORMALIZER, precision="float32"),
            "image_noising_scheduler": FolderPart("scheduler", "noising_config"),
            **TEXT,
        },
        ENCODER_IN_PIPELINE,
    )
}

__all__ = ["FAMILIES", "StableUnCLIPDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
