"""The IP-Adapter families: Stable Diffusion 1.5 or XL with extra cross attention to an image."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_ALONE, SCHEDULER, TEXT, UNET, VAE, Family, FolderPart
from steerlens.decoders.ip_adapter.weights import adapter_file, is_plus

if TYPE_CHECKING:
    from steerlens.decoders.ip_adapter.adapter import IPAdapterDecoder
    from steerlens.decoders.ip_adapter.plus_adapter import IPAdapterPlusDecoder
    from steerlens.decoders.ip_adapter.xl_adapter import IPAdapterXLDecoder


def _is_plain(folder: Path, weights: Path | None) -> bool:
    return not _reads_tokens(folder, weights)


def _reads_tokens(folder: Path, weights: Path | None) -> bool:
    return is_plus(weights or adapter_file(folder))


# SDXL's autoencoder overflows in float16, and its config says so.
_PARTS: Mapping[str, FolderPart] = {
    "unet": UNET,
    "vae": replace(VAE, precision="upcast"),
    "scheduler": SCHEDULER,
    **TEXT,
}

FAMILIES: Mapping[str, Family] = {
    "ip-adapter-sd15": Family(
        "StableDiffusionPipeline", _PARTS, ENCODER_ALONE, recognises=_is_plain, extra_weights=adapter_file
    ),
    "ip-adapter-plus-sd15": Family(
        "StableDiffusionPipeline", _PARTS, ENCODER_ALONE, recognises=_reads_tokens, extra_weights=adapter_file
    ),
    "ip-adapter-sdxl": Family(
        "StableDiffusionXLPipeline",
        {**_PARTS, "text_encoder_2": FolderPart("transformers"), "tokenizer_2": FolderPart("tokenizer")},
        ENCODER_ALONE,
        extra_weights=adapter_file,
    ),
}

__all__ = ["FAMILIES", "IPAdapterDecoder", "IPAdapterPlusDecoder", "IPAdapterXLDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
