"""The family of ViT decoders of image tokens that are saved without their encoder: Scale-RAE's and RAEv2's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_IN_PRIOR, WHOLE, Family, FolderPart

if TYPE_CHECKING:
    from steerlens.decoders.vit_mae.adapter import ViTMAEDecoder

FAMILIES: Mapping[str, Family] = {
    "vit-mae": Family(
        "PixelTransformer",
        {WHOLE: FolderPart("diffusers", "model", "steerlens.decoders.vit_mae.network:PixelTransformer")},
        ENCODER_IN_PRIOR,
    )
}

__all__ = ["FAMILIES", "ViTMAEDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
