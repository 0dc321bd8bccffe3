"""Former home of `steerlens.lenses.regions`; importing it warns."""

import warnings

from steerlens.lenses.regions import (
    Area,
    Box,
    Mask,
    Outside,
    Patches,
    RegionPart,
    SpecialTokens,
    mask_weights,
    parse_area,
    parse_regions,
    token_part,
)

__all__ = [
    "Area",
    "Box",
    "Mask",
    "Outside",
    "Patches",
    "RegionPart",
    "SpecialTokens",
    "mask_weights",
    "parse_area",
    "parse_regions",
    "token_part",
]

warnings.warn(
    "steerlens.lenses.tokens is now steerlens.lenses.regions; import its names from steerlens.lenses",
    DeprecationWarning,
    stacklevel=2,
)
