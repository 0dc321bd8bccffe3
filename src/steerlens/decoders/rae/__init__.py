"""The families of representation autoencoders: `AutoencoderRAE`, encoder and decoder in one model."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import WHOLE, Family, FolderPart, configured

if TYPE_CHECKING:
    from steerlens.decoders.rae.adapter import RAEDecoder


def _holds(kind: str, folder: Path, weights: Path | None) -> bool:
    return configured(folder, "encoder_type") == kind


_PARTS: Mapping[str, FolderPart] = {WHOLE: FolderPart("diffusers", "model", "AutoencoderRAE")}

FAMILIES: Mapping[str, Family] = {
    f"rae-{kind}": Family("AutoencoderRAE", _PARTS, {}, recognises=partial(_holds, kind))
    for kind in ("dinov2", "siglip2", "mae")
}

__all__ = ["FAMILIES", "RAEDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
