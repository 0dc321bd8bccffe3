"""The families of representation autoencoders: `AutoencoderRAE`, encoder and decoder in one model."""

import re
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import WHOLE, Family, FolderPart, configured

if TYPE_CHECKING:
    from steerlens.decoders.rae.adapter import RAEDecoder

_SIGLIP_FAILS = (0, 42, 1)
"""The newest diffusers known to fail with SigLIP 2; newer versions are tried."""


def siglip_reason() -> str:
    """Returns the reason why the installed libraries cannot build the SigLIP 2 variant."""
    return (
        f"decoder: diffusers {version('diffusers')} cannot build the SigLIP 2 representation autoencoder with "
        f"transformers {version('transformers')}, whose SiglipVisionModel has no `vision_model`; rae-dinov2 and "
        "rae-mae do not need it."
    )


def _siglip_fails() -> str | None:
    release = re.match(r"(\d+)\.(\d+)\.(\d+)", version("diffusers"))
    return siglip_reason() if release is not None and tuple(map(int, release.groups())) <= _SIGLIP_FAILS else None


def _holds(kind: str, folder: Path, weights: Path | None) -> bool:
    return configured(folder, "encoder_type") == kind


_PARTS: Mapping[str, FolderPart] = {WHOLE: FolderPart("diffusers", "model", "AutoencoderRAE")}

FAMILIES: Mapping[str, Family] = {
    "rae-dinov2": Family("AutoencoderRAE", _PARTS, {}, recognises=partial(_holds, "dinov2")),
    "rae-siglip2": Family(
        "AutoencoderRAE", _PARTS, {}, recognises=partial(_holds, "siglip2"), unbuildable=_siglip_fails
    ),
    "rae-mae": Family("AutoencoderRAE", _PARTS, {}, recognises=partial(_holds, "mae")),
}

__all__ = ["FAMILIES", "RAEDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
