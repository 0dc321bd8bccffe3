"""Pictures and maps as text, for pages that consist of a single file."""

import base64
import io
from functools import cache

import numpy as np
from PIL import Image, features

PIXEL_SIDE = 64
"""Longest side of pictures that are stored losslessly; larger pictures are scaled down and compressed."""


@cache
def _has_webp() -> bool:
    return bool(features.check("webp"))


def data_uri(image: Image.Image | np.ndarray, *, side: int = 192) -> str:
    """Encodes a picture as a `data:` address.

    Args:
        image: RGB, as PIL image or height x width x 3 of uint8.
        side: longest side, in pixels, of a picture larger than `PIXEL_SIDE`.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    if max(picture.size) <= PIXEL_SIDE:
        kind = "png"
        picture.save(buffer, format=kind)
    else:
        small = picture.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        kind = "webp" if _has_webp() else "jpeg"
        small.save(buffer, format=kind, quality=78)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def webp_bytes(image: Image.Image | np.ndarray, *, side: int) -> bytes:
    """Encodes a picture as WebP: without loss up to `PIXEL_SIDE`, where every pixel shows, else scaled and compressed.

    WebP and not AVIF: for pictures of this size AVIF is no smaller without loss, and takes longer.

    Args:
        image: RGB, as PIL image or height x width x 3 of uint8.
        side: longest side, in pixels, of a picture larger than `PIXEL_SIDE`.
    """
    picture = (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB")
    buffer = io.BytesIO()
    if max(picture.size) <= PIXEL_SIDE:
        picture.save(buffer, format="webp", lossless=True, method=4)
    else:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        picture.save(buffer, format="webp", quality=80, method=4)
    return buffer.getvalue()


def packed(values: np.ndarray) -> str:
    """Encodes shares in [0,1] as base64 of little-endian 16-bit numbers, 65535 for 1."""
    return base64.b64encode(packed_bytes(values)).decode()


def packed_bytes(values: np.ndarray) -> bytes:
    """Encodes shares in [0,1] as little-endian 16-bit numbers, 65535 for 1."""
    return np.round(np.clip(values, 0, 1) * 65535).astype("<u2").tobytes()
